"""The one training loop: steps, checkpoints, ranks, precision, what a training costs and what can go wrong."""
