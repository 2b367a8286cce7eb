"""msim's commands, run inside the process of a target: TensorFlow is imported once."""

import contextlib
import io

from msim_tf.cli import main


def msim(*arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``msim ARGUMENTS``.

    Raises:
        Exception: whatever would have been a traceback.
    """
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
    assert status in (None, 0, 1, 2), f"msim {arguments[0]}: exit status {status}"
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return int(status or 0), out.getvalue(), err.getvalue()
