"""Music out of Debian packages: real packages made by dpkg-deb, behind an ``apt-get`` and
``apt-cache`` that serve them from a folder.
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from msim_tf.errors import InputError
from tools.corpus import games, games_catalogue
from tools.corpus.debian import glob_matches, licence_of, read_copyright
from tools.corpus.ledger import SR, sha256

REPOSITORY = Path(__file__).parents[2]
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")

APT_CACHE = """#!/bin/sh
for name; do :; done
cat "$ARCHIVE/$name.stanza" 2>/dev/null || { echo "E: No packages found" >&2; exit 100; }
"""
APT_GET = """#!/bin/sh
for name; do :; done
echo "$name" >> "$ARCHIVE/downloads"
cp "$ARCHIVE/${name%%=*}"_*.deb . || { echo "E: Failed to fetch" >&2; exit 100; }
"""
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2020 A. Nobody
License: GPL-2+

Files: data/music/*
       data/more music/*
Copyright: 2021 A. Composer
License: CC-BY-SA-3.0

Files: data/music/borrowed.ogg
Copyright: 2021 Somebody Else
License: CC-BY-NC-3.0
"""


class Archive:
    """A folder that the fake apt-get serves."""

    def __init__(self, root):
        self.root = root
        root.mkdir()

    def add(self, package, files, *, copyright_text=COPYRIGHT, version="1:2.0-1"):
        tree = self.root / f"tree-{package}"
        for name, content in {**files, f"usr/share/doc/{package}/copyright": copyright_text.encode()}.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        (tree / "DEBIAN").mkdir(exist_ok=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: x <x@example.org>\nDescription: x\n"
        )
        deb = self.root / f"{package}_{version.replace(':', '%3a')}_all.deb"
        subprocess.run(["dpkg-deb", "-Zgzip", "-b", str(tree), str(deb)], check=True, capture_output=True)
        (self.root / f"{package}.stanza").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: all\n"
            f"Size: {deb.stat().st_size}\nSHA256: {sha256(deb)}\n\n"
        )
        return deb

    def downloads(self):
        path = self.root / "downloads"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def archive(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(tmp_path / "archive"))
    return Archive(tmp_path / "archive")


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Writes a catalogue and makes it the one in use."""

    def write(*entries):
        path = tmp_path / "games.json"
        path.write_text(json.dumps({"packages": list(entries)}))
        monkeypatch.setattr(games.load_catalogue, "__defaults__", (path,))

    return write


def entry(package, part="train", **more):
    return {"package": package, "part": part, "music": [f"usr/share/{package}/music/*"], **more}


def sound(seconds, seed=0, *, level=0.1, rate=8000, **tags):
    """An encoded sound file of noise, as bytes."""
    y = np.random.default_rng(seed).standard_normal(round(seconds * rate)) * level
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate, 1, format="FLAC") as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(y)
    return content.getvalue()


def manifest(root):
    with open(root / "games-manifest.csv", encoding="utf-8", newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def contents(root):
    """Everything a finished corpus consists of."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "cache" not in path.parts
    }


@needs_dpkg
def test_clips_carry_what_the_package_says_of_them(archive, catalogue, tmp_path, music, capsys):
    root = tmp_path / "corpus"
    ogg = (music / "zaz__mus1.ogg").read_bytes()
    archive.add(
        "alpha",
        {
            "usr/share/alpha/music/Höre (zu).ogg": ogg,
            "usr/share/alpha/music/noise.flac": sound(85, 1, artist=" Some   One ", title="Noise"),
            "usr/share/alpha/music/borrowed.ogg": sound(30, 2),
            "usr/share/alpha/music/jingle.flac": sound(19, 3),
            "usr/share/alpha/sounds/bang.flac": sound(30, 4),
            "usr/share/alpha/music/credits.txt": b"not music",
        },
    )
    catalogue(entry("alpha", source={"usr/share/alpha/": "data/"}))
    assert games.main(["--corpus", str(root)]) == 0
    rows = manifest(root)
    noise = [f"train/games/alpha/noise-{start:04d}.flac" for start in (0, 30, 60)]
    assert list(rows) == ["train/games/alpha/h_re_zu-0000.flac", *noise]
    row = rows[noise[1]]
    assert (row["source"], row["version"], row["origin"]) == ("alpha", "1:2.0-1", "usr/share/alpha/music/noise.flac")
    assert (row["artist"], row["group"], row["title"], row["licence"]) == (
        "Some One",
        "some one",
        "Noise",
        "CC-BY-SA-3.0",
    )
    with soundfile.SoundFile(music / "zaz__mus1.ogg") as file:
        tags = file.copy_metadata()
    assert rows["train/games/alpha/h_re_zu-0000.flac"]["artist"] == tags.get("artist", "")
    assert [soundfile.info(root / name).frames for name in noise] == [30 * SR, 30 * SR, 25 * SR]
    printed = capsys.readouterr().out
    assert "1 x licence CC-BY-NC-3.0" in printed
    assert "1 x under 20 s" in printed
    assert "1 packages: 2 tracks, 4 clips" in printed


@needs_dpkg
def test_an_excerpt_is_that_stretch_of_the_original(archive, catalogue, tmp_path):
    root = tmp_path / "corpus"
    t = np.arange(70 * SR) / SR
    y = 0.3 * np.sin(2 * np.pi * (200 + 10 * np.floor(t)) * t)
    soundfile.write(tmp_path / "x.flac", y, SR, subtype="PCM_16")
    archive.add("alpha", {"usr/share/alpha/music/steps.flac": (tmp_path / "x.flac").read_bytes()})
    catalogue(entry("alpha"))
    assert games.main(["--corpus", str(root)]) == 0
    clip, _ = soundfile.read(root / "train/games/alpha/steps-0030.flac")
    np.testing.assert_allclose(clip, y[30 * SR : 60 * SR], atol=1e-4)
    assert set(manifest(root)) == {f"train/games/alpha/steps-{start:04d}.flac" for start in (0, 30)}  # 10 s are left


@needs_dpkg
def test_music_in_zip_archives_is_found_and_duplicates_stay_in_the_test_part_only(archive, catalogue, tmp_path, capsys):
    root = tmp_path / "corpus"
    shared, own = sound(30, 1), sound(30, 2)
    with zipfile.ZipFile(tmp_path / "data.pk3", "w") as file:
        file.writestr("music/a.flac", shared)
        file.writestr("music/b.flac", own)
        file.writestr("music/again.flac", own)
        file.writestr("sounds/c.flac", sound(30, 3))
    pk3 = "usr/share/alpha/base/data.pk3"
    archive.add("alpha", {pk3: (tmp_path / "data.pk3").read_bytes()})
    archive.add("beta", {"usr/share/beta/music/x.flac": shared})
    catalogue({**entry("alpha"), "music": [pk3 + "/music/*"], "source": {pk3 + "/": "data/"}}, entry("beta", "test"))
    assert games.main(["--corpus", str(root)]) == 0
    rows = manifest(root)
    assert set(rows) == {"test/games/beta/x-0000.flac", "train/games/alpha/again-0000.flac"}
    assert rows["train/games/alpha/again-0000.flac"]["origin"] == pk3 + "/music/again.flac"
    assert rows["train/games/alpha/again-0000.flac"]["licence"] == "CC-BY-SA-3.0"
    printed = capsys.readouterr().out
    assert "1 x duplicate of beta" in printed
    assert "1 x duplicate;" in printed.replace("\n", ";")


@needs_dpkg
def test_music_recorded_from_a_package_that_is_gone_is_not_taken_from_another(archive, catalogue, tmp_path):
    root = tmp_path / "corpus"
    archive.add("alpha", {"usr/share/alpha/music/x.flac": sound(30)})
    archive.add("beta", {"usr/share/beta/music/x.flac": sound(30)})
    catalogue(entry("alpha"), entry("beta", "test"))
    assert games.main(["--corpus", str(root), "--packages", "alpha"]) == 0
    assert games.main(["--corpus", str(root), "--packages", "beta"]) == 0
    assert set(manifest(root)) == {"train/games/alpha/x-0000.flac"}
    assert games.main(["--corpus", str(root)]) == 0  # with both at hand the test part has the first choice
    assert set(manifest(root)) == {"test/games/beta/x-0000.flac"}
    (archive.root / "beta.stanza").unlink()
    assert games.main(["--corpus", str(root)]) == 3
    assert set(manifest(root)) == {"test/games/beta/x-0000.flac"}


@needs_dpkg
def test_names_that_become_equal_stay_apart(archive, catalogue, tmp_path):
    root = tmp_path / "corpus"
    files = {f"usr/share/alpha/music/{folder}/Main Theme.flac": sound(30, seed) for seed, folder in enumerate("ab")}
    archive.add("alpha", files)
    catalogue(entry("alpha"))
    assert games.main(["--corpus", str(root)]) == 0
    rows = manifest(root)
    assert len(rows) == 2
    for clip, row in rows.items():
        assert clip == f"train/games/alpha/main_theme-{row['sha256'][:8]}-0000.flac"


@needs_dpkg
def test_silence_is_left_out_and_a_damaged_file_costs_only_itself(archive, catalogue, tmp_path, music, capsys):
    root = tmp_path / "corpus"
    ogg = (music / "zaz__mus1.ogg").read_bytes()
    quiet = np.concatenate([np.zeros(30 * 8000), np.random.default_rng(0).standard_normal(30 * 8000) * 0.1])
    soundfile.write(tmp_path / "q.flac", quiet, 8000)
    files = {
        "quiet.flac": (tmp_path / "q.flac").read_bytes(),
        "cut.ogg": ogg[: len(ogg) // 2],
        "text.ogg": b"no music at all",
    }
    archive.add("alpha", {f"usr/share/alpha/music/{name}": content for name, content in files.items()})
    catalogue(entry("alpha"))
    assert games.main(["--corpus", str(root)]) == 0
    assert set(manifest(root)) == {"train/games/alpha/quiet-0030.flac"}
    printed = capsys.readouterr().out
    assert "1 x excerpt silent or short" in printed
    assert "1 x under 20 s" in printed  # half of cut.ogg, whose 30 s end after 15
    assert "usr/share/alpha/music/text.ogg: is not audio" in printed


@needs_dpkg
def test_a_package_is_downloaded_once_and_a_truncated_one_again(archive, catalogue, tmp_path):
    root, cache = tmp_path / "corpus", tmp_path / "cache"
    deb = archive.add("alpha", {"usr/share/alpha/music/a.flac": sound(30)})
    catalogue(entry("alpha"))
    arguments = ["--corpus", str(root), "--cache", str(cache)]
    assert games.main(arguments) == 0
    assert games.main(arguments) == 0
    assert archive.downloads() == ["alpha=1:2.0-1"]
    kept = cache / deb.name
    kept.write_bytes(kept.read_bytes()[:-100])
    assert games.main(arguments) == 0
    assert archive.downloads() == ["alpha=1:2.0-1"] * 2
    damaged = bytearray(deb.read_bytes())
    damaged[-100] ^= 255  # same size, other bytes
    kept.write_bytes(damaged)
    assert games.main(arguments) == 0
    assert archive.downloads() == ["alpha=1:2.0-1"] * 3
    assert sha256(kept) == sha256(deb)
    assert [path.name for path in cache.iterdir()] == [deb.name]


@needs_dpkg
def test_what_is_gone_from_the_archive_is_reported_and_the_rest_is_built(archive, catalogue, tmp_path, capsys):
    root = tmp_path / "corpus"
    archive.add("alpha", {"usr/share/alpha/music/a.flac": sound(30)})
    archive.add("moved", {"usr/share/other/a.flac": sound(30, 1)})
    archive.add("broken", {"usr/share/broken/music/a.flac": sound(30, 2)})
    deb = archive.add("unreachable", {"usr/share/unreachable/music/a.flac": sound(30, 3)})
    deb.unlink()
    stale = archive.root / "broken_1%3a2.0-1_all.deb"
    stale.write_bytes(stale.read_bytes()[:-1])
    catalogue(*(entry(name) for name in ("gone", "moved", "unreachable", "broken", "alpha")))
    assert games.main(["--corpus", str(root)]) == 3
    assert set(manifest(root)) == {"train/games/alpha/a-0000.flac"}
    message = capsys.readouterr().err
    assert "gone: not in this system's package lists (E: No packages found)" in message
    assert "moved: version 1:2.0-1 holds none of usr/share/moved/music/*" in message
    assert "unreachable: apt-get download failed (E: Failed to fetch)" in message
    assert "broken: the download is not the file that the package lists promise" in message


@needs_dpkg
def test_a_package_that_is_whole_but_holds_rubbish_is_reported(archive, catalogue, tmp_path, capsys):
    archive.add("alpha", {"usr/share/alpha/music.zip": b"PK no zip"})
    catalogue({**entry("alpha"), "music": ["usr/share/alpha/music.zip/*"]})
    assert games.main(["--corpus", str(tmp_path / "corpus")]) == 3
    assert "damaged (File is not a zip file)" in capsys.readouterr().err


@needs_dpkg
def test_a_build_that_was_killed_goes_on_and_ends_the_same(archive, catalogue, tmp_path, capfd):
    for number, package in enumerate(("alpha", "beta", "gamma")):
        files = {f"usr/share/{package}/music/{i}.flac": sound(130, 10 * number + i) for i in range(3)}
        archive.add(package, files)
    entries = [entry(package) for package in ("alpha", "beta", "gamma")]
    catalogue(*entries)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert games.main(["--corpus", str(whole)]) == 0
    script = (
        "import sys; from tools.corpus import games; "
        f"games.load_catalogue.__defaults__ = ({str(tmp_path / 'games.json')!r},); "
        f"sys.exit(games.main(['--corpus', {str(killed)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    ledger = killed / "games.jsonl"
    while process.poll() is None and not (ledger.exists() and ledger.read_bytes().count(b"\n") >= 5):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = ledger.read_text().splitlines()
    assert 5 <= len(done) < 36, "the kill came too late to test anything"
    kept = {json.loads(line)["clip"]: (killed / json.loads(line)["clip"]).stat().st_mtime_ns for line in done}
    with ledger.open("a") as file:
        file.write('{"clip": "train/games/alpha/0-00')  # as a kill in the middle of the write leaves it
    assert games.main(["--corpus", str(killed)]) == 0
    assert {name: (killed / name).stat().st_mtime_ns for name in kept} == kept
    first, second = contents(whole), contents(killed)
    first.pop("games.jsonl"), second.pop("games.jsonl")  # same lines, other order
    assert first == second
    assert sorted(ledger.read_text().splitlines()) == sorted((whole / "games.jsonl").read_text().splitlines())


@needs_dpkg
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the write also fails inside libsndfile's callback
def test_a_full_disk_is_one_line_and_nothing_half_written_counts(archive, catalogue, tmp_path, monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    archive.add("alpha", {f"usr/share/alpha/music/{i}.flac": sound(30, i) for i in range(4)})
    catalogue(entry("alpha"))
    whole, root, cache = (tmp_path / name for name in ("whole", "corpus", "cache"))
    assert games.main(["--corpus", str(whole), "--cache", str(cache)]) == 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with monkeypatch.context() as patch:
        patch.setattr(games, "unpack", _limited_after(games.unpack, resource, 200_000))
        try:
            assert games.main(["--corpus", str(root), "--cache", str(cache)]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, previous)
    message = capsys.readouterr().err
    assert "File too large" in message
    assert message.endswith("what is recorded stays, run it again to go on\n")
    assert list(root.rglob("*.flac")) == []
    assert games.main(["--corpus", str(root), "--cache", str(cache)]) == 0
    assert {**contents(root), "games.jsonl": b""} == {**contents(whole), "games.jsonl": b""}


def _limited_after(function, resource, size):
    """``function``, and from then on no file may grow above ``size`` bytes, as on a full disk."""

    def limited(*arguments):
        result = function(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return result

    return limited


@needs_dpkg
def test_what_the_catalogue_no_longer_gives_is_removed(archive, catalogue, tmp_path, capsys):
    root = tmp_path / "corpus"
    for seed, package in enumerate(("alpha", "beta")):
        archive.add(
            package, {f"usr/share/{package}/music/{name}.flac": sound(30, 10 * seed + i) for i, name in enumerate("ab")}
        )
    catalogue(entry("alpha"), entry("beta"))
    assert games.main(["--corpus", str(root)]) == 0
    assert len(manifest(root)) == 4
    catalogue(entry("alpha", "test", leave_out={"*/b.flac": "jingles"}))
    assert games.main(["--corpus", str(root)]) == 0
    assert set(manifest(root)) == {"test/games/alpha/a-0000.flac"}
    assert [path.relative_to(root).as_posix() for path in root.rglob("*.flac")] == ["test/games/alpha/a-0000.flac"]
    assert len((root / "games.jsonl").read_text().splitlines()) == 1
    assert "1 x jingles; 4 clips removed" in capsys.readouterr().out


@needs_dpkg
def test_building_some_packages_leaves_the_others_alone(archive, catalogue, tmp_path):
    root = tmp_path / "corpus"
    for seed, package in enumerate(("alpha", "beta")):
        archive.add(package, {f"usr/share/{package}/music/a.flac": sound(30, seed)})
    catalogue(entry("alpha"), entry("beta"))
    assert games.main(["--corpus", str(root), "--packages", "alpha"]) == 0
    assert games.main(["--corpus", str(root), "--packages", "beta"]) == 0
    assert len(manifest(root)) == 2


def test_without_apt_there_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert games.main(["--corpus", str(tmp_path / "corpus")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "apt-get, apt-cache, dpkg-deb not found" in message
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("seconds", "starts"),  # of the test part
    [
        (20, [0]),
        (49.9, [0]),
        (50, [0, 30]),
        (240, [0, 30, 60, 90, 120, 150, 180, 210]),
        (450, [0, 60, 120, 180, 240, 300, 360, 420]),
        (3600, [0, 510, 1020, 1530, 2040, 2550, 3060, 3570]),
    ],
)
def test_excerpts_lie_side_by_side_or_evenly_spread(seconds, starts):
    assert games.excerpt_starts(seconds, 8) == starts


@pytest.mark.parametrize("most", [8, 22])
@pytest.mark.parametrize("seconds", [20, 31, 50, 263, 271, 999, 5000.5])
def test_excerpts_never_overlap_nor_leave_the_track(seconds, most):
    starts = games.excerpt_starts(seconds, most)
    assert len(starts) <= most
    assert all(np.diff(starts) >= games.EXCERPT_SECONDS)
    assert starts[-1] + games.MIN_SECONDS <= seconds


@pytest.mark.parametrize("seconds", range(230, 7300, 29))
def test_more_excerpts_keep_the_places_of_fewer(seconds):
    assert set(games.excerpt_starts(seconds, 8)) <= set(games.excerpt_starts(seconds, games.MAX_EXCERPTS["train"]))


@needs_dpkg
def test_a_long_track_gives_more_to_training_than_to_the_test(archive, catalogue, tmp_path):
    root = tmp_path / "corpus"
    archive.add("alpha", {"usr/share/alpha/music/x.flac": sound(300, 1)})
    archive.add("beta", {"usr/share/beta/music/y.flac": sound(300, 2)})
    catalogue(entry("alpha"), entry("beta", "test"))
    assert games.main(["--corpus", str(root)]) == 0
    of_part = {
        part: sorted(row["start_seconds"] for row in manifest(root).values() if row["source"] == name)
        for part, name in (("train", "alpha"), ("test", "beta"))
    }
    assert (len(of_part["train"]), len(of_part["test"])) == (10, 8)


@needs_dpkg
def test_an_artist_of_the_test_part_is_not_trained_on(archive, catalogue, tmp_path, capsys):
    root = tmp_path / "corpus"
    files = {"one.flac": sound(30, 1, artist="Some One"), "two.flac": sound(30, 2, artist="Other")}
    archive.add("alpha", {f"usr/share/alpha/music/{name}": content for name, content in files.items()})
    archive.add("beta", {"usr/share/beta/music/y.flac": sound(30, 3, artist="some ONE")})
    catalogue(entry("alpha"), entry("beta", "test"))
    assert games.main(["--corpus", str(root)]) == 0
    assert set(manifest(root)) == {"test/games/beta/y-0000.flac", "train/games/alpha/two-0000.flac"}
    assert "1 x artist of the test part" in capsys.readouterr().out


def test_the_last_paragraph_that_matches_gives_the_licence():
    paragraphs = read_copyright(COPYRIGHT)
    assert licence_of("src/main.c", paragraphs) == "GPL-2+"
    assert licence_of("data/music/deep/er/a.ogg", paragraphs) == "CC-BY-SA-3.0"
    assert licence_of("data/music/borrowed.ogg", paragraphs) == "CC-BY-NC-3.0"
    assert licence_of("data/music/borrowed2.ogg", paragraphs) == "CC-BY-SA-3.0"
    assert licence_of("a.ogg", read_copyright("Just text: GPL")) == ""


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a/b", True),
        ("a/*.ogg", "a/b/c.ogg", True),
        ("./a/?.ogg", "a/b.ogg", True),
        ("a/?.ogg", "a/bc.ogg", False),
        ("a[1].ogg", "a[1].ogg", True),
        ("a.ogg", "axogg", False),
        ("music/", "music/a.ogg", False),
    ],
)
def test_patterns_of_copyright_files(pattern, path, matches):
    assert glob_matches(pattern, path) is matches


def test_the_catalogue_that_ships_is_whole():
    packages = games.load_catalogue()
    names = [package.package for package in packages]
    assert len(set(names)) == len(names) >= 40
    assert [package.part for package in packages] == sorted(package.part for package in packages)  # test first
    excluded = json.loads(games_catalogue.CATALOGUE.read_text(encoding="utf-8"))["excluded"]
    assert all(entry["reason"] for entry in excluded)
    assert not {entry["package"] for entry in excluded} & set(names)
    assert all(package.notes for package in packages if package.licence), "a licence read by hand says what was read"


def test_wrong_names_and_wrong_entries_are_refused(catalogue, tmp_path, monkeypatch):
    packages = games.load_catalogue()
    with pytest.raises(InputError, match="--packages nosuch: not in the catalogue"):
        games.chosen_packages(packages, "zaz-data,nosuch")
    catalogue(entry("alpha", "valid"))
    with pytest.raises(InputError, match="alpha has part 'valid'"):
        games.load_catalogue()
    catalogue({"package": "alpha", "part": "train"})
    with pytest.raises(InputError, match="is not one of a package"):
        games.load_catalogue()
