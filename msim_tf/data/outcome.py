"""What becomes of one sound file of a job: its features, or the reason why it has none.

A fault of the file is a reason and ends nothing. A fault of the machine is raised: the job then runs again, perhaps
elsewhere, and the file is not blamed for it.
"""

from __future__ import annotations

import errno
from pathlib import Path

from msim_tf.audio.sandbox import Decoder, DecoderUnavailable
from msim_tf.features.extractor import Extractor, Features
from msim_tf.features.from_file import features_or_reason

_MACHINE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.EROFS, errno.ENOMEM)


def file_outcome(path: Path, extract: Extractor, decoder: Decoder, *, pad: bool) -> Features | str:
    """The file's features, or whatever reading it raised, as its reason.

    Args:
        path: the sound file.
        extract: the extractor.
        decoder: what decodes.
        pad: lengthen a clip that is shorter than one segment with silence.

    Raises:
        DecoderUnavailable: if no file at all can be decoded.
        OSError: if the disk is full, or the machine has no more memory or files.
    """
    try:
        return features_or_reason(path, extract, decoder.read_blocks, pad=pad)
    except DecoderUnavailable:
        raise
    except OSError as error:
        if error.errno in _MACHINE_FAULTS:
            raise
        return f"cannot be read ({error.strerror or error})"
    except Exception as error:
        return f"cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
