"""Why nothing is found: each reason caused in turn, its counts by hand."""

import pytest

from msim_tf.embeddings import Embeddings
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.reasons import why_nothing

METADATA = {
    "a": {"tempo": 90, "key": "A minor", "mood": ["calm"], "artist": "Anna"},
    "b": {"tempo": 92, "key": "C major", "mood": ["calm"], "genre": ["jazz"], "artist": "Anna"},
    "c": {"tempo": 180, "genre": ["Jazz"], "artist": "Björn"},
}


@pytest.fixture
def small(embeddings):
    few = Embeddings("few", ("a", "b", "c"), embeddings.embeddings[:3], embeddings.layout, embeddings.meta)
    return Index.build(few, METADATA)


@pytest.mark.parametrize(
    "filters, reason",
    [
        (Filters(years=(1990, 1999)), "no track of this library has a year: years come from the tags of the files"),
        (Filters(bpm=(100, 120)), "no track of this library has a tempo from 100 to 120 bpm"),
        (Filters(bpm=(1, 60)), "no track of this library has a tempo up to 60 bpm"),
        (Filters(bpm=(200, 1000)), "no track of this library has a tempo from 200 bpm"),
        (Filters(keys=("D minor", "E minor")), "no track of this library has the key D minor or E minor"),
        (
            Filters(tags=("jazz", "sad"), artists=("Cleo",)),
            "no track of this library has the artist Cleo; no track of this library has the tag 'sad'",
        ),
        (
            Filters(keys=("A minor",), tags=("jazz", "calm")),
            "no track passes all filters: 1 has the key A minor, 2 have the tag 'jazz', 2 have the tag 'calm'",
        ),
        (Filters(bpm=(88, 91)), "no track is left but those of the query"),
    ],
)
def test_the_filter_that_leaves_nothing_is_named(small, filters, reason):
    assert why_nothing(small, filters, ["a"]) == reason


def test_there_is_no_reason_where_something_is_left(small):
    assert why_nothing(small, None, ["a"]) == why_nothing(small, Filters(bpm=(45, 46), octaves=True)) == ""


def test_fields_that_no_track_has_are_the_reason_whatever_else_is_asked_for(small):
    small.update_metadata({name: {"genre": ["jazz"]} for name in METADATA})
    reason = why_nothing(small, Filters(bpm=(90, 100), keys=("A minor",), tags=("sad",)))
    assert reason == (
        "no track of this library has a tempo: msim index --annotate estimates tempo and key; "
        "no track of this library has a key: msim index --annotate estimates tempo and key"
    )


def test_an_empty_library_and_one_of_a_single_track(small):
    small.remove(["b", "c"])
    assert why_nothing(small, None, ["a"]) == "no track is left but those of the query"
    small.remove(["a"])
    assert why_nothing(small, Filters(tags=("jazz",))).startswith("the library is empty")
