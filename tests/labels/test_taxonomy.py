"""The tag table against the sizes that the paper publishes, and its spellings."""

from pathlib import Path

import pytest

import msim_tf.datasets
from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.files import load_json
from msim_tf.labels import taxonomy


def test_the_table_has_the_published_sizes():
    sizes = {name: len(set(taxonomy.tags(name))) for name in TAG_DIMENSION_NAMES}
    assert sizes == {"genre": 28, "mood": 12, "instrument": 5, "era": 5}


def test_every_tag_belongs_to_one_dimension_in_any_spelling():
    for name in TAG_DIMENSION_NAMES:
        for tag in taxonomy.tags(name):
            for spelling in (tag, tag.upper(), f" {tag.replace(' ', '-')} ", tag.replace(" ", "_")):
                assert taxonomy.dimension_of(spelling) == name
                assert taxonomy.canonical(name, spelling) == tag


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        ("genre", "hip hop", "Hip-Hop"),
        ("genre", "HipHop", "Hip-Hop"),
        ("genre", "R&B", "rnb"),
        ("era", "1980s", "80s"),
        ("instrument", "Male Vocalist", "male vocalists"),
        ("genre", " Shoegaze ", "shoegaze"),
        ("mood", "Rock", "rock"),  # known, but not as a mood: kept as the user's own
    ],
)
def test_canonical(dimension, value, expected):
    assert taxonomy.canonical(dimension, value) == expected


def test_unknown_tags_and_dimensions():
    assert taxonomy.dimension_of("shoegaze") is None
    with pytest.raises(InputError, match="'tempo' has no tags, expected one of genre"):
        taxonomy.canonical("tempo", "fast")
    with pytest.raises(InputError, match="blank value in dimension 'genre'"):
        taxonomy.canonical("genre", "  ")


def test_synonyms_of_teachers_resolve_to_one_word():
    for tag in ("female", "Woman", "female_vocal", "female voice", "woman singing", "female vocalists"):
        assert taxonomy.resolve(tag) == ("instrument", "female vocalists")
    assert taxonomy.resolve("no voice") == taxonomy.resolve("no vocals") == ("instrument", "no vocals")
    assert taxonomy.resolve("Rock") == ("genre", "rock") and taxonomy.resolve("classic") == ("genre", "classical")
    assert taxonomy.canonical("instrument", "Male Voice") == "male vocalists"
    for tag in ("slow", "fast", "beats", "loud", "quiet", "soft", "shoegaze"):
        assert taxonomy.resolve(tag) is None


def test_additional_words_leave_the_papers_tags_alone():
    for name in TAG_DIMENSION_NAMES:
        additional = taxonomy.words(name)[len(taxonomy.tags(name)) :]
        assert taxonomy.words(name)[: len(taxonomy.tags(name))] == taxonomy.tags(name)
        for word in additional:
            assert taxonomy.dimension_of(word) is None  # no tag of the paper
            assert taxonomy.resolve(word) == (name, word)


def test_words_are_those_of_the_magnatagatune_reader():
    table = load_json(Path(msim_tf.datasets.__file__).with_name("magnatagatune_tags.json"), "tags")["dimensions"]
    spellings = {tag: (name, word) for name, words in table.items() for word, tags in words.items() for tag in tags}
    for name in ("genre", "mood", "instrument"):
        for word in taxonomy.words(name)[len(taxonomy.tags(name)) :]:
            for tag, target in spellings.items():
                if target == (name, word) and taxonomy.resolve(tag):
                    assert taxonomy.resolve(tag) == target
            assert (name, word) in spellings.values()
