"""A dialog that asks for one of several things."""

from tkinter import ttk

from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES, Dialog


class ChoiceDialog(Dialog):
    """Modal; `value` is what was chosen, None when the user thought better of it.

    Parameters
    ----------
    parent : tkinter widget
    title, text : str
        Of the window, and above the list.
    options : list of str
    """

    def __init__(self, parent, title: str, text: str, options: list[str]):
        self._question, self._names, self.value = text, options, None
        super().__init__(parent, title, buttons=[("Select", RESULT_YES), ("Cancel", RESULT_CANCEL)], default="Select")

    def body(self, bodyFrame):
        ttk.Label(bodyFrame, text=self._question).grid(row=0, column=0, sticky="w", padx=10, pady=(10, 4))
        self._list = ttk.Combobox(bodyFrame, state="readonly", values=self._names,
                                  width=max(30, *(len(option) for option in self._names)))
        self._list.current(0)
        self._list.grid(row=1, column=0, padx=10, pady=(0, 12))

    def apply(self):
        self.value = self._list.get()


def choose(parent, title: str, text: str, options: list[str]) -> str | None:
    """Ask, and return what was chosen."""
    return ChoiceDialog(parent, title, text, options).value
