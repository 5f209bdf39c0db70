"""What a gallery of 2D classes knows and does, without a window: reading, ordering, selecting."""
