"""The client of TensorFlow Serving over REST; it needs no TensorFlow.

What REST cannot carry, and how it is filled in: element types and the name of a single output come from the model's
metadata, asked for once per signature; an HTTP status 400 reads as INVALID_ARGUMENT, though the server may have meant
FAILED_PRECONDITION; of an array without elements only the sizes before the first 0 arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from msim_tf.errors import InputError
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature, signature_from_json
from msim_tf.export.status import ServingError, code_of_http_status
from msim_tf.serving.client import TIMEOUT, Client, ModelSignatures
from msim_tf.serving.json_tensors import from_json, json_to_array, json_value, to_json
from msim_tf.serving.versions import VersionStatus


class RestClient(Client):
    """A client over REST; see ``Client`` for the methods.

    Args:
        url: "http://host:port" or "host:port", the real server's default port is 8501; below a proxy with its path.
        token: what a server with a token asks for; "" sends none.
    """

    def __init__(self, url: str, *, token: str = "") -> None:
        # People leave the scheme out.
        full = url if "://" in url else f"http://{url}"
        try:
            parsed = httpx.URL(full)
        except httpx.InvalidURL as error:
            raise InputError(f"REST address {url!r}: {error}; expected e.g. http://127.0.0.1:8501") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"REST address {url!r}: expected e.g. http://127.0.0.1:8501")
        self.url = full.rstrip("/")
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
        cached = self._signatures.get((model, version, signature))
        if cached is None or not _fits(outputs, cached):
            # First use, or the model was replaced by one with other outputs.
            signatures = self.metadata(model, version=version, timeout=timeout).signatures
            if (signature or DEFAULT_SIGNATURE) not in signatures:
                raise ServingError("FAILED_PRECONDITION", f"model {model} has lost its signature {signature} meanwhile")
            cached = self._signatures[model, version, signature] = signatures[signature or DEFAULT_SIGNATURE]
        return _output_arrays(outputs, cached)

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

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

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
            # A proxy on the way may answer with a page of its own.
            try:
                message = str(from_json(response.content)["error"])
            except (ValueError, KeyError, TypeError):
                message = f"HTTP status {response.status_code} for {response.request.method} {response.request.url}"
            raise ServingError(code_of_http_status(response.status_code), message)
        try:
            return from_json(response.content)
        except ValueError as error:
            raise ServingError("INTERNAL", f"the answer is not JSON: {error} (REST server {self.url})") from error


def _model_path(model: str, version: int | None) -> str:
    return f"/v1/models/{quote(model, safe='')}" + ("" if version is None else f"/versions/{version}")


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
