"""TensorFlow's start: without its messages, which are for developers of TensorFlow and not for users of msim."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages and deprecation notices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet_native_start():
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")


def import_tensorflow() -> None:
    """Imports TensorFlow for a command: quietly, and its objects out of garbage collection.

    They are half a million and stay. Python would look through all of them, a quarter of a second long, whenever many
    others were made.
    """
    quiet_tensorflow()
    gc.freeze()


@contextmanager
def _quiet_native_start() -> Iterator[None]:
    """Hides what TensorFlow's C++ prints on standard error while it is imported, before its log level applies."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
