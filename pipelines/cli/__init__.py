"""The commands: arguments in, one pipeline called, a line out."""
