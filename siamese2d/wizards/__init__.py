"""Wizards of the protocols' forms."""

from siamese2d.wizards.class_numbers import Siamese2DClassNumbersWizard
from siamese2d.wizards.wizards import Siamese2DBoxSizeWizard, Siamese2DDiameterWizard, Siamese2DMaskWizard

__all__ = ["Siamese2DBoxSizeWizard", "Siamese2DClassNumbersWizard", "Siamese2DDiameterWizard",
           "Siamese2DMaskWizard"]
