"""The exception that means "the input is wrong, the program is not", and warnings that the program goes on otherwise
than was meant.

The command line prints an ``InputError`` as a single line and exits with status 2; anything
else is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Wrong input from the caller: the message says what, where, and what to do about it."""


def unforeseen(error: Exception) -> str:
    """The reason of a file on which the program itself failed."""
    return f"unforeseen error, please report it ({type(error).__name__}: {error})"


class AudioWarning(UserWarning):
    """A file that was used although something is wrong with it, and what."""


class PrecisionWarning(UserWarning):
    """A model computes in another precision than was asked for, and why."""
