"""The window of an embedding's map: draw around particles, see what they are, keep them."""
