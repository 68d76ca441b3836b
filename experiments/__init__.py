"""Experiments on Convolutional Similarity: the paper's theory, and training."""
