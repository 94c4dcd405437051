"""The frozen encoder that `--checkpoint` names: trained, or as it was before training."""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np

from jepa_jax.config import Config, ConfigError, parse
from jepa_jax.training import checkpoint, leaves, step, workdir


@dataclasses.dataclass(frozen=True)
class FrozenEncoder:
    """An encoder, and the training run it comes from.

    Attributes:
        config: of the training run.
        params: nested dict.
        weights: "ema"; "online", where EMA was off; "random", where nothing was trained.
        source: the run's folder, or the config of an untrained encoder.
        step: of training; 0 untrained.
    """

    config: Config
    params: Any
    weights: str
    source: str
    step: int

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the parameters: names, types, shapes and bytes."""
        digest = hashlib.sha256()
        for name, leaf in sorted(leaves.by_name(self.params).items()):
            values = np.ascontiguousarray(leaf)
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.data)
        return digest.hexdigest()


def load(reference: str, random_model: str = "") -> FrozenEncoder:
    """The encoder behind WORKDIR, WORKDIR:STEP, `random`, random:WORKDIR or random:CONFIG.py[:RECIPE].

    Args:
        reference: the value of `--checkpoint`.
        random_model: what `random` on its own stands for: a WORKDIR or CONFIG.py[:RECIPE].

    Raises:
        ConfigError: a folder that is not of a training run, a config file that is none, or `random` of nothing.
        CheckpointError: no checkpoint, none of that step (says which there are), or a damaged one.
    """
    if reference == "random" or reference.startswith("random:"):
        return _untrained(reference[len("random:") :] or random_model)
    folder, number = split_step(reference)
    if not folder:
        raise ConfigError("--checkpoint is empty; expected WORKDIR, WORKDIR:STEP or random.")
    found = checkpoint.read_encoder(folder, number)
    weights = "ema" if found.config.ema.enabled else "online"
    return FrozenEncoder(found.config, found.params, weights, folder, found.step)


def split_step(reference: str) -> tuple[str, int | None]:
    """WORKDIR:STEP in its parts; without :STEP, or if what follows the colon is no number, None for the step."""
    folder, colon, last = reference.rpartition(":")
    return (folder, int(last)) if colon and last.isdecimal() else (reference, None)


def load_config_file(reference: str) -> Config:
    """The training config of CONFIG.py or CONFIG.py:RECIPE.

    Raises:
        ConfigError: no such file, or settings that cannot be used.
    """
    path, colon, recipe = reference.partition(":")
    file = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location("training_config", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"there is no training run and no training config {file} (looked from {pathlib.Path.cwd()}).")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{file} is no training config: it has no function get_config.")
    return parse(Config, module.get_config(recipe) if colon else module.get_config())


def _untrained(source: str) -> FrozenEncoder:
    """The parameters that training starts from with the config's seed."""
    if not source:
        raise ConfigError(
            "--checkpoint=random needs to know which model: random:WORKDIR, random:CONFIG.py, or config.random_model."
        )
    config = workdir.load_config(source) if pathlib.Path(source).is_dir() else load_config_file(source)
    return dataclasses.replace(untrained(config), source=source)


def untrained(config: Config) -> FrozenEncoder:
    """The encoder that training with this config starts from."""
    learner = step.build_learner(config)
    # Compiled, so that predictor and optimiser, which nobody asks for, are never made.
    params = jax.jit(lambda seed: step.init_state(learner, seed).params["encoder"])(config.seed)
    return FrozenEncoder(config, params, "random", "", 0)
