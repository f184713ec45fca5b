"""Training: mixtures, losses, and a trainer for dense retrievers."""
