"""A window to choose a value on a curve, by mouse or slider."""

from siamese2d.wizards.figure_dialog import FigureDialog


class CurveDialog(FigureDialog):
    """A figure of curves in which a click, or the mouse dragged, moves the mark.

    Parameters
    ----------
    parent, title, label, value, limits
        See `FigureDialog`.
    makePlot : callable
        Draws into a figure; what it returns has ``set_value``, ``value_at`` (of an event) and ``text`` (of a value), as
        the classes of `choice_plots`.
    """

    SIZE = (10.0, 4.6)

    def __init__(self, parent, title: str, label: str, value: float, limits: tuple[float, float, float], makePlot):
        self._makePlot = makePlot
        FigureDialog.__init__(self, parent, title, label, value, limits)

    def body(self, bodyFrame):
        FigureDialog.body(self, bodyFrame)
        self._canvas.mpl_connect("button_press_event", self._pointed)
        self._canvas.mpl_connect("motion_notify_event", lambda event: self._pointed(event) if event.button else None)

    def _draw(self, page):
        self._plot = self._makePlot(self._figure)
        self._changed()

    def _changed(self):
        self._plot.set_value(self.value)
        self._text.config(text=self._plot.text(self.value))

    def _pointed(self, event):
        value = self._plot.value_at(event)
        if value is not None:
            self.setValue(value)
