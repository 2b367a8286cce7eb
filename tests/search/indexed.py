"""What tests of an index share: everything that a user sees of one, and some tracks to add."""

from dataclasses import replace

import numpy as np


def contents(index):
    """Everything that a user can see of an index."""
    names = sorted(index.identifiers)
    return {name: (index.metadata(name), index.vectors([name])[0].tolist()) for name in names}


def some(embeddings, rows, *, factor=1.0, prefix=""):
    names = tuple(prefix + embeddings.identifiers[row] for row in rows)
    return replace(embeddings, identifiers=names, embeddings=embeddings.embeddings[list(rows)] * np.float32(factor))
