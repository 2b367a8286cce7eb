"""``Servable``: one version of an exported model, loaded and run as TensorFlow Serving's C++ loader does it.

A TensorFlow 1 Session restores the variables, feeds by tensor name and fetches by tensor name. ``tf.saved_model.load``
is another code path: an export can work there and fail in the real server, so nothing here uses it. As in the real
server, names and types are checked and shapes are left to the operations. Knows nothing of HTTP or gRPC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.eager import context

from msim_tf.errors import InputError
from msim_tf.export import error_texts as texts
from msim_tf.export.metadata import METADATA_FILE, load_description
from msim_tf.export.protocol import byte_strings
from msim_tf.export.signatures import DEFAULT_SIGNATURE, Signature, signature_from_proto
from msim_tf.export.status import ServingError
from msim_tf.export.warmup import warmup_requests
from msim_tf.precision import usable_precision

# tf.errors has each code as a number: 5 -> "NOT_FOUND".
_CODE_NAMES = {
    number: name.removesuffix("_CODE")
    for name, number in vars(tf.errors).items()
    if name.isupper() and isinstance(number, int)
}


class Servable:
    """A loaded SavedModel; safe to run from several threads at once.

    Attributes:
        path: the version's directory.
        signatures: by name, with their inputs and outputs.
        signature_defs: the same as genuine protobuf messages.
        metadata: ``assets.extra/msim.json``, or None for a model that has none.
    """

    def __init__(
        self, path: Path, session: tf.compat.v1.Session, meta_graph: Any, metadata: dict[str, Any] | None
    ) -> None:
        self.path = path
        self.signature_defs: dict[str, Any] = dict(meta_graph.signature_def)
        self.signatures = {name: signature_from_proto(proto) for name, proto in sorted(self.signature_defs.items())}
        self.metadata = metadata
        self._session = session

    @classmethod
    def load(cls, path: str | Path, *, warmup: bool = True, precision: str = "float32") -> Servable:
        """Loads the version directory ``path`` and runs its warmup requests.

        Args:
            path: the directory that holds ``saved_model.pb``.
            warmup: run ``assets.extra/tf_serving_warmup_requests`` if there is one;
                any request that fails fails the load.
            precision: in which it computes, one of ``msim_tf.precision.PRECISIONS``.

        Raises:
            InputError: if there is no SavedModel, it is damaged, a warmup request fails, or there is no such
                precision.
        """
        path = Path(path)
        # Before TensorFlow reads the files: what is damaged may end the process there.
        metadata = load_description(path) if (path / METADATA_FILE).exists() else None
        session, meta_graph = _load_session(path, usable_precision(precision))
        try:
            servable = cls(path, session, meta_graph, metadata)
            if warmup:
                for signature, feeds, output_filter in warmup_requests(path):
                    servable.run(signature, feeds, output_filter)
        except BaseException:
            session.close()
            raise
        return servable

    def run(
        self,
        signature: str,
        feeds: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs one signature.

        Args:
            signature: its name; "" is "serving_default".
            feeds: an array for each input, of exactly its type; text and bytes for strings.
            output_filter: names of the outputs wanted; empty means all.
            timeout: seconds until the run is given up; None waits for ever.

        Returns:
            Arrays by output name; strings as ``object`` arrays of bytes.

        Raises:
            ServingError: with the code and text that the real server would give.
        """
        # In the order of the real server: an unknown signature, then inputs, then outputs; nothing runs before.
        chosen = self.signature(signature)
        validate_input_names(chosen, feeds)
        for position, name in enumerate(output_filter):
            if name not in chosen.outputs:
                raise texts.UNKNOWN_OUTPUT.error(name=name, expected=",".join(sorted(chosen.outputs)))
            if name in output_filter[:position]:
                raise texts.REPEATED_OUTPUT.error(name=name)
        names = list(output_filter) or list(chosen.outputs)

        # By names in the graph, arrays that the C API takes. Strings go into an array of objects: made from a list of
        # bytes, an array has a fixed width and drops zero bytes at the end.
        tensors: dict[str, np.ndarray] = {}
        for name, tensor in chosen.inputs.items():
            array = np.asarray(feeds[name])
            if array.dtype.kind in "SUO":
                flat = np.empty(array.size, object)
                flat[:] = byte_strings(array)
                array = flat.reshape(array.shape)
            tensors[tensor.tensor_name] = array

        # From names in the graph back to names of the signature.
        values = self._run_session(tensors, [chosen.outputs[name].tensor_name for name in names], timeout)
        return {
            name: np.asarray(value, chosen.outputs[name].dtype or None)
            for name, value in zip(names, values, strict=True)
        }

    def signature(self, name: str) -> Signature:
        """The signature called ``name``; "" is "serving_default".

        Raises:
            ServingError: FAILED_PRECONDITION if there is none.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise texts.UNKNOWN_SIGNATURE_GRPC.error(signature=name)
        return self.signatures[name]

    def close(self) -> None:
        """Frees the variables; a run under way ends with an error, so wait for it first."""
        self._session.close()

    def __enter__(self) -> Servable:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run_session(self, feeds: Mapping[str, np.ndarray], fetches: list[str], timeout: float | None) -> list[Any]:
        """Values of the tensors ``fetches``, in their order.

        ``Session.run`` compares shapes with the graph first, the C++ session underneath it does not: this calls that
        one, as the server does.
        """
        # Two outputs of a signature may be one tensor; it is fetched once.
        unique = sorted(set(fetches))
        try:
            outputs = {name: self._tensor(name) for name in unique}
            inputs = {self._tensor(name): value for name, value in feeds.items()}
            with _run_options(timeout) as options:
                values = self._session._call_tf_sessionrun(options, inputs, list(outputs.values()), [], None)
        except tf.errors.OpError as error:
            raise ServingError(_code_name(error), error.message) from error
        except RuntimeError as error:
            raise ServingError("UNAVAILABLE", f"{self.path} cannot be run: {error}") from error
        by_name = dict(zip(unique, values, strict=True))
        return [by_name[name] for name in fetches]

    def _tensor(self, name: str) -> Any:
        """The output "operation:0" of the graph, as the C API takes it."""
        graph = self._session.graph
        # The initialiser's signature names an operation, without ":0".
        if ":" not in name:
            raise texts.MALFORMED_TENSOR_NAME.error(name=name)
        return graph.get_tensor_by_name(name)._as_tf_output()


def _load_session(path: Path, precision: str) -> tuple[tf.compat.v1.Session, Any]:
    """The session with variables restored, and its MetaGraphDef."""
    if not path.is_dir():
        raise InputError(f"{path} not found; expected the directory of a model version, e.g. saved_models/NAME/1")
    if not (path / "saved_model.pb").is_file():
        raise texts.NO_SAVED_MODEL.error(path=path)
    # The options that the process has set, and the rewriter to bfloat16 if that is the precision.
    config = context.context().config
    if precision == "bfloat16":
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON

    # Each version has a graph of its own, final once it is loaded: a request can add nothing to it.
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=config)
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        graph.finalize()
    # Damaged files surface as OpError, OSError, DecodeError, RuntimeError, KeyError or ValueError.
    except Exception as error:
        session.close()
        code = _code_name(error) if isinstance(error, tf.errors.OpError) else "UNKNOWN"
        message = error.message if isinstance(error, tf.errors.OpError) else str(error)
        first_line = next(iter(message.strip().splitlines()), type(error).__name__)
        raise ServingError(code, f"{path} cannot be loaded: {first_line}") from error
    return session, meta_graph


@contextmanager
def _run_options(timeout: float | None) -> Iterator[Any]:
    """RunOptions with a timeout as the C API wants them, or None."""
    if timeout is None:
        yield None
        return
    options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout * 1000)))
    buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
    try:
        yield buffer
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)


def validate_input_names(signature: Signature, names: Iterable[str]) -> None:
    """Refuses inputs that are not those of ``signature``, before anything is made of them.

    Raises:
        ServingError: INVALID_ARGUMENT with the real server's text.
    """
    # The real server compares the numbers first, and has another text when only the names differ.
    sent, expected = sorted(names), sorted(signature.inputs)
    if len(sent) != len(expected):
        raise texts.WRONG_INPUTS.error(
            sent_count=len(sent),
            expected_count=len(expected),
            sent=",".join(sent),
            expected=",".join(expected),
            extra=",".join(sorted(set(sent) - set(expected))),
            missing=",".join(sorted(set(expected) - set(sent))),
        )
    for name in expected:
        if name not in sent:
            raise texts.MISSING_INPUT.error(name=name, tensor=signature.inputs[name].tensor_name, sent=",".join(sent))


def _code_name(error: tf.errors.OpError) -> str:
    return _CODE_NAMES.get(error.error_code, "UNKNOWN")
