"""bfloat16 beside float32: what it does to embeddings and ranks, and its speed, over the clips of ``--store``.

A processor without instructions for bfloat16 emulates it: ranks are then as good as measured, the speed says nothing.
Overlap is the share of the ten nearest clips in float32 that are among the ten nearest when all clips were embedded in
bfloat16, and when only every second one was, as in a library that was begun in the other precision.
"""

from __future__ import annotations

import itertools
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

from tools.bench import frame

if TYPE_CHECKING:
    import numpy as np

_NEAREST = 10
_BAR = 0.99


def run(options: frame.Options) -> list[frame.Figure]:
    """The section.

    Raises:
        ValueError: if no store is named.
    """
    if not options.store:
        raise ValueError("name a store of several hundred clips by --store; msim extract makes one")
    return frame.in_pinned_process(1, _measured, options)


def _measured(options: frame.Options) -> list[frame.Figure]:
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    import numpy as np

    from msim_tf import precision
    from msim_tf.data.store import FeatureStore
    from msim_tf.export.embedder import mean_embedding
    from msim_tf.export.metadata import load_metadata
    from msim_tf.export.servable import Servable
    from msim_tf.features.segments import audible_segments
    from msim_tf.search.ranking import normalised
    from msim_tf.settings import SHIPPED_MODEL

    metadata, store = load_metadata(options.model or SHIPPED_MODEL), FeatureStore(options.store)
    clips = np.random.default_rng(0).permutation(len(store))[: 200 if options.quick else 2000]
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in precision.PRECISIONS}
    seconds: dict[str, list[float]] = {name: [] for name in precision.PRECISIONS}
    emulated = not precision.has_bfloat16()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(precision, "has_bfloat16", lambda: True))
        models = {n: stack.enter_context(Servable.load(metadata.directory, precision=n)) for n in precision.PRECISIONS}
        for clip in clips:
            features = store.read_clip(int(clip))
            starts = audible_segments(features, metadata.features)
            for name, model in models.items():

                def embed(inputs: dict[str, Any], model: Servable = model) -> np.ndarray:
                    return model.run("serving_default", {name: inputs[name] for name in metadata.inputs})["embedding"]

                begun = time.process_time()
                vectors[name].append(mean_embedding(embed, features, starts, metadata.features))
                seconds[name].append(time.process_time() - begun)

    wide, narrow = (normalised(np.stack(own), metadata.layout) for own in vectors.values())
    note = "emulated, says nothing of a processor that has it" if emulated else "processor time per clip"
    speed = frame.ratio("float32 / bfloat16", seconds["float32"], seconds["bfloat16"], note=note)
    return [speed, *figures(wide, narrow, metadata.layout)]


def figures(wide: np.ndarray, narrow: np.ndarray, layout: Any) -> list[frame.Figure]:
    """Distances of cosine by dimension, and overlaps with equal weights and by dimension.

    Args:
        wide: [n, size] of the clips in float32, every subspace of length 1.
        narrow: likewise in bfloat16.
        layout: the ``EmbeddingLayout`` of both.
    """
    import numpy as np

    lines = []
    for name, part in layout.slices.items():
        away = 1 - (wide[:, part] * narrow[:, part]).sum(1, dtype=np.float64)
        lines.append(frame.spread(f"1 - cosine, {name}", away.tolist(), unit="", note="median, by clip"))
    mixed = np.where(np.arange(len(wide))[:, None] % 2, wide, narrow)
    parts = {"equal weights": slice(None), **layout.slices}
    for (name, part), (what, other) in itertools.product(parts.items(), {"all": narrow, "every second": mixed}.items()):
        shares = overlap(wide[:, part], other[:, part]).tolist()
        bar: dict[str, Any] = {"bar": _BAR, "note": "mean, by clip"}
        lines.append(
            frame.Figure(f"top 10, {name}, {what}", statistics.fmean(shares), min(shares), max(shares), unit="", **bar)
        )
    return lines


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each row the share of its nearest rows in ``one`` that are its nearest in ``other``: [n] in [0, 1].

    Args:
        one: [n, size], n > 10; of all rows the same length, so that the greatest product is the nearest.
        other: likewise.
    """
    import numpy as np

    def nearest(matrix: np.ndarray) -> np.ndarray:
        products = matrix @ matrix.T
        np.fill_diagonal(products, -np.inf)
        return np.argsort(-products, axis=1)[:, :_NEAREST]

    return np.array([len(set(a) & set(b)) for a, b in zip(nearest(one), nearest(other))]) / _NEAREST
