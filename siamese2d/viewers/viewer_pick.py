"""Viewer of picked particles."""

import numpy as np
from matplotlib.widgets import SpanSelector
from pyworkflow.gui.dialog import askString
from pyworkflow.protocol.params import StringParam

from siamese2d.protocols import Siamese2DProtFilterPicks, Siamese2DProtPick
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.plots.picks import PicksPlot
from siamese2d.viewers.plots.style import ORANGE
from siamese2d.viewers.project_runs import launch
from siamese2d.viewers.run_files import RunFileError, RunFolder, column, image_or_reason
from siamese2d.viewers.viewer_base import StageViewer, figure_of, position_of, stem

CANDIDATES = "candidates.star"


class Siamese2DPickViewer(StageViewer):
    """Micrographs with their picks, and limits of the score to try and to keep."""

    _label = "results of pick particles"
    _targets = [Siamese2DProtPick]
    PLOTS = {
        "showPicks": (
            "Picks",
            "Circles of the particle's diameter, coloured by score. The slider, or a stroke over the histogram, tries "
            "other limits of the score; *Keep as new output* makes a new set of the picks within them without picking "
            "again. Turn pages with the buttons or the arrow keys."),
    }

    def _defineChoices(self, form):
        form.addParam("micrograph", StringParam, default="1", label="Start at micrograph",
                      help="Its number, or a part of its name. The others are reached from the window.")

    def _showPicks(self):
        candidates = Candidates(self.folder.read_table(CANDIDATES), self.folder.file(CANDIDATES))
        paths = self.input_micrographs()
        begin = position_of(self.micrograph.get(), [stem(path) for path in paths])
        plotter = self.window("picks")
        PickBrowser(figure_of(plotter), paths, candidates, self._diameter(), self._threshold(), begin, self._curve(),
                    self._keep)
        return plotter

    def _diameter(self):
        pixel_size = self.protocol.inputMicrographs.get().getSamplingRate()
        return self.protocol.inputPicker.get().getDiameterPixels(pixel_size)

    def _threshold(self):
        threshold = self.folder.read_json("picking.json").get("threshold")
        if threshold is None:
            raise RunFileError(f"{self.folder.file('picking.json')} names no threshold. Run the protocol again.")
        return threshold

    def _curve(self):
        """Precision and recall on labels that were held out when the picker was trained; None where there were none."""
        training = self.getProject().getProtocol(self.protocol.inputPicker.get().getObjParentId())
        try:
            found = RunFolder(training.getStagePath()).read_json("training.json")
        except (AttributeError, RunFileError):
            # The picker was not trained in this project, or the training was removed.
            return None
        return found.get("precision_recall") if found.get("held_out_labels") else None

    def _keep(self, low, high):
        """Start the protocol that takes the picks within these limits; returns what to tell."""
        coordinates = getattr(self.protocol, "outputCoordinates", None)
        if coordinates is None:
            return "The picks are not in the project yet."
        # The figure is a Tk of its own, which does not know the pictures of Scipion's dialogs: the form is the parent.
        label = askString("Keep as new output", "Name of the new run:", self.getTkRoot(), entryWidth=46,
                          defaultValue=f"picks, score {low:.3g}" + (" or more" if high is None else f" to {high:.3g}"))
        if not label:
            return ""
        launch_filter(self.getProject(), self.formWindow, coordinates, (low, high), label)
        return f"'{label}' was started."


def launch_filter(project, window, coordinates, limits: tuple[float, float | None], label: str):
    """Start the protocol that takes the picks within limits, so that they are part of the project's history.

    Parameters
    ----------
    project : pyworkflow.project.Project
    window : pyworkflow.gui.Window or None
        Window from which the picks were opened.
    coordinates : SetOfCoordinates
        Output of a pick run.
    limits : (float, float or None)
        Lowest and highest score; None does not ask.
    label : str
        Name of the run.

    Returns
    -------
    Siamese2DProtFilterPicks
    """
    return launch(project, window, Siamese2DProtFilterPicks, label, {"inputCoordinates": coordinates},
                  dict(zip(("minScore", "maxScore"), limits)))


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
    """Pages through micrographs with their picks; the limits that are tried stay when the page is turned.

    Parameters
    ----------
    figure : Figure
    paths : list of str
        Micrographs.
    candidates : Candidates
    diameter : float
        Of the particle, pixels.
    threshold : float
        Lowest score that the run took.
    begin : int
        First page to show.
    curve : list of dict or None
        Precision and recall, see :class:`PicksPlot`.
    keep : callable
        ``keep(low, high)`` makes a new output of the picks within limits, `high` being None where it leaves nothing
        out; returns what to tell.

    Attributes
    ----------
    limits : (float, float)
        Scores from which and up to which picks are shown.
    slider : RangeSlider
    """

    def __init__(self, figure, paths: list[str], candidates: Candidates, diameter: float, threshold: float, begin: int,
                 curve, keep):
        self._paths, self._candidates, self._diameter = paths, candidates, diameter
        self._curve, self._keep, self.plot, self.slider = curve, keep, None, None
        scores = candidates.scores
        self._range = (scores.min(), max(scores.max(), scores.min() + 1e-6)) if len(scores) else (0.0, 1.0)
        self.limits = (threshold, self._range[1])
        super().__init__(figure, len(paths), self._draw_picks, begin, noun="micrograph")

    def has_controls(self):
        return self.count > 1 or len(self._candidates.scores) > 0

    def add_controls(self):
        super().add_controls()
        if not len(self._candidates.scores):
            return
        # The slider's ends are those of the scores; limits beyond them are the same picks.
        self.slider = self.add_range_slider(4.6, 3.5, "score", *self._range, tuple(np.clip(self.limits, *self._range)))
        self.slider.on_changed(self.set_limits)
        button = self.add_button(9.6, "Keep as new output…", width=1.8)
        button.on_clicked(lambda _event: self.keep())
        # A stroke over the histogram sets both limits at once.
        span = SpanSelector(self.plot.histogram, self._stroke, "horizontal", useblit=False,
                            props={"facecolor": ORANGE, "alpha": 0.25})
        self._widgets.append(span)

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Show the picks of other limits."""
        self.limits = tuple(float(limit) for limit in limits)
        self.plot.set_limits(self.limits)
        self.figure.canvas.draw_idle()

    def keep(self) -> None:
        """Make a new output of the picks that are shown, on all micrographs."""
        low, high = self.limits
        self.plot.say(self._keep(low, high if high < self._range[1] else None))
        self.figure.canvas.draw_idle()

    def _stroke(self, low: float, high: float) -> None:
        # A click is no stroke.
        if high > low:
            self.slider.set_val((low, high))

    def _draw_picks(self, page, figure):
        path = self._paths[page]
        positions, scores = self._candidates.of(path)
        self.plot = PicksPlot(image_or_reason(path), stem(path), positions, scores, self._candidates.scores,
                              self._diameter, self.limits, self._curve, figure)
