"""The frozen encoder that `--checkpoint` or `jepa_jax.load` names: trained, released, or as it was before training."""

import dataclasses
import functools
import pathlib
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jepa_jax import config_files, models, weights
from jepa_jax.checkpoints import reader, tree_paths
from jepa_jax.config import Attention, ClipConfig, Config, EncoderConfig, PredictorConfig
from jepa_jax.files.paths import is_remote, locate, split_step
from jepa_jax.models import attention
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.training.setup import build_setup, init_state
from jepa_jax.weights import references

RELEASED = "released"
RELEASED_FRAMES, RELEASED_SIDES = 64, {"vjepa2": 256, "vjepa2.1": 384, "transformers": 256}


@dataclasses.dataclass(frozen=True)
class FrozenEncoder:
    """An encoder, and the training run or file it comes from.

    Attributes:
        config: of the training run; of a file, its clip, encoder, predictor and dtype are those of the file.
        params: nested dict.
        weights: "ema"; "online", where EMA was off; "random", where nothing was trained; "released", from a file.
        source: the run's folder, the file of weights, or the config of an untrained encoder.
        step: of training; 0 untrained, and of a file.
        predictor_params: nested dict; None without a predictor, or if it was not asked for.
        preprocessing: of the clips in its own evaluation.
        file_sha256: of the file of weights; empty if there is none.
    """

    config: Config
    params: Any
    weights: str
    source: str
    step: int
    predictor_params: Any = None
    preprocessing: Preprocessing = TRAINED_HERE
    file_sha256: str = ""

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the parameters (names, types, shapes and bytes), or of the file of weights."""
        return self.file_sha256 or tree_paths.fingerprint(self.params)

    @property
    def record(self) -> dict[str, Any]:
        """What results record about it."""
        digest = "file_sha256" if self.file_sha256 else "parameters_sha256"
        return {"source": self.source, "step": self.step, "weights": self.weights, digest: self.fingerprint}

    @property
    def known_settings(self) -> dict[str, Any]:
        """The settings of the training run; of a file, those that it has."""
        settings = to_dict(self.config)
        if self.weights != RELEASED:
            return settings
        return {name: settings[name] for name in ("clip", "encoder", "predictor", "dtype")}


def load(reference: str, random_model: str = "", *, predictor: bool = False) -> FrozenEncoder:
    """The encoder behind a reference: the one resolver of `--checkpoint` and `jepa_jax.load`.

    Args:
        reference: a training run, WORKDIR or WORKDIR:STEP; weights as `weights.references.find` takes them, a file, a
            folder or a name on the hub; or an untrained encoder, random:WORKDIR, random:CONFIG[:RECIPE] or `random`.
        random_model: what `random` on its own stands for: a WORKDIR or CONFIG[:RECIPE] (CONFIG: a name or a file).
        predictor: also load the predictor of a training run.

    Raises:
        WeightsError: weights that cannot be read or downloaded.
        FileNotFoundError: no such file of weights.
        ConfigError: a folder that is not of a training run, a config file that is none, or `random` of nothing.
        CheckpointError: no checkpoint, none of that step (says which there are), or a damaged one.
    """
    if reference == "random" or reference.startswith("random:"):
        return _untrained(reference[len("random:") :] or random_model)
    if not reference:
        raise ConfigError("--checkpoint is empty; expected WORKDIR, WORKDIR:STEP, weights (a file or name) or random.")
    if path := references.find(reference):
        return _released(path, reference)
    folder, number = split_step(reference)
    found = reader.read_encoder(folder, number, predictor=predictor)
    kind = "ema" if found.config.target == "ema" else "online"
    return FrozenEncoder(found.config, found.params, kind, folder, found.step, found.predictor_params)


def _released(path: pathlib.Path, source: str) -> FrozenEncoder:
    found = weights.read(path)
    settings = {"encoder": found.encoder, "dtype": found.dtype}
    # Files of another name do not say it: what released models of their kind were last trained on.
    settings["clip"] = found.clip or ClipConfig(frames=RELEASED_FRAMES, size=RELEASED_SIDES[found.format])
    if found.predictor is not None:
        settings["predictor"] = found.predictor
    return FrozenEncoder(
        dataclasses.replace(Config(), **settings),
        found.encoder_params,
        RELEASED,
        source,
        0,
        found.predictor_params,
        found.preprocessing,
        references.sha256(path),
    )


def resolve_attention(frozen: FrozenEncoder, clip: ClipConfig, dtype: str) -> FrozenEncoder:
    """Returns the encoder with attention `auto` resolved for the devices at hand; reports it on accelerators.

    Args:
        frozen: the encoder.
        clip: the shape of the clips.
        dtype: of the encoder's computation.
    """
    settings = frozen.config.encoder
    resolved = dataclasses.replace(settings, attention=attention_for(settings, clip.shape, dtype))
    return dataclasses.replace(frozen, config=dataclasses.replace(frozen.config, encoder=resolved))


def attention_for(settings: EncoderConfig, clip_shape: tuple[int, ...], dtype: str) -> Attention:
    """Returns the attention of an encoder of clips [F, Y, X, 3]; `auto` is resolved for the devices at hand."""
    if settings.attention != "auto":
        return settings.attention
    encoder = models.build_encoder(settings)
    time, height, width = encoder.grid(jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32))
    shape = attention.Shape(time * height * width, encoder.size.head_width)
    return _choose_attention(jax.default_backend(), dtype, shape)


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
    # The predictor does not matter, and released ones are of kinds that training does not have.
    setup = build_setup(dataclasses.replace(config, predictor=PredictorConfig()))
    # Compiled, so that predictor and optimiser, which nobody asks for, are never made.
    params = jax.jit(lambda seed: init_state(setup, seed).params["encoder"])(config.seed)
    return FrozenEncoder(config, params, "random", "", 0)
