"""Clients of TensorFlow Serving, for gRPC and for REST, with the same methods; they need no TensorFlow.

Both work unchanged against the real server and the embedded one. Connections are plain text and direct:
proxies of the environment are not used. Every failure is a ``ServingError`` with a canonical code; a
server that cannot be reached is UNAVAILABLE.

What REST cannot carry, and how it is filled in: element types and the name of a single output come from the model's
metadata, asked for once per signature; an HTTP status 400 reads as INVALID_ARGUMENT, though the server may have meant
FAILED_PRECONDITION; of an array without elements only the sizes before the first 0 arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
import numpy as np

from msim_tf.errors import InputError
from msim_tf.export import protocol
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature, signature_from_json, signature_from_proto
from msim_tf.export.status import ServingError, code_of_http_status
from msim_tf.serving.json_tensors import from_json, json_to_array, json_value, to_json
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


class Client(Protocol):
    """What both clients do; safe to use from several threads."""

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

    def status(self, model: str, *, timeout: float = TIMEOUT) -> list[VersionStatus]:
        """All versions the server knows of, newest first.

        Raises:
            ServingError: NOT_FOUND for an unknown model.
        """

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

    def close(self) -> None:
        """Closes the connections."""


def _wait_until_ready(client: Client, model: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        remaining = max(deadline - time.monotonic(), 0.1)
        try:
            statuses = client.status(model, timeout=remaining)
            reason = ", ".join(f"version {status.version} is {status.state}" for status in statuses)
            if any(status.state == "AVAILABLE" for status in statuses):
                return
        except ServingError as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            raise ServingError("DEADLINE_EXCEEDED", f"model {model} is not ready after {timeout:g} s: {reason}")
        time.sleep(0.1)


class GrpcClient:
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
            _write_input(request.inputs[name], name, np.asarray(value))
        response = self._predict(request, timeout)
        return {name: _read_output(name, proto) for name, proto in sorted(response.outputs.items())}

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

    def wait_until_ready(self, model: str, timeout: float = TIMEOUT) -> None:
        """See ``Client.wait_until_ready``."""
        _wait_until_ready(self, model, timeout)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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


def _write_input(proto: Any, name: str, array: np.ndarray) -> None:
    try:
        protocol.write_tensor(proto, array)
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", f"input {name}: {error}") from error


def _read_output(name: str, proto: Any) -> np.ndarray:
    try:
        return protocol.tensor_array(proto)
    except ValueError as error:
        raise ServingError("INTERNAL", f"output {name} cannot be read: {error}") from error


class RestClient:
    """A client over REST; see ``Client`` for the methods.

    Args:
        url: "http://host:port" or "host:port", the real server's default port is 8501; below a proxy with its path.
        token: what a server with a token asks for; "" sends none.
    """

    def __init__(self, url: str, *, token: str = "") -> None:
        self.url = _base_url(url)
        headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, trust_env=False)
        self._signatures: dict[tuple[str, int | None, str], Signature] = {}

    def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, np.ndarray]:
        """See ``Client.predict``; the columnar format is used, since it adds no batch axis."""
        columns = {name: json_value(np.asarray(value), as_bytes=True) for name, value in inputs.items()}
        body = to_json({"signature_name": signature, "inputs": columns})
        outputs = self._request("POST", _model_path(model, version) + ":predict", timeout, body)["outputs"]
        known = self._signatures.get((model, version, signature))
        if known is None or not _fits(outputs, known):
            # First use, or the model was replaced by one with other outputs.
            known = self._signatures[model, version, signature] = self._signature(model, version, signature, timeout)
        return _output_arrays(outputs, known)

    def status(self, model: str, *, timeout: float = TIMEOUT) -> list[VersionStatus]:
        """See ``Client.status``."""
        statuses = [
            VersionStatus(
                int(value["version"]),
                value.get("state", "UNKNOWN"),
                value.get("status", {}).get("error_code", "OK"),
                value.get("status", {}).get("error_message", ""),
            )
            for value in self._request("GET", _model_path(model, None), timeout)["model_version_status"]
        ]
        return sorted(statuses, key=lambda status: -status.version)

    def metadata(self, model: str, *, version: int | None = None, timeout: float = TIMEOUT) -> ModelSignatures:
        """See ``Client.metadata``."""
        value = self._request("GET", _model_path(model, version) + "/metadata", timeout)
        signatures = value["metadata"]["signature_def"]["signature_def"]
        return ModelSignatures(
            value["model_spec"]["name"],
            int(value["model_spec"]["version"]),
            {name: signature_from_json(signature) for name, signature in sorted(signatures.items())},
        )

    def wait_until_ready(self, model: str, timeout: float = TIMEOUT) -> None:
        """See ``Client.wait_until_ready``."""
        _wait_until_ready(self, model, timeout)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _signature(self, model: str, version: int | None, signature: str, timeout: float) -> Signature:
        found = self.metadata(model, version=version, timeout=timeout).signatures.get(signature or DEFAULT_SIGNATURE)
        if found is None:
            raise ServingError("FAILED_PRECONDITION", f"model {model} has lost its signature {signature} meanwhile")
        return found

    def _request(self, method: str, path: str, timeout: float, body: bytes | None = None) -> Any:
        try:
            response = self._http.request(method, path, content=body, timeout=timeout)
        except httpx.TimeoutException as error:
            raise ServingError(
                "DEADLINE_EXCEEDED", f"no answer within {timeout:g} s (REST server {self.url})"
            ) from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client is closed
            raise ServingError("UNAVAILABLE", f"{error or type(error).__name__} (REST server {self.url})") from error
        if not response.is_success:
            raise ServingError(code_of_http_status(response.status_code), _error_text(response))
        try:
            return from_json(response.content)
        except ValueError as error:
            raise ServingError("INTERNAL", f"the answer is not JSON: {error} (REST server {self.url})") from error


def _base_url(url: str) -> str:
    """ "http://host:port" of what a user may have typed."""
    full = url if "://" in url else f"http://{url}"
    try:
        parsed = httpx.URL(full)
    except httpx.InvalidURL as error:
        raise InputError(f"REST address {url!r}: {error}; expected e.g. http://127.0.0.1:8501") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"REST address {url!r}: expected e.g. http://127.0.0.1:8501")
    return full.rstrip("/")


def _model_path(model: str, version: int | None) -> str:
    return f"/v1/models/{quote(model, safe='')}" + ("" if version is None else f"/versions/{version}")


def _error_text(response: httpx.Response) -> str:
    try:
        return str(from_json(response.content)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code} for {response.request.method} {response.request.url}"


def _fits(outputs: Any, signature: Signature) -> bool:
    """Whether an answer may be this signature's: of several outputs the names tell, of one the type."""
    if len(signature.outputs) > 1:
        return isinstance(outputs, dict) and set(outputs) == set(signature.outputs)
    try:
        _output_arrays(outputs, signature)
    except ServingError:
        return False
    return True


def _output_arrays(outputs: Any, signature: Signature) -> dict[str, np.ndarray]:
    values = outputs if len(signature.outputs) > 1 else dict.fromkeys(signature.outputs, outputs)
    try:
        return {name: json_to_array(values[name], info) for name, info in signature.outputs.items()}
    except (ServingError, KeyError, TypeError) as error:
        raise ServingError(
            "INTERNAL", f"the answer does not fit the signature's outputs {sorted(signature.outputs)}: {error}"
        ) from error
