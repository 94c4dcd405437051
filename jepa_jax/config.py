"""Settings of a training run, as frozen dataclasses, and the one place where config files become them.

A config file (`configs/*.py`) starts from `defaults(Config)`, changes what it needs and returns the ConfigDict, so that
`--config.optim.peak_lr=3e-4` works on any key. `parse(Config, config_dict)` turns it into the dataclasses below and
refuses what they do not know. Nothing further down reads a ConfigDict.
"""

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import ml_collections

from jepa_jax.objectives import base, factorization, recipes

Remat = Literal["none", "dots", "full", "level"]
"""What the forward pass keeps for the backward pass, which computes the rest again: less memory, more time.

none: everything. dots: what the Dense layers return, so neither attention's logits and softmax, which grow with the
square of the tokens, nor norms and GELU. full: the input of each block. level: the input of each group of blocks (of a
level, or the predictor's); its blocks are computed again twice, first for their inputs, then each for its own backward
pass.
"""

Attention = Literal["xla", "fused"]
"""Who computes attention. xla: the compiler, which writes logits and softmax to memory. fused: a kernel that keeps them
on the chip: on TPUs splash attention; on NVIDIA GPUs cuDNN's, in bfloat16 and of an even number of tokens; elsewhere,
and for what cuDNN does not take, the compiler.
"""


class ConfigError(ValueError):
    """A setting that cannot be used: says which, why, and what would be right."""


@contextlib.contextmanager
def blame(path: str) -> Iterator[None]:
    """Says of a ValueError raised inside which setting it is about."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _at_least(settings: Any, least: int, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not value >= least:
            raise ValueError(f"{name} is {value}; expected at least {least}")


def _share(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; expected a share in [0, 1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The clips a model sees: `frames` frames of `size`×`size` pixels."""

    frames: int = 16
    size: int = 224

    def __post_init__(self) -> None:
        _at_least(self, 1, "frames", "size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The views of a video that an evaluation takes: one of a training video; of a test video clips × crops."""

    clips: int = 1  # stretches of a test video, equally far apart
    crops: int = 1  # squares of a stretch, from one end of the long side to the other
    frame_step: int = 0  # every n-th frame of a stretch; 0: the frames are spread over the whole video

    def __post_init__(self) -> None:
        _at_least(self, 1, "clips", "crops")
        _at_least(self, 0, "frame_step")
        if self.clips > 1 and not self.frame_step:
            raise ValueError(f"clips is {self.clips}, but frame_step is 0: each of them would span the whole video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The Vision Transformer over tubelets (arXiv:2605.17165, after V-JEPA 2.1)."""

    size: str = "vit_base"  # a name of models.sizes.ENCODERS, or WIDTHxDEPTHxHEADS, as in 192x12x3
    patch: int = 16
    tubelet: int = 2
    levels: int = 4  # outputs taken at the end of this many equal groups of blocks
    rotary: Literal["interleaved", "tiled"] = "interleaved"  # tiled: the layout of released V-JEPA 2 weights
    scan: bool = True  # False unrolls the blocks: slower to compile, sometimes faster to run
    remat: Remat = "none"  # of the encoder's and the predictor's blocks
    attention: Attention = "xla"  # of the encoder and the predictor

    def __post_init__(self) -> None:
        _at_least(self, 1, "patch", "tubelet", "levels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """The narrow transformer that predicts target tokens from context tokens."""

    size: str = "256x8x8"  # WIDTHxDEPTHxHEADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """One mask a clip: what blocks cover is predicted, the rest is seen."""

    blocks: int = 8
    spatial_scale: float = 0.15  # a block's share of the H·W positions
    temporal_scale: float = 1.0  # a block's share of the T time steps; 1 makes tubes
    aspect: tuple[float, float] = (0.75, 1.5)
    temporal_keep: float = 1.0  # the context is kept in this first share of time only (future prediction: 0.5)
    motion_strength: float = 0.0  # > 0: block origins follow motion, probability ∝ motion^strength
    motion_random_rate: float = 0.1  # share of origins drawn uniformly all the same
    budget: Literal["mean", "truncated"] = "mean"  # token counts: the reference's means, or after its batch-8 cut

    def __post_init__(self) -> None:
        _at_least(self, 1, "blocks")
        _at_least(self, 0, "motion_strength")
        _share(self, "motion_random_rate")
        for name in ("spatial_scale", "temporal_scale", "temporal_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in (0, 1]")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {self.aspect}; expected 0 < least ≤ most")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine (constant where final_lr = peak_lr), decoupled weight decay."""

    start_lr: float = 1e-4
    peak_lr: float = 6e-4
    final_lr: float = 6e-4
    warmup_steps: int = 300
    weight_decay: float = 0.04
    final_weight_decay: float = 0.04
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _at_least(self, 0, "start_lr", "peak_lr", "final_lr", "warmup_steps", "weight_decay", "final_weight_decay")
        _at_least(self, 0, "epsilon")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0 and less than 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The target encoder. Off: targets come from the online encoder, with gradient."""

    enabled: bool = True
    decay: float = 0.99925

    def __post_init__(self) -> None:
        _share(self, "decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of clips."""

    kind: Literal["sprites", "videos", "images"] = "videos"
    # A prepared set; or a folder, CLASS/file or flat; or, of videos, a CSV file of `path label` lines.
    path: str = ""
    weight: float = 1.0  # share of the clips drawn; 0 leaves the source out
    frame_step: int = 1  # take every n-th frame
    target_fps: int = 0  # > 0: take every (⌈fps⌉ // target_fps)-th frame instead
    include: str = ""  # keep only paths in which this regular expression is found
    exclude: str = ""  # drop paths in which this one is found
    difficulty: Literal["easy", "standard"] = "easy"  # sprites only
    split: Literal["train", "test"] = "train"  # sprites and prepared sets
    fold: int = 1  # prepared UCF-101: which of its three official train/test splits
    clips: int = 100_000  # sprites only: how many clips the set has

    def __post_init__(self) -> None:
        _at_least(self, 0, "weight", "target_fps")
        _at_least(self, 1, "frame_step", "fold", "clips")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """One random resized crop and one flip a clip, the same for all frames. Sprites are never cropped or flipped."""

    crop_area: tuple[float, float] = (0.3, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.35)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        _share(self, "flip_probability")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area is {self.crop_area}; expected 0 < least ≤ most ≤ 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect is {self.crop_aspect}; expected 0 < least ≤ most")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from. A config file lets the paths of its sources refer to `path` or `root`."""

    path: str = ""
    root: str = ""  # folder of prepared sets, each in a folder of its name
    sources: Mapping[str, SourceConfig] = dataclasses.field(default_factory=dict)
    augment: AugmentConfig = AugmentConfig()
    workers: int = 2  # processes that decode; 0 decodes in the training process
    prefetch: int = 2  # batches put on the device ahead of the step
    # How sources of images take part. clips: each image is a still clip among the others. frames: by weight, whole
    # steps are of images alone, as single frames, which the encoder embeds by its image path.
    images: Literal["clips", "frames"] = "clips"
    max_skip_fraction: float = 0.05  # more undecodable items than this in a source is an error
    render_in_step: bool = True  # sprites only: render inside the jitted step

    def __post_init__(self) -> None:
        _at_least(self, 0, "workers", "prefetch")
        _share(self, "max_skip_fraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices: the batch is split over data × fsdp, large parameters over fsdp. −1: all that remain."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is written, besides at the end, and how many are kept."""

    every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        _at_least(self, 1, "every", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """When metrics are written; `features_every` for feature spread and rank, and the collapse alarm."""

    every: int = 10
    features_every: int = 100

    def __post_init__(self) -> None:
        _at_least(self, 1, "every", "features_every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How often each objective's own gradient is looked at: one backward pass an objective. 0: never."""

    every: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 0, "every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A training run."""

    recipe: str = "baseline"
    seed: int = 239
    steps: int = 30_000
    batch_size: int = 32  # global
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of activations; parameters are float32
    clip: ClipConfig = ClipConfig()
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    masks: Mapping[str, MaskConfig] = dataclasses.field(
        default_factory=lambda: {"short": MaskConfig(), "long": MaskConfig(blocks=2, spatial_scale=0.7)}
    )
    objectives: Mapping[str, base.Objective] = dataclasses.field(default_factory=recipes.baseline)
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
    data: DataConfig = DataConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    audit: AuditConfig = AuditConfig()
    probe: str = ""  # an evaluation config to run, as a job of its own, when training is done

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "batch_size")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; expected at least 0 and less than 2^31")
        for name in ("masks", "objectives"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; at least one is needed")
        factorization.check_agreement(self.objectives)


def to_dict(settings: Any) -> Any:
    """Dataclasses and mappings as plain nested dicts; tuples stay tuples."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {f.name: to_dict(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {key: to_dict(value) for key, value in settings.items()}
    return settings


def to_config_dict(settings: Any) -> Any:
    """A dataclass as a ConfigDict that flags can override (typed Any: its keys are set like attributes)."""
    return ml_collections.ConfigDict(to_dict(settings), convert_dict=True)


def defaults(cls: type) -> Any:
    """The defaults of a settings class as a ConfigDict: where every config file starts.

    Of a training run it holds every objective there is, those that the baseline lacks with coefficient 0, so that flags
    and recipes can set any of them. `parse` leaves out what has coefficient 0.
    """
    config = to_config_dict(cls())
    if cls is Config:
        for name, kind in recipes.OBJECTIVES.items():
            if name not in config.objectives:
                config.objectives[name] = to_config_dict(kind(coefficient=0.0))
    return config


T = typing.TypeVar("T")


def parse(cls: type[T], config: Any, path: str = "config") -> T:
    """The dataclass `cls` filled from `config`; keys left out keep their defaults.

    Raises:
        ConfigError: an unknown key (with the nearest right one), a value of the wrong type, or one not allowed.
    """
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{path} is {config!r}; expected a group of settings ({_names(cls)}).")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
    for key in config:
        if key not in known:
            raise ConfigError(f"{path}.{key} is not a setting.{nearest(key, known)}")
    values = {key: _value(hints[key], config[key], f"{path}.{key}") for key in known if key in config}
    with blame(path):
        return cls(**values)


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean …?' where a known word is near, and the list of all."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known here: {', '.join(known)}."


def difference(old: Any, new: Any, path: str = "config") -> list[str]:
    """Lines `config.key: old → new`, one for each setting that differs."""
    old, new = to_dict(old), to_dict(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            lines += difference(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}")
        return lines
    old, new = (list(x) if isinstance(x, tuple) else x for x in (old, new))
    return [] if old == new else [f"{path}: {old!r} → {new!r}"]


def _names(cls: type) -> str:
    return ", ".join(f.name for f in dataclasses.fields(cls))  # pyright: ignore[reportArgumentType]


def _value(hint: Any, value: Any, path: str) -> Any:
    """`value` checked against, and where that loses nothing converted to, the annotation `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, path)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{path} is {value!r}; expected one of {', '.join(map(repr, arguments))}.")
        return value
    if origin is not None and issubclass(origin, Mapping):
        if arguments[1] is base.Objective:
            objectives = {name: _objective(name, item, path) for name, item in value.items()}
            return {name: objective for name, objective in objectives.items() if objective.coefficient != 0}
        return {name: _value(arguments[1], item, f"{path}.{name}") for name, item in value.items()}
    if origin is tuple and arguments[-1] is Ellipsis:
        values = value if isinstance(value, list | tuple) else [value]  # one value is a list of one
        return tuple(_value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(values))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise ConfigError(f"{path} is {value!r}; expected {len(arguments)} values.")
        return tuple(_value(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))
    if isinstance(hint, types.UnionType):
        hint = arguments
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} is {value!r}; expected {getattr(hint, '__name__', hint)}.")
    return value


def _objective(name: str, settings: Any, path: str) -> base.Objective:
    if name not in recipes.OBJECTIVES:
        raise ConfigError(f"{path}.{name} is not an objective.{nearest(name, recipes.OBJECTIVES)}")
    return parse(recipes.OBJECTIVES[name], settings, f"{path}.{name}")
