"""Queries by a sound file that is not in the library: received within limits, embedded by the served model, kept for a while as a vector.

The bytes go to a temporary file under a name of ours, are decoded in another process (``audio.sandbox``), and are gone when the answer is
sent; only the embedding stays, under a random token, in a bounded cache that forgets.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from msim_tf.audio.sandbox import decode_apart
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.export.embedder import mean_embedding, whole_segments
from msim_tf.features.extractor import Extractor
from msim_tf.features.from_file import extract_file
from msim_tf.library.api_errors import ApiError
from msim_tf.params import FeatureParams
from msim_tf.search.source import Source
from msim_tf.serving.guard import check_content_type, content_length
from msim_tf.serving.versions import Models

_UPLOAD_TYPES = ("audio/", "application/octet-stream", "application/ogg")


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may cost.

    Attributes:
        bytes: of the file.
        seconds: of audio.
        receive_seconds: to send it in.
        decode_seconds: to decode it in.
        at_once: uploads under way at the same time; one more is answered with 503.
        kept: vectors in the cache; the oldest goes first.
        kept_seconds: how long a token is good for.
    """

    bytes: int = 100 * 2**20
    seconds: float = 900.0
    receive_seconds: float = 120.0
    decode_seconds: float = 30.0
    at_once: int = 4
    kept: int = 256
    kept_seconds: float = 3600.0


class Uploads:
    """Receives uploads and answers for their tokens; safe to use from several threads."""

    def __init__(self, models: Models, limits: UploadLimits) -> None:
        self.limits = limits
        self._models = models
        self._slots = threading.Semaphore(limits.at_once)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Source, np.ndarray]] = OrderedDict()

    async def receive(self, request: Request, source: Source) -> dict[str, Any]:
        """Takes the body of ``request`` as a sound file.

        Args:
            request: content type audio/... or application/octet-stream.
            source: what must embed it: that of the library.

        Returns:
            The answer: token, seconds of audio, seconds until the token expires.

        Raises:
            ApiError: 408, 409, 413, 415, 422 or 503.
        """
        check_content_type(request.headers, _UPLOAD_TYPES, "audio/... or application/octet-stream")
        self._check_size(content_length(request.headers))
        if not self._slots.acquire(blocking=False):
            raise ApiError(503, "too many uploads at the same time; try again", {"Retry-After": "5"})
        try:
            with tempfile.TemporaryDirectory(prefix="msim-upload-") as folder:
                path = Path(folder) / "sound"
                await self._receive_within_time(request, path)
                vector, seconds = await run_in_threadpool(self._embed, path, source)
        finally:
            self._slots.release()
        return {"upload": self._keep(source, vector), "seconds": seconds, "expires_in": self.limits.kept_seconds}

    def vector(self, token: Any, source: Source) -> np.ndarray:
        """The embedding behind a token.

        Raises:
            ApiError: 404 if there is none, or no longer one of this source.
        """
        with self._lock:
            self._forget()
            kept = self._kept.get(token) if isinstance(token, str) else None
        if kept is None or kept[1] != source:
            raise ApiError(404, "unknown or expired upload; upload the file again")
        return kept[2]

    async def _receive_within_time(self, request: Request, path: Path) -> None:
        try:
            with anyio.fail_after(self.limits.receive_seconds):
                await self._receive(request, path)
        except TimeoutError:
            raise ApiError(
                408, f"the upload took longer than {self.limits.receive_seconds:g} s", {"Connection": "close"}
            ) from None

    async def _receive(self, request: Request, path: Path) -> None:
        size = 0
        with open(path, "wb") as file:
            async for part in request.stream():
                size += len(part)
                self._check_size(size)
                file.write(part)
        if not size:
            raise ApiError(422, "the body is empty; expected a sound file")

    def _check_size(self, size: int) -> None:
        if size > self.limits.bytes:
            raise ApiError(413, f"the file is larger than {self.limits.bytes} bytes", {"Connection": "close"})

    def _embed(self, path: Path, source: Source) -> tuple[np.ndarray, float]:
        for model in self._models:
            with model.lease() as (_, servable):
                told = getattr(servable, "metadata", None)
                if told and _source(told, servable.path.name) == source:  # type: ignore[attr-defined]
                    return self._embedded(path, FeatureParams.from_json(told["feature_params"]), servable, told)
        raise ApiError(
            409,
            f"the library was embedded by {source.model} version {source.version} (features {source.digest}), which this server does not "
            "serve; embed it again with msim index --rebuild",
        )

    def _embedded(
        self, path: Path, params: FeatureParams, servable: Any, told: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        decoded = path.with_name("decoded.wav")
        limits = self.limits
        try:
            decode_apart(path, decoded, sr=params.sr, seconds=limits.seconds, timeout=limits.decode_seconds)
            features = extract_file(decoded, Extractor(params))
        except OverflowError as error:
            raise ApiError(413, str(error)) from None
        except (InputError, TimeoutError) as error:
            reason = str(error).removeprefix(f"{decoded}: ").split(";")[0]
            raise ApiError(422, f"the upload cannot be used: {reason}") from None

        def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
            return servable.run("serving_default", {name: inputs[name] for name in told["inputs"]})["embedding"]

        vector = mean_embedding(run, features, whole_segments(features.frames, params), params)
        return vector, round(features.frames / params.frame_rate, 2)

    def _keep(self, source: Source, vector: np.ndarray) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = (time.monotonic() + self.limits.kept_seconds, source, vector)
            self._forget()
        return token

    def _forget(self) -> None:
        """Drops what is expired or too much; all are kept equally long, so the oldest is the first to expire."""
        now = time.monotonic()
        while self._kept:
            expires = next(iter(self._kept.values()))[0]
            if expires > now and len(self._kept) <= self.limits.kept:
                return
            self._kept.popitem(last=False)


def _source(told: dict[str, Any], version: str) -> Source:
    digest = FeatureParams.from_json(told["feature_params"]).digest
    return Source(EmbeddingLayout.from_json(told), told["name"], version, digest)
