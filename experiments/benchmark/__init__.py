"""What Convolutional Similarity costs."""
