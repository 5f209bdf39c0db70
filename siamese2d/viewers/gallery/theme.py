"""How the gallery's windows look; styles of their own, so that Scipion's windows stay as they are."""

from tkinter import ttk

from siamese2d.viewers.plots.style import INK, MUTED, RED

PAPER = "#FFFFFF"
FRAME, LABEL, HEADING, STATUS, HINT, NOTICE, CHECK, SCALE = (
    f"Siamese2D.{name}" for name in ("TFrame", "TLabel", "Heading.TLabel", "Status.TLabel", "Hint.TLabel",
                                     "Notice.TLabel", "TCheckbutton", "Horizontal.TScale"))


def apply_theme(widget) -> None:
    """Define the styles in the interpreter of a widget; doing it again changes nothing."""
    style = ttk.Style(widget)
    for name in (FRAME, LABEL, HEADING, STATUS, HINT, NOTICE, CHECK, SCALE):
        style.configure(name, background=PAPER)
    for name in (LABEL, HEADING, STATUS):
        style.configure(name, foreground=INK)
    style.map(CHECK, background=[("active", PAPER)])
    style.configure(HEADING, font=("TkDefaultFont", 11, "bold"))
    style.configure(STATUS, font=("TkDefaultFont", 10, "bold"))
    style.configure(HINT, foreground=MUTED)
    style.configure(NOTICE, foreground=RED)
