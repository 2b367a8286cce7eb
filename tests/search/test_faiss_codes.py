"""Codes of rows against what FAISS gives for all of them at once, and the axes they stand on against theory."""

import subprocess
import sys

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.search.faiss_codes import balanced_axes, load_codes, train_codes
from msim_tf.search.ranking import normalised

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)


@pytest.mark.parametrize("widths", [(8,) * 6, (5, 8, 7, 6, 9, 11), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_balanced_axes_turn_each_subspace_and_share_its_variance_out(rng, widths, coordinates):
    layout = EmbeddingLayout(DIMENSION_NAMES, widths)
    sample = rng.normal(size=(500, layout.size)) @ np.diag(1 / np.arange(1, layout.size + 1))
    axes = balanced_axes(sample, layout, coordinates)
    # A rotation, with rows of zeros that fill up: lengths and products stay.
    np.testing.assert_allclose(axes.T @ axes, np.eye(layout.size), atol=1e-9)
    assert len(axes) == sum(-(-width // coordinates) * coordinates for width in widths)
    row = 0
    for part, width in zip(layout.slices.values(), widths):
        block = axes[row : row + -(-width // coordinates) * coordinates]
        outside = np.delete(block, np.r_[part], axis=1)
        assert not outside.any()
        used = block[block.any(1)]
        turned = np.cov((sample @ used.T), rowvar=False).reshape(width, width)
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-9)  # principal axes
        if width % coordinates == 0 and width > coordinates:
            products = np.log(np.diag(turned)).reshape(-1, coordinates).sum(1)
            neighbours = np.log(np.sort(np.diag(turned))).reshape(-1, coordinates).sum(1)
            assert np.ptp(products) < np.ptp(neighbours)
        row += len(block)


def test_codes_in_parts_order_as_codes_in_one(rng, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    vectors = normalised(rng.normal(size=(4321, LAYOUT.size)), LAYOUT)
    one = train_codes(vectors, LAYOUT, coordinates=2)
    one.save(tmp_path / "trained.npz")
    one.add(vectors)
    monkeypatch.setattr("msim_tf.search.faiss_codes._PART_ROWS", 1000)
    parted = load_codes(tmp_path / "trained.npz", LAYOUT)
    for start, stop in ((0, 700), (700, 3500), (3500, 4321)):
        parted.add(vectors[start:stop])
    assert [part.ntotal for part in parted.whole.parts] == [1000, 1000, 1000, 1000, 321]
    parted.save(tmp_path / "parted.npz")
    opened = load_codes(tmp_path / "parted.npz", LAYOUT)
    assert len(opened) == len(parted) == 4321
    for query in normalised(rng.normal(size=(5, LAYOUT.size)), LAYOUT):
        alone = np.where(np.arange(LAYOUT.size) < LAYOUT.widths[0], query, 0)
        for order, weighted in (("order", query), ("order_alone", alone)):
            index = (one.whole if order == "order" else one.alone[0]).parts[0]
            asked = weighted if order == "order" else weighted[: LAYOUT.widths[0]]
            scores, rows = (result[0] for result in index.search(asked[None], 4321))
            score = dict(zip(rows.tolist(), scores.tolist()))
            for codes in (parted, opened):
                actual = getattr(codes, order)(weighted, 300).tolist()
                # Many rows have the same score, so it is scores that must be the same.
                assert len(set(actual)) == 300 and [score[row] for row in actual] == scores[:300].tolist()
    parted.reset()
    assert len(parted) == 0 and len(parted.whole.parts) == 1
    parted.add(vectors[:1500])
    assert parted.whole.order(vectors[1200], 1500).max() == 1499


_FORKED = """
import os
import numpy as np
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.search import faiss_codes
from msim_tf.search.ranking import normalised

faiss_codes._PART_ROWS = 1000
layout = EmbeddingLayout(("genre", "tempo"), (8, 8))
vectors = normalised(np.random.default_rng(0).normal(size=(3000, 16)), layout)
coded = faiss_codes.train_codes(vectors, layout, coordinates=2)
coded.add(vectors)
before = coded.order(vectors[0], 50)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(coded.order(vectors[0], 50), before) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_process_shares_a_query_among_threads_of_its_own():
    pytest.importorskip("faiss")
    subprocess.run([sys.executable, "-c", _FORKED], check=True, timeout=60)
