"""Training on one host or several: who writes, which blocks a host reads, and what Keras 3's ``fit`` lacks for it.

``TF_CONFIG``, TensorFlow's own variable, names the hosts and which of them this process is. Each host has the store and
the run directory on a file system that all share; each makes only the blocks of its own replicas, and the first host,
the *chief*, is the only one that writes. A host that stops makes the others stop, too; the same command on all hosts
resumes.

Keras 3 does not support ``fit`` under ``MultiWorkerMirroredStrategy`` (keras, issue 20585). Three methods of a model
are replaced by others of the same purpose; they rely on names inside Keras, so Keras versions that this was not tried
on are refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from msim_tf.data.pipeline import Share, StorePart, make_dataset
from msim_tf.errors import InputError
from msim_tf.files import parse_json

TRIED_KERAS = ("3.15",)

# What a collective operation raises when another host is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError, tf.errors.DeadlineExceededError)


@dataclass(frozen=True)
class Hosts:
    """The processes that train together.

    Attributes:
        strategy: how the work is distributed.
        share: which of them this process is, of several; None if it is the only one.
    """

    strategy: tf.distribute.Strategy
    share: Share | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes."""
        return self.share is None or self.share.host == 0

    def agreed(self, number: int = 0) -> int:
        """The chief's ``number``, on every host; returns once all hosts have called it."""
        if self.share is None:
            return number

        def total() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # Only the chief's first replica adds anything to the sum.
            own = number if self.is_chief else 0
            first = tf.equal(context.replica_id_in_sync_group, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, own, 0))

        # Every replica has the same sum; a collective operation returns when all of them have come to it.
        values = self.strategy.experimental_local_results(tf.function(lambda: self.strategy.run(total))())
        return int(values[0])

    def dataset(self, part: StorePart, inputs: tuple[str, ...], *, first: int, last: int, cached: bool = False) -> Any:
        """What ``fit`` takes: the batches of ``make_dataset``; of several hosts, the blocks of this one.

        Args:
            part: the part of the data.
            inputs: names of the model's inputs.
            first: number of the first batch.
            last: one past the last.
            cached: read the batches once and give them again in every epoch; pass their number to ``fit`` as its steps.
        """
        if self.share is None:
            data = make_dataset(part, inputs, first=first, last=last)
            return data.cache() if cached else data

        def blocks(context: tf.distribute.InputContext) -> tf.data.Dataset:
            # One pipeline per host. With a number of steps ``fit`` goes on where it stopped, so a cached one repeats.
            share = Share(context.input_pipeline_id, context.num_input_pipelines)
            data = make_dataset(part, inputs, first=first, last=last, share=share)
            return data.cache().repeat() if cached else data

        return self.strategy.distribute_datasets_from_function(blocks)

    def prepare(self, model: keras.Model) -> None:
        """Makes ``fit`` of a compiled model work on several hosts; does nothing on one."""
        if self.share is not None:
            _replace_methods(model, self.strategy)

    @contextlib.contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Turns the error of a collective operation whose other side is gone into one line.

        Raises:
            InputError: saying so, on several hosts.
        """
        try:
            yield
        except _LOST as error:
            if self.share is None:
                raise
            reason = (error.message or type(error).__name__).splitlines()[0]
            raise InputError(
                f"another host of this training stopped or cannot be reached ({reason[:200]}); "
                "start the same command on all hosts again, it resumes after the last finished epoch"
            ) from error


def hosts_of_environment() -> Hosts:
    """The hosts that ``TF_CONFIG`` names; without it, or with a single host there, all GPUs of this one, or its CPU.

    With several hosts it must be called before TensorFlow has computed anything, as ``MultiWorkerMirroredStrategy``
    demands.

    Raises:
        InputError: if ``TF_CONFIG`` is malformed or has other tasks than workers, or this Keras is not one of
            ``TRIED_KERAS``.
    """
    count, index = _cluster(os.environ.get("TF_CONFIG", ""))
    if count < 2:
        return Hosts(tf.distribute.MirroredStrategy())
    if keras.__version__.rpartition(".")[0] not in TRIED_KERAS:
        raise InputError(
            f"training on several hosts was tried with Keras {', '.join(TRIED_KERAS)}, "
            f"this is Keras {keras.__version__}: install one of those, or unset TF_CONFIG to train on this host alone"
        )
    # NCCL connects GPUs; for CPUs only the ring is there.
    kind = tf.distribute.experimental.CommunicationImplementation
    chosen = kind.AUTO if tf.config.list_physical_devices("GPU") else kind.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=chosen)
    return Hosts(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options), Share(index, count))


def _cluster(text: str) -> tuple[int, int]:
    """Number of hosts, and this one's place among them; a chief, if there is one, comes first."""
    if not text:
        return 1, 0
    try:
        config = parse_json(text)
        cluster, task = config.get("cluster", {}), config.get("task", {"type": "worker", "index": 0})
        # The order in which TensorFlow numbers the hosts.
        hosts = [("chief", i) for i in range(len(cluster.get("chief", [])))]
        hosts += [("worker", i) for i in range(len(cluster.get("worker", [])))]
        if set(cluster) - {"chief", "worker"}:
            raise InputError(
                f"TF_CONFIG names {', '.join(sorted(cluster))}: expected 'worker', and at most 'chief' beside it"
            )
        if len(hosts) < 2:
            return 1, 0
        return len(hosts), hosts.index((task["type"], int(task["index"])))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(
            f"TF_CONFIG is malformed ({error}): expected "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}'
        ) from None


def _replace_methods(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Replaces the methods that ``fit`` and ``evaluate`` make their steps with, and the one that builds the metrics."""

    def step_function(step: Callable[[Any], dict[str, tf.Tensor]]) -> Callable[[Iterator[Any]], dict[str, tf.Tensor]]:
        # Keras reduces the logs by a function that looks at the local replicas only; here they are averaged over all
        # hosts.
        @tf.function
        def on_all_replicas(data: Any) -> dict[str, tf.Tensor]:
            logs = strategy.run(step, args=(data,))
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        return lambda iterator: on_all_replicas(next(iterator))

    def make_train_function(force: bool = False) -> None:
        if model.train_function is None or force:
            model.train_function = step_function(model.train_step)

    def make_test_function(force: bool = False) -> None:
        if model.test_function is None or force:
            model.test_function = step_function(model.test_step)

    def maybe_symbolic_build(iterator: Any = None, data_batch: Any = None) -> None:
        # Keras takes the first batch as it comes, which on several hosts is one value per replica; one of them has the
        # shapes.
        if iterator is not None:
            for _, _, batches in iterator:
                first = next(batches)
                data_batch = tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], first)
                break
        with strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    model.make_train_function = make_train_function
    model.make_test_function = make_test_function
    model._maybe_symbolic_build = maybe_symbolic_build
