"""Generative models: what a family is, the families, their networks, and how a trained model is kept."""
