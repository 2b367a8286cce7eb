"""Signatures of a SavedModel as plain data: from protobuf (genuine or ours), from and to the
JSON of TensorFlow Serving's REST API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msim_tf.export.protocol import DTYPE_OF_NUMBER, DTYPES

DEFAULT_SIGNATURE = "serving_default"

# The REST API names types, "DT_FLOAT"; the protocol numbers them, 1.
_NUMBER_OF_NAME = {f"DT_{dtype.name.upper()}": dtype.number for dtype in DTYPES}
_NAME_OF_NUMBER = {number: name for name, number in _NUMBER_OF_NAME.items()}


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
        number: ``tensorflow.DataType``.
        shape: sizes, None where free; None as a whole if even the rank is.
        tensor_name: name in the graph, for feeding and fetching.
    """

    number: int
    shape: tuple[int | None, ...] | None
    tensor_name: str

    @property
    def dtype(self) -> str:
        """NumPy's name of the type; "object" (of bytes) for strings, "" for a type that cannot be sent."""
        return DTYPE_OF_NUMBER[self.number].numpy if self.number in DTYPE_OF_NUMBER else ""


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by their names, e.g. "mel" and "embedding"."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str = ""


def signature_from_proto(signature: Any) -> Signature:
    """A Signature from a ``SignatureDef``, genuine or of ``export.protocol``."""
    return Signature(
        {name: _info_from_proto(info) for name, info in sorted(signature.inputs.items())},
        {name: _info_from_proto(info) for name, info in sorted(signature.outputs.items())},
        signature.method_name,
    )


def _info_from_proto(info: Any) -> TensorInfo:
    # A size of -1 is free; of an unknown rank there are no sizes at all.
    sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorInfo(info.dtype, None if info.tensor_shape.unknown_rank else sizes, info.name)


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """The JSON form of ``GET /v1/models/NAME/metadata``: sizes are strings, -1 where free."""
    return {
        "inputs": {name: _info_to_json(info) for name, info in signature.inputs.items()},
        "outputs": {name: _info_to_json(info) for name, info in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {},
    }


def _info_to_json(info: TensorInfo) -> dict[str, Any]:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in info.shape or ()]
    return {
        "dtype": _NAME_OF_NUMBER.get(info.number, "DT_INVALID"),
        "tensor_shape": {"dim": dims, "unknown_rank": info.shape is None},
        "name": info.tensor_name,
    }


def signature_from_json(value: Mapping[str, Any]) -> Signature:
    """The inverse of ``signature_to_json``; names that are missing count as empty, as protobuf's JSON allows."""
    return Signature(
        {name: _info_from_json(info) for name, info in sorted(value.get("inputs", {}).items())},
        {name: _info_from_json(info) for name, info in sorted(value.get("outputs", {}).items())},
        value.get("method_name", ""),
    )


def _info_from_json(value: Mapping[str, Any]) -> TensorInfo:
    # Sizes are 64-bit integers, which protobuf's JSON writes as text.
    shape = value.get("tensor_shape", {})
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", ())]
    return TensorInfo(
        _NUMBER_OF_NAME.get(value.get("dtype", ""), 0),
        None if shape.get("unknown_rank") else tuple(None if size < 0 else size for size in sizes),
        value.get("name", ""),
    )
