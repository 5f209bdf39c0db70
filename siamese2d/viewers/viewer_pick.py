"""Viewer of picked particles."""

import numpy as np
from pyworkflow.protocol.params import StringParam

from siamese2d.protocols import Siamese2DProtPick
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.plots.picks import PicksPlot
from siamese2d.viewers.run_files import RunFileError, column, image_or_reason, read_table
from siamese2d.viewers.viewer_base import StageViewer, figure_of, position_of, stem

CANDIDATES = "candidates.star"


class Siamese2DPickViewer(StageViewer):
    """Micrographs with their picks, and a threshold to try."""

    _label = "results of pick particles"
    _targets = [Siamese2DProtPick]
    PLOTS = {
        "showPicks": (
            "Picks",
            "Circles of the particle's diameter, coloured by score. The slider tries another threshold; it "
            "changes nothing in the project. Turn pages with the buttons or the arrow keys."),
    }

    def _defineChoices(self, form):
        form.addParam("micrograph", StringParam, default="1", label="Start at micrograph",
                      help="Its number, or a part of its name. The others are reached from the window.")

    def _showPicks(self):
        candidates = Candidates(self.folder.read_table(CANDIDATES), self.folder.file(CANDIDATES))
        table = self.protocol.getInputPath("micrographs.star")
        paths = list(column(read_table(table, "micrographs"), "rlnMicrographName", table))
        start = position_of(self.micrograph.get(), [stem(path) for path in paths])
        plotter = self.window("picks")
        PickBrowser(figure_of(plotter), paths, candidates, self._diameter(), self._threshold(), start)
        return plotter

    def _diameter(self):
        pixel_size = self.protocol.inputMicrographs.get().getSamplingRate()
        return self.protocol.inputPicker.get().getDiameterPixels(pixel_size)

    def _threshold(self):
        threshold = self.folder.read_json("picking.json").get("threshold")
        if threshold is None:
            raise RunFileError(f"{self.folder.file('picking.json')} names no threshold. Run the protocol again.")
        return threshold


class Candidates:
    """Positions and scores of the candidates of all micrographs.

    Parameters
    ----------
    table : dict of str to ndarray
        Columns of ``candidates.star``; empty when nothing was found.
    path : str
        Of that file, for messages.
    """

    def __init__(self, table: dict[str, np.ndarray], path: str):
        if not table:
            self._rows, self.positions, self.scores = {}, np.empty((0, 2)), np.empty(0)
            return
        names, x, y, scores = (column(table, name, path) for name in (
            "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"))
        self.positions, self.scores = np.column_stack([x, y]).astype(float), scores.astype(float)
        stems = np.array([stem(str(name)) for name in names], dtype=object)
        order = np.argsort(stems, kind="stable")
        kinds, starts = np.unique(stems[order], return_index=True)
        self._rows = dict(zip(kinds, np.split(order, starts[1:])))

    def of(self, micrograph: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions `(n, 2)` and scores `(n,)` of one micrograph, named by its path."""
        rows = self._rows.get(stem(micrograph), np.empty(0, dtype=int))
        return self.positions[rows], self.scores[rows]


class PickBrowser(Browser):
    """Pages through micrographs with their picks; the threshold that is tried stays when the page is turned."""

    def __init__(self, figure, paths: list[str], candidates: Candidates, diameter: float, threshold: float, start: int):
        self._paths, self._candidates, self._diameter, self._threshold_of_run = paths, candidates, diameter, threshold
        self.threshold, self.plot = threshold, None
        super().__init__(figure, len(paths), self._draw_picks, start, noun="micrograph")

    def has_controls(self):
        return self.count > 1 or len(self._candidates.scores) > 0

    def add_controls(self):
        super().add_controls()
        if not len(self._candidates.scores):
            return
        low, high = self._candidates.scores.min(), self._candidates.scores.max()
        slider = self.add_slider(5.2, 5.0, "threshold", low, max(high, low + 1e-6), self._threshold_of_run)
        slider.set_val(self.threshold)
        slider.on_changed(self.set_threshold)

    def set_threshold(self, threshold: float) -> None:
        """Show the picks of another threshold."""
        self.threshold = threshold
        self.plot.set_threshold(threshold)
        self.figure.canvas.draw_idle()

    def _draw_picks(self, page, figure):
        path = self._paths[page]
        positions, scores = self._candidates.of(path)
        self.plot = PicksPlot(image_or_reason(path), stem(path), positions, scores, self._candidates.scores,
                              self._diameter, self.threshold, figure)
