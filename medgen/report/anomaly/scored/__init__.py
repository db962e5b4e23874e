"""The report of new scans: the first screen of each, what is shown of it, and an index of all."""
