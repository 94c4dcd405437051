"""The batches of a training run, for pictures."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.data.sources import UNLABELLED, Source
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.files.paths import is_remote, locate
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError
from jepa_jax.show.request import Request


@dataclasses.dataclass(frozen=True)
class TrainingClips:
    """Clips of one batch as training sees them.

    Attributes:
        video_BxFxYxXxC: uint8; F is 1 in a batch of single frames.
        titles: source, item and label of each clip.
    """

    video_BxFxYxXxC: np.ndarray
    titles: tuple[str, ...]


def config_of(request: Request, what: str) -> Config:
    """Returns the training config of --config or of the run in --checkpoint; no checkpoint needs to exist.

    Raises:
        ConfigError: neither is given, or there is no such run or config.
    """
    if request.config is not None:
        return request.config
    if not request.checkpoint:
        raise ConfigError(f"{what} needs a training config: add --config=NAME, or --checkpoint=WORKDIR of a run.")
    named = request.checkpoint.removeprefix("random:")
    if is_remote(named) or (locate(named) / workdir.CONFIG).exists():
        return workdir.load_config(named)
    return frozen_encoder.load_config_file(named)


def batches(config: Config, step: int, opened: list[Source | None], ledger: data.SkipLedger) -> Iterator[TrainingClips]:
    """Yields the batches from `step` on, decoded in this process.

    Raises:
        ConfigError: a source that cannot be used, or a step after the last one.
        TooManySkippedError: more undecodable files than the config allows.
    """
    if step >= config.steps:
        raise ConfigError(f"--step is {step}; the run has steps 0 to {config.steps - 1}.")
    here = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=0, render_in_step=False))
    made = data.TrainBatches(here, start_step=step, opened=opened, ledger=ledger)
    try:
        for batch in made:
            rows = zip(batch["source"].tolist(), batch["item"].tolist(), strict=True)
            yield TrainingClips(batch["video"], tuple(_title(config, opened[source], item) for source, item in rows))
    finally:
        made.close()


def _title(config: Config, source: Source | None, item: int) -> str:
    assert source is not None  # sources of weight 0 are never sampled
    if source.rendered:
        _, labels = source.render(config.clip, config.seed, np.array([item], np.int32))
        classes = source.task_classes()
        label, name = ", ".join(classes[task][int(value[0])] for task, value in labels.items()), f"{item}"
    else:
        number = int(source.labels[item])
        label, name = "" if number == UNLABELLED else source.classes[number], source.item_names(config.seed)[item]
    return f"{source.name}: {name}" + f" ({label})" * bool(label)
