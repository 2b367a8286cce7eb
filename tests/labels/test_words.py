"""What is known of words, from labels and from a teacher."""

import numpy as np

from msim_tf.embeddings import Embeddings
from msim_tf.labels.encoding import encode
from msim_tf.labels.tables import Labels
from msim_tf.labels.words import learnable, word_targets

TRACKS = tuple(f"t{i:02d}" for i in range(40))


def teacher_of(scores, tags):
    return Embeddings("teacher", TRACKS, np.asarray(scores, np.float32), None, {"tags": list(tags)})


def test_a_labelled_track_settles_every_word_of_its_dimension_and_others_stay_unknown():
    labels = Labels({"t00": {"mood": ("calm",)}, "t01": {"mood": ("sad",)}, "t02": {"genre": ("rock",)}})
    result = word_targets(encode(labels, TRACKS[:4], ("genre", "mood", "tempo")))
    assert result.words == {"genre": ("rock",), "mood": ("sad", "calm")}
    np.testing.assert_array_equal(result.targets["mood"], [[-1, 1], [1, -1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(result.targets["genre"][:, 0], [0, 0, 1, 0])


def test_what_is_not_labelled_as_noise_is_not_noise():
    labels = Labels({"t00": {"instrument": ("noise",)}, "t01": {"instrument": ("guitar",)}})
    result = word_targets(encode(labels, TRACKS[:3], ("instrument",)))
    assert result.words["instrument"] == ("guitar", "noise")
    np.testing.assert_array_equal(result.targets["instrument"], [[-1, 1], [1, -1], [0, -1]])
    # Of genres it is one like any other.
    noisy = word_targets(encode(Labels({"t00": {"genre": ("noise",)}}), TRACKS[:2], ("genre",)))
    np.testing.assert_array_equal(noisy.targets["genre"], [[1], [0]])


def test_a_teacher_settles_its_clear_cases_only():
    logits = np.linspace(-6, 3, 40)
    result = word_targets(
        encode(Labels(), TRACKS, ("genre",)), teacher_of(np.stack([logits, -logits], 1), ["rock", "x"])
    )
    # The tag "x" is in no dimension. A tenth of the tracks is clearly rock, six tenths are clearly not.
    assert result.words == {"genre": ("rock",)}
    np.testing.assert_array_equal(result.targets["genre"][:, 0], [-1] * 24 + [0] * 12 + [1] * 4)


def test_a_word_that_the_teacher_itself_doubts_fits_no_track():
    logits = np.linspace(-9, -5, 40)
    result = word_targets(encode(Labels(), TRACKS, ("genre",)), teacher_of(logits[:, None], ["country"]))
    assert result.targets["genre"].max() == 0


def test_synonyms_are_one_word_and_labels_overrule_the_teacher():
    logits = np.linspace(-6, 3, 40)
    labels = Labels({"t00": {"genre": ("Hip-Hop",)}, "t39": {"genre": ("rock",)}})
    encoded = encode(labels, TRACKS, ("genre",))
    result = word_targets(encoded, teacher_of(np.stack([logits, logits], 1), ["hiphop", "Hip-Hop"]))
    column = result.targets["genre"][:, result.words["genre"].index("Hip-Hop")]
    assert column[0] == 1 and column[39] == -1 and column[38] == 1 and column[1] == -1


def test_two_teachers_say_one_word():
    logits = np.linspace(-6, 3, 40)
    meta = {"tags": ["a/rock", "a/jazz", "b/rock", "b/piano"], "teachers": ["a", "b"]}
    scores = np.stack([logits, -logits, logits - 1, logits], 1).astype(np.float32)
    teacher = Embeddings("t", TRACKS, scores, None, meta)
    result = word_targets(encode(Labels(), TRACKS, ("genre", "instrument")), teacher)
    assert result.words == {"genre": ("rock", "jazz"), "instrument": ("piano",)}
    assert (result.targets["genre"][:, 0] > 0).sum() == 4


def test_tracks_that_the_teacher_has_not_heard_are_unknown():
    teacher = Embeddings("t", TRACKS[:30], np.linspace(-6, 3, 30, dtype=np.float32)[:, None], None, {"tags": ["rock"]})
    result = word_targets(encode(Labels(), TRACKS, ("genre",)), teacher)
    assert not result.targets["genre"][30:].any() and (result.targets["genre"][:30] > 0).sum() == 3


def test_words_of_too_few_tracks_are_not_learnt():
    values = {f"t{i:02d}": {"mood": ("calm" if i < 4 else "sad",)} for i in range(12)}
    result = word_targets(encode(Labels(values), TRACKS[:12], ("mood",)))
    assert learnable(result, np.arange(12)).words == {}  # four calm tracks, so there are but four that are not sad
    values["t04"] = {"mood": ("calm",)}
    result = word_targets(encode(Labels(values), TRACKS[:12], ("mood",)))
    assert learnable(result, np.arange(12)).words == {"mood": ("sad", "calm")}
    assert learnable(result, np.arange(4, 12)).words == {}
