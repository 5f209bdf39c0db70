"""Plots of every stage: pure functions from arrays to matplotlib figures.

Only numpy and matplotlib are imported here, so that the figures can be made, saved and tested without Scipion.
"""
