"""Settings of an evaluation, parsed from `configs/eval/*.py`."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from jepa_jax.config import SOURCES, ClipConfig, SourceConfig, ViewsConfig
from jepa_jax.settings import ConfigError

# Tokens, and the encoder's level that they are from; the default is the last level.
TOKENS = re.compile(r"(mean|frames|all)(?: level [1-9]\d*| levels| stacked levels)?")
_SHORT = re.compile(r"level [1-9]\d*|(?:stacked )?levels")
Control = Literal[
    "raw pixels",
    "first frame",
    "frame differences",
    "frame means",
    "difference energy",
    "one frame",
    "shuffled",
    "reversed",
]
Setting = Mapping[str, float | int]  # one point of a grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A probe, run for every label of the data, or only for `task`.

    The defaults of epochs, lr and weight_decay are those of the study's attentive probe (arXiv:2605.17165): AdamW with
    a constant learning rate, cross-entropy, no augmentation, the accuracy after the last epoch. If lr, weight_decay,
    neighbours or penalty have several values, every combination is tried on held-out training clips, and the best is
    scored on the test clips (highest accuracy; lowest cross-entropy for logistic). Logistic, ridge and knn probes are
    cross-validated and then fitted to all training clips; other probes are trained once, without the held-out clips.
    """

    # linear: trained by AdamW for a fixed number of epochs. logistic: regularized, trained until it converges.
    # released: not trained; set by `released`.
    kind: Literal["linear", "logistic", "attentive", "attentive_blocks", "ridge", "knn", "released"] = "linear"
    # A released probe: V-JEPA 2's evals/*.pt, or weights of transformers with a classifier (a folder or name).
    released: str = ""
    # released only: the probe's classes in its order. A file with a name on each line or JSON; "order": as the classes
    # of the clips are; empty: the names in the probe's file, or numbers as the names of the clips' classes.
    labels: str = ""
    # mean: the average of a clip's tokens. Attentive kinds only: frames, the average of each time step; all, every
    # token. These are of the last level. "all level 2" is of another level; "all levels" concatenates the channels of
    # all levels, "all stacked levels" their tokens. "level 2" is short for "all level 2" in attentive kinds and for
    # "mean level 2" in others.
    tokens: str = "mean"
    task: str = ""  # a label of the data (sprites: appearance, motion, order); empty: all of them
    standardise: bool = False  # each channel to mean 0, variance 1 over the training set
    epochs: int = 100
    batch_size: int = 256
    lr: tuple[float, ...] = (1e-3,)
    weight_decay: tuple[float, ...] = (0.01,)
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: from lr to 0 over the whole training
    # Probes with different initial parameters and orders of clips. Deterministic kinds (logistic, ridge, knn) have one.
    seeds: int = 3
    at_once: int = 0  # settings trained in parallel; 0: all; fewer need less memory and more time
    micro_batch: int = 0  # clips in one gradient computation; 0: the batch; fewer need less memory, same result
    # Share of the training clips held out to choose among several settings; cross-validation holds out this share in
    # each of 1 / validation folds. Clips of one group (`groups` of the evaluation) stay together.
    validation: float = 0.1
    heads: int = 8  # attentive kinds only
    blocks: int = 4  # attentive_blocks only: self-attention blocks, the last one being the pooling by a learned query
    # logistic and ridge only: in units of the features' mean variance. The first wins a tie, hence the strongest first.
    penalty: tuple[float, ...] = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
    neighbours: tuple[int, ...] = (20,)  # knn only

    def __post_init__(self):
        if self.released and self.kind != "released":
            object.__setattr__(self, "kind", "released")
            object.__setattr__(self, "tokens", "all")
        if (self.kind == "released") != bool(self.released):
            raise ValueError("kind is 'released', but released is empty; name the probe's file.")
        if self.labels and not self.released:
            raise ValueError(f"labels is {self.labels!r}, but released is empty; only released probes have labels.")
        if _SHORT.fullmatch(self.tokens):
            object.__setattr__(self, "tokens", f"{'all' if self.attends else 'mean'} {self.tokens}")
        if not TOKENS.fullmatch(self.tokens):
            raise ValueError(
                f"tokens is {self.tokens!r}; expected 'mean', 'frames' or 'all' (of the last level), or one of them "
                "followed by 'level N' (from 1), 'levels' or 'stacked levels'."
            )
        if not self.attends and (not self.tokens.startswith("mean") or "stacked" in self.tokens):
            raise ValueError(
                f"a {self.kind} probe reads one vector per clip; tokens is {self.tokens!r}; expected 'mean', "
                "'mean level N' or 'mean levels'."
            )
        for name in ("epochs", "batch_size", "heads", "blocks", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if self.at_once < 0:
            raise ValueError(f"at_once is {self.at_once}; expected at least 0.")
        if self.micro_batch < 0 or (self.micro_batch and self.batch_size % self.micro_batch):
            raise ValueError(f"micro_batch is {self.micro_batch}; expected 0 or a divisor of {self.batch_size}.")
        for name in ("lr", "weight_decay", "penalty", "neighbours"):
            values = getattr(self, name)
            wrong = not values or min(values) < 0 or (min(values) == 0 and name != "weight_decay")
            if wrong or len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}; expected one or more different numbers above 0.")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is {self.validation}; expected a share above 0 and below 1.")

    @property
    def deterministic(self) -> bool:
        """Whether the probe has no randomness; then it is cross-validated and fitted to all training clips."""
        return self.kind in ("logistic", "ridge", "knn")

    @property
    def features(self) -> str:
        """The kind of features that the probe reads (`extractor.of_encoder` lists the kinds)."""
        return self.tokens.replace(" ", "_")

    @property
    def level(self) -> int | None:
        """The number of the level in `tokens`; None for the last or all levels."""
        number = self.tokens.rpartition(" level ")[2]
        return int(number) if number.isdecimal() else None

    @property
    def attends(self) -> bool:
        """Whether the probe attends to single tokens."""
        return self.kind in ("attentive", "attentive_blocks", "released")

    def settings(self) -> tuple[Setting, ...]:
        """Every combination to try; the first wins a tie."""
        if self.kind == "knn":
            return tuple({"neighbours": k} for k in self.neighbours)
        if self.kind in ("logistic", "ridge"):
            return tuple({"penalty": penalty} for penalty in self.penalty)
        return tuple({"lr": lr, "weight_decay": decay} for lr in self.lr for decay in self.weight_decay)

    def only(self, setting: Setting) -> "ProbeConfig":
        """This probe with a single setting."""
        return dataclasses.replace(self, **{name: (value,) for name, value in setting.items()})


def logistic_probe(folds: int = 5) -> ProbeConfig:
    """Logistic regression on the mean token; cross-validation in `folds` folds chooses the penalty."""
    return ProbeConfig(kind="logistic", standardise=True, validation=1 / folds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedConfig:
    """Folder of the datasets written by `python -m jepa_jax.prepare`; config files derive paths from it."""

    root: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Frozen evaluation: probes are trained on the features of one set of clips and scored on another."""

    data: PreparedConfig = dataclasses.field(default_factory=PreparedConfig)
    train: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    test: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    holdout: str = ""  # regular expression: clips of `train` with a matching path are the test set; `test` is unused
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    probes: Mapping[str, ProbeConfig] = dataclasses.field(default_factory=lambda: {"linear": logistic_probe()})
    beside_untrained: bool = True  # also probe the untrained encoder, as a control
    controls: tuple[Control, ...] = ()  # further controls: see evaluation/controls.py
    picture: bool = False  # also write features.png beside the results: principal components of tokens as colours
    representation: bool = False  # also compute label-free measures, and probe appearance and dynamics channels
    # Also regress the velocity at a random frame of each clip; sprites only. With the control "reversed", also tell the
    # frame from the same frame with the opposite velocity.
    velocity: bool = False
    # Leave-groups-out: a clip's group is the match of this regular expression (or of its first group) in its path. Each
    # group of `train` is test data once, in `folds` folds (0: one fold per group). `test` is not read.
    fold_by: str = ""
    folds: int = 0
    # Training clips with the same match of this regular expression (or of its first group) in their paths, such as the
    # name of a recording or a person, are held out together to choose a probe's settings. Empty: the groups of
    # `fold_by`, or each clip by itself.
    groups: str = ""
    seed: int = 0  # of probes and rendered clips
    frames: int = 0  # frames of a clip; 0: as in training
    size: int | tuple[int, int] = 0  # side of a clip in pixels, or (height, width); 0: as in training
    dtype: Literal["trained", "float32", "bfloat16"] = "trained"  # of the encoder's computation
    batch_size: int = 0  # clips encoded in one call; 0: 8 on a CPU, 32 on each accelerator, fewer of many tokens
    workers: int = 2  # processes that decode; 0: decode in the main process
    max_skip_fraction: float = 0.05  # largest share of undecodable clips in a source that is not an error
    feature_dtype: Literal["float16", "int8"] = "float16"  # of all-token features on disk; pooled ones are float16
    # auto: all-token features are cached if the disk has space, else clips are encoded again in each epoch of a probe.
    keep_features: Literal["auto", "cache", "on_the_fly"] = "auto"
    memory_limit: int = 4 * 2**30  # bytes; larger features of a set are read from disk batch by batch
    random_model: str = ""  # training config or workdir of the untrained encoder of `--checkpoint random`

    def __post_init__(self):
        if not self.probes:
            raise ValueError("probes is empty; name at least one, as in probes={'linear': ProbeConfig()}.")
        for name, least in {
            "batch_size": 0,
            "seed": 0,
            "folds": 0,
            "frames": 0,
            "workers": 0,
            "memory_limit": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.size != 0:
            ClipConfig(size=self.size)  # checks it
        if self.seed >= 2**31:
            raise ValueError(f"seed is {self.seed}; expected less than 2^31.")
        if not 0 <= self.max_skip_fraction <= 1:
            raise ValueError(f"max_skip_fraction is {self.max_skip_fraction}; expected a share in [0, 1].")

    @property
    def kinds_of_features(self) -> tuple[str, ...]:
        """All kinds of features that the probes read."""
        return tuple(dict.fromkeys(probe.features for probe in self.probes.values()))

    @property
    def trained_kinds(self) -> tuple[str, ...]:
        """The kinds of features that probes are trained on; released probes are not trained."""
        trained = (probe for probe in self.probes.values() if not probe.released)
        return tuple(dict.fromkeys(probe.features for probe in trained))

    def split_sources(self) -> tuple[SourceConfig, SourceConfig]:
        """Returns the training and the test source; `holdout` becomes their include and exclude patterns.

        Raises:
            ConfigError: `holdout` is not a regular expression or does not apply to the sources; both sets are equal.
        """
        if self.fold_by:
            self._check_folds()
            return self.train, self.train
        if not self.holdout:
            if self.train == self.test:
                raise ConfigError(
                    "config.train and config.test are the same clips: set config.holdout (a regular expression that "
                    "matches the paths of the test clips), or another path or split for config.test."
                )
            return self.train, self.test
        self._require_paths("holdout")
        if self.test.path:
            raise ConfigError("config.holdout takes the test set from config.train.path; leave config.test.path empty.")
        source = self.train
        for setting, pattern in {
            "holdout": self.holdout,
            "train.include": source.include,
            "train.exclude": source.exclude,
        }.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"config.{setting}: {pattern!r} is not a regular expression: {error}.") from error
        exclude = f"(?:{source.exclude})|(?:{self.holdout})" if source.exclude else self.holdout
        # Both must match somewhere in the path, which may have line breaks: lookaheads from its start.
        include = rf"\A(?=[\s\S]*(?:{source.include}))(?=[\s\S]*(?:{self.holdout}))" if source.include else self.holdout
        return dataclasses.replace(source, exclude=exclude), dataclasses.replace(source, include=include)

    def _require_paths(self, setting: str) -> None:
        kind = SOURCES.find(self.train.kind, "kind")
        if kind.rendered:
            raise ConfigError(
                f"config.{setting}: {kind.noun} have no paths; leave it empty, and give test another split."
            )

    def _check_folds(self) -> None:
        self._require_paths("fold_by")
        if self.holdout or self.test.path:
            raise ConfigError(
                "config.fold_by holds out each clip of config.train once: leave config.holdout and config.test empty."
            )
        try:
            re.compile(self.fold_by)
        except re.error as error:
            raise ConfigError(f"config.fold_by: {self.fold_by!r} is not a regular expression: {error}.") from error
