"""A grid of images that scrolls through any number of them: only the rows on the screen are read and drawn."""

import tkinter as tk
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from tkinter import font as tkfont
from tkinter import ttk

import numpy as np
from PIL import Image, ImageTk

from siamese2d.viewers.gallery.pictures import Look, render
from siamese2d.viewers.gallery.theme import PAPER
from siamese2d.viewers.gallery.time_slices import TimeSlices
from siamese2d.viewers.plots.style import BLUE, INK, MUTED

GAP, MARGIN, FRAME = 10, 10, 4
TINT, EMPTY = "#DCEBF7", "#EDEDED"
KEPT_PICTURES = 800
SETTLE_MS = 60
DRAG_PIXELS = 5
BUTTON_STATES = {"shift": 0x1, "control": 0x4}


@dataclass(frozen=True)
class Entry:
    """What one image of the grid is shown with.

    Attributes
    ----------
    key : int
        Its id.
    lines : tuple of str
        Written under it.
    corner : str
        Written into its upper left corner; may be empty.
    """

    key: int
    lines: tuple[str, ...]
    corner: str


class ImageGrid(ttk.Frame):
    """Images in rows that fill the width of the window.

    Parameters
    ----------
    parent : tkinter widget
    read : callable
        ``read(key)`` returns an image `(h, w)`; what it raises is shown in the image's place.
    describe : callable
        ``describe(key)`` returns an :class:`Entry`.
    pixel_size : float or None
        Angstroms per pixel of the images.
    caption_lines : int
        Lines of text under each image.
    look : Look
        To begin with.

    Attributes
    ----------
    on_click, on_open, on_hover, on_band : callable
        ``on_click(key, shift)``, ``on_open(key)``, ``on_hover(key or None)``, ``on_band(keys, control)``.
    """

    def __init__(self, parent, read: Callable[[int], np.ndarray], describe: Callable[[int], Entry],
                 pixel_size: float | None, caption_lines: int, look: Look):
        super().__init__(parent)
        self._read, self._describe, self._pixel_size, self._lines = read, describe, pixel_size, caption_lines
        self.look = look
        self.on_click = self.on_open = self.on_hover = self.on_band = lambda *_args: None
        self._keys: list[int] = []
        self._place: dict[int, int] = {}
        self._selected: set[int] = set()
        self._cursor = 0
        self._drawn: dict[int, list[int]] = {}
        self._pictures: OrderedDict[tuple[int, Look], ImageTk.PhotoImage | str] = OrderedDict()
        self._drag: tuple[float, float, bool] | None = None
        self._settling = None
        self._font = tkfont.nametofont("TkDefaultFont").copy()
        self._font.configure(size=9)
        self._small = self._font.copy()
        self._small.configure(size=8)
        self._build()
        self._slices = TimeSlices(self, self._render, self._collect)
        self.bind("<Destroy>", self._on_destroy)

    # --------------------------- what is shown --------------------------------
    @property
    def keys(self) -> list[int]:
        """Ids in the order shown."""
        return self._keys

    def show(self, keys) -> None:
        """Show these images, from the top."""
        self._keys = [int(key) for key in keys]
        self._place = {key: position for position, key in enumerate(self._keys)}
        self._cursor = min(self._cursor, max(len(self._keys) - 1, 0))
        self._clear()
        self._canvas.yview_moveto(0)
        self._lay_out()

    def select(self, keys) -> None:
        """Mark these and no others."""
        changed = self._selected ^ set(keys)
        self._selected = set(keys)
        for position in list(self._drawn):
            if self._keys[position] in changed:
                self._redraw(position)

    def set_look(self, look: Look) -> None:
        """Show all images in another way."""
        resized = look.side != self.look.side
        first = self._rows_on_screen().start * self._columns
        self.look = look
        if resized:
            self._clear()
            self._lay_out()
            self.reveal(first)
        self._settle()

    def read_again(self) -> None:
        """Forget all images that were read."""
        self._pictures.clear()
        self._clear()
        self._lay_out()

    def reveal(self, position: int) -> None:
        """Scroll so that the image at a position is on the screen."""
        row, height = position // self._columns, self._height()
        top, bottom = MARGIN + row * self._step_y - GAP, MARGIN + (row + 1) * self._step_y
        seen = self._canvas.canvasy(0)
        if top < seen:
            self._canvas.yview_moveto(max(top, 0) / height)
        elif bottom > seen + self._canvas.winfo_height():
            self._canvas.yview_moveto((bottom - self._canvas.winfo_height()) / height)
        self._refresh()

    def box(self, position: int) -> tuple[int, int, int, int]:
        """Where the image at a position is on the canvas: left, top, right, bottom."""
        row, column = divmod(position, self._columns)
        left, top = MARGIN + column * self._step_x, MARGIN + row * self._step_y
        return left, top, left + self.look.side, top + self.look.side

    @property
    def canvas(self) -> tk.Canvas:
        """What the images are drawn on."""
        return self._canvas

    @property
    def complete(self) -> bool:
        """Whether all images on the screen are drawn."""
        return bool(self._drawn) and all(
            (self._keys[position], self.look) in self._pictures for position in self._drawn)

    # --------------------------- building --------------------------------------
    def _build(self) -> None:
        self._canvas = tk.Canvas(self, background=PAPER, highlightthickness=0, takefocus=True)
        scrollbar = ttk.Scrollbar(self, orient=tk.VERTICAL, command=self._canvas.yview)
        self._canvas.configure(yscrollcommand=lambda *ends: (scrollbar.set(*ends), self._refresh()))
        self._canvas.grid(row=0, column=0, sticky="news")
        scrollbar.grid(row=0, column=1, sticky="ns")
        self.rowconfigure(0, weight=1)
        self.columnconfigure(0, weight=1)
        bind = self._canvas.bind
        bind("<Configure>", lambda _event: self._lay_out())
        bind("<ButtonPress-1>", self._on_press)
        bind("<B1-Motion>", self._on_drag)
        bind("<ButtonRelease-1>", self._on_release)
        bind("<Double-Button-1>", self._on_double)
        bind("<Motion>", self._on_motion)
        bind("<Leave>", lambda _event: self.on_hover(None))
        bind("<MouseWheel>", lambda event: self._scroll(-1 if event.delta > 0 else 1))
        bind("<Button-4>", lambda _event: self._scroll(-1))
        bind("<Button-5>", lambda _event: self._scroll(1))
        for key, units in (("<Prior>", -1), ("<Next>", 1)):
            bind(key, lambda _event, units=units: self._canvas.yview_scroll(units, "pages"))
        bind("<Home>", lambda _event: self._move_to(0))
        bind("<End>", lambda _event: self._move_to(len(self._keys) - 1))
        for key, columns, rows in (("<Left>", -1, 0), ("<Right>", 1, 0), ("<Up>", 0, -1), ("<Down>", 0, 1)):
            bind(key, lambda _event, x=columns, y=rows: self._move_to(self._cursor + x + y * self._columns))
        bind("<space>", lambda event: self._at_cursor(
            lambda key: self.on_click(key, bool(event.state & BUTTON_STATES["shift"]))))
        bind("<Return>", lambda _event: self._at_cursor(self.on_open))

    @property
    def _step_x(self) -> int:
        # What is left of the width goes between the columns, unless there is but one row.
        free = self._canvas.winfo_width() - 2 * MARGIN + GAP
        return free // self._columns if len(self._keys) >= self._columns else self.look.side + GAP

    @property
    def _step_y(self) -> int:
        return self.look.side + GAP + self._lines * self._font.metrics("linespace") + 4

    @property
    def _columns(self) -> int:
        return max(1, (self._canvas.winfo_width() - 2 * MARGIN + GAP) // (self.look.side + GAP))

    def _height(self) -> int:
        return 2 * MARGIN + -(-len(self._keys) // self._columns) * self._step_y

    def _lay_out(self) -> None:
        region = (0, 0, self._canvas.winfo_width(), max(self._height(), self._canvas.winfo_height()))
        if str(self._canvas.cget("scrollregion")) != " ".join(map(str, region)):
            self._clear()
            self._canvas.configure(scrollregion=region, yscrollincrement=max(self._step_y // 3, 1))
        self._refresh()

    # --------------------------- drawing ---------------------------------------
    def _rows_on_screen(self) -> range:
        top, height = self._canvas.canvasy(0), self._canvas.winfo_height()
        first = max(0, int((top - MARGIN) // self._step_y))
        return range(first, int((top + height - MARGIN) // self._step_y) + 1)

    def _refresh(self) -> None:
        rows = self._rows_on_screen()
        wanted = range(min(rows.start * self._columns, len(self._keys)),
                       min(rows.stop * self._columns, len(self._keys)))
        for position in [position for position in self._drawn if position not in wanted]:
            self._erase(position)
        for position in wanted:
            if position not in self._drawn:
                self._draw(position)
        self._order_missing()

    def _order_missing(self) -> None:
        missing = [(self._keys[position], self.look) for position in sorted(self._drawn)
                   if (self._keys[position], self.look) not in self._pictures]
        self._slices.want(missing)

    def _collect(self, job: tuple[int, Look], result: np.ndarray | Exception) -> None:
        self._pictures[job] = str(result) if isinstance(result, Exception) \
            else ImageTk.PhotoImage(Image.fromarray(result), master=self._canvas)
        while len(self._pictures) > KEPT_PICTURES:
            self._pictures.popitem(last=False)
        position = self._place.get(job[0])
        if position in self._drawn and job[1] == self.look:
            self._put_picture(position)

    def _settle(self) -> None:
        # While a slider moves, only its last value is worth rendering.
        if self._settling is not None:
            self.after_cancel(self._settling)
        self._settling = self.after(SETTLE_MS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        for position in self._drawn:
            self._put_picture(position)
        self._order_missing()

    def _render(self, job: tuple[int, Look]) -> np.ndarray:
        key, look = job
        return render(self._read(key), look, self._pixel_size)

    def _draw(self, position: int) -> None:
        key, canvas = self._keys[position], self._canvas
        entry, (left, top, right, bottom) = self._describe(key), self.box(position)
        items = []
        if key in self._selected:
            text_bottom = bottom + self._lines * self._font.metrics("linespace") + 4
            items.append(canvas.create_rectangle(left - FRAME, top - FRAME, right + FRAME, text_bottom, fill=TINT,
                                                 outline=BLUE, width=2))
        items.append(canvas.create_rectangle(left, top, right, bottom, fill=EMPTY, outline=""))
        self._drawn[position] = items
        self._put_picture(position)
        for number, line in enumerate(entry.lines):
            items.append(canvas.create_text((left + right) // 2, bottom + 2 + number * self._font.metrics("linespace"),
                                            text=line, anchor="n", font=self._font, fill=MUTED if number else INK))
        if position == self._cursor and canvas.focus_get() is canvas:
            items.append(canvas.create_rectangle(left - 1, top - 1, right, bottom, outline=INK, dash=(3, 3)))

    def _put_picture(self, position: int) -> None:
        key, canvas = self._keys[position], self._canvas
        picture = self._pictures.get((key, self.look))
        if picture is None:
            return
        for item in canvas.find_withtag(f"picture{position}"):
            canvas.delete(item)
        self._pictures.move_to_end((key, self.look))
        left, top, right, bottom = self.box(position)
        tags = (f"picture{position}",)
        if isinstance(picture, str):
            canvas.create_text((left + right) // 2, (top + bottom) // 2, text=_short(picture), fill=MUTED,
                               width=self.look.side - 8, justify="center", font=self._small, tags=tags)
        else:
            canvas.create_image(left, top, image=picture, anchor="nw", tags=tags)
        corner = self._describe(key).corner
        if not corner:
            return
        label = canvas.create_text(left + 4, top + 2, text=corner, anchor="nw", fill="white", font=self._small,
                                   tags=tags)
        x0, y0, x1, y1 = canvas.bbox(label)
        canvas.tag_lower(canvas.create_rectangle(x0 - 2, y0, x1 + 2, y1, fill="#333333", outline="", tags=tags), label)

    def _erase(self, position: int) -> None:
        for item in self._drawn.pop(position):
            self._canvas.delete(item)
        self._canvas.delete(f"picture{position}")

    def _redraw(self, position: int) -> None:
        if position in self._drawn:
            self._erase(position)
            self._draw(position)

    def _clear(self) -> None:
        for position in list(self._drawn):
            self._erase(position)

    # --------------------------- mouse and keyboard ----------------------------
    def _position_at(self, x: float, y: float) -> int | None:
        column, row = int((x - MARGIN) // self._step_x), int((y - MARGIN) // self._step_y)
        position = row * self._columns + column
        inside = 0 <= column < self._columns and row >= 0 and position < len(self._keys)
        return position if inside else None

    def _on_press(self, event) -> None:
        self._canvas.focus_set()
        self._drag = (self._canvas.canvasx(event.x), self._canvas.canvasy(event.y), False)

    def _on_drag(self, event) -> None:
        if self._drag is None:
            return
        x0, y0, moved = self._drag
        x1, y1 = self._canvas.canvasx(event.x), self._canvas.canvasy(event.y)
        if not moved and max(abs(x1 - x0), abs(y1 - y0)) < DRAG_PIXELS:
            return
        self._drag = (x0, y0, True)
        self._canvas.delete("band")
        self._canvas.create_rectangle(x0, y0, x1, y1, outline=BLUE, width=2, dash=(4, 3), tags="band")
        if not 0 <= event.y < self._canvas.winfo_height():
            self._scroll(-1 if event.y < 0 else 1)

    def _on_release(self, event) -> None:
        if self._drag is None:
            return
        x0, y0, moved = self._drag
        self._drag = None
        x1, y1 = self._canvas.canvasx(event.x), self._canvas.canvasy(event.y)
        if moved:
            self._canvas.delete("band")
            self.on_band(self._keys_between(x0, y0, x1, y1), bool(event.state & BUTTON_STATES["control"]))
            return
        position = self._position_at(x1, y1)
        if position is not None:
            self._set_cursor(position)
            self.on_click(self._keys[position], bool(event.state & BUTTON_STATES["shift"]))

    def _on_double(self, event) -> None:
        # The two clicks of a double click cancel each other, so the selection stays as it was.
        self._on_press(event)
        position = self._position_at(self._canvas.canvasx(event.x), self._canvas.canvasy(event.y))
        if position is not None:
            self.after_idle(self.on_open, self._keys[position])

    def _on_motion(self, event) -> None:
        position = self._position_at(self._canvas.canvasx(event.x), self._canvas.canvasy(event.y))
        key = self._keys[position] if position is not None else None
        problem = self._pictures.get((key, self.look))
        self.on_hover(key, problem if isinstance(problem, str) else "")

    def _keys_between(self, x0: float, y0: float, x1: float, y1: float) -> list[int]:
        left, right = sorted((x0, x1))
        top, bottom = sorted((y0, y1))
        rows = range(max(0, int((top - MARGIN) // self._step_y)), int((bottom - MARGIN) // self._step_y) + 1)
        positions = range(min(rows.start * self._columns, len(self._keys)),
                          min(rows.stop * self._columns, len(self._keys)))
        boxes = ((position, self.box(position)) for position in positions)
        return [self._keys[position] for position, box in boxes
                if box[0] < right and box[2] > left and box[1] < bottom and box[3] > top]

    def _set_cursor(self, position: int) -> None:
        before, self._cursor = self._cursor, position
        for changed in {before, position}:
            self._redraw(changed)

    def _move_to(self, position: int) -> str:
        if self._keys:
            self._set_cursor(min(max(position, 0), len(self._keys) - 1))
            self.reveal(self._cursor)
        return "break"

    def _at_cursor(self, act: Callable[[int], None]) -> None:
        if self._keys:
            act(self._keys[self._cursor])

    def _scroll(self, units: int) -> None:
        self._canvas.yview_scroll(units, "units")

    def _on_destroy(self, event) -> None:
        if event.widget is self:
            if self._settling is not None:
                self.after_cancel(self._settling)


def _short(problem: str) -> str:
    """Why there is no picture, in the few words that fit into its place."""
    if "no average" in problem:
        return "no average"
    return "file missing" if "is missing" in problem else "can't be read"
