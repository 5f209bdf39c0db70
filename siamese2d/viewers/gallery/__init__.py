"""The windows of the class gallery."""
