"""Trains small CNNs with and without Convolutional Similarity, and compares."""
