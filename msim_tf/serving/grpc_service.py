"""TensorFlow Serving's gRPC services over the models of a server: PredictionService and ModelService.

Served: Predict, GetModelMetadata, GetModelStatus. Classify and Regress find no classification inputs, as in the real
server with these models; MultiInference and HandleReloadConfigRequest are UNIMPLEMENTED.

The token is checked before a message is received, and a message that does not arrive in time ends its request
(``arrivals``). It arrives as bytes, so that the memory budget is checked before it is parsed, and the inputs' names,
types and sizes before any array is made: a TensorProto of 48 bytes may declare gigabytes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from msim_tf.export import error_texts as texts
from msim_tf.export.protocol import DTYPE_OF_NUMBER, tensor_array, tensor_size, write_typed_tensor
from msim_tf.export.servable import validate_input_names
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature
from msim_tf.export.status import ServingError
from msim_tf.serving.arrivals import Arrivals
from msim_tf.serving.guard import has_token
from msim_tf.serving.limits import Budget, MemoryReturn
from msim_tf.serving.monitoring import Monitoring, measured
from msim_tf.serving.versions import Models

_LOG = logging.getLogger(__name__)

# The real server cuts error messages here.
_MESSAGE_LIMIT = 1024

_MEASURED = ("Predict", "Classify", "Regress")

_State = get_model_status_pb2.ModelVersionStatus.State


@dataclass(frozen=True)
class GrpcGuard:
    """What stands before every method.

    Attributes:
        token: what the metadata ``authorization`` must carry; "" for none.
        max_values: elements of all inputs of one request.
        budget: bytes of all requests under way.
        memory: hands memory back after large requests.
        arrivals: ends requests whose message does not come.
        running: as many requests as may run at the same time; others wait.
        monitoring: counts predictions; None if nobody asked for it.
    """

    token: str
    max_values: int
    budget: Budget
    memory: MemoryReturn
    arrivals: Arrivals
    running: threading.Semaphore
    monitoring: Monitoring | None = None


def add_services(server: grpc.Server, models: Models, guard: GrpcGuard) -> None:
    """Registers both services for ``models``."""
    predictions, statuses = _PredictionService(models, guard.max_values), _ModelService(models)
    services = {
        "PredictionService": {
            "Predict": (predictions.predict, predict_pb2.PredictRequest),
            "GetModelMetadata": (predictions.metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "Classify": (predictions.classify, classification_pb2.ClassificationRequest),
            "Regress": (predictions.regress, regression_pb2.RegressionRequest),
        },
        "ModelService": {"GetModelStatus": (statuses.status, get_model_status_pb2.GetModelStatusRequest)},
    }
    # Only predictions are counted, as in the real server, and every method is guarded.
    for name, methods in services.items():
        handlers = {}
        for key, (method, message) in methods.items():
            if key in _MEASURED:
                method = _measured(method, key, models, guard.monitoring)
            handlers[key] = _handler(method, message, guard)
        generic = grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
        server.add_generic_rpc_handlers((generic,))


def _measured(
    method: Callable[..., Any], api: str, models: Models, monitoring: Monitoring | None
) -> Callable[..., Any]:
    """The method, counted."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        with measured(monitoring, models, request.model_spec.name, api, "GRPC"):
            return method(request, context)

    return answer


def _handler(method: Callable[..., Any], message_class: Any, guard: GrpcGuard) -> grpc.RpcMethodHandler:
    """The method behind the guard; whatever it raises becomes a gRPC status.

    To gRPC the method takes a stream, of which it reads one message. For the client that is the same, and here it is
    known that a message is on its way: of a method with one message gRPC waits for that by itself, for ever.
    """

    def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        try:
            _check_token(context, guard.token)
            with guard.arrivals.awaited(context):
                data = next(messages, None)
            if data is None:
                raise texts.NO_MESSAGE.error()
            # From here to the answer the message's bytes count for the budget.
            with guard.budget.reservation() as reservation:
                reservation.grow(len(data))
                guard.memory.after(len(data))
                with guard.running:
                    return method(message_class.FromString(data), context)
        except grpc.RpcError:  # the client is gone, or the message did not come in time: nobody to answer
            raise
        # Only texts leave this block: an exception that outlives it would keep the request in memory.
        except ServingError as error:
            code, message = error.code, error.message
        except DecodeError:
            code, message = "INTERNAL", "Exception deserializing request!"
        except MemoryError:
            code, message = texts.OUT_OF_MEMORY.code, texts.OUT_OF_MEMORY.text
        except Exception:  # a fault of ours must reach the client as an answer and the log as a traceback
            _LOG.exception("%s", method.__name__)
            code, message = texts.INTERNAL_ERROR.code, texts.INTERNAL_ERROR.text
        data = None
        if len(message) > _MESSAGE_LIMIT:
            message = message[:_MESSAGE_LIMIT] + "...TRUNCATED"
        # A message may quote bytes that are not UTF-8.
        context.abort(getattr(grpc.StatusCode, code), message.encode("utf-8", "replace").decode())
        raise AssertionError("abort raises")

    return grpc.stream_unary_rpc_method_handler(answer, None, lambda response: response.SerializeToString())


def _check_token(context: grpc.ServicerContext, token: str) -> None:
    if not token:
        return
    values = [value for key, value in context.invocation_metadata() if key == "authorization"]
    if not any(has_token(value if isinstance(value, str) else value.decode("latin-1"), token) for value in values):
        raise texts.NO_TOKEN.error()


def _named_spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise texts.NO_MODEL_SPEC.error()
    if not request.model_spec.name:
        raise texts.NO_MODEL_NAME_GRPC.error()
    return request.model_spec


def _which(spec: Any) -> dict[str, Any]:
    version = spec.version.value if spec.HasField("version") else None
    return {"name": spec.name, "version": version, "label": spec.version_label}


class _PredictionService:
    def __init__(self, models: Models, max_values: int) -> None:
        self._models = models
        self._max_values = max_values

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs one signature; the client's deadline bounds the run."""
        spec = _named_spec(request)
        response = predict_pb2.PredictResponse()
        with self._models.lease(**_which(spec)) as (version, servable):
            signature = servable.signature(spec.signature_name)
            inputs = _input_arrays(request.inputs, signature, self._max_values)
            outputs = servable.run(spec.signature_name, inputs, request.output_filter, timeout=context.time_remaining())
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE
        for name, array in outputs.items():
            write_typed_tensor(response.outputs[name], array)
        return response

    def metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """The signatures of a model, the one field there is."""
        if not request.HasField("model_spec"):
            raise texts.NO_MODEL_SPEC.error()
        if not request.metadata_field:
            raise texts.NO_METADATA_FIELD.error()
        for field in request.metadata_field:
            if field != "signature_def":
                raise texts.UNKNOWN_METADATA_FIELD.error(field=field)
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

    def classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refused: the signatures here are predict signatures."""
        self._refuse(request, "classification")

    def regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Refused: the signatures here are predict signatures."""
        self._refuse(request, "regression")

    def _refuse(self, request: Any, kind: str) -> NoReturn:
        spec = _named_spec(request)
        with self._models.lease(**_which(spec)) as (_, servable):
            signature = servable.signature_defs.get(spec.signature_name or DEFAULT_SIGNATURE, "")
            raise texts.NO_KIND_OF_INPUTS.error(kind=kind, signature=signature)


class _ModelService:
    def __init__(self, models: Models) -> None:
        self._models = models

    def status(self, request: Any, context: grpc.ServicerContext) -> Any:
        """States of all versions, or of one."""
        if not request.HasField("model_spec"):
            raise texts.NO_MODEL_SPEC.error()
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._models.statuses(spec.name, version):
            added = response.model_version_status.add(version=status.version, state=_State.Value(status.state))
            added.status.error_code = getattr(grpc.StatusCode, status.code).value[0]
            added.status.error_message = status.message
        return response


def _input_arrays(protos: Mapping[str, Any], signature: Signature, max_values: int) -> dict[str, np.ndarray]:
    """The inputs as arrays, after names, types and sizes were checked.

    Raises:
        ServingError: INVALID_ARGUMENT with the real server's text; RESOURCE_EXHAUSTED
            for more than ``max_values`` elements.
    """
    validate_input_names(signature, protos)
    # What the messages declare, before any memory is taken for it.
    try:
        sizes = {name: tensor_size(proto) for name, proto in protos.items()}
    except ValueError:
        raise texts.BAD_TENSOR.error(name=next(iter(protos))) from None
    if sum(sizes.values()) > max_values:
        raise texts.TOO_MANY_VALUES.error(limit=max_values)
    arrays: dict[str, np.ndarray] = {}
    if any(proto.dtype != signature.inputs[name].number for name, proto in protos.items()):
        # Arrays without elements make TensorFlow name the wrong type in its own words.
        for name, proto in protos.items():
            dtype = DTYPE_OF_NUMBER.get(proto.dtype)
            if dtype is None:
                raise texts.BAD_TENSOR.error(name=name)
            arrays[name] = np.empty(0, dtype.numpy)
        return arrays
    for name, proto in protos.items():
        try:
            arrays[name] = tensor_array(proto)
        except ValueError:
            raise texts.BAD_TENSOR.error(name=name) from None
    return arrays
