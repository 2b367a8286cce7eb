"""TensorFlow Serving's gRPC services over the models of a server: PredictionService and ModelService.

Served: Predict, GetModelMetadata, GetModelStatus. Classify and Regress find no classification inputs, as in the real server with these
models; MultiInference and HandleReloadConfigRequest are UNIMPLEMENTED.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from msim_tf.export.protocol import tensor_array, write_typed_tensor
from msim_tf.export.signatures import DEFAULT_SIGNATURE
from msim_tf.export.status import ServingError
from msim_tf.serving.json_tensors import invalid
from msim_tf.serving.versions import Models

_LOG = logging.getLogger(__name__)

# The real server cuts error messages here.
_MESSAGE_LIMIT = 1024

_State = get_model_status_pb2.ModelVersionStatus.State


def add_services(server: grpc.Server, models: Models) -> None:
    """Registers both services for ``models``."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(models), server)


def _abort(context: grpc.ServicerContext, code: str, message: str) -> NoReturn:
    if len(message) > _MESSAGE_LIMIT:
        message = message[:_MESSAGE_LIMIT] + "...TRUNCATED"
    context.abort(getattr(grpc.StatusCode, code), message)
    raise AssertionError("abort raises")


def _with_status(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turns what a method raises into a gRPC status."""

    @wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except ServingError as error:
            code, message = error.code, error.message
        except MemoryError:
            code, message = "RESOURCE_EXHAUSTED", "Not enough memory for the request"
        except Exception:  # a fault of ours must reach the client as an answer and the log as a traceback
            _LOG.exception("%s", method.__name__)
            code, message = "INTERNAL", "Internal error; see the server's log"
        _abort(context, code, message)

    return wrapped


def _named_spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.model_spec.name:
        raise invalid("ModelSpec has no name specified.")
    return request.model_spec


def _which(spec: Any) -> dict[str, Any]:
    version = spec.version.value if spec.HasField("version") else None
    return {"name": spec.name, "version": version, "label": spec.version_label}


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    @_with_status
    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs one signature; the client's deadline bounds the run."""
        spec = _named_spec(request)
        response = predict_pb2.PredictResponse()
        with self._models.lease(**_which(spec)) as (version, servable):
            inputs = {name: _input(name, proto) for name, proto in request.inputs.items()}
            outputs = servable.run(spec.signature_name, inputs, request.output_filter, timeout=context.time_remaining())
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE
        for name, array in outputs.items():
            write_typed_tensor(response.outputs[name], array)
        return response

    @_with_status
    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """The signatures of a model, the one field there is."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        spec = _named_spec(request)
        with self._models.lease(**_which(spec)) as (version, servable):
            for name, signature in servable.signature_defs.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(signatures)
        return response

    @_with_status
    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refused: the signatures here are predict signatures."""
        self._refuse(request, "classification")

    @_with_status
    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refused: the signatures here are predict signatures."""
        self._refuse(request, "regression")

    def _refuse(self, request: Any, kind: str) -> NoReturn:
        spec = _named_spec(request)
        with self._models.lease(**_which(spec)) as (_, servable):
            signature = servable.signature_defs.get(spec.signature_name or DEFAULT_SIGNATURE, "")
            raise invalid(f"No {kind} inputs found in SignatureDef: {signature}")


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    @_with_status
    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """States of all versions, or of one."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._models.statuses(spec.name, version):
            added = response.model_version_status.add(version=status.version, state=_State.Value(status.state))
            added.status.error_code = getattr(grpc.StatusCode, status.code).value[0]
            added.status.error_message = status.message
        return response


def _input(name: str, proto: Any) -> Any:
    try:
        return tensor_array(proto)
    except ValueError:
        raise invalid(f"tensor parsing error: {name}") from None
