"""Trains networks: one loop over epochs, for one network or one a seed."""
