"""What the viewers of all stages share: a form with one button for each plot, windows, and plain messages."""

import os

from matplotlib.figure import Figure
from pwem.viewers import EmPlotter, EmProtocolViewer
from pyworkflow.protocol.params import LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER

from siamese2d.viewers.run_files import RunFileError, RunFolder, column


class StageViewer(EmProtocolViewer):
    """Shows the result of one stage.

    Subclasses name their plots in `PLOTS`: label and help of the button by the name of its parameter. The method of
    that name, with an underscore before it, returns the window.
    """

    _environments = [DESKTOP_TKINTER]
    PLOTS: dict[str, tuple[str, str]] = {}

    def _defineParams(self, form):
        form.addSection(label="Results")
        self._defineChoices(form)
        for name, (label, text) in self.PLOTS.items():
            form.addParam(name, LabelParam, label=label, help=text)

    def _defineChoices(self, form):
        """Parameters above the buttons."""

    def _getVisualizeDict(self):
        return {name: self._views for name in self.PLOTS}

    def _views(self, name):
        try:
            view = getattr(self, f"_{name}")()
            # None: the user was asked something, and thought better of it.
            return [view] if view is not None else []
        except RunFileError as problem:
            return [self.infoMessage(str(problem), self.PLOTS[name][0])]

    @property
    def folder(self) -> RunFolder:
        """What the engine wrote for this protocol."""
        return RunFolder(self.protocol.getStagePath())

    def input_micrographs(self) -> list[str]:
        """Paths of the micrographs that were handed to the engine."""
        tables = RunFolder(self.protocol.getInputPath())
        table = tables.read_table("micrographs.star", "micrographs")
        return list(column(table, "rlnMicrographName", tables.file("micrographs.star")))

    def window(self, title: str) -> EmPlotter:
        """A window with an empty figure, to be drawn into."""
        plotter = EmPlotter(windowTitle=f"{self.protocol.getRunName()}: {title}")
        # The plots lay themselves out.
        plotter.tightLayoutOn = False
        return plotter

    def plot(self, title: str, draw) -> EmPlotter:
        """A window with what `draw(figure)` puts into it."""
        plotter = self.window(title)
        draw(figure_of(plotter))
        return plotter


def figure_of(plotter: EmPlotter) -> Figure:
    """The figure of a window."""
    return plotter.getFigure()


def stem(path: str) -> str:
    """Name of a file without folder and last extension: what a micrograph is called in every stage."""
    return os.path.splitext(os.path.basename(path))[0]


def position_of(wanted: str | None, names: list[str]) -> int:
    """Position of a micrograph that a user typed as number (from 1) or as part of its name.

    Raises
    ------
    RunFileError
        If there is none.
    """
    wanted = (wanted or "1").strip()
    if wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    found = [position for position, name in enumerate(names) if wanted in name]
    if not found:
        raise RunFileError(f"There is no micrograph '{wanted}': give a number from 1 to {len(names):,}, or a part of a "
                           f"name such as {names[0]}.")
    return found[0]
