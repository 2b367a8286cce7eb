"""The tag table against the sizes that the paper publishes, and its spellings."""

import pytest

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
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
