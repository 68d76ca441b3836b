"""Whether Convolutional Similarity helps: every claim of the paper, measured."""
