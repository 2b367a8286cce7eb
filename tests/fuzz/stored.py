"""Flipped bits in everything that msim writes: each is either told in one line or without effect, never another answer.

A case damages one file of one artefact and reads the artefact as its users do. Allowed is what reading the whole one
gives, or ``InputError``; anything else, other numbers above all, fails.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from commands import msim
from synthetic import SMALL, some_labels, write_clip
from tiny_model import tiny_model_path

from fuzz.audio import tone
from fuzz.cases import Case, Target
from fuzz.mutation import flip_bits, truncate
from msim_tf.errors import InputError

_CASES = 25  # damaged copies in one case
_SOUND = "sound.wav"


@dataclass(frozen=True)
class Artefact:
    """Something that msim writes.

    Attributes:
        make: writes it to a path; a second path is the folder of what it is made of.
        read: everything that a user can see of it, as values that can be compared.
        weight: how often it is chosen; what takes long to read is chosen less often.
    """

    make: Callable[[Path, Path], object]
    read: Callable[[Path], Any]
    weight: int


def _make_store(path: Path, sources: Path) -> None:
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.store_database import write_labels
    from msim_tf.data.teacher_files import write_teacher
    from msim_tf.data.writer import extract_folder
    from msim_tf.embeddings import Embeddings

    for i in range(4):
        write_clip(sources / f"artist{i % 2}" / f"{i}.wav", 2, i)
    extract_folder(sources, path, SMALL)
    identifiers = FeatureStore(path).identifiers
    write_labels(path, some_labels(identifiers))
    scores = np.random.default_rng(1).normal(size=(len(identifiers), 2)).astype(np.float32)
    write_teacher(path, identifiers, Embeddings("t", tuple(identifiers), scores, meta={"tags": ["rock", "sad"]}))


def _read_store(path: Path) -> Any:
    from msim_tf.data.store import FeatureStore

    store = FeatureStore(path)
    clips = [store.read_clip(row) for row in range(len(store))]
    arrays = [array.tobytes() for clip in clips for array in (clip.mel, clip.onset, clip.cens)]
    teacher = store.teacher
    return (
        arrays,
        list(store.identifiers),
        store.labels.to_json(),
        store.params.to_json(),
        None if teacher is None else (teacher.identifiers, teacher.embeddings.tobytes(), teacher.meta),
    )


def _make_library(path: Path, sources: Path) -> None:
    sources.mkdir()
    for number in range(5):
        soundfile.write(sources / f"{number}.wav", tone(number), 16_000)
    status, _, err = msim("index", sources, path, "--model", tiny_model_path())
    assert status == 0, err


def _read_library(path: Path) -> Any:
    """Every distance and explanation, as the command prints them."""
    answers = []
    for name in ("0.wav", "3.wav"):
        status, out, err = msim("query", path, name, "-k", 10, "--each", "--explain", "--json")
        if status == 2:
            raise InputError(err)
        answers.append(out)
    return answers


def _make_embeddings(path: Path, sources: Path) -> None:
    from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
    from msim_tf.embeddings import save_embeddings

    vectors = np.random.default_rng(2).normal(size=(6, 12)).astype(np.float32)
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
    names = [f"{i}.ogg" for i in range(6)]
    save_embeddings(path, identifiers=names, embeddings=vectors, layout=layout, meta={"model": "m", "version": "1"})


def _read_embeddings(path: Path) -> Any:
    from msim_tf.embeddings import load_embeddings

    loaded = load_embeddings(path)
    return loaded.identifiers, loaded.embeddings.tobytes(), loaded.layout, loaded.meta


def _make_profile(path: Path, sources: Path) -> None:
    from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
    from msim_tf.search.weights import learn_profile, save_profile

    differences = np.random.default_rng(3).normal(size=(40, len(DIMENSION_NAMES)))
    save_profile(path, learn_profile("me", differences, EmbeddingLayout.equal(DIMENSION_NAMES, 12)))


def _read_profile(path: Path) -> Any:
    from msim_tf.search.weights import load_profile

    return load_profile(path)


def _make_export(path: Path, sources: Path) -> None:
    shutil.copytree(tiny_model_path(), path)


def _read_export(path: Path) -> Any:
    """The embedding of a sound, and what the model says of itself."""
    from msim_tf.export.embedder import Embedder

    embedder = Embedder(path)
    sound = path.parent / _SOUND
    if not sound.exists():
        soundfile.write(sound, tone(4), 16_000)
    features = embedder.extract(sound)
    assert not isinstance(features, str), features
    return embedder.embed_features(features).tobytes(), embedder.metadata.name, embedder.metadata.features.digest


ARTEFACTS = {
    "store": Artefact(_make_store, _read_store, 8),
    "library": Artefact(_make_library, _read_library, 8),
    "embeddings.npz": Artefact(_make_embeddings, _read_embeddings, 4),
    "profile.json": Artefact(_make_profile, _read_profile, 4),
    "model": Artefact(_make_export, _read_export, 1),
}


def _prepare(shared: Path, stack: ExitStack) -> Callable[[Case], Counter]:
    expected = {}
    for name, artefact in ARTEFACTS.items():
        artefact.make(shared / name, shared / f"sources of {name}")
        expected[name] = artefact.read(shared / name)
    return partial(_run, shared=shared, expected=expected)


def _run(case: Case, *, shared: Path, expected: dict[str, Any]) -> Counter:
    counts: Counter = Counter()
    names = list(ARTEFACTS)
    weights = [artefact.weight for artefact in ARTEFACTS.values()]
    for number in range(_CASES):
        (name,) = case.random.choices(names, weights)
        # Under one path for all copies, since a library may say where it is.
        copy = case.folder / str(number) / name
        _copy(shared / name, copy)
        damaged = _damage(copy, case)
        try:
            read = ARTEFACTS[name].read(copy)
        except InputError as error:
            assert "\n" not in str(error).strip(), f"{damaged}: more than one line: {error}"
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{damaged}: {type(error).__name__}: {error}") from error
        else:
            assert read == expected[name], f"{damaged}: another answer, without a word"
            counts["without effect"] += 1
        shutil.rmtree(copy.parent)
    return counts


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir()
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _damage(artefact: Path, case: Case) -> Path:
    """Damages one file of an artefact; which."""
    files = [artefact] if artefact.is_file() else sorted(path for path in artefact.rglob("*") if path.is_file())
    path = case.random.choice([path for path in files if path.stat().st_size])
    how = case.random.choice([flip_bits, flip_bits, flip_bits, truncate])
    path.write_bytes(how(path.read_bytes(), case.random))
    return path


TARGET = Target(_prepare, share=0.3, longest=200.0)
