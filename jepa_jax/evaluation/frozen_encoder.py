"""The frozen encoder that `--checkpoint` names: trained, or as it was before training."""

import dataclasses
import functools
import pathlib
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jepa_jax import config_files, models
from jepa_jax.checkpoints import reader, tree_paths
from jepa_jax.config import ClipConfig, Config
from jepa_jax.files.paths import is_remote, locate, split_step
from jepa_jax.models import attention
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training.setup import build_setup, init_state


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
        return tree_paths.fingerprint(self.params)


def load(reference: str, random_model: str = "") -> FrozenEncoder:
    """The encoder behind WORKDIR, WORKDIR:STEP, `random`, random:WORKDIR or random:CONFIG[:RECIPE].

    Args:
        reference: the value of `--checkpoint`.
        random_model: what `random` on its own stands for: a WORKDIR or CONFIG[:RECIPE] (CONFIG: a name or a file).

    Raises:
        ConfigError: a folder that is not of a training run, a config file that is none, or `random` of nothing.
        CheckpointError: no checkpoint, none of that step (says which there are), or a damaged one.
    """
    if reference == "random" or reference.startswith("random:"):
        return _untrained(reference[len("random:") :] or random_model)
    folder, number = split_step(reference)
    if not folder:
        raise ConfigError("--checkpoint is empty; expected WORKDIR, WORKDIR:STEP or random.")
    found = reader.read_encoder(folder, number)
    weights = "ema" if found.config.target == "ema" else "online"
    return FrozenEncoder(found.config, found.params, weights, folder, found.step)


def resolve_attention(frozen: FrozenEncoder, clip: ClipConfig, dtype: str) -> FrozenEncoder:
    """Returns the encoder with attention `auto` resolved for the devices at hand; reports it on accelerators.

    Args:
        frozen: the encoder.
        clip: the shape of the clips.
        dtype: of the encoder's computation.
    """
    settings = frozen.config.encoder
    if settings.attention != "auto":
        return frozen
    encoder = models.build_encoder(settings)
    time, height, width = encoder.grid(jax.ShapeDtypeStruct((1, *clip.shape), jnp.float32))
    kind = _choose_attention(
        jax.default_backend(), dtype, attention.Shape(time * height * width, encoder.size.head_width)
    )
    config = dataclasses.replace(frozen.config, encoder=dataclasses.replace(settings, attention=kind))
    return dataclasses.replace(frozen, config=config)


@functools.cache
def _choose_attention(platform: str, dtype: str, shape: attention.Shape) -> Literal["xla", "fused"]:
    """Cached, so that `--watch` compares the kernel with XLA's attention only once."""
    chosen = attention.choose(platform, dtype, {shape}, attention.fused)
    if platform != "cpu":
        print(f"Attention: {chosen}.", file=sys.stderr)
    return chosen.kind


def load_config_file(reference: str) -> Config:
    """The training config of CONFIG or CONFIG:RECIPE, a name or a file.

    Raises:
        ConfigError: no such config, or settings that cannot be used.
    """
    found = config_files.find(reference)
    if found is None:
        path = reference.partition(":")[0]
        raise ConfigError(
            f"there is no training run and no training config {path} (looked from {pathlib.Path.cwd()})."
            f"{config_files.known(reference)}"
        )
    return parse(Config, config_files.load(found))


def _untrained(source: str) -> FrozenEncoder:
    """The parameters that training starts from with the config's seed."""
    if not source:
        raise ConfigError(
            "--checkpoint=random needs to know which model: random:WORKDIR, random:CONFIG.py, or config.random_model."
        )
    # A folder that happens to have the name of a config, and is not of a run, does not hide it.
    is_run = is_remote(source) or (
        locate(source).is_dir() and ((locate(source) / workdir.CONFIG).exists() or config_files.find(source) is None)
    )
    config = workdir.load_config(source) if is_run else load_config_file(source)
    return dataclasses.replace(untrained(config), source=source)


def untrained(config: Config) -> FrozenEncoder:
    """The encoder that training with this config starts from."""
    setup = build_setup(config)
    # Compiled, so that predictor and optimiser, which nobody asks for, are never made.
    params = jax.jit(lambda seed: init_state(setup, seed).params["encoder"])(config.seed)
    return FrozenEncoder(config, params, "random", "", 0)
