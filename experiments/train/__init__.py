"""Trains one network, or one a seed, and keeps all that it took."""
