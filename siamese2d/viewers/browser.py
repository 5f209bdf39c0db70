"""Paging through plots in one window: buttons, arrow keys, and an optional slider."""

from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.widgets import Button, RangeSlider

from siamese2d.viewers.plots.style import prepare, say
from siamese2d.viewers.run_files import RunFileError

STRIP_INCHES = 0.55
MESSAGE_INCHES = (8, 4)
PREVIOUS_KEYS, NEXT_KEYS = ("left", "pageup", "p"), ("right", "pagedown", "n")


class Browser:
    """A figure that shows one of several pages, or why a page can't be shown, with a strip of controls under it.

    The figure keeps a reference to its browser, so it lives as long as the window.

    Parameters
    ----------
    figure : Figure
        The figure of a window.
    count : int
        Number of pages.
    draw : callable
        ``draw(page, figure)`` draws page `page` (from 0) into the figure, which it clears.
    start : int
        First page to show.
    noun : str
        What a page is, for the label between the buttons.

    Attributes
    ----------
    page : int
        The page that is shown.
    """

    def __init__(self, figure: Figure, count: int, draw: Callable[[int, Figure], object], start: int = 0,
                 noun: str = "page"):
        self.figure, self.count, self.page = figure, count, min(max(start, 0), count - 1)
        self._draw, self._noun, self._widgets = draw, noun, []
        figure.siamese2d_browser = self
        figure.canvas.mpl_connect("key_press_event", self._on_key)
        self._show()

    def turn(self, step: int) -> None:
        """Go `step` pages on; beyond the last page comes the first."""
        size = self.figure.get_size_inches()
        self.page = (self.page + step) % self.count
        self._show()
        self.figure.set_size_inches(size)
        self.figure.canvas.draw_idle()

    def has_controls(self) -> bool:
        """Whether a strip is needed."""
        return self.count > 1

    def add_controls(self) -> None:
        """Put the controls into the strip, after each drawing of a page."""
        if self.count == 1:
            return
        previous, following = self.add_button(0.2, "Previous"), self.add_button(2.5, "Next")
        previous.on_clicked(lambda _event: self.turn(-1))
        following.on_clicked(lambda _event: self.turn(+1))
        self.write(1.85, f"{self._noun} {self.page + 1:,}\nof {self.count:,}")

    def add_button(self, left: float, label: str, width: float = 1.0) -> Button:
        """A button in the strip; its left edge and its width in inches."""
        button = Button(self.strip_axes(left, width), label, color="#EEEEEE", hovercolor="#D8E8F4")
        for spine in button.ax.spines.values():
            spine.set_edgecolor("#999999")
        self._widgets.append(button)
        return button

    def add_range_slider(self, left: float, width: float, label: str, low: float, high: float,
                         values: tuple[float, float]) -> RangeSlider:
        """A slider with two handles in the strip; its left edge and its width in inches."""
        slider = RangeSlider(self.strip_axes(left, width), label, low, high, valinit=values, valfmt="%.3g")
        self._widgets.append(slider)
        return slider

    def write(self, centre: float, text: str) -> None:
        """Write into the strip; `centre` in inches from the left."""
        width, height = self.figure.get_size_inches()
        self.figure.text(centre / width, 0.5 * STRIP_INCHES / height, text, ha="center", va="center", fontsize=9)

    def strip_axes(self, left: float, width: float):
        """Axes in the strip for a widget; left edge and width in inches."""
        wide, high = self.figure.get_size_inches()
        axes = self.figure.add_axes((left / wide, 0.2 * STRIP_INCHES / high, width / wide, 0.6 * STRIP_INCHES / high))
        axes.set_in_layout(False)
        return axes

    def _show(self) -> None:
        for widget in self._widgets:
            widget.disconnect_events()
        self._widgets.clear()
        try:
            self._draw(self.page, self.figure)
        except RunFileError as problem:
            say(prepare(self.figure, *MESSAGE_INCHES).subplots(), str(problem))
        if self.has_controls():
            make_strip(self.figure, STRIP_INCHES)
            self.add_controls()

    def _on_key(self, event) -> None:
        if self.count > 1 and event.key in PREVIOUS_KEYS + NEXT_KEYS:
            self.turn(-1 if event.key in PREVIOUS_KEYS else +1)


def make_strip(figure: Figure, inches: float) -> None:
    """Make a figure higher by `inches` and leave that much free at the bottom."""
    width, height = figure.get_size_inches()
    share = inches / (height + inches)
    figure.set_size_inches(width, height + inches)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, share, 1, 1 - share))
        return
    for axes in figure.axes:
        left, bottom, wide, high = axes.get_position(original=True).bounds
        axes.set_position((left, share + bottom * (1 - share), wide, high * (1 - share)))
