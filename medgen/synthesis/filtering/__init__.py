"""What a synthetic scan must pass before it is used, and the pool of those that did."""
