"""Compute side of siamese2d: from micrographs to aligned 2D classes, on STAR and MRC files, without Scipion."""

__version__ = "0.1.0"
