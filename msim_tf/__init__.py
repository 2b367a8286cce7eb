"""msim: multi-dimensional music similarity.

One embedding per track with six subspaces (genre, mood, instrument, era, tempo, key), after Ribecky, Abesser and Lukashevich,
"Multi-input architecture and disentangled representation learning for multi-dimensional modeling of music similarity".

Importing this package is instant: nothing here imports TensorFlow, librosa or madmom. Import the room you need, e.g.
``from msim_tf.features import extract``.
"""

__version__ = "0.1.0"
