"""Queries by a sound file that is not in the library: received within limits, embedded, kept for a while as a vector.

The bytes go to a temporary file under a name of ours, are decoded in another process (``audio.sandbox``), and are gone
when the answer is sent; only the embedding stays, under a random token, in a bounded cache that forgets.

Receiving and decoding are limited apart, so that clients who send slowly hold up nobody: many may send
at the same time, and when there are too many, the slowest of them makes room. Only a file that is
complete waits for its turn to be decoded.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import anyio
import cachetools
import numpy as np
from starlette.requests import Request

from msim_tf.audio.decode import TooLong
from msim_tf.audio.sandbox import DecodeLimits, Decoder, DecoderUnavailable
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.export.embedder import mean_embedding
from msim_tf.features.extractor import Extractor
from msim_tf.features.from_file import extract_file
from msim_tf.features.segments import audible_segments
from msim_tf.library.api_errors import ApiError
from msim_tf.library.api_responses import Uploaded
from msim_tf.params import FeatureParams
from msim_tf.search.source import Source
from msim_tf.serving.guard import check_content_type, content_length
from msim_tf.serving.versions import Models

_UPLOAD_TYPES = ("audio/", "application/octet-stream", "application/ogg")
_RETRY = {"Retry-After": "5"}
_CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may cost.

    Attributes:
        bytes: of the file.
        seconds: of audio.
        receive_seconds: to send it in.
        decode_seconds: to decode it in.
        receiving: uploads that may be on their way at the same time; one more ends the slowest with 408.
        at_once: files that are decoded and embedded at the same time; others wait.
        wait_seconds: how long a complete file waits for its turn; then it is answered with 503.
        kept: vectors in the cache; the least recently used goes first.
        kept_seconds: how long a token is good for.
    """

    bytes: int = 100 * 2**20
    seconds: float = 900.0
    receive_seconds: float = 120.0
    decode_seconds: float = 30.0
    receiving: int = 32
    at_once: int = 4
    wait_seconds: float = 30.0
    kept: int = 256
    kept_seconds: float = 3600.0


@dataclass(eq=False)
class _Transfer:
    """A file on its way."""

    size: int = 0
    started: float = field(default_factory=time.monotonic)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def rate(self) -> float:
        """Bytes per second so far; the first second counts whole, so that nobody is judged by a beginning."""
        return self.size / max(time.monotonic() - self.started, 1.0)


@dataclass(frozen=True)
class _Embedded:
    """A file that was understood: its embedding [size] float32, its length, and what is wrong with it."""

    vector: np.ndarray
    seconds: float
    notes: tuple[str, ...]


class Uploads:
    """Receives uploads and answers for their tokens; ``vector`` may be called from several threads."""

    def __init__(self, models: Models, limits: UploadLimits) -> None:
        self.limits = limits
        self._models = models
        self._transfers: list[_Transfer] = []  # only the event loop sees it
        self._lock = threading.Lock()
        self._vectors: cachetools.TTLCache[str, tuple[Source, np.ndarray]] = cachetools.TTLCache(
            limits.kept, limits.kept_seconds
        )

    @cached_property
    def _decoding(self) -> anyio.CapacityLimiter:
        # Made inside the event loop that it belongs to.
        return anyio.CapacityLimiter(self.limits.at_once)

    async def receive(self, request: Request, source: Source) -> Uploaded:
        """Takes the body of ``request`` as a sound file.

        Args:
            request: content type audio/... or application/octet-stream.
            source: what must embed it: that of the library.

        Returns:
            The answer: token, seconds of audio, seconds until the token expires, notes of the decoder.

        Raises:
            ApiError: 408, 409, 413, 415, 422 or 503.
        """
        check_content_type(request.headers, _UPLOAD_TYPES, "audio/... or application/octet-stream")
        self._check_size(content_length(request.headers))
        with tempfile.TemporaryDirectory(prefix="msim-upload-") as folder:
            path = Path(folder) / "sound"
            await self._receive(request, path)
            embedded = await self._embed_in_turn(path, source)
        return {
            "upload": self._keep(source, embedded.vector),
            "seconds": embedded.seconds,
            "expires_in": self.limits.kept_seconds,
            "notes": list(embedded.notes),
        }

    def vector(self, token: str, source: Source) -> np.ndarray:
        """The embedding behind a token.

        Raises:
            ApiError: 404 if there is none, or no longer one of this source.
        """
        with self._lock:
            stored = self._vectors.get(token)
        if stored is None or stored[0] != source:
            raise ApiError(404, "unknown or expired upload; upload the file again")
        return stored[1]

    def _keep(self, source: Source, vector: np.ndarray) -> str:
        """Stores a vector; returns its token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._vectors[token] = (source, vector)
        return token

    @contextmanager
    def _transfer(self) -> Iterator[_Transfer]:
        """A place among the uploads on their way. If all are taken, the slowest transfer loses its own."""
        if len(self._transfers) >= self.limits.receiving:
            slowest = min(self._transfers, key=lambda transfer: transfer.rate)
            self._transfers.remove(slowest)
            slowest.scope.cancel()
        transfer = _Transfer()
        self._transfers.append(transfer)
        try:
            with transfer.scope:
                yield transfer
        finally:
            if transfer in self._transfers:
                self._transfers.remove(transfer)
        if transfer.scope.cancelled_caught:
            raise ApiError(408, "too many uploads at the same time, and this was the slowest; try again", _CLOSE)

    async def _receive(self, request: Request, path: Path) -> None:
        """Writes the body into a file, within its limits of time and size."""
        try:
            with anyio.fail_after(self.limits.receive_seconds), self._transfer() as transfer, open(path, "wb") as file:
                async for part in request.stream():
                    transfer.size += len(part)
                    self._check_size(transfer.size)
                    file.write(part)
        except TimeoutError:
            raise ApiError(408, f"the upload took longer than {self.limits.receive_seconds:g} s", _CLOSE) from None
        if not transfer.size:
            raise ApiError(422, "the body is empty; expected a sound file")

    def _check_size(self, size: int) -> None:
        if size > self.limits.bytes:
            raise ApiError(413, f"the file is larger than {self.limits.bytes} bytes", _CLOSE)

    async def _embed_in_turn(self, path: Path, source: Source) -> _Embedded:
        """Waits for a place, then decodes and embeds in a thread."""
        # As many may wait as may be on their way.
        full = ApiError(503, "too many uploads at the same time; try again", _RETRY)
        if self._decoding.statistics().tasks_waiting >= self.limits.receiving:
            raise full
        try:
            with anyio.fail_after(self.limits.wait_seconds):
                await self._decoding.acquire_on_behalf_of(path)
        except TimeoutError:
            raise full from None
        try:
            return await anyio.to_thread.run_sync(self._embed, path, source)
        finally:
            self._decoding.release_on_behalf_of(path)

    def _embed(self, path: Path, source: Source) -> _Embedded:
        """Embeds a file by the model that embedded the library."""
        for model in self._models:
            with model.lease() as (_, servable):
                metadata = getattr(servable, "metadata", None)
                if not metadata:
                    continue
                # The same name, version, features and layout: vectors of another model are not comparable.
                digest = FeatureParams.from_json(metadata["feature_params"]).digest
                version = servable.path.name  # type: ignore[attr-defined]
                if Source(EmbeddingLayout.from_json(metadata), metadata["name"], version, digest) == source:
                    return self._embed_with(servable, metadata, path)
        raise ApiError(
            409,
            f"the library was embedded by {source.model} version {source.version} (features {source.digest}), which "
            "this server does not serve; embed it again with msim index --rebuild",
        )

    def _embed_with(self, servable: Any, metadata: dict[str, Any], path: Path) -> _Embedded:
        params = FeatureParams.from_json(metadata["feature_params"])
        seconds = self.limits.decode_seconds
        limits = DecodeLimits(seconds=seconds, total_seconds=seconds, max_seconds=self.limits.seconds)
        try:
            # A process for this file alone: what a stranger's file does to it must not reach the next stranger's.
            with Decoder(limits) as decoder:
                features = extract_file(path, Extractor(params), decoder.read_blocks)
        except TooLong:
            raise ApiError(413, f"the audio is longer than {self.limits.seconds:g} s") from None
        except DecoderUnavailable:
            raise ApiError(503, "sound cannot be decoded at the moment; try again", {"Retry-After": "30"}) from None
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ").split(";")[0]
            raise ApiError(422, f"the upload cannot be used: {reason}") from None

        def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
            return servable.run("serving_default", {name: inputs[name] for name in metadata["inputs"]})["embedding"]

        vector = mean_embedding(run, features, audible_segments(features, params), params)
        return _Embedded(vector, round(features.frames / params.frame_rate, 2), features.notes)
