"""The machine under us: files, archives, memory, processes, signals, and what is told to a shell."""
