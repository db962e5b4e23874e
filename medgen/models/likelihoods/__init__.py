"""How likely scans are: the Gaussian that every model has to exceed, and flows by the change of variables."""
