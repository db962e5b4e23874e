"""Segmenters: how they are trained, ensembles of them, and the ordinary ways to train them better."""
