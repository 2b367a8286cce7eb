"""From parameters to a compiled model: which loss stands at which output, with which weight; the learning rate."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from msim_tf.data.batch_sampler import BatchSampler
from msim_tf.dimensions import TEACHER, TRACK
from msim_tf.model.losses import ConditionalTripletLoss, ContrastiveLoss, RegressionLoss, TeacherLoss, loss_weights
from msim_tf.model.metrics import triplet_metrics
from msim_tf.model.network import build_network
from msim_tf.model.optimizers import build_adam
from msim_tf.model.params import TrainParams
from msim_tf.params import FeatureParams


def build_compiled_model(
    params: TrainParams, features: FeatureParams, steps: int, sampler: BatchSampler, strategy: tf.distribute.Strategy
) -> keras.Model:
    """Builds and compiles the network; L_MD is one loss per dimension with weight 1 / N_D (paper, eq. 1).

    Args:
        params: how to train.
        features: gives the input shapes.
        steps: batches per epoch, for the schedule.
        sampler: gives the targets that come from a teacher.
        strategy: whose variables the model's are.
    """
    teacher_targets, regression_size = sampler.teacher_targets, sampler.regression_size
    keras.utils.set_random_seed(params.seed)

    # Losses and their weights by output: the dimensions, then what a training may add.
    dimensions = params.network.dimensions
    losses = {name: dimension_loss(params) for name in dimensions}
    weights = loss_weights(dimensions)
    if params.track_weight > 0:
        losses[TRACK], weights[TRACK] = dimension_loss(params), params.track_weight
    for target in teacher_targets:
        losses[target], weights[target] = TeacherLoss(), params.teacher_weight / len(teacher_targets)
    if regression_size:
        losses[TEACHER], weights[TEACHER] = RegressionLoss(), params.regression_weight

    # The network has an output for each of them.
    network = dataclasses.replace(
        params.network,
        track_output=params.track_weight > 0,
        teacher_outputs=tuple(teacher_targets.values()),
        regression_size=regression_size,
    )

    # ReduceLROnPlateau lowers the rate during training, so it must be a plain number.
    rate: float | keras.optimizers.schedules.LearningRateSchedule = params.learning_rate
    if params.schedule != "plateau":
        # Warm-up starts at the rate of its first step; alpha, the end of the cosine, is a share of the peak.
        rate = keras.optimizers.schedules.CosineDecay(
            params.learning_rate / max(1, params.warmup_steps),
            decay_steps=max(1, params.epochs * steps - params.warmup_steps),
            alpha=params.min_learning_rate / params.learning_rate,
            warmup_target=params.learning_rate,
            warmup_steps=params.warmup_steps,
        )

    # Variables must be created under the strategy, the optimizer's as well.
    with strategy.scope():
        model = build_network(network, features)
        model.compile(
            optimizer=build_adam(rate, params.clip_norm),
            loss=losses,
            loss_weights=weights,
            metrics={name: triplet_metrics(margin=params.margin, fallback=params.fallback) for name in dimensions},
            jit_compile=False,  # XLA slows convolutions on the CPU
        )
    return model


def dimension_loss(params: TrainParams) -> keras.losses.Loss:
    """A new loss for one dimension's relation."""
    if params.objective == "contrastive":
        return ContrastiveLoss(params.temperature)
    return ConditionalTripletLoss(margin=params.margin, fallback=params.fallback)
