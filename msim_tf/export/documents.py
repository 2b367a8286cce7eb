"""Tables and figures beside the versions of an exported model (attributions, evaluations), and their checksums.

    saved_models/NAME/checksums.json    name of file -> CRC-32; ``record_documents`` writes it

The files of a version have their checksums in its own ``msim.json`` (``metadata``). Prose (.md) has none, since people
edit it and no program reads it. Earlier releases wrote no checksums.json; such a model is accepted. No TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from msim_tf.checksums import file_checksum, load_checked_json, save_checked_json

DOCUMENTS_FILE = "checksums.json"
_HEADER = ("msim-model-documents", 1)
_PROSE = ".md"


def documents(base: Path) -> list[Path]:
    """The files directly in ``base`` that have a checksum, hidden and temporary ones left out, in order of name."""
    return sorted(
        path
        for path in base.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.suffix != _PROSE and path.name != DOCUMENTS_FILE
    )


def record_documents(base: Path) -> list[str]:
    """Writes the checksums of all documents as they are now, atomically.

    Args:
        base: ``saved_models/NAME``.

    Returns:
        The names of the files, in order.

    Raises:
        OSError: if one cannot be read.
    """
    files = {path.name: file_checksum(path) for path in documents(base)}
    save_checked_json(base / DOCUMENTS_FILE, {"format": _HEADER[0], "format_version": _HEADER[1], "files": files})
    return list(files)


def check_documents(base: Path) -> list[str]:
    """Compares documents with their recorded checksums: one line per problem; none without checksums.json.

    Raises:
        InputError: if checksums.json itself is damaged.
    """
    if not (base / DOCUMENTS_FILE).exists():
        return []
    cure = f"restore it, or accept the files beside the versions as they are: msim check --record {base}"
    what = "the checksums of the files beside an exported model's versions"
    recorded = load_checked_json(base / DOCUMENTS_FILE, what, cure=cure, header=_HEADER).get("files")
    if not isinstance(recorded, dict):
        return [f"{base / DOCUMENTS_FILE}: names no files; {cure}"]

    # Files that were added since are new, not damaged.
    problems = []
    actual = {path.name: path for path in documents(base)}
    for name, checksum in recorded.items():
        if name not in actual:
            problems.append(f"{base / name}: missing; {cure}")
        elif file_checksum(actual[name]) != checksum:
            problems.append(f"{actual[name]}: damaged (it does not have its checksum); {cure}")
    return problems
