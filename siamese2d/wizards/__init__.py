"""Wizards of the protocols' forms."""

from siamese2d.wizards.class_numbers import Siamese2DClassNumbersWizard
from siamese2d.wizards.model_choices import Siamese2DClassCountWizard, Siamese2DThresholdWizard
from siamese2d.wizards.particle_count import Siamese2DParticleCountWizard
from siamese2d.wizards.wizards import (Siamese2DBoxSizeWizard, Siamese2DDiameterWizard, Siamese2DMaskWizard,
                                       Siamese2DMicrographDiameterWizard)

__all__ = ["Siamese2DBoxSizeWizard", "Siamese2DClassCountWizard", "Siamese2DClassNumbersWizard",
           "Siamese2DDiameterWizard", "Siamese2DMaskWizard", "Siamese2DMicrographDiameterWizard",
           "Siamese2DParticleCountWizard", "Siamese2DThresholdWizard"]
