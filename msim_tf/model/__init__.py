"""Network, loss and training."""
