"""From a scan to what a model sees, and back."""
