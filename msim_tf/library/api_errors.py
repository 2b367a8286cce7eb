"""How requests to the library API fail: an HTTP status and one line of text."""

from __future__ import annotations

from collections.abc import Mapping

from msim_tf.errors import InputError


class ApiError(InputError):
    """A request that cannot be answered.

    Attributes:
        status: the HTTP status.
        message: the text of ``{"error": text}``.
        headers: to send with it.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
