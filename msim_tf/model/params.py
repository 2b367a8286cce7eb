"""Which network, and how it is trained: ``NetworkParams``, ``TrainParams`` and their presets. Needs no TensorFlow.

Every deviation from the paper is a field here with a name of its own; the presets ``paper`` and those of
``NETWORK_PRESETS`` are the paper's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from msim_tf.dimensions import DIMENSION_NAMES, TAG_DIMENSION_NAMES, EmbeddingLayout, dimension
from msim_tf.errors import InputError
from msim_tf.theory import KEY_RELATIONS

MULTI_INPUT = ("mel", "onset", "cens")
SUBSPACE_WIDTH = 64  # 384 coordinates for six dimensions, 256 for four (paper, section 3.2)


@dataclass(frozen=True)
class NetworkParams:
    """Which network.

    Attributes:
        inputs: ("mel",) or ("mel", "onset", "cens").
        dimensions: names, in the order of ``DIMENSIONS``.
        subspace_width: coordinates of each dimension's subspace; the embedding has that many times the number of
            dimensions.
        width: scales every filter count of the convolutions, 1.0 is the paper's; each is at least 4 and a multiple of
            4.
        trunk_width: the same for the blocks after the branches have met, where maps are small and a filter is cheap;
            0 means ``width``.
        mel_mean: mean of the mel-spectrograms of the training split; the default is Lee's.
        mel_variance: their variance, > 0; the default is Lee's.
        time_averaged_heads: project the dimensions that declare an ``averaged_input`` (tempo, key) from the average of
            that input over time instead of from the backbone (ours; see ``model.network``).
        slow_stride: 1, 2 or 4; the branches of tempogram and CENS use every so many-th frame only (ours: both change
            slowly, a tempogram's window is 9 s long, and the two branches are most of the work).
        track_output: also give the whole embedding as output "track", for the track regularisation of Lee et al., ISMIR
            2020.
        regression_size: coordinates that the tag dimensions together also predict, output "teacher", for the loss on
            all that a teacher says.
        teacher_outputs: dimensions that also give their subspace as output "<dimension>_teacher", for the loss on a
            teacher's tags.
    """

    inputs: tuple[str, ...] = MULTI_INPUT
    dimensions: tuple[str, ...] = DIMENSION_NAMES
    subspace_width: int = SUBSPACE_WIDTH
    width: float = 1.0
    trunk_width: float = 0.0
    mel_mean: float = 0.2
    mel_variance: float = 0.25**2
    time_averaged_heads: bool = False
    slow_stride: int = 1
    track_output: bool = False
    teacher_outputs: tuple[str, ...] = ()
    regression_size: int = 0

    def __post_init__(self) -> None:
        if self.inputs not in (("mel",), MULTI_INPUT):
            raise InputError(f"NetworkParams.inputs is {self.inputs}, expected ('mel',) or {MULTI_INPUT}")
        for name in ("width", "mel_variance"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"NetworkParams.{name} is {getattr(self, name)}, expected > 0")
        if not 0 <= self.trunk_width < math.inf:
            raise InputError(f"NetworkParams.trunk_width is {self.trunk_width}, expected >= 0")
        if self.slow_stride not in (1, 2, 4):
            raise InputError(f"NetworkParams.slow_stride is {self.slow_stride}, expected 1, 2 or 4")
        layout(self)  # refuses unknown names, another order and widths below 1
        if self.regression_size and not set(self.dimensions) & set(TAG_DIMENSION_NAMES):
            raise InputError(
                f"a teacher's regression with dimensions {self.dimensions}: expected one of {TAG_DIMENSION_NAMES}"
            )
        if self.time_averaged_heads and (self.inputs != MULTI_INPUT or not self.backbone_dimensions):
            raise InputError(
                f"NetworkParams.time_averaged_heads with inputs {self.inputs} and dimensions {self.dimensions}: "
                f"expected inputs {MULTI_INPUT}, and a dimension that the backbone projects"
            )

    @property
    def embedding_size(self) -> int:
        """Coordinates of the whole embedding."""
        return self.subspace_width * len(self.dimensions)

    @property
    def heads(self) -> dict[str, str]:
        """Dimension -> the input whose average over time it is projected from; empty without time-averaged heads."""
        inputs = {name: dimension(name).averaged_input for name in self.dimensions if self.time_averaged_heads}
        return {name: averaged for name, averaged in inputs.items() if averaged is not None}

    @property
    def backbone_dimensions(self) -> tuple[str, ...]:
        """The dimensions that are projected from the backbone."""
        return tuple(name for name in self.dimensions if name not in self.heads)

    def to_json(self) -> dict[str, Any]:
        """The parameters as a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> NetworkParams:
        """The inverse of ``to_json``; what an older version did not know has its default.

        Raises:
            InputError: if a name is unknown.
        """
        unknown = set(value) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"unknown network parameters: {', '.join(sorted(unknown))}; made by another version?")
        restored: dict[str, Any] = {
            name: tuple(stored) if isinstance(stored, list) else stored for name, stored in value.items()
        }
        return cls(**restored)


def layout(network: NetworkParams) -> EmbeddingLayout:
    """Which coordinates of the embedding belong to which dimension: equal subspaces (paper, section 2.2)."""
    return EmbeddingLayout(network.dimensions, (network.subspace_width,) * len(network.dimensions))


# Table 1 of the paper; "multi384" is the proposed model. Numbers in the names are coordinates with the paper's six
# dimensions.
NETWORK_PRESETS: dict[str, NetworkParams] = {
    "baseline": NetworkParams(inputs=("mel",), dimensions=TAG_DIMENSION_NAMES),
    "multi4": NetworkParams(dimensions=TAG_DIMENSION_NAMES),
    "single258": NetworkParams(inputs=("mel",), subspace_width=43),
    "single384": NetworkParams(inputs=("mel",)),
    "multi384": NetworkParams(),
}


# Fields of TrainParams that are one of a few words, and numbers that may not be 0.
_WORDS = {
    "schedule": ("plateau", "cosine"),
    "objective": ("triplet", "contrastive"),
    "fallback": ("hardest", "skip"),
    "key_relation": KEY_RELATIONS,
    "keep": ("best", "last"),
}
_POSITIVE = ("epochs", "batch_size", "learning_rate", "margin", "temperature")


def network_preset(name: str) -> NetworkParams:
    """A preset of ``NETWORK_PRESETS``.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in NETWORK_PRESETS:
        raise InputError(f"no network preset {name!r}; there are {', '.join(NETWORK_PRESETS)}")
    return NETWORK_PRESETS[name]


@dataclass(frozen=True)
class TrainParams:
    """Everything that decides a training, together with the store.

    Attributes:
        network: the network.
        epochs: passes of ``steps_per_epoch`` batches.
        steps_per_epoch: batches per epoch; 0 means as many as use each training clip about once.
        validation_steps: batches of the validation split; 0 likewise.
        batch_size: segments per replica.
        learning_rate: initial learning rate of Adam.
        schedule: "plateau" (paper 3.4: divide by 5 after ``patience`` epochs without a better validation loss) or
            "cosine" (decay to ``min_learning_rate`` over the whole training after ``warmup_steps``).
        plateau_factor: what the learning rate is multiplied with on a plateau.
        patience: epochs without a better validation loss before that.
        min_learning_rate: floor of the learning rate.
        warmup_steps: steps of linear warm-up of the cosine schedule.
        clip_norm: bound of the gradient's global norm; 0 for none.
        margin: of the triplet loss, and of semi-hard mining.
        fallback: "hardest" or "skip", for pairs without a semi-hard negative.
        key_relation: "parallel", "relative" or "both".
        objective: "triplet" (the paper's conditional triplet loss) or "contrastive" (ours: masked supervised
            contrastive loss).
        temperature: of the contrastive loss.
        track_weight: weight of Lee's track regularisation; 0 switches it off.
        teacher_weight: weight of the loss on a teacher's tags (``msim label`` takes them), 0 switches it off; relations
            are then soft: the cosine of two tracks in a subspace is drawn to that of their tags.
        regression_weight: weight of the loss on predicting all that a teacher says of a segment (its scores of tags and
            its own embedding); 0 switches it off. The layer that predicts is of no use afterwards and is not exported.
        augment: also train on tracks at other tempi and in other keys, see ``data.augmentation``.
        head_epochs: passes of ``head_steps`` batches after all others, in which only the time-averaged heads learn,
            from the mean of ``head_crops`` segments of each clip as retrieval compares tracks; 0 for none.
        head_steps: batches of such an epoch.
        head_crops: segments of each clip.
        head_learning_rate: initial learning rate of that stage; a cosine ends it at 0.
        describe_steps: batches from which the heads that describe music (``model.description_heads``) learn after all
            else; 0 for no such heads.
        keep: which model is kept: "best", of the epoch with the least validation loss, or "last".
        mixed_precision: compute in float16 on a GPU, bfloat16 on a CPU.
        start_from: exported version (``saved_models/NAME/N``) of the same network whose weights are the initial ones;
            "" for random ones.
        validation: share of the tracks, by whole groups, that is held out.
        seed: decides initial weights, split and batches.
    """

    network: NetworkParams = field(default_factory=lambda: NETWORK_PRESETS["multi384"])
    epochs: int = 200
    steps_per_epoch: int = 0
    validation_steps: int = 0
    batch_size: int = 64
    learning_rate: float = 1e-5
    schedule: str = "plateau"
    plateau_factor: float = 0.2
    patience: int = 10
    min_learning_rate: float = 1e-10
    warmup_steps: int = 0
    clip_norm: float = 0.0
    margin: float = 0.1
    fallback: str = "hardest"
    key_relation: str = "parallel"
    objective: str = "triplet"
    temperature: float = 0.1
    track_weight: float = 0.0
    teacher_weight: float = 0.0
    regression_weight: float = 0.0
    augment: bool = False
    head_epochs: int = 0
    head_steps: int = 200
    head_crops: int = 4
    head_learning_rate: float = 2e-3
    describe_steps: int = 0
    keep: str = "best"
    mixed_precision: bool = False
    start_from: str = ""
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise InputError(f"{name} {getattr(self, name)!r}: expected {' or '.join(map(repr, words))}")
        if self.head_epochs and not self.network.heads:
            raise InputError(f"head_epochs is {self.head_epochs}, but this network has no time-averaged heads")
        # No number may be negative; NaN fails every comparison.
        for name, value in vars(self).items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and not (0 < value < math.inf if name in _POSITIVE else 0 <= value < math.inf):
                raise InputError(f"{name} is {value}, expected {'> 0' if name in _POSITIVE else '>= 0'}")
        if self.validation >= 1 or self.seed >= 2**32:
            raise InputError(
                f"validation is {self.validation} and seed is {self.seed}, expected below 1 and below 2**32"
            )

    def to_json(self) -> dict[str, Any]:
        """The parameters as a JSON object."""
        return {**dataclasses.asdict(self), "network": self.network.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainParams:
        """The inverse of ``to_json``."""
        return cls(**{**value, "network": NetworkParams.from_json(value["network"])})


# "paper" is section 3.4 as it stands. It needs the paper's data: at this learning rate a few thousand clips teach it
# nothing. "small" is ours, for a few hours of music on a laptop: the learning rate was the best of those tried, and a
# cosine ends in the time that was asked for. "open6" made the model of that name in saved_models/: tens of hours of
# music that a teacher has tagged, an hour on two cores. "jamendo" is for a GPU and tens of thousands of labelled
# tracks, as MTG-Jamendo has: the paper's width, 16 bits, large batches; docs/reproduce.md computes its cost. Nobody has
# run it to the end, so nobody knows how good it is.
TRAIN_PRESETS: dict[str, TrainParams] = {
    "paper": TrainParams(),
    "small": TrainParams(
        network=dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.25, time_averaged_heads=True),
        epochs=30,
        learning_rate=1e-3,
        schedule="cosine",
        min_learning_rate=1e-5,
        warmup_steps=40,
        clip_norm=1.0,
        batch_size=48,
        describe_steps=300,
    ),
    "open6": TrainParams(
        network=dataclasses.replace(
            NETWORK_PRESETS["multi384"], width=0.25, trunk_width=0.5, time_averaged_heads=True, slow_stride=4
        ),
        epochs=40,
        steps_per_epoch=240,
        validation_steps=20,
        batch_size=64,
        learning_rate=1e-3,
        schedule="cosine",
        min_learning_rate=1e-5,
        warmup_steps=40,
        clip_norm=1.0,
        objective="contrastive",
        teacher_weight=3.0,
        regression_weight=8.0,
        augment=True,
        head_epochs=90,
        describe_steps=1_000,
        mixed_precision=True,
        validation=0.1,
        seed=1,
    ),
    "jamendo": TrainParams(
        network=dataclasses.replace(NETWORK_PRESETS["multi384"], time_averaged_heads=True),
        epochs=200,
        batch_size=256,
        learning_rate=1e-3,
        schedule="cosine",
        min_learning_rate=1e-5,
        warmup_steps=1_000,
        clip_norm=1.0,
        objective="contrastive",
        augment=True,
        head_epochs=30,
        describe_steps=1_000,
        mixed_precision=True,
    ),
}
