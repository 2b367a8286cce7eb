"""A teacher's opinion: calibrated per tag, sure about the most and the least alike pairs
only, silent on what it has not heard.
"""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import zscore

from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels.encoding import encode
from msim_tf.labels.tables import Labels
from msim_tf.labels.teacher import joined_tag_names, tag_columns, teacher_tags

TAGS = ["rock", "sad", "jazz", "happy", "blues", "80s"]


@pytest.fixture
def teacher(rng):
    scores = rng.normal(size=(300, len(TAGS))).astype(np.float32) * [5, 1, 1, 1, 0.1, 1] + [9, 0, 0, 0, -4, 0]
    return Embeddings("teacher", tuple(f"{i}.ogg" for i in range(300)), scores, meta={"tags": TAGS})


def test_cosines_of_standardised_tags(teacher):
    heard = teacher_tags(teacher, teacher.identifiers, ("genre", "mood", "era", "tempo"))
    assert set(heard) == {"genre", "mood"}  # one era tag cannot say what is alike
    columns = zscore(teacher.embeddings[:, [0, 2, 4]], axis=0)
    expected = 1 - cdist(columns, columns, "cosine")
    np.testing.assert_allclose(heard["genre"].vectors @ heard["genre"].vectors.T, expected, atol=1e-5)


def test_a_tenth_is_similar_and_most_of_the_rest_dissimilar(teacher):
    every = np.arange(300)
    heard = teacher_tags(teacher, teacher.identifiers, ["genre"])["genre"]
    relation = heard.relation(every, every)
    others = ~np.eye(300, dtype=bool)
    assert np.mean(relation[others] > 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(relation[others] < 0) == pytest.approx(0.6, abs=0.01)
    cosine = heard.vectors @ heard.vectors.T
    assert cosine[relation > 0].min() > cosine[relation == 0].max() > cosine[relation < 0].max()


def test_labels_count_before_the_teacher_and_unheard_tracks_stay_unknown(teacher):
    identifiers = [*teacher.identifiers[:50], "unheard.ogg", "labelled.ogg"]
    labels = Labels(
        {"0.ogg": {"genre": ("rock",)}, "1.ogg": {"genre": ("jazz",)}, "labelled.ogg": {"genre": ("jazz",)}}
    )
    encoded = encode(labels, identifiers, ["genre"], teacher=teacher)
    every = np.arange(52)
    relation = encoded.relation("genre", every, every)
    alone = encoded.teacher["genre"].relation(every, every)
    assert relation[0, 1] == -1 and relation[1, 51] == 1 and relation[0, 51] == -1
    assert not relation[50].any() and not relation[51, 2:50].any()
    np.testing.assert_array_equal(relation[2:50, 2:50], alone[2:50, 2:50])
    np.testing.assert_array_equal(np.flatnonzero(~encoded.labelled("genre")), [50])
    part = encoded.take(np.array([5, 1, 51]))
    np.testing.assert_array_equal(part.relation("genre", [0, 1], [0, 1, 2]), relation[[5, 1]][:, [5, 1, 51]])


def test_scores_without_names_are_refused(teacher):
    with pytest.raises(InputError, match="must name its 6 columns"):
        teacher_tags(Embeddings("x", teacher.identifiers, teacher.embeddings), teacher.identifiers, ["genre"])
    assert teacher_tags(teacher, ["elsewhere.ogg"], ["genre"]) == {}


def test_two_teachers_count_alike_whatever_their_number_of_tags(teacher, rng):
    # One knows five genres and one mood, the other two genres and two moods.
    scores = rng.normal(size=(300, 4)).astype(np.float32) * [1, 7, 1, 2]
    names = joined_tag_names([("first", TAGS), ("second", ["rock", "classic", "sad", "weird"])])
    meta = {"tags": names, "teachers": ["first", "second"]}
    joined = Embeddings("two", teacher.identifiers, np.hstack([teacher.embeddings, scores]), meta=meta)
    tags = teacher_tags(joined, joined.identifiers, ("genre", "mood", "era"))
    assert set(tags) == {"genre", "mood"}
    for name, first, second in (("genre", [0, 2, 4], [0, 1]), ("mood", [1, 3], [2, 3])):
        cosines = [
            1 - cdist(columns, columns, "cosine")
            for columns in (zscore(teacher.embeddings[:, first], axis=0), zscore(scores[:, second], axis=0))
        ]
        np.testing.assert_allclose(tags[name].vectors @ tags[name].vectors.T, np.mean(cosines, axis=0), atol=1e-5)


def test_a_teacher_with_one_tag_of_a_dimension_leaves_it_to_the_other(teacher, rng):
    names = joined_tag_names([("first", TAGS), ("second", ["weird", "piano"])])
    scores = np.hstack([teacher.embeddings, rng.normal(size=(300, 2)).astype(np.float32)])
    joined = Embeddings("two", teacher.identifiers, scores, meta={"tags": names, "teachers": ["first", "second"]})
    alone = teacher_tags(teacher, teacher.identifiers, ["mood"])["mood"]
    both = teacher_tags(joined, joined.identifiers, ("mood", "instrument"))
    assert set(both) == {"mood"}
    np.testing.assert_allclose(both["mood"].vectors, alone.vectors, atol=1e-6)


def test_columns_of_several_teachers_are_told_apart_and_share_words():
    names = joined_tag_names([("A", ["rock", "female vocalists", "r&b/soul"]), ("B", ["rock", "woman"])])
    assert names == ["A/rock", "A/female vocalists", "A/r&b/soul", "B/rock", "B/woman"]
    scores = np.zeros((1, 5), np.float32)
    columns = tag_columns(Embeddings("x", ("a",), scores, meta={"tags": names, "teachers": ["A", "B"]}))
    assert [column.teacher for column in columns] == list("AAABB")
    assert [column.word for column in columns] == ["rock", "female vocalists", "r&b/soul", "rock", "female vocalists"]
    assert [column.dimension for column in columns] == ["genre", "instrument", None, "genre", "instrument"]
    # Without a list of teachers, a slash is part of a tag.
    alone = tag_columns(Embeddings("x", ("a",), scores[:, :1], meta={"tags": ["A/rock"]}))
    assert [(column.teacher, column.tag, column.dimension) for column in alone] == [("", "A/rock", None)]
