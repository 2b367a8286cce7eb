"""msim's commands as a user sees them: exit status, standard output, standard error."""

import contextlib
import io
import subprocess
import sys

from msim_tf.cli import main


def msim(*arguments: object) -> tuple[int, str, str]:
    """``msim ARGUMENTS`` inside this process, in which TensorFlow is imported once.

    Raises:
        Exception: whatever would have been a traceback.
    """
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    assert status in (None, 0, 1, 2), f"msim {arguments[0]}: exit status {status}"
    return int(status or 0), out.getvalue(), err.getvalue()


def msim_process(*arguments: object) -> tuple[int, str, str]:
    """The same in a process of its own, for what only a process shows: logging from C++, signals, the end."""
    command = [sys.executable, "-m", "msim_tf", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
