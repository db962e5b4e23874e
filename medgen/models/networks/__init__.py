"""Layers and networks that families are built from."""
