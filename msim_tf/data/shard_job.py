"""The work of one shard as it travels to whoever does it: a plan's line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msim_tf.audio.scan import FileState, states_from_json, states_to_json
from msim_tf.errors import InputError
from msim_tf.files import validate_format
from msim_tf.params import FeatureParams

_FORMAT, _FORMAT_VERSION = "msim-shard-job", 1


@dataclass(frozen=True)
class ShardJob:
    """The work of one shard.

    Attributes:
        shard: its number.
        params: how the features are made.
        pad: whether clips shorter than a segment are lengthened with silence.
        files: identifier -> state when the job was planned.
    """

    shard: int
    params: FeatureParams
    pad: bool
    files: Mapping[str, FileState]

    def to_json(self) -> dict[str, Any]:
        """The job as a JSON object."""
        return {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "shard": self.shard,
            "feature_params": self.params.to_json(),
            "pad": self.pad,
            "files": states_to_json(self.files),
        }

    @classmethod
    def from_json(cls, value: Any) -> ShardJob:
        """The inverse of ``to_json``.

        Raises:
            InputError: if it is no such object.
        """
        validate_format(value, "the job", name=_FORMAT, version=_FORMAT_VERSION)
        try:
            params, files = FeatureParams.from_json(value["feature_params"]), states_from_json(value["files"])
            return cls(int(value["shard"]), params, bool(value["pad"]), files)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"not the job of a shard ({error!r}); plan again with msim extract --plan") from error
