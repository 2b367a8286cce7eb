"""madmom's accuracy on the renders: octaves, tolerance and keys are counted as they are defined."""

import pytest

from msim_tf.errors import InputError
from msim_tf.evaluate.statistics import wilson_interval
from msim_tf.labels.annotations import Annotation
from tools.corpus.judge_description import judge_annotations
from tools.corpus.madmom_accuracy import lines, outcomes, tempo_ratio


def heard(tempo, key):
    return Annotation(tempo, 0.0, key, 0.0)


@pytest.mark.parametrize(
    ("tempo", "any_octave", "exact"),
    [(120.0, 0.0, 0.0), (60.0, 0.0, 0.5), (240.0, 0.0, 1.0), (126.0, 0.05, 0.05), (88.0, 0.2666, 0.2666)],
)
def test_ratios_to_the_true_tempo(tempo, any_octave, exact):
    assert tempo_ratio(tempo, 120.0, octaves=False) == pytest.approx(exact, abs=1e-3)
    assert tempo_ratio(tempo, 120.0, octaves=True) == pytest.approx(any_octave, abs=1e-3)


def test_counts_by_question():
    said = {
        "a": heard(124.7, "Db major"),
        "b": heard(62.0, "A minor"),
        "c": heard(None, "C major"),
        "d": heard(90.0, "G major"),
    }
    known = {
        "a": {"tempo": ("120",), "key": ("C# major",)},  # 3.9 % off, enharmonically right
        "b": {"tempo": ("120",), "key": ("C major",)},  # half the tempo, the relative key
        "c": {"tempo": ("100",)},
        "d": {"genre": ("jazz",)},
    }
    actual = outcomes(said, known)
    assert actual == {
        "tempo, any octave": [True, True, False],
        "tempo, our octave": [True, False, False],
        "key": [True, False],
    }
    interval = wilson_interval(2, 3)
    assert next(iter(lines(actual))) == f"tempo, any octave  0.667 ({interval.low:.3f}-{interval.high:.3f}), 3 clips"
    assert outcomes({"d": heard(90.0, "G major")}, known) == {}


def test_an_annotator_is_judged_on_the_tracks_of_a_store(labelled_store):
    labels = labelled_store.labels.values
    exact = {
        track: (float(own.get("tempo", ("100",))[0]), own.get("key", ("C major",))[0]) for track, own in labels.items()
    }
    said = {track: heard(tempo, key) for track, (tempo, key) in exact.items()}
    result = judge_annotations(said, labelled_store)
    assert [cell["share"] for own in result.values() for cell in own.values()] == [1, 1, 1, 1]

    # Of n tempi that are known one is not found, another found an octave too high.
    first, second, *others = [track for track, own in labels.items() if "tempo" in own]
    said[first] = heard(None, exact[first][1])
    said[second] = heard(2 * exact[second][0], exact[second][1])
    tempo = judge_annotations(said, labelled_store)["madmom tempo"]
    assert tempo["within 4 %"]["share"] == pytest.approx(len(others) / (len(others) + 2))
    assert tempo["octaves folded"]["share"] == pytest.approx((len(others) + 1) / (len(others) + 2))
    del said[first]
    with pytest.raises(InputError, match=rf"1 tracks of .* are not annotated, e.g. {first}"):
        judge_annotations(said, labelled_store)
