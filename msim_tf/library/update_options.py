"""What an update of a library is to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

BATCH = 200  # tracks between two saves: a killed run has lost some minutes at most


@dataclass(frozen=True)
class UpdateOptions:
    """How a library is brought up to date.

    Attributes:
        rebuild: embed everything again, for example with another model.
        annotate: estimate tempo and key.
        pad: lengthen tracks shorter than one segment with silence instead of leaving them out.
        prune: forget tracks whose file is gone, instead of keeping them for its return.
        retry: read files again that could not be used, though they have not changed.
        engine: "exact", "faiss", or "auto".
        batch: tracks between two saves.
        name: what people call the library; "" keeps the name, at first that of the folder.
    """

    rebuild: bool = False
    annotate: bool = False
    pad: bool = False
    prune: bool = False
    retry: bool = False
    engine: str = "auto"
    batch: int = BATCH
    name: str = ""


@dataclass
class Summary:
    """What an update did.

    Attributes:
        new: embedded.
        changed: embedded again.
        moved: found under another name.
        removed: forgotten, because their file can no longer be used, or is gone and ``prune`` was chosen.
        returned: were missing, and their file is back.
        unchanged: files as they were.
        missing: kept in the library, but not offered, because their file is gone.
        vanished: tracks that are missing since this run, a whole folder as one: name -> how many tracks.
        failures: file -> why it was left out, those of earlier runs included.
        remembered: failures of earlier runs among them, whose files were not read again.
        notes: file -> what is wrong with it though it is used.
        notices: what else was left out, each as a line.
        pending: files that wait for jobs which are not finished.
        seconds: spent on embedding.
        tracks: in the library now, without the missing ones.
    """

    new: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    returned: int = 0
    unchanged: int = 0
    missing: int = 0
    vanished: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    remembered: int = 0
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    pending: int = 0
    seconds: float = 0.0
    tracks: int = 0
