"""Tests of the Scipion side; `scipion tests siamese2d` runs them."""
