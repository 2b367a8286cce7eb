"""What a model says of tracks, in a library: beside tags and annotations, never above them."""

import dataclasses
import json

import pytest
from click.testing import CliRunner
from synthetic import write_clip
from tiny_model import describing_model_path

from msim_tf.cli import cli
from msim_tf.export.description import Description
from msim_tf.library.build import update_library
from msim_tf.library.catalog import load_catalog
from msim_tf.library.descriptions import annotated, with_description, without_description
from msim_tf.library.update_options import UpdateOptions
from msim_tf.search.filters import Filters
from msim_tf.search.query import allowed_rows

SAID = Description(
    True,
    {"genre": {"jazz": 0.9, "rock": 0.01}, "mood": {"calm": 0.7, "sad": 0.2}},
    ((92.04, 0.8), (184.1, 0.1), (46.0, 0.05)),
    (("A minor", 0.9), ("C major", 0.1)),
)


def test_a_description_fills_what_nobody_else_says():
    tagged = {"title": "Song", "genre": ["Blues"], "key": "C major"}
    described = with_description(tagged, SAID)
    assert described["genre"] == ["Blues"] and described["key"] == "C major"
    assert described["mood"] == ["calm"] and described["tempo"] == 92.0
    assert described["described"]["fields"] == ["mood", "tempo"]
    assert described["described"]["words"] == {"genre": {"jazz": 0.9}, "mood": {"calm": 0.7, "sad": 0.2}}
    assert without_description(described) == tagged
    json.dumps(described)


def test_a_year_is_better_than_a_guessed_decade():
    eighties = dataclasses.replace(SAID, words={"era": {"80s": 0.9}})
    assert "era" not in with_description({"year": 1994}, eighties)
    assert with_description({}, eighties)["era"] == ["80s"]


def test_another_description_replaces_the_first():
    first = with_description({"title": "Song"}, SAID)
    second = with_description(first, dataclasses.replace(SAID, words={"mood": {"sad": 0.8}}, tempo=(), key=()))
    assert second["mood"] == ["sad"] and "tempo" not in second and "genre" not in second
    assert with_description(first, None) == {"title": "Song"}


def test_annotations_come_before_the_model():
    described = with_description({"title": "Song"}, SAID)
    better = annotated(described, {"tempo": 46.0})
    assert better["tempo"] == 46.0 and better["key"] == "A minor" and better["mood"] == ["calm"]
    assert better["described"]["fields"] == ["genre", "key", "mood"]
    # A later run without an estimate of the tempo goes back to nothing, and does not invent one.
    assert "tempo" not in annotated(better, {"key": "C major"})
    assert annotated({"title": "x", "tempo": 90.0}, {"key": "D major"}) == {"title": "x", "key": "D major"}


class Saying:
    """An embedder whose model says the same of every track."""

    def __init__(self, embedder, said):
        self._embedder, self._said = embedder, said
        self.metadata = embedder.metadata
        self.extract, self.read_tags = embedder.extract, embedder.read_tags

    def hear(self, features):
        return self._embedder.hear(features)[0], self._said


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    from msim_tf.export.embedder import Embedder

    folder = tmp_path_factory.mktemp("heard")
    for number in range(3):
        write_clip(folder / "Music" / f"{number}.wav", 4, number)
    embedder = Embedder(describing_model_path())
    update_library(folder / "Music", folder / "library", Saying(embedder, SAID), UpdateOptions())
    embedder.close()
    return folder / "library"


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_indexed_library_is_filtered_by_what_was_heard(library):
    index = load_catalog(library).open_index()
    for filters, count in (
        (Filters(bpm=(90, 95)), 3),
        (Filters(bpm=(100, 120)), 0),
        (Filters(keys=("Am",)), 3),
        (Filters(tags=("calm", "jazz")), 3),
        (Filters(tags=("sad",)), 0),
    ):
        assert allowed_rows(index, filters).sum() == count


def test_info_marks_what_the_model_said(library):
    text = run("info", library, "0.wav", "-k", 0)
    assert "92 bpm  (heard by the model)" in text and "A minor  (heard by the model)" in text
    metadata = json.loads(run("info", library, "0.wav", "-k", 0, "--json"))["metadata"]
    assert metadata["described"]["tempo"][0] == {"bpm": 92.0, "probability": 0.8}


def test_the_real_model_describes_while_indexing(tmp_path):
    write_clip(tmp_path / "Music" / "a.wav", 4, 1)
    run("index", tmp_path / "Music", tmp_path / "library", "--model", describing_model_path())
    metadata = load_catalog(tmp_path / "library").open_index().metadata("a.wav")
    assert set(metadata["described"]["words"]) == {"genre", "mood", "instrument"}
    assert len(metadata["described"]["tempo"]) == 3
