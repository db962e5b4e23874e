"""One file for each benchmark of speed, named like it, with a function ``entries(settings)``."""
