"""Viewer of extracted particles."""

import math

from siamese2d.protocols import Siamese2DProtExtract
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.plots.particle_gallery import plot_particle_gallery
from siamese2d.viewers.run_files import RunFileError, column, read_particles
from siamese2d.viewers.viewer_base import StageViewer, figure_of

PARTICLES = "particles.star"
PER_PAGE = 50


class Siamese2DExtractViewer(StageViewer):
    """The extracted particles, page by page."""

    _label = "results of extract particles"
    _targets = [Siamese2DProtExtract]
    PLOTS = {
        "showParticles": (
            "Particles",
            "Pages of fifty, in the order of the set. Particles must be bright on dark and in the middle of "
            "their box."),
    }

    def _showParticles(self):
        table = self.folder.read_table(PARTICLES, "particles")
        if not table:
            raise RunFileError("This run extracted no particle.")
        names = list(column(table, "rlnImageName", self.folder.file(PARTICLES)))
        optics = self.folder.read_table(PARTICLES, "optics")
        pixel_size = float(optics["rlnImagePixelSize"][0]) if "rlnImagePixelSize" in optics else None
        # A missing stack is told before a window opens.
        read_particles(names[:1], self.folder.resolve)

        def draw(page, figure):
            rows = range(page * PER_PAGE, min((page + 1) * PER_PAGE, len(names)))
            images = read_particles([names[row] for row in rows], self.folder.resolve)
            plot_particle_gallery(images, [row + 1 for row in rows], len(names), "Extracted particles",
                                  pixel_size=pixel_size, slots=min(PER_PAGE, len(names)), figure=figure)

        plotter = self.window("particles")
        Browser(figure_of(plotter), math.ceil(len(names) / PER_PAGE), draw)
        return plotter
