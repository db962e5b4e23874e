"""Exploration of a trained model: walks through its codes, drawn and measured."""
