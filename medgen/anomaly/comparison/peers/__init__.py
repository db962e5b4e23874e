"""Peers: what other libraries offer for the task, fitted and asked like medgen's own scores; one file a library."""
