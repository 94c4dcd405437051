"""Training and test clips of a fine-tuning run, with their labels."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from jepa_jax import data
from jepa_jax.data import sources
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.evaluation import labelled_clips
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import ConfigError, nearest


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSources:
    """The clips of a fine-tuning run.

    Attributes:
        opened: sources of the training loop, in the order of the config; None for a source of weight 0.
        test: the test clips.
        task: the label that is learned.
        classes: their names.
        label_I: class of each training item.
        render: renders clips and labels in the training step; None if batches contain videos.
    """

    opened: list[sources.Source | None]
    test: EvaluationSet
    task: str
    classes: tuple[str, ...]
    label_I: Int32[np.ndarray, "I"]
    render: sources.Render | None


def open_sources(config: FinetuneConfig) -> LabelledSources:
    """Opens the training and test clips; decodes none.

    Raises:
        ConfigError: clips without labels, of one class only, in both sets, or in none.
    """
    name = config.source
    settings = config.data.sources[name]
    with _name_settings(config, name):
        evaluation = EvalConfig(
            train=settings,
            test=config.test,
            holdout=config.holdout,
            views=config.views,
            seed=config.seed,
            max_skip_fraction=config.data.max_skip_fraction,
        )
        train, test = labelled_clips.open_sets(evaluation, config.clip)
    task = _task(config, train)
    classes = tuple(train.classes[task])
    if len(classes) < 2:
        raise ConfigError(
            f"config.data.sources.{name}: all clips are of class {', '.join(classes)}; a classifier needs at least two."
        )
    render, label_I = None, train.source.labels
    if train.source.rendered:
        if not data.renders_in_step(config.data):
            raise ConfigError(
                f"config.data.sources.{name} is a set of {train.source.noun}, whose labels are known only where the "
                "training step renders them; leave config.data.render_in_step on."
            )
        render = sources.kind_of(settings).renderer(settings, config.clip)
        label_I = _rendered_labels(render, config.seed, train.size, task)
    opened = [dataclasses.replace(train.source, name=name) if each == name else None for each in config.data.sources]
    return LabelledSources(opened, test, task, classes, label_I, render)


def _task(config: FinetuneConfig, train: EvaluationSet) -> str:
    tasks = tuple(train.classes)
    if config.task and config.task not in tasks:
        raise ConfigError(
            f"config.task is {config.task!r}, for which the clips have no labels.{nearest(config.task, tasks)}"
        )
    if not config.task and len(tasks) > 1:
        raise ConfigError(f"config.task is empty, but the clips have several labels; name one of {', '.join(tasks)}.")
    return config.task or next(iter(tasks))


def _rendered_labels(render: sources.Render, seed: int, items: int, task: str) -> np.ndarray:
    """Labels of rendered clips. Compiled, so that the pictures, which are not used, are not drawn."""
    label_I = jax.jit(lambda seed, item_I: render(seed, item_I)[1][task])(seed, jnp.arange(items, dtype=jnp.int32))
    return np.asarray(label_I)


@contextlib.contextmanager
def _name_settings(config: FinetuneConfig, source: str) -> Iterator[None]:
    """Errors of an evaluation about its training source name the source of the fine-tuning run."""
    settings = config.data.sources[source]
    name = f"config.data.sources.{source}"
    with sources.explain_path(f"{name}.path", settings.path, config.data.root, config.data.path):
        try:
            yield
        except ConfigError as error:
            raise ConfigError(str(error).replace("config.train", name)) from error
