"""msim: multi-dimensional music similarity.

One embedding per track with six subspaces (genre, mood, instrument, era, tempo, key), after Ribecky, Abeßer and
Lukashevich, "Multi-input architecture and disentangled representation learning for multi-dimensional modeling of music
similarity".

    import msim_tf

    model = msim_tf.load()
    track = model.embed("song.mp3")
    library = msim_tf.index("~/Music")
    for hit in library.similar("song.mp3", mood=1, tempo=1, era=-0.5):
        print(hit.path, hit.distance, hit.why)

Importing this package is instant. What a name needs, TensorFlow first of all, is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from msim_tf.data.pipeline import make_dataset
    from msim_tf.errors import InputError
    from msim_tf.export.model import Model, TrackEmbedding, load
    from msim_tf.library.hits import Hit, Hits
    from msim_tf.library.library import Library, index, open_library
    from msim_tf.model import losses
    from msim_tf.model.layers import SubspaceMask
    from msim_tf.model.network import build_network
    from msim_tf.search.diversity import Diversity
    from msim_tf.search.filters import Filters

# Public name -> (module, name in it; "" for the module itself).
_PUBLIC = {
    "Library": ("msim_tf.library.library", "Library"),
    "Hit": ("msim_tf.library.hits", "Hit"),
    "Hits": ("msim_tf.library.hits", "Hits"),
    "index": ("msim_tf.library.library", "index"),
    "open_library": ("msim_tf.library.library", "open_library"),
    "Filters": ("msim_tf.search.filters", "Filters"),
    "Diversity": ("msim_tf.search.diversity", "Diversity"),
    "InputError": ("msim_tf.errors", "InputError"),
}
_PUBLIC_WITH_TENSORFLOW = {
    "load": ("msim_tf.export.model", "load"),
    "Model": ("msim_tf.export.model", "Model"),
    "TrackEmbedding": ("msim_tf.export.model", "TrackEmbedding"),
    "build_network": ("msim_tf.model.network", "build_network"),
    "SubspaceMask": ("msim_tf.model.layers", "SubspaceMask"),
    "losses": ("msim_tf.model.losses", ""),
    "make_dataset": ("msim_tf.data.pipeline", "make_dataset"),
}

__all__ = [
    "Diversity",
    "Filters",
    "Hit",
    "Hits",
    "InputError",
    "Library",
    "Model",
    "SubspaceMask",
    "TrackEmbedding",
    "build_network",
    "index",
    "load",
    "losses",
    "make_dataset",
    "open_library",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
    elif name in _PUBLIC_WITH_TENSORFLOW:
        module, attribute = _PUBLIC_WITH_TENSORFLOW[name]
        importlib.import_module("msim_tf.startup").quiet_tensorflow()
    else:
        raise AttributeError(f"module 'msim_tf' has no attribute {name!r}")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = importlib.import_module("msim_tf.extras").missing_extra(error)
        if missing is None:
            raise
        raise missing from error
    value = getattr(imported, attribute) if attribute else imported
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
