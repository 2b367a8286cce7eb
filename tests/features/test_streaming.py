import numpy as np
import pytest

from msim_tf.features.streaming import in_turns, whole_frames


@pytest.mark.parametrize("lengths", [[], [1], [700], [3, 0, 500, 11], [64] * 20, [5000]])
def test_whole_frames_are_the_frames_of_the_padded_clip(rng, lengths):
    clip = rng.normal(size=sum(lengths)).astype(np.float32)
    pieces = np.split(clip, np.cumsum(lengths)[:-1]) if lengths else []
    hop, margin, frames = 16, 24, 7

    cut = list(whole_frames(pieces, frames, hop=hop, margin=margin))

    padded = np.pad(clip, margin)
    expected = [padded[start : start + 2 * margin] for start in range(0, len(padded) - 2 * margin + 1, hop)]
    actual = [
        block[start : start + 2 * margin] for block in cut for start in range(0, len(block) - 2 * margin + 1, hop)
    ]
    np.testing.assert_array_equal(actual, expected)
    assert all(len(block) == (frames - 1) * hop + 2 * margin for block in cut[:-1])


def test_numbers_of_any_width_become_float32(rng):
    clip = rng.normal(size=300)

    cut = list(whole_frames([clip[:10], clip[10:]], 7, hop=16, margin=24))

    assert {block.dtype for block in cut} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(cut[0][24:], clip[: len(cut[0]) - 24].astype(np.float32))


def test_turns_keep_the_blocks_and_take_them_together():
    log = []

    def made():
        for number in range(5):
            log.append(f"made {number}")
            yield np.full(40, number)

    for block in in_turns(made(), 100):
        log.append(f"used {block[0]}")

    turns = ["made 0", "made 1", "made 2", "used 0", "used 1", "used 2", "made 3", "made 4", "used 3", "used 4"]
    assert log == turns
