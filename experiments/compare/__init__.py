"""Compares methods on conv kernels: fixed, or tuned alike, with paired seeds."""
