"""Debian packages as a source of files: checked downloads, reading files out of a package, the licence of each file.

Needs ``apt-get``, ``apt-cache`` and ``dpkg-deb``, and no root: nothing is installed. Archives in a package (zip, pk3,
the WAD of Doom) are read as folders: a file in one is named ARCHIVE/MEMBER.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from msim_tf.audio.kinds import AUDIO_SUFFIXES
from msim_tf.errors import InputError
from tools.corpus.ledger import sha256
from tools.corpus.playable import is_score

_ARCHIVES = (".pk3", ".zip", ".wad")


class PackageMissing(Exception):
    """The archive does not have the package, or not what the catalogue expects of it; the others can still be built."""


def validate_tools() -> None:
    """Refuses to start where packages cannot be had.

    Raises:
        InputError: without apt-get, apt-cache or dpkg-deb.
    """
    missing = [name for name in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not found: this corpus comes from Debian packages; "
            "run it on Debian or in a container of it"
        )


def fetch(package: str, cache: Path) -> tuple[Path, str]:
    """The package's file in the cache, downloaded unless it is there whole, and its version.

    Raises:
        PackageMissing: if the archive does not have it or delivers something else than it promises.
    """
    shown = _run(["apt-cache", "show", "--no-all-versions", package])
    fields = dict(
        re.findall(r"^(Package|Version|Architecture|Size|SHA256): (.+)$", shown.stdout.split("\n\n")[0], re.MULTILINE)
    )
    if not {"Version", "Architecture", "Size", "SHA256"} <= fields.keys():
        raise PackageMissing(
            f"not in this system's package lists ({_last_line(shown.stderr) or 'apt-cache shows nothing'})"
        )
    version = fields["Version"]
    deb = cache / f"{package}_{version.replace(':', '%3a')}_{fields['Architecture']}.deb"
    if not _is_whole(deb, fields):
        _download(package, version, deb, fields)
    return deb, version


def _is_whole(deb: Path, fields: Mapping[str, str]) -> bool:
    return deb.is_file() and deb.stat().st_size == int(fields["Size"]) and sha256(deb) == fields["SHA256"]


def _download(package: str, version: str, deb: Path, fields: Mapping[str, str]) -> None:
    """Downloads beside the cache and moves what is whole into it, so that a kill leaves
    no half of a package under its name.
    """
    beside = deb.parent / f".tmp-{package}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        result = _run(["apt-get", "download", "-q", f"{package}={version}"], cwd=beside)
        packages = sorted(beside.glob("*.deb"))
        if result.returncode or not packages:
            raise PackageMissing(f"apt-get download failed ({_last_line(result.stderr, 'E:') or 'no file came'})")
        if not _is_whole(packages[0], fields):
            raise PackageMissing("the download is not the file that the package lists promise; run apt-get update")
        os.replace(packages[0], deb)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})


def _last_line(text: str, start: str = "") -> str:
    lines = [line for line in text.splitlines() if line.startswith(start) and line.strip()]
    return lines[-1] if lines else ""


def glob_matches(pattern: str, path: str) -> bool:
    """Whether a pattern of a copyright file matches: "*" is any text, "/" included, "?"
    one character, anything else itself.
    """
    parts = re.split(r"([*?])", pattern.removeprefix("./"))
    expression = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(expression, path, re.DOTALL) is not None


def read_copyright(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(patterns, short licence name) of each Files paragraph of a machine-readable copyright file, in order."""
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields = {
            name.lower(): value.strip()
            for name, value in re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        }
        if "files" in fields and "license" in fields:
            paragraphs.append(
                (tuple(fields["files"].replace(",", " ").split()), fields["license"].split("\n")[0].strip())
            )
    return paragraphs


def licence_of(path: str, paragraphs: Iterable[tuple[tuple[str, ...], str]]) -> str:
    """Licence of a file of the source package: that of the last paragraph that matches; empty if none does."""
    matching = ""
    for patterns, licence in paragraphs:
        if any(glob_matches(pattern, path) for pattern in patterns):
            matching = licence
    return matching


def source_path(origin: str, source: Mapping[str, str]) -> str:
    """Where an installed file lies in the source package."""
    for installed, prefix in source.items():
        if origin.startswith(installed):
            return prefix + origin[len(installed) :]
    return origin


def unpack(deb: Path, music: Sequence[str], into: Path) -> tuple[dict[str, Path], str]:
    """Reads the music and the copyright file out of a package, and nothing else.

    Args:
        deb: the package; the part of its name before "_" is that of the package.
        music: patterns of the files to take.
        into: folder for the files; emptied first.

    Returns:
        Path inside the package -> unpacked file, and the text of the copyright file.

    Raises:
        PackageMissing: if the package cannot be read to its end or has no copyright file.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                files, text = _read_tar(tar, f"usr/share/doc/{deb.name.partition('_')[0]}/copyright", music, into)
    except (tarfile.TarError, zipfile.BadZipFile, struct.error, EOFError) as error:
        raise PackageMissing(f"{deb}: damaged ({error})") from error
    if process.returncode:
        raise PackageMissing(f"{deb}: dpkg-deb cannot read it")
    if not text:
        raise PackageMissing(f"{deb}: has no copyright file of its own")
    return files, text


def _read_tar(tar: tarfile.TarFile, terms: str, music: Sequence[str], into: Path) -> tuple[dict[str, Path], str]:
    archives = {
        f"{before}{suffix}" for pattern in music for suffix in _ARCHIVES for before in pattern.split(f"{suffix}/")[:-1]
    }
    files: dict[str, Path] = {}
    text = b""
    for member in tar:
        origin = member.name.removeprefix("./")
        opened = tar.extractfile(member) if member.isfile() else None
        if opened is None:
            continue
        if origin == terms:
            text = opened.read()
        elif _wanted(origin, music):
            files[origin] = _copied(opened, into, len(files), origin)
        elif any(glob_matches(pattern, origin) for pattern in archives):
            archive = _copied(opened, into, len(files), origin)
            files.update(_members(archive, origin, music, into, len(files)))
            archive.unlink()
    return files, text.decode("utf-8", "replace")


def _members(archive: Path, origin: str, music: Sequence[str], into: Path, count: int) -> dict[str, Path]:
    """The music in an archive."""
    members = _wad_members(archive) if origin.lower().endswith(".wad") else _zip_members(archive)
    files: dict[str, Path] = {}
    for name, opened in members:
        inside = f"{origin}/{name}"
        if _wanted(inside, music):
            files[inside] = _copied(opened, into, count + len(files), name)
    return files


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            with opened.open(name) as member:
                yield name, member


def _wad_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The MIDI files in a WAD (https://doomwiki.org/wiki/WAD), whose names have no suffix: one is added."""
    data = archive.read_bytes()
    count, directory = struct.unpack_from("<4xii", data)
    for number in range(count):
        start, size, name = struct.unpack_from("<ii8s", data, directory + 16 * number)
        lump = data[start : start + size]
        if lump.startswith(b"MThd"):
            if len(lump) < size:
                raise EOFError(f"{archive.name} ends within {name!r}")
            yield name.rstrip(b"\0").decode("ascii", "replace") + ".mid", io.BytesIO(lump)


def _wanted(origin: str, music: Sequence[str]) -> bool:
    """Whether a pattern names it: what must be played first by its suffix, what has no suffix of sound in full."""
    if is_score(origin):
        return any(is_score(pattern) and glob_matches(pattern, origin) for pattern in music)
    return origin in music or (
        origin.lower().endswith(AUDIO_SUFFIXES) and any(glob_matches(pattern, origin) for pattern in music)
    )


def _copied(member: IO[bytes], into: Path, number: int, origin: str) -> Path:
    # Numbered, because names in archives may be anything; the suffix tells libsndfile some formats.
    path = into / f"{number:05d}{Path(origin).suffix.lower()}"
    with member, path.open("wb") as file:
        shutil.copyfileobj(member, file, 2**20)
    return path
