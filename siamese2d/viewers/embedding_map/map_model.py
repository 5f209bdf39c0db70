"""What the map's window shows and what is selected in it, without a window."""

import numpy as np

from siamese2d.gallery.selection import Selection
from siamese2d.viewers.class_files import PARTICLES, pixel_size_of
from siamese2d.viewers.embedding_colors import COLORS, Colors
from siamese2d.viewers.embedding_map.particles import MapParticles
from siamese2d.viewers.plots.embedding import MapPoints, neighbour_map, plot_embedding_map, principal_plane
from siamese2d.viewers.run_files import RunFileError, RunFolder

T_SNE, COMPONENTS = "t-SNE", "principal components"
SMALLEST_REGION = 3


class MapModel:
    """The embedding of one run, its map, and the particles that are selected.

    Parameters
    ----------
    folder : RunFolder
        What the training wrote.
    inputs : RunFolder
        The tables that were written for the training.
    classification : RunFolder or None
        Run that classified them.

    Raises
    ------
    RunFileError
        If a file is missing, or files do not belong together.

    Attributes
    ----------
    layouts : list of str
        The axes that there are, the best first.
    """

    def __init__(self, folder: RunFolder, inputs: RunFolder, classification: RunFolder | None):
        self._embeddings = folder.read_array("embeddings.npy")
        self._table, self._classification = inputs.read_table(PARTICLES, "particles"), classification
        self._layout = folder.read_json("training.json").get("map")
        path = inputs.file(PARTICLES)
        self.particles = MapParticles(self._table, path, pixel_size_of(inputs), classification)
        if len(self.particles) != len(self._embeddings):
            raise RunFileError(f"{path} has {len(self.particles):,} particles, but there are "
                               f"{len(self._embeddings):,} embeddings. Run the protocol again.")
        self.layouts = [*([T_SNE] if self._layout else []), COMPONENTS]
        self.selection = Selection(range(len(self.particles)))

    def points(self, layout: str) -> MapPoints:
        """Dots of a map.

        Raises
        ------
        RunFileError
            If this run did not make it.
        """
        if layout == COMPONENTS:
            return principal_plane(self._embeddings)
        if not self._layout:
            raise RunFileError("This run made no t-SNE map. Choose the principal components as axes.")
        return neighbour_map(self._embeddings, self._layout)

    def colors(self, name: str) -> Colors | None:
        """What colours the dots, by its name in `COLORS`; None for one colour.

        Raises
        ------
        RunFileError
            If it is not known for these particles.
        """
        return COLORS[name](self._table, self._classification) if COLORS[name] is not None else None

    def draw(self, points: MapPoints, colors: Colors | None, figure=None):
        """Draw the map into a figure."""
        chosen = {} if colors is None else {"values": colors.values, "value_name": colors.label, "names": colors.names}
        return plot_embedding_map(points, *self._embeddings.shape, **chosen, figure=figure)

    def lasso(self, points: MapPoints, polygon: np.ndarray, mode: str = "replace") -> str:
        """Select the particles inside a polygon; an empty region changes nothing.

        Parameters
        ----------
        points : MapPoints
        polygon : ndarray, `(p, 2)`
        mode : {"replace", "add", "remove"}

        Returns
        -------
        str
            What to tell.
        """
        rows = points.within(polygon) if len(polygon) >= SMALLEST_REGION else ()
        if not len(rows):
            return "There is no particle inside: the selection is as it was."
        getattr(self.selection, mode)(rows)
        return self.status()

    def status(self) -> str:
        """How much is selected."""
        total = len(self.particles)
        chosen = len(self.selection)
        return f"{chosen:,} of {total:,} particles selected" + (f" ({chosen / total:.1%})" if chosen else "")

    @property
    def rows(self) -> np.ndarray:
        """Rows of the selected particles, ascending."""
        return np.array(self.selection.ids, dtype=int)

    @property
    def ids(self) -> list[int]:
        """objIds of the selected particles, ascending."""
        return sorted(self.particles.ids[self.rows].tolist())
