"""Tiny exported models for all tests that need a genuine one: one that places music, one that also describes it."""

import dataclasses
from pathlib import Path

from shared import made_once
from synthetic import SMALL


def tiny_model_path() -> Path:
    """saved_models/tiny with one version: the network at its smallest."""
    return made_once("tiny", _export)


def _export(base: Path) -> None:
    import keras
    from thin_network import thin_blocks

    from msim_tf.export.export import export_model
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS

    keras.utils.set_random_seed(7)  # the same weights, whichever test asks first
    network = dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)
    with thin_blocks():
        model = build_network(network, SMALL)
    export_model(model, network, SMALL, base, training={})


WORDS = {"genre": ("rock", "jazz"), "mood": ("calm", "sad", "happy"), "instrument": ("guitar", "speech", "noise")}


def describing_model_path() -> Path:
    """saved_models/describing with one version: all six dimensions, heads with untrained weights."""
    return made_once("describing", _export_describing)


def _export_describing(base: Path) -> None:
    import keras
    from thin_network import thin_blocks

    from msim_tf.export.export import export_model
    from msim_tf.model.network import build_network
    from msim_tf.model.params import NETWORK_PRESETS

    keras.utils.set_random_seed(7)
    network = dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.03, subspace_width=4)
    with thin_blocks():
        model = build_network(network, SMALL)
    export_model(model, network, SMALL, base, training={}, heads=untrained_heads())


def untrained_heads():
    """Heads for a network with subspaces of 4 coordinates."""
    from msim_tf.model.description_heads import DescriptionHeads, build_key_head, build_tempo_head, build_word_head

    models = {"words": build_word_head(16, WORDS), "tempo": build_tempo_head(SMALL, 1), "key": build_key_head(SMALL, 1)}
    return DescriptionHeads(WORDS, models, {"key": {"exact": 0.04}})
