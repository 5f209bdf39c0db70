"""What a choice in a form will cost, so that nobody waits for hours, or fills a disk, without having been told.

Seconds are those of one thread of a processor as of 2022, and right within a factor of two or three; a GPU, which is
usually ten or more times as fast, gets no warning.
"""

HOUR = 3600
GIGABYTE = 1e9
FEWEST_HOURS, FEWEST_GIGABYTES = 1.0, 100.0
BYTES_OF_PIXEL = 4

# Of one pixel of a micrograph: to read it, and to pick by one size or by several.
READ_PIXEL, PICK_PIXEL, PICK_PIXEL_SIZES = 2e-8, 1.8e-7, 2.7e-6
# Of one pixel of a micrograph scaled so that the particle is so many pixels wide, as the trained picker wants it.
SCORE_PIXEL, WORKING_DIAMETER = 4e-6, 20.0
# Of one particle: whatever the number of classes, and for each class.
CLASSIFY, CLASSIFY_CLASS = 4e-3, 1.5e-4
ASSIGN, ASSIGN_CLASS = 3e-4, 1.6e-5
# Of one particle in one epoch, by network; with a frozen one, once.
TRAIN = {"steerable": 2.5e-3, "original": 4e-3, "resnet18": 4e-2}
FROZEN = {"resnet50": 0.3}


def hours(protocol, seconds, advice):
    """A line when the work takes hours on the processor.

    Parameters
    ----------
    protocol : Siamese2DProtBase
        Its GPU and its threads count.
    seconds : float
        Of one thread.
    advice : str
        What makes it shorter.

    Returns
    -------
    list of str
    """
    threads = max(protocol.getBinThreads(), 1)
    if protocol.usesGpu() or seconds < FEWEST_HOURS * HOUR * threads:
        return []
    gpu = " A GPU takes a small part of it." if protocol.allowsGpu() else ""
    return [f"This will take about {seconds / HOUR / threads:,.0f} hours on {threads} threads of the processor.{gpu} "
            f"{advice}"]


def space(pixels, advice):
    """A line when images with so many pixels in all fill more than 100 GB of disk."""
    gigabytes = pixels * BYTES_OF_PIXEL / GIGABYTE
    return [] if gigabytes < FEWEST_GIGABYTES else [f"The images will take about {gigabytes:,.0f} GB of disk. {advice}"]


def pixelsOf(micrographs):
    """Pixels of one micrograph of a set."""
    width, height, _ = micrographs.getDim()
    return width * height


def scoreSeconds(micrographs, diameter):
    """Seconds that a trained picker of particles of `diameter` angstroms needs for one micrograph of a set."""
    pixels = pixelsOf(micrographs)
    scale = micrographs.getSamplingRate() * WORKING_DIAMETER / diameter
    return pixels * (READ_PIXEL + SCORE_PIXEL * scale ** 2)
