"""``ServingError``: what went wrong between a client and a model, by the canonical
codes that gRPC and TensorFlow share.

The code is the name ("NOT_FOUND"), because the number of an HTTP status cannot be
turned back: 400 stands for three codes.
"""

from __future__ import annotations

from msim_tf.errors import InputError

# How TensorFlow Serving turns a code into an HTTP status; a code that is not listed is 500.
_HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# The other way, for the client: the first code of each status, and 413, which only the embedded server sends.
_CODE = {413: "RESOURCE_EXHAUSTED", 500: "INTERNAL"} | {status: code for code, status in reversed(_HTTP_STATUS.items())}


class ServingError(InputError):
    """A request, a model or a server failed in a way that its caller has to know.

    It is an ``InputError`` so that the command line prints it as one line: whatever the
    cause, it is not a fault of this program.

    Attributes:
        code: canonical name, e.g. "NOT_FOUND".
        message: the server's text, without the code.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def http_status(code: str) -> int:
    """HTTP status that TensorFlow Serving gives for a canonical code."""
    return _HTTP_STATUS.get(code, 500)


def code_of_http_status(status: int) -> str:
    """Canonical code for an HTTP status; 400 becomes "INVALID_ARGUMENT", the most frequent of its three."""
    return _CODE.get(status, "UNKNOWN")
