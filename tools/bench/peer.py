"""Analyses sound files with a peer of msim, in whatever Python has it: ``python peer.py NAME [FILE...]``.

Without files it says the peer's version, so that its absence shows. Needs nothing of msim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata


def bliss_audio() -> Callable[[str], int]:
    """bliss-audio: a function from a file to the number of its features."""
    from bliss_audio import Song

    return lambda path: len(Song(path).analysis)


def essentia() -> Callable[[str], int]:
    """Essentia's MusicExtractor at its defaults: a function from a file to the number of its descriptors."""
    import essentia
    from essentia.standard import MusicExtractor

    essentia.log.infoActive = False
    return lambda path: len(MusicExtractor()(path)[0].descriptorNames())


PEERS = {"bliss-audio": bliss_audio, "essentia": essentia}


def main(name: str, paths: list[str]) -> None:
    """Prints the version, and how many numbers describe each file."""
    analyse = PEERS[name]()
    print(metadata.version(name))
    for path in paths:
        count = analyse(path)
        if not count:
            raise RuntimeError(f"{path}: {name} says nothing")
        print(f"{path}: {count}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
