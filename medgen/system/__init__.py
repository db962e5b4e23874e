"""The machine under us: files, members of folders, archives, memory, processes, signals, and what a shell is told."""
