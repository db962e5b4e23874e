"""Methods side by side: measurements kept as files, joined over seeds, compared with peers."""
