"""The one exception that speaks to the user."""


class InputError(ValueError):
    """Input that can't be worked on.

    The message is what the user reads: it names the file (and row), says what is wrong and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """
