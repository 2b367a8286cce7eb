"""What becomes of one sound file of a job: its features, or the reason why it has none.

A fault of the file is a reason and ends nothing. A fault of the machine is raised: the job then runs again, perhaps
elsewhere, and the file is not blamed for it.
"""

from __future__ import annotations

import errno

from msim_tf.audio.sandbox import Decoder, DecoderUnavailable
from msim_tf.audio.scan import FileState
from msim_tf.audio.source import Source, SourceUnavailable, local_file
from msim_tf.errors import InputError
from msim_tf.features.extractor import Extractor, Features
from msim_tf.features.from_file import features_or_reason

# No room or quota, no open files left, a file too large, a disk mounted read-only, no memory.
_MACHINE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.EROFS, errno.ENOMEM)


def is_machine_fault(error: OSError) -> bool:
    """Whether an error would have met any other file as well: no room on the disk, no memory, no open files left."""
    return error.errno in _MACHINE_FAULTS


def file_outcome(
    root: Source, file: tuple[str, FileState], extract: Extractor, decoder: Decoder, *, pad: bool
) -> Features | str:
    """The file's features, or whatever reading it raised, as its reason.

    Args:
        root: the folder of music, or its URI.
        file: identifier and state of the sound file.
        extract: the extractor.
        decoder: what decodes.
        pad: lengthen a clip that is shorter than one segment with silence.

    Raises:
        DecoderUnavailable: if no file at all can be decoded.
        SourceUnavailable: if the file cannot be fetched now.
        OSError: if the disk is full, or the machine has no more memory or files.
    """
    try:
        with local_file(root, *file) as path:
            return features_or_reason(path, extract, decoder.read_blocks, pad=pad)
    except (DecoderUnavailable, SourceUnavailable):
        raise
    except InputError as error:
        return str(error)
    except OSError as error:
        if is_machine_fault(error):
            raise
        return f"cannot be read ({error.strerror or error})"
    except Exception as error:
        # A hostile file can make a decoder raise anything; it must not end the job of the other files.
        return f"cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
