"""madmom's accuracy on the renders: octaves, tolerance and keys are counted as they are defined."""

import pytest

from msim_tf.evaluate.statistics import wilson_interval
from msim_tf.labels.annotations import Annotation
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
    found = outcomes(said, known)
    assert found == {
        "tempo, any octave": [True, True, False],
        "tempo, our octave": [True, False, False],
        "key": [True, False],
    }
    interval = wilson_interval(2, 3)
    assert next(iter(lines(found))) == f"tempo, any octave  0.667 ({interval.low:.3f}-{interval.high:.3f}), 3 clips"
    assert outcomes({"d": heard(90.0, "G major")}, known) == {}
