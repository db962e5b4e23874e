"""Starting from a trained model: what is taken of it, and from whom it has learnt."""
