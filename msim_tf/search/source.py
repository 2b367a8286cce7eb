"""What made the vectors of an index: model, features and subspaces. Vectors of two sources are never compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.params import validate_digest


@dataclass(frozen=True)
class Source:
    """What made the vectors; vectors of two sources are never compared.

    Attributes:
        layout: the subspaces.
        model: the model's name, "" for a system that does not tell.
        version: its version.
        digest: digest of the features it hears, see ``FeatureParams.digest``.
    """

    layout: EmbeddingLayout
    model: str = ""
    version: str = ""
    digest: str = ""

    @classmethod
    def of(cls, embeddings: Embeddings) -> Source:
        """The source of an embeddings file, from its layout and its meta (``model``, ``version``, ``digest``).

        Raises:
            InputError: if it has no layout.
        """
        if embeddings.layout is None:
            raise InputError(
                f"{embeddings.name}: has no subspaces to weigh (dimensions and widths); make it with msim embed"
            )
        facts = {key: str(embeddings.meta.get(key, "")) for key in ("model", "version", "digest")}
        return cls(embeddings.layout, **facts)

    def validate(self, other: Source, here: str | Path, there: str | Path) -> None:
        """Refuses vectors of another source.

        Args:
            other: the source of the other vectors.
            here: what has this source, for the error text.
            there: what has the other.

        Raises:
            InputError: naming both.
        """
        # Where this one does not say which features it hears, the model tells more.
        if self.digest:
            validate_digest(other.digest or "unknown", there, self.digest, here)
        if (other.model, other.version) != (self.model, self.version):
            raise InputError(
                f"{there} is of model {other.model or 'unknown'} version {other.version or 'unknown'}, {here} of "
                f"{self.model or 'unknown'} version {self.version or 'unknown'}: embed the library again with one "
                "model and index that"
            )
        validate_digest(other.digest or "unknown", there, self.digest or "unknown", here)
        if other.layout != self.layout:
            raise InputError(f"{there} has subspaces {other.layout.to_json()}, {here} has {self.layout.to_json()}")

    def to_json(self) -> dict[str, Any]:
        """The source as a JSON object."""
        return {**self.layout.to_json(), "model": self.model, "version": self.version, "digest": self.digest}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Source:
        """The inverse of ``to_json``."""
        return cls(EmbeddingLayout.from_json(value), value["model"], value["version"], value["digest"])
