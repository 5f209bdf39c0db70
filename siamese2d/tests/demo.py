"""The demo's modules, which are in a checkout only."""

import importlib
import os
import sys
import unittest

import siamese2d

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(siamese2d.__file__))), "demo")

needsDemo = unittest.skipUnless(os.path.isdir(FOLDER), "needs a checkout, not an installed plugin")


def demoModule(name):
    """A module of the demo; they import each other by their plain names."""
    if FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
    return importlib.import_module(name)
