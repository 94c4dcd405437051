"""Settings of an evaluation, parsed from `configs/eval/*.py` as those of a training run are."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from jepa_jax.config import ConfigError, SourceConfig, ViewsConfig

Tokens = Literal["mean", "frames", "all"]
Control = Literal["raw pixels", "first frame", "frame differences", "one frame", "shuffled", "reversed"]
Setting = Mapping[str, float | int]  # one point of a grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """One probe, run for every label of the data, or for `task` only.

    The defaults of epochs, lr and weight_decay are those of the study's attentive probe (arXiv:2605.17165): AdamW at a
    constant rate, cross-entropy, no augmentation, the accuracy after the last epoch. Where lr, weight_decay, neighbours
    or penalty have several values, all combinations are tried, and the one that does best on a held-out part of the
    training clips is scored.
    """

    kind: Literal["linear", "attentive", "attentive_blocks", "ridge", "knn"] = "linear"
    tokens: Tokens = "mean"  # a clip's tokens averaged; attentive kinds only: those of each time step averaged, or all
    task: str = ""  # a label of the data (sprites: appearance, motion, order); empty: all of them
    standardise: bool = False  # each channel to mean 0, variance 1 over the training set
    epochs: int = 100
    batch_size: int = 256
    lr: tuple[float, ...] = (1e-3,)
    weight_decay: tuple[float, ...] = (0.01,)
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: from lr to 0 over the whole training
    seeds: int = 1  # probes that differ in initial values and in the order of clips
    at_once: int = 0  # settings of the grid computed side by side; 0: all; fewer take less memory and more time
    micro_batch: int = (
        0  # clips of a batch whose gradient is taken at once; 0: all; fewer take less memory, same result
    )
    validation: float = 0.1  # share of the training clips held out where there are several settings to choose from
    heads: int = 8  # attentive kinds only
    blocks: int = 4  # attentive_blocks only: self-attention blocks, the last one being the pooling by a learned query
    penalty: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)  # ridge only: in units of the features' mean variance
    neighbours: tuple[int, ...] = (20,)  # knn only

    def __post_init__(self):
        if self.tokens != "mean" and not self.attends:
            raise ValueError(
                f"a {self.kind} probe reads one vector a clip: tokens must be 'mean', not {self.tokens!r}."
            )
        for name in ("epochs", "batch_size", "heads", "blocks", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if self.seeds > 1 and self.closed_form:
            raise ValueError(f"seeds is {self.seeds}, but nothing in a {self.kind} probe is random; leave it at 1.")
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
    def closed_form(self) -> bool:
        """Whether the probe is computed, not trained: nothing random, and done again at no cost."""
        return self.kind in ("ridge", "knn")

    @property
    def attends(self) -> bool:
        """Whether the probe looks at tokens one by one."""
        return self.kind in ("attentive", "attentive_blocks")

    def settings(self) -> tuple[Setting, ...]:
        """Every combination that is tried, in order: the first wins a tie."""
        if self.kind == "knn":
            return tuple({"neighbours": k} for k in self.neighbours)
        if self.kind == "ridge":
            return tuple({"penalty": penalty} for penalty in self.penalty)
        return tuple({"lr": lr, "weight_decay": decay} for lr in self.lr for decay in self.weight_decay)

    def only(self, setting: Setting) -> "ProbeConfig":
        """This probe with one setting in place of several."""
        return dataclasses.replace(self, **{name: (value,) for name, value in setting.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedConfig:
    """Where data sets lie that `python -m jepa_jax.prepare` wrote; config files build their paths on it."""

    root: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Frozen evaluation: features of two sets of clips, probes trained on the first and scored on the second."""

    data: PreparedConfig = dataclasses.field(default_factory=PreparedConfig)
    train: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    test: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    holdout: str = ""  # regular expression: clips of `train` whose path has it are the test set; `test` is not read
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    probes: Mapping[str, ProbeConfig] = dataclasses.field(default_factory=lambda: {"linear": ProbeConfig()})
    beside_untrained: bool = True  # also probe the encoder as it was before training, as a control
    controls: tuple[Control, ...] = ()  # what else to probe beside it: see probing/controls.py
    representation: bool = False  # also measure it without labels, and probe its appearance and dynamics channels
    # Leave-groups-out: clips of `train` in whose path this regular expression finds the same (its group, where it has
    # one) are held out together, and all are test clips once, in `folds` folds (0: one a group). `test` is not read.
    fold_by: str = ""
    folds: int = 0
    seed: int = 0  # of the probes, and of the sprites drawn
    frames: int = 0  # frames of a clip; 0: as the encoder was trained
    size: int = 0  # side of a clip in pixels; 0: as the encoder was trained
    dtype: Literal["trained", "float32", "bfloat16"] = "trained"  # what the encoder computes in
    batch_size: int = 0  # clips encoded at once; 0: 8 on a CPU, 32 on each accelerator, fewer of many tokens
    workers: int = 2  # processes that decode; 0 decodes in the evaluating process
    max_skip_fraction: float = 0.05  # more undecodable items than this in a source is an error
    feature_dtype: Literal["float16", "int8"] = "float16"  # all-token features on disk; pooled ones are float16
    # auto: all-token features are kept where the disk has room, else clips are encoded anew in each epoch of a probe.
    keep_features: Literal["auto", "cache", "on_the_fly"] = "auto"
    memory_limit: int = 4 * 2**30  # bytes; features of a set that take more are read from disk a batch at a time
    random_model: str = ""  # training config (or workdir) whose untrained encoder `--checkpoint random` means

    def __post_init__(self):
        if not self.probes:
            raise ValueError("probes is empty; name at least one, as in probes={'linear': ProbeConfig()}.")
        for name, least in {
            "batch_size": 0,
            "seed": 0,
            "folds": 0,
            "frames": 0,
            "size": 0,
            "workers": 0,
            "memory_limit": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.seed >= 2**31:
            raise ValueError(f"seed is {self.seed}; expected less than 2^31.")
        if not 0 <= self.max_skip_fraction <= 1:
            raise ValueError(f"max_skip_fraction is {self.max_skip_fraction}; expected a share in [0, 1].")

    @property
    def kinds_of_tokens(self) -> tuple[Tokens, ...]:
        """The features that some probe reads."""
        used = {probe.tokens for probe in self.probes.values()}
        return tuple(kind for kind in ("mean", "frames", "all") if kind in used)

    def split_sources(self) -> tuple[SourceConfig, SourceConfig]:
        """The training and the test source, with `holdout` written out as what they include and exclude.

        Raises:
            ConfigError: `holdout` is no regular expression, or not for these sources; both sets are the same clips.
        """
        if self.fold_by:
            self._check_folds()
            return self.train, self.train
        if not self.holdout:
            if self.train == self.test:
                raise ConfigError(
                    "config.train and config.test are the same clips: set config.holdout (a regular expression found "
                    "in the paths of the test clips), or give config.test a path or split of its own."
                )
            return self.train, self.test
        if self.train.kind == "sprites":
            raise ConfigError("config.holdout: sprites have no paths; leave it empty, and give test another split.")
        if self.test.path:
            raise ConfigError("config.holdout takes the test set from config.train.path; leave config.test.path out.")
        try:
            re.compile(self.holdout)
        except re.error as error:
            raise ConfigError(f"config.holdout: {self.holdout!r} is no regular expression: {error}.") from error
        source = self.train
        exclude = f"(?:{source.exclude})|(?:{self.holdout})" if source.exclude else self.holdout
        # Both must be found somewhere in the path: lookaheads from its start.
        include = f"^(?=.*(?:{source.include}))(?=.*(?:{self.holdout}))" if source.include else self.holdout
        return dataclasses.replace(source, exclude=exclude), dataclasses.replace(source, include=include)

    def _check_folds(self) -> None:
        if self.train.kind == "sprites":
            raise ConfigError("config.fold_by: sprites have no paths; leave it empty, and give test another split.")
        if self.holdout or self.test.path:
            raise ConfigError(
                "config.fold_by holds out each clip of config.train once: leave out config.holdout and config.test."
            )
        try:
            re.compile(self.fold_by)
        except re.error as error:
            raise ConfigError(f"config.fold_by: {self.fold_by!r} is no regular expression: {error}.") from error
