"""Sets of classes and averages for the tests of the gallery, made by Scipion itself."""

import itertools

import numpy as np
import pyworkflow.object as pwobj
from pwem.constants import ALIGN_2D
from pwem.objects import Class2D, Particle, SetOfAverages, SetOfClasses2D, Transform

from siamese2d.constants import ATTR_CONFIDENCE, ATTR_QUALITY, ATTR_RESOLUTION
from siamese2d.tests.layer import writeMrc

PIXEL_SIZE = 3.0


def fillClasses(classes, particles, sizes, resolutions=None, qualities=None, averages="averages.mrcs"):
    """Put the first particles into classes 1, 2, ... of these sizes; the rest is in no class.

    Parameters
    ----------
    classes : SetOfClasses2D
        To fill.
    particles : SetOfParticles
    sizes : list of int
    resolutions, qualities : list of float, optional
    averages : str or None
        Stack that is written for the averages, class k having the value k; None: classes without averages.
    """
    box = particles.getXDim()
    if averages:
        images = np.arange(1, len(sizes) + 1)[:, None, None] + np.random.default_rng(1).random((len(sizes), box, box))
        writeMrc(averages, images)
    items = iter([particle.clone() for particle in particles])
    for number, size in enumerate(sizes, start=1):
        cls = Class2D(objId=number)
        cls.copyInfo(particles)
        cls.setAlignment(ALIGN_2D)
        if averages:
            average = Particle(location=(number, averages))
            average.setSamplingRate(PIXEL_SIZE)
            cls.setRepresentative(average)
        for name, values in ((ATTR_RESOLUTION, resolutions), (ATTR_QUALITY, qualities)):
            if values:
                setattr(cls, name, pwobj.Float(values[number - 1]))
        classes.append(cls)
        for place in range(size):
            particle = next(items)
            particle.setClassId(number)
            particle.setTransform(Transform(matrix=np.diag([-1.0, 1.0, -1.0, 1.0])))
            setattr(particle, ATTR_CONFIDENCE, pwobj.Float(round(0.9 - 0.1 * (place % 5), 1)))
            cls.append(particle)
        classes.update(cls)
    classes.write()
    return classes


class ClassSets:
    """For tests in a folder: classes and averages in files of their own."""

    _numbers = itertools.count()

    def emptySet(self, setClass):
        """A set in a file whose name no other test has: Scipion keeps connections to files by their relative names."""
        return setClass(filename=f"gallery{next(self._numbers)}.sqlite")

    def makeClasses(self, sizes=(3, 1, 2), number=8, images=None, **values):
        """SetOfClasses2D over `number` particles."""
        particles = images or self.makeParticles(number=number, pixelSize=PIXEL_SIZE)
        classes = self.emptySet(SetOfClasses2D)
        classes.getImagesPointer().set(particles)
        return fillClasses(classes, particles, list(sizes), **values)

    def makeAverages(self, count=3, stack="averages alone.mrcs"):
        """SetOfAverages of `count` images without any class."""
        writeMrc(stack, np.random.default_rng(2).normal(size=(count, 12, 12)))
        averages = self.emptySet(SetOfAverages)
        averages.setSamplingRate(PIXEL_SIZE)
        for number in range(1, count + 1):
            average = Particle(location=(number, stack))
            average.setSamplingRate(PIXEL_SIZE)
            averages.append(average)
        averages.write()
        return averages
