"""Images to classify: sources, the cache that they are decoded into, and streams."""
