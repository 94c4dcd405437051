"""The clips of an evaluation: checked against the encoder, opened, and paired with probes."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax import models
from jepa_jax.config import ClipConfig, Config
from jepa_jax.data import sources
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.evaluation import probe_runs
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.evaluation.probes import released, splits
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing
from jepa_jax.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class LabelledClips:
    """The clips and labels of an evaluation.

    Attributes:
        clip: frames and size.
        train: training clips of the probes.
        test: test clips.
        pairs: (task, probe) to run, in the order of the results.
        groups: group number of each training item; None if every item is its own.
    """

    clip: ClipConfig
    train: EvaluationSet
    test: EvaluationSet
    pairs: list[tuple[str, str]]
    groups: np.ndarray | None


def open_clips(
    config: EvalConfig, trained: Config, keep_bytes: int = 0, preprocessing: Preprocessing = TRAINED_HERE
) -> LabelledClips:
    """Opens the clips of an evaluation; reads only their names.

    Args:
        config: the clips and the probes.
        trained: of the training run whose encoder is evaluated.
        keep_bytes: each set's clips are kept in memory after the first pass if they take at most this.
        preprocessing: of the encoder.

    Raises:
        ConfigError: settings that cannot be used, for this encoder or at all.
    """
    clip = ClipConfig(frames=config.frames or trained.clip.frames, size=config.size or trained.clip.size)
    check_fit(config, trained, clip)
    if config.velocity:
        check_velocity(config, clip)
    train, test = open_sets(config, clip, keep_bytes, preprocessing)
    pairs = probe_runs.pair_probes(config, train.classes)
    for task, name in pairs:
        if config.probes[name].released:
            released.class_numbers(name, config.probes[name], train.classes[task])
    return LabelledClips(clip, train, test, pairs, splits.training_groups(config, train.names))


def check_fit(config: EvalConfig, trained: Config, clip: ClipConfig) -> None:
    """Checks clips and probes against the encoder before any clip is decoded.

    Raises:
        ConfigError: clips that the encoder cannot split into tokens, a level that it lacks, or heads that do not divide
            its width.
    """
    encoder = models.build_encoder(trained.encoder)
    try:
        encoder.grid(jax.ShapeDtypeStruct((1, *clip.shape), jnp.float32))
    except ValueError as error:
        raise ConfigError(f"config.frames, config.size: {error}.") from error
    for name, probe in config.probes.items():
        if probe.level is not None and probe.level > encoder.levels:
            raise ConfigError(
                f"config.probes.{name}.tokens is {probe.tokens!r}; the encoder has levels 1 to {encoder.levels}."
            )
        check_probe(name, probe, _width(probe, encoder))


def check_probe(name: str, probe: ProbeConfig, width: int) -> None:
    """Checks that a probe can read features of this width.

    Raises:
        ConfigError: heads that do not divide it, or a released probe of another width.
    """
    if probe.released:
        released.require_width(name, probe, width)
    elif probe.attends and width % probe.heads:
        raise ConfigError(
            f"config.probes.{name}.heads is {probe.heads}, which does not divide the width of its tokens, {width}."
        )


def check_velocity(config: EvalConfig, clip: ClipConfig) -> None:
    """Checks that velocities can be regressed.

    Raises:
        ConfigError: clips with unknown velocities, or of fewer than three frames.
    """
    for part, settings in (("train", config.train), ("test", config.test)):
        if not sources.kind_of(settings).tracked:
            raise ConfigError(
                "config.velocity needs clips with known velocities, which only sprites have; "
                f"config.{part}.kind is {settings.kind!r}."
            )
    if clip.frames < 3:
        raise ConfigError(f"config.velocity needs clips of at least 3 frames; they have {clip.frames}.")


def _width(probe: ProbeConfig, encoder: models.Encoder) -> int:
    return encoder.size.width * (
        encoder.levels if probe.tokens.endswith(" levels") and "stacked" not in probe.tokens else 1
    )


@contextlib.contextmanager
def _name_setting(config: EvalConfig, part: Literal["train", "test"], of_holdout: Sequence[str]) -> Iterator[None]:
    """Errors about a source name the setting that the user gave, from which the source's own setting is derived."""
    try:
        path = getattr(config, part).path
        with sources.explain_path(f"config.{part}.path", path, config.data.root):
            yield
    except sources.NothingLeftError as error:
        if not config.holdout or error.key not in of_holdout:
            raise
        raise sources.NothingLeftError("config.holdout", error.key, config.holdout, error.paths) from error


def open_sets(
    config: EvalConfig, clip: ClipConfig, keep_bytes: int = 0, preprocessing: Preprocessing = TRAINED_HERE
) -> tuple[EvaluationSet, EvaluationSet]:
    """Opens the training and test clips; reads only their names. The last two arguments are those of `EvaluationSet`.

    Raises:
        ConfigError: sources that cannot be used, or clips that are in both.
    """
    train_source, test_source = config.split_sources()
    # Training videos have one view; the views of a test video are averaged.
    single = dataclasses.replace(config.views, clips=1, crops=1)
    options = {"clip": clip, "seed": config.seed, "max_skip_fraction": config.max_skip_fraction}
    options |= {"keep_bytes": keep_bytes, "preprocessing": preprocessing}
    with _name_setting(config, "train", ("exclude",)):
        train = EvaluationSet(train_source, name="train", setting="config.train", views=single, **options)
    part = "train" if config.holdout else "test"
    with _name_setting(config, part, ("include", "exclude")):
        test = EvaluationSet(
            test_source, name="test", setting=f"config.{part}", views=config.views, classes=train.classes, **options
        )
    shared = [] if config.fold_by else train.shared_with(test)
    if shared:
        raise ConfigError(
            f"config.train and config.test share {len(shared):,} clips, such as {shared[0]}: a probe must not be "
            "scored on clips that it was trained on. Exclude them from one of the two, or name another path or split."
        )
    return train, test
