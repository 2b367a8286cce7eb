"""The client of TensorFlow Serving over gRPC, and what it shares with the one over REST; neither needs TensorFlow.

Both clients work unchanged against the real server and the embedded one. Connections are plain text and direct:
proxies of the environment are not used. Every failure is a ``ServingError`` with a canonical code; a
server that cannot be reached is UNAVAILABLE.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from msim_tf.errors import InputError
from msim_tf.export import protocol
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature, signature_from_proto
from msim_tf.export.status import ServingError
from msim_tf.serving.versions import VersionStatus

TIMEOUT = 30.0

_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class ModelSignatures:
    """What a server says of a model: its name, the version served, and the signatures by name."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


class Client(ABC):
    """What both clients do; safe to use from several threads."""

    @abstractmethod
    def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, np.ndarray]:
        """Runs one signature.

        Args:
            model: name of the model.
            inputs: an array for each input, of the signature's type and shape (strings: text or bytes).
            signature: which one.
            version: None for the one served.
            timeout: seconds.

        Returns:
            Arrays by output name; strings as ``object`` arrays of bytes.

        Raises:
            ServingError: whatever failed.
        """

    @abstractmethod
    def status(self, model: str, *, timeout: float = TIMEOUT) -> list[VersionStatus]:
        """All versions the server knows of, newest first.

        Raises:
            ServingError: NOT_FOUND for an unknown model.
        """

    @abstractmethod
    def metadata(self, model: str, *, version: int | None = None, timeout: float = TIMEOUT) -> ModelSignatures:
        """The signatures.

        Raises:
            ServingError: NOT_FOUND for an unknown model or version.
        """

    def wait_until_ready(self, model: str, timeout: float = TIMEOUT) -> None:
        """Returns as soon as a version is AVAILABLE.

        Raises:
            ServingError: DEADLINE_EXCEEDED with the last reason, after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            remaining = max(deadline - time.monotonic(), 0.1)
            # A server that starts is unreachable first, then knows the model, then has a version loaded.
            try:
                statuses = self.status(model, timeout=remaining)
                reason = ", ".join(f"version {status.version} is {status.state}" for status in statuses)
                if any(status.state == "AVAILABLE" for status in statuses):
                    return
            except ServingError as error:
                reason = str(error)
            if time.monotonic() >= deadline:
                raise ServingError("DEADLINE_EXCEEDED", f"model {model} is not ready after {timeout:g} s: {reason}")
            time.sleep(0.1)

    @abstractmethod
    def close(self) -> None:
        """Closes the connections."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class GrpcClient(Client):
    """A client over gRPC, the faster of the two; see ``Client`` for the methods.

    Args:
        address: "host:port", the real server's default port is 8500.
        max_message_bytes: of an answer; -1 for no limit.
        token: what a server with a token asks for; "" sends none.
    """

    def __init__(self, address: str, *, max_message_bytes: int = -1, token: str = "") -> None:
        if "://" in address or ":" not in address:
            raise InputError(f"gRPC address {address!r}: expected host:port, e.g. 127.0.0.1:8500")
        if not token.isascii():
            raise InputError("gRPC metadata carries ASCII only; the token holds other characters")
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            # gRPC would wait up to two minutes between attempts to connect, long after a starting server is ready.
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self.address = address
        self._call_metadata = [("authorization", f"Bearer {token}")] if token else []
        self._channel = grpc.insecure_channel(address, options=options)
        self._predict = self._method("PredictionService/Predict", protocol.PredictRequest, protocol.PredictResponse)
        self._metadata = self._method(
            "PredictionService/GetModelMetadata", protocol.GetModelMetadataRequest, protocol.GetModelMetadataResponse
        )
        self._status = self._method(
            "ModelService/GetModelStatus", protocol.GetModelStatusRequest, protocol.GetModelStatusResponse
        )

    def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, np.ndarray]:
        """See ``Client.predict``."""
        request = protocol.PredictRequest()
        _set_spec(request.model_spec, model, version, signature)
        for name, value in inputs.items():
            array = np.asarray(value)
            try:
                protocol.write_tensor(request.inputs[name], array)
            except ValueError as error:
                raise ServingError("INVALID_ARGUMENT", f"input {name}: {error}") from error
        response = self._predict(request, timeout)
        # A protobuf map has no order of its own; by name, the outputs come the same way every time.
        outputs = {}
        for name, proto in sorted(response.outputs.items()):
            try:
                outputs[name] = protocol.tensor_array(proto)
            except ValueError as error:
                raise ServingError("INTERNAL", f"output {name} cannot be read: {error}") from error
        return outputs

    def status(self, model: str, *, timeout: float = TIMEOUT) -> list[VersionStatus]:
        """See ``Client.status``."""
        request = protocol.GetModelStatusRequest()
        _set_spec(request.model_spec, model)
        response = self._status(request, timeout)
        statuses = [
            VersionStatus(
                status.version,
                _STATES.get(status.state, "UNKNOWN"),
                _CODES.get(status.status.error_code, "UNKNOWN"),
                status.status.error_message,
            )
            for status in response.model_version_status
        ]
        return sorted(statuses, key=lambda status: -status.version)

    def metadata(self, model: str, *, version: int | None = None, timeout: float = TIMEOUT) -> ModelSignatures:
        """See ``Client.metadata``."""
        request = protocol.GetModelMetadataRequest(metadata_field=["signature_def"])
        _set_spec(request.model_spec, model, version)
        response = self._metadata(request, timeout)
        signatures = protocol.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        return ModelSignatures(
            response.model_spec.name,
            response.model_spec.version.value,
            {name: signature_from_proto(proto) for name, proto in sorted(signatures.signature_def.items())},
        )

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _method(self, name: str, request_class: Any, response_class: Any) -> Callable[[Any, float], Any]:
        call = self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )

        def method(request: Any, timeout: float) -> Any:
            try:
                return call(request, timeout=timeout, metadata=self._call_metadata)
            except grpc.RpcError as error:
                details = error.details() or "no further details"
                where = f" (gRPC server {self.address})" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
                raise ServingError(error.code().name, details + where) from error
            except ValueError as error:  # the channel is closed, or the request is over protobuf's 2 GB
                raise ServingError("FAILED_PRECONDITION", f"{name} cannot be called: {error}") from error

        return method


def _set_spec(spec: Any, model: str, version: int | None = None, signature: str = "") -> None:
    spec.name = model
    spec.signature_name = signature
    if version is not None:
        spec.version.value = version
