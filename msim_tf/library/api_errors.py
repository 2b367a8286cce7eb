"""How requests to the library API fail: an HTTP status and one line of text."""

from msim_tf.serving.guard import HttpError as ApiError

__all__ = ["ApiError"]
