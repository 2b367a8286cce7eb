"""Which Debian packages hold free music, and what of it is taken: ``games.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msim_tf.errors import InputError
from msim_tf.files import load_json
from tools.corpus.ledger import PARTS

CATALOGUE = Path(__file__).with_name("games.json")


@dataclass(frozen=True)
class Package:
    """One entry of the catalogue.

    Attributes:
        package: name of the Debian package.
        part: "train" or "test".
        music: patterns of the files to take, "usr/share/games/zaz/mus*.ogg"; a file in an archive
            is ARCHIVE/MEMBER. "*" also matches "/".
        source: installed prefix -> prefix in the source package, which is what a copyright file's patterns refer to.
        licence: for music whose copyright file is free text, read by hand; empty: take it from the copyright file.
        artist: of all its music that has no artist in its tags.
        leave_out: pattern -> why files that match are not taken.
        notes: what reading the copyright file by hand gave.
    """

    package: str
    part: str
    music: tuple[str, ...]
    source: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    artist: str = ""
    leave_out: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def load_catalogue(path: str | Path = CATALOGUE) -> list[Package]:
    """The packages to build from, those of the test part first.

    Raises:
        InputError: if the file is not a catalogue, or an entry is wrong.
    """
    value = load_json(path, "a catalogue of packages")
    packages = []
    for entry in value["packages"]:
        try:
            package = Package(**{**entry, "music": tuple(entry["music"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{path}: entry {entry!r} is not one of a package ({error})") from error
        if package.part not in PARTS:
            raise InputError(f"{path}: {package.package} has part {package.part!r}; expected one of {PARTS}")
        packages.append(package)
    return sorted(packages, key=lambda package: PARTS[::-1].index(package.part))


def chosen_packages(packages: Sequence[Package], names: str | None) -> list[Package]:
    """Those named, comma-separated, or all.

    Raises:
        InputError: for a name that is not in the catalogue.
    """
    if not names:
        return list(packages)
    listed = {package.package for package in packages}
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if wanted - listed:
        raise InputError(
            f"--packages {', '.join(sorted(wanted - listed))}: not in the catalogue; it has {', '.join(sorted(listed))}"
        )
    return [package for package in packages if package.package in wanted]
