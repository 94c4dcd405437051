"""Settings of a training run.

A config file (`configs/*.py`) starts from `defaults(Config)`, changes what it needs and returns the ConfigDict, so that
`--config.optim.peak_lr=3e-4` works for any key. `settings.parse(Config, config_dict)` converts it to the dataclasses
below and rejects unknown settings. No other module reads the ConfigDict. The module is longer than others may be, so
that every setting of a run is in one place.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from jepa_jax.settings import ConfigError, Registry, at_least, share, to_config_dict

OBJECTIVES = Registry("jepa_jax.objectives:CLASSES", key="class", base="jepa_jax.objectives.base:Objective")
MASKS = Registry("jepa_jax.masks:CLASSES", key="kind", default="block")
SOURCES = Registry("jepa_jax.data.sources:CLASSES", key="kind")

Remat = Literal["none", "dots", "full", "level"]
"""What the forward pass saves for the backward pass. The rest is recomputed, which takes less memory but more time.

none: saves everything. dots: the outputs of Dense layers, so attention logits and softmax (quadratic in the number of
tokens), norms and GELU are recomputed. full: the input of each block. level: the input of each group of blocks (those
of a level, or of the predictor); its blocks are recomputed twice, first for their inputs, then each for its own
backward pass.
"""

Schedules = Literal["hold", "stretch"]
"""What schedules do in an extended run: keep their final values, or stretch to its length."""

Attention = Literal["auto", "xla", "fused"]
"""The implementation of attention. xla: XLA operations, which write logits and softmax to memory. fused: a kernel that
keeps them on the chip: splash attention on TPUs, and cuDNN's on NVIDIA GPUs, for bfloat16, an even number of tokens and
heads of 8, 16, … 128 channels. On other devices, and for inputs that cuDNN does not support, fused is the same as xla.
auto: fused, if there is a kernel for the device and dtype and its results on a small input agree with those of xla,
forward and backward; else xla. On CPUs auto is xla.
"""


def _baseline_masks() -> dict[str, Any]:
    block = MASKS.find("block", "masks")
    return {"short": block(), "long": block(blocks=2, spatial_scale=0.7)}


def _baseline_objectives() -> dict[str, Any]:
    return {name: OBJECTIVES.find(name, "objectives")() for name in ("prediction", "context_prediction")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The shape of the model's input clips."""

    frames: int = 16
    size: int | tuple[int, int] = 224  # side in pixels, or (height, width)

    def __post_init__(self) -> None:
        at_least(self, 1, "frames")
        if min(self.height, self.width) < 1:
            raise ValueError(f"size is {self.size}; expected at least 1")
        if self.height == self.width:
            object.__setattr__(self, "size", self.height)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.size[0] if isinstance(self.size, tuple) else self.size

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.size[1] if isinstance(self.size, tuple) else self.size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip: frames, height, width, color channels."""
        return self.frames, self.height, self.width, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The views of a video in an evaluation: one per training video, clips × crops per test video."""

    clips: int = 1  # evenly spaced temporal segments of a test video
    crops: int = 1  # square crops of each segment, evenly spaced along the long side
    frame_step: int = 0  # every n-th frame of a segment; 0: frames are spread over the whole video

    def __post_init__(self) -> None:
        at_least(self, 1, "clips", "crops")
        at_least(self, 0, "frame_step")
        if self.clips > 1 and not self.frame_step:
            raise ValueError(f"clips is {self.clips}, but frame_step is 0: each clip would span the whole video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The Vision Transformer over tubelets (arXiv:2605.17165, after V-JEPA 2.1)."""

    # A name of models.sizes.ENCODERS; WIDTHxDEPTHxHEADS, as in 192x12x3; or WIDTHxDEPTHxHEADSxHIDDEN, with the hidden
    # width of the MLP.
    size: str = "vit_base"
    patch: int = 16
    tubelet: int = 2
    levels: int = 4  # outputs are taken at the end of this many equal groups of blocks
    level_ends: tuple[int, ...] = ()  # or after these blocks, counted from 1; overrides `levels`
    rotary: Literal["interleaved", "tiled"] = "interleaved"  # tiled: the layout of released V-JEPA 2 weights
    scan: bool = True  # False unrolls the blocks: slower to compile, sometimes faster to run
    remat: Remat = "none"  # of the encoder's and the predictor's blocks
    attention: Attention = "auto"  # of the encoder and the predictor

    def __post_init__(self) -> None:
        at_least(self, 1, "patch", "tubelet", "levels")
        if self.level_ends:
            if list(self.level_ends) != sorted({end for end in self.level_ends if end >= 1}):
                raise ValueError(f"level_ends is {self.level_ends}; expected increasing block numbers from 1")
            object.__setattr__(self, "levels", len(self.level_ends))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """The narrow transformer that predicts target tokens from context tokens."""

    size: str = "256x8x8"  # as of the encoder
    levels: int = 0  # takes this many of the encoder's last levels; 0: all
    output: int = 0  # channels of its outputs; 0: those of all levels, which training needs
    mask_tokens: int = 2  # as in the study, where both masks use the first; released weights have 8 or 10
    # Of rotary positions in height and width, to the grid of a 256-pixel frame. encoder: as the encoder does, which
    # scales those of the interleaved layout.
    rotary_scale: Literal["encoder", "on", "off"] = "encoder"

    def __post_init__(self) -> None:
        at_least(self, 0, "levels", "output")
        at_least(self, 1, "mask_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer, with warm-up, cosine schedule (constant if final_lr = peak_lr) and decoupled weight decay.

    With `accumulate` > 1 the gradient is the mean over that many microbatches, computed one after another. Masks and
    data are the same as without. Objectives with batch statistics, such as sigreg, compute them per microbatch; all
    others make the same update up to rounding.
    """

    name: str = "adamw"  # a key of training.optimizer.OPTIMIZERS: adamw, nadamw, lion, muon or sgd
    start_lr: float = 1e-4
    peak_lr: float = 6e-4
    final_lr: float = 6e-4
    warmup_steps: int = 300
    weight_decay: float = 0.04
    final_weight_decay: float = 0.04
    beta1: float = 0.9  # also the momentum of sgd and muon
    beta2: float = 0.999
    epsilon: float = 1e-8
    grad_clip_norm: float = 0.0  # gradients are scaled down to this global norm; 0: off
    accumulate: int = 1

    def __post_init__(self) -> None:
        at_least(self, 0, "start_lr", "peak_lr", "final_lr", "warmup_steps", "weight_decay", "final_weight_decay")
        at_least(self, 0, "epsilon", "grad_clip_norm")
        at_least(self, 1, "accumulate")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0 and less than 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The exponential moving average of the encoder, used as target encoder.

    `enabled=False` is the older form of `Config.target="online"`. `Config` keeps the two consistent.
    """

    enabled: bool = True
    decay: float = 0.99925
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # linear and cosine rise from `decay` to 1

    def __post_init__(self) -> None:
        share(self, "decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of clips."""

    # videos, images, webdataset (tar shards), your own class (my_package.my_module:MySource), or a rendered set:
    # sprites, directions, directions_wrapped, moving_discs.
    kind: str = "videos"
    # A prepared set; a folder (CLASS/file, SPLIT/CLASS/file or flat); or a CSV file of `path label` lines. For
    # webdataset: a .tar file, a folder of them, or shard-{000..012}.tar. Training needs no labels.
    path: str = ""
    weight: float = 1.0  # sources are sampled in proportion to their weights; 0 disables a source
    frame_step: int = 1  # take every n-th frame
    target_fps: int = 0  # > 0: take every (⌈fps⌉ // target_fps)-th frame instead
    # even: exactly every frame_step-th frame. linspace: as in the study, where some steps are one frame longer.
    window: Literal["even", "linspace"] = "even"
    include: str = ""  # keep only paths that match this regular expression
    exclude: str = ""  # drop paths that match this regular expression
    difficulty: Literal["easy", "standard"] = "easy"  # sprites only
    # For rendered sets, prepared sets and folders with split folders. Other folders and CSV files have no splits.
    split: Literal["train", "validation", "test"] = "train"
    fold: int = 1  # prepared UCF-101 only: 1, 2 or 3, the official train/test split
    clips: int = 100_000  # rendered sets only: number of clips

    def __post_init__(self) -> None:
        at_least(self, 0, "weight", "target_fps")
        at_least(self, 1, "frame_step", "fold", "clips")
        try:
            kind = SOURCES.find(self.kind, "kind")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if not hasattr(kind, "check"):
            raise ValueError(f"kind is {self.kind!r}; expected a subclass of jepa_jax.data.sources.Source")
        kind.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random resized crop and flip of each clip, the same for all frames. Not applied to rendered clips."""

    crop_area: tuple[float, float] = (0.3, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.35)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        share(self, "flip_probability")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area is {self.crop_area}; expected 0 < minimum ≤ maximum ≤ 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect is {self.crop_aspect}; expected 0 < minimum ≤ maximum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The input pipeline. In config files the paths of sources can refer to `path` or `root`."""

    path: str = ""
    root: str = ""  # folder of prepared sets, each in a subfolder with its name
    sources: Mapping[str, SourceConfig] = dataclasses.field(default_factory=dict)
    augment: AugmentConfig = AugmentConfig()
    workers: int = 2  # decoding processes; 0 decodes in the training process
    prefetch: int = 2  # batches transferred to the device in advance
    # How images are used. clips: as still clips, mixed with the others in each batch. frames: as single frames, which
    # the encoder embeds with its image path, in separate steps; their share of the steps follows the weights.
    images: Literal["clips", "frames"] = "clips"
    max_skip_fraction: float = 0.05  # a larger share of undecodable items in a source is an error
    render_in_step: bool = True  # rendered sets only: render inside the jitted step

    def __post_init__(self) -> None:
        at_least(self, 0, "workers", "prefetch")
        share(self, "max_skip_fraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The device mesh: the batch is split over data × fsdp, large parameters over fsdp. −1: all remaining devices."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often checkpoints are saved, in addition to the last step, and how many are kept."""

    every: int = 1000
    keep: int = 2
    at: tuple[int, ...] = ()  # further steps after which a checkpoint is saved; these are always kept

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "keep")
        if min(self.at, default=1) < 1:
            raise ValueError(f"at is {self.at}; expected numbers of steps, at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How often metrics are written; `features_every` for feature spread and rank, and the collapse warning."""

    every: int = 10
    features_every: int = 100
    pictures_every: int = 0  # steps between pictures of features and masks in TensorBoard; 0: none
    wandb: str = ""  # project on Weights & Biases that metrics and pictures are also logged to

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "features_every")
        at_least(self, 0, "pictures_every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How often the gradient audit runs, which takes one backward pass per objective. 0: never."""

    every: int = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What pretraining and fine-tuning share: length, data, optimizer, devices, checkpoints."""

    seed: int = 239
    steps: int = 30_000
    schedule_steps: int = 0  # schedules are planned for this many steps, then keep their final values; 0: for `steps`
    batch_size: int = 32  # global
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of activations; parameters are float32
    clip: ClipConfig = ClipConfig()
    # Weights to start from: WORKDIR or WORKDIR:STEP of a training run, a file or folder of released weights, or a name
    # on the Hugging Face hub. Empty: random. Read when the run starts, never when it is resumed.
    init: str = ""
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size")
        at_least(self, 0, "schedule_steps")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; expected at least 0 and less than 2^31")
        if self.batch_size % self.optim.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}, not a multiple of optim.accumulate, {self.optim.accumulate}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A training run."""

    recipe: str = "baseline"
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    # Built-in kinds, or your own classes: masks.NAME.kind = my_package.my_module:MyClass.
    masks: Annotated[Mapping[str, Any], MASKS] = dataclasses.field(default_factory=_baseline_masks)
    # By name. Names that are not built-in need a class: objectives.NAME.class = my_package.my_module:MyClass.
    objectives: Annotated[Mapping[str, Any], OBJECTIVES] = dataclasses.field(default_factory=_baseline_objectives)
    # The target encoder. ema: the moving average of the encoder. online: the encoder itself, with gradient. frozen: the
    # encoder of another run, never updated.
    target: Literal["ema", "online", "frozen"] = "ema"
    target_checkpoint: str = ""  # for frozen: WORKDIR or WORKDIR:STEP of a training run
    ema: EmaConfig = EmaConfig()
    audit: AuditConfig = AuditConfig()
    probe: str = ""  # an evaluation config to run as a separate job after training

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target == "ema" and not self.ema.enabled:
            object.__setattr__(self, "target", "online")
        object.__setattr__(self, "ema", dataclasses.replace(self.ema, enabled=self.target == "ema"))
        if (self.target == "frozen") != bool(self.target_checkpoint):
            raise ValueError(
                f"target is {self.target!r} and target_checkpoint is {self.target_checkpoint!r}; target 'frozen' needs "
                "a checkpoint (WORKDIR or WORKDIR:STEP), and the other targets take none"
            )
        for name in ("masks", "objectives"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; at least one is needed")
        used = {name: objective for name, objective in self.objectives.items() if objective.coefficient != 0}
        object.__setattr__(self, "objectives", used)
        for objective in used.values():
            objective.check_beside(used)


def defaults(cls: type) -> Any:
    """Returns the defaults of a schema as a ConfigDict, which every config file starts from.

    For a training run they include every built-in objective, with coefficient 0 if it is not in the baseline, so that
    flags and recipes can set any of them. `Config` drops objectives with coefficient 0.
    """
    config = to_config_dict(cls())
    return with_every_objective(config) if cls is Config else config


def with_every_objective(config: Any) -> Any:
    """Adds the built-in objectives that a run's ConfigDict lacks, with coefficient 0, and returns the ConfigDict."""
    for name, kind in OBJECTIVES.classes.items():
        if name not in config.objectives:
            config.objectives[name] = to_config_dict(kind(coefficient=0.0))
    return config
