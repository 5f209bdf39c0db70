"""Trained models as Scipion objects."""

import os

import pyworkflow.object as pwobj
from pwem.objects import EMFile


class TrainedModel(EMFile):
    """File of a trained model, with what a user must know before using it.

    Parameters
    ----------
    filename : str
        Model file (safetensors), relative to the project.
    pixelSize : float
        Angstroms per pixel of the images that it was trained on.
    summary : str
        One line about the training.
    """

    def __init__(self, filename=None, pixelSize=None, summary=None, **kwargs):
        EMFile.__init__(self, filename=filename, **kwargs)
        self._pixelSize = pwobj.Float(pixelSize)
        self._trainingSummary = pwobj.String(summary)

    def getPixelSize(self):
        """Angstroms per pixel of the training images."""
        return self._pixelSize.get()

    def getTrainingSummary(self):
        """One line about the training."""
        return self._trainingSummary.get("")

    def getFiles(self):
        """Files that belong to this object."""
        return {self.getFileName()}

    def _describe(self, *parts):
        known = [part for part in parts if part]
        return f"{self.getClassName()} ({', '.join(known)})"

    def _pixelSizeText(self):
        return f"{self.getPixelSize():.2f} Å/px" if self.getPixelSize() else ""


class PickerModel(TrainedModel):
    """A particle picker; adds the particle diameter in angstroms."""

    def __init__(self, diameter=None, **kwargs):
        TrainedModel.__init__(self, **kwargs)
        self._diameter = pwobj.Float(diameter)

    def getDiameter(self):
        """Particle diameter in angstroms."""
        return self._diameter.get()

    def getDiameterPixels(self, pixelSize):
        """Particle diameter in pixels of an image with `pixelSize` angstroms per pixel."""
        return self.getDiameter() / pixelSize

    def __str__(self):
        diameter = f"diameter {self.getDiameter():.0f} Å" if self.getDiameter() else ""
        return self._describe(diameter, self._pixelSizeText(), self.getTrainingSummary())


class EmbeddingModel(TrainedModel):
    """A Siamese embedding of particle images; adds the box size in pixels and how similarity was taught."""

    def __init__(self, boxSize=None, mode=None, **kwargs):
        TrainedModel.__init__(self, **kwargs)
        self._boxSize = pwobj.Integer(boxSize)
        self._mode = pwobj.String(mode)

    def getBoxSize(self):
        """Box size of the training particles in pixels."""
        return self._boxSize.get()

    def getMode(self):
        """Name of the training mode."""
        return self._mode.get("")

    def __str__(self):
        box = f"{self.getBoxSize()} x {self.getBoxSize()} px" if self.getBoxSize() else ""
        return self._describe(self.getMode(), box, self._pixelSizeText(), self.getTrainingSummary())


def modelExists(model):
    """Whether the file of a trained model is there."""
    return bool(model.getFileName()) and os.path.exists(model.getFileName())
