"""Wizards of the protocols' forms."""

from siamese2d.wizards.wizards import Siamese2DBoxSizeWizard, Siamese2DDiameterWizard, Siamese2DMaskWizard

__all__ = ["Siamese2DBoxSizeWizard", "Siamese2DDiameterWizard", "Siamese2DMaskWizard"]
