"""The weights that a run starts from (`config.init`): another run's checkpoint, or released weights.

WORKDIR/init.json records the file with its SHA-256, what was taken from it and the encoder's settings. The run's first
checkpoint, of step 0, contains the weights, so the file is never read again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from jepa_jax import models, weights
from jepa_jax.checkpoints import integrity, reader
from jepa_jax.config import ClipConfig, Config, EncoderConfig, PredictorConfig
from jepa_jax.files.paths import split_step
from jepa_jax.models.sizes import parse_size
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, error_prefix, parse, to_dict
from jepa_jax.weights import references

RECORD = "init.json"


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """The weights that `config.init` names.

    Attributes:
        reference: the value of `config.init`.
        file: that was read; of a checkpoint, its list of checksums.
        sha256: of the file.
        step: of the checkpoint; None for released weights.
        encoder: its settings.
        encoder_params: as of `models.build_encoder`; of a training run, those of the encoder in training.
        target_params: of the encoder that evaluation uses: the moving average, if the run has one.
        predictor: its settings; None if there is none.
        predictor_params: as of `models.build_predictor`.
        heads: parameters of the objectives, by name.
        clip: shape of the clips it was trained on, if known.
    """

    reference: str
    file: str
    sha256: str
    step: int | None
    encoder: EncoderConfig
    encoder_params: Any
    target_params: Any
    predictor: PredictorConfig | None = None
    predictor_params: Any = None
    heads: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    clip: ClipConfig | None = None

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return f"{self.reference}{step} (SHA-256 {self.sha256[:12]})"


@dataclasses.dataclass(frozen=True)
class Record:
    """What init.json says.

    Attributes:
        init, file, sha256, step: as of `InitialWeights`.
        encoder: settings of the encoder in the file.
        taken: what the run took from it.
        fresh: what started from random or empty values.
    """

    init: str
    file: str
    sha256: str
    step: int | None
    encoder: EncoderConfig
    taken: tuple[str, ...]
    fresh: tuple[str, ...]


def read(reference: str) -> InitialWeights:
    """Reads the weights that `config.init` names.

    Args:
        reference: WORKDIR, WORKDIR:STEP, or what `weights.references.find` takes.

    Raises:
        ConfigError: no such run, file or name; or weights that cannot be read.
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    with error_prefix("config.init"):
        try:
            path = references.find(reference)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        if path is None:
            return _read_run(reference)
        found = weights.read(path)
    return InitialWeights(
        reference=reference,
        file=str(path),
        sha256=references.sha256(path),
        step=None,
        encoder=found.encoder,
        encoder_params=found.encoder_params,
        target_params=found.encoder_params,
        predictor=found.predictor,
        predictor_params=found.predictor_params,
        clip=found.clip,
    )


def _read_run(reference: str) -> InitialWeights:
    folder, number = split_step(reference)
    try:
        config = workdir.load_config(folder)
    except ConfigError as error:
        raise ConfigError(
            f"config.init is {reference}: {error} Name a training run (WORKDIR or WORKDIR:STEP), a .pt or .safetensors "
            "file, a folder with config.json and model.safetensors, or a model on the Hugging Face hub."
        ) from error
    step, path = reader.choose(folder, number)
    encoder = reader.load_group(path, "params/encoder")
    group = reader.encoder_group(config)
    checksums = path / integrity.CHECKSUMS
    with_params = {name for name in config.objectives if reader.has_group(path, f"params/heads/{name}")}
    return InitialWeights(
        reference=reference,
        file=str(checksums),
        sha256=hashlib.sha256(checksums.read_bytes()).hexdigest(),
        step=step,
        encoder=config.encoder,
        encoder_params=encoder,
        target_params=encoder if group == "params/encoder" else reader.load_group(path, group),
        predictor=config.predictor,
        predictor_params=reader.load_group(path, "params/predictor"),
        heads={name: reader.load_group(path, f"params/heads/{name}") for name in with_params},
        clip=config.clip,
    )


def require_fit(config: Config, initial: InitialWeights) -> str | None:
    """Checks that encoder and predictor of a training run are those of its initial weights.

    Returns:
        Why the predictor must start fresh although the file has one; None if it can be used, or if there is none.

    Raises:
        ConfigError: another size, patch, … (lists all differences and the flags that would be right).
    """
    found, given = (_encoder_settings(encoder) for encoder in (initial.encoder, config.encoder))
    pairs = {f"encoder.{name}": (found[name], given[name]) for name in found}
    pairs |= _levels(initial.encoder, config.encoder)
    unusable = None
    if initial.predictor is not None:
        channels = parse_size(initial.encoder.size).width * initial.encoder.levels
        outputs = initial.predictor.output or channels
        if outputs != channels:
            unusable = f"its {outputs} outputs are not the {channels} channels of this encoder"
        elif initial.predictor.levels not in (0, initial.encoder.levels):
            unusable = f"it takes {initial.predictor.levels} of the {initial.encoder.levels} levels"
        else:
            found = _predictor_settings(initial.predictor, initial.encoder)
            given = _predictor_settings(config.predictor, config.encoder)
            pairs |= {f"predictor.{name}": (found[name], given[name]) for name in found}
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if different:
        lines = "".join(f"\n  config.{name}: {theirs} there, {ours} here" for name, (theirs, ours) in different.items())
        flags = " ".join(_flag(name, theirs) for name, (theirs, _) in different.items())
        raise ConfigError(
            f"config.init is {initial.reference}, which has another model than the config:{lines}\n"
            f"To continue its training, add {flags}"
        )
    return unusable


def _encoder_settings(encoder: EncoderConfig) -> dict[str, str]:
    """The settings that parameters depend on, or that change what they compute."""
    return {
        "size": str(parse_size(encoder.size)),
        "patch": str(encoder.patch),
        "tubelet": str(encoder.tubelet),
        "rotary": encoder.rotary,
    }


def _levels(*encoders: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """The levels of each encoder: their number if all have equal levels, else the blocks after which they end."""
    depths = [parse_size(encoder.size).depth for encoder in encoders]
    ends = [
        models.level_ends(depth, encoder.levels, encoder.level_ends)
        for depth, encoder in zip(depths, encoders, strict=True)
    ]
    if all(each == models.level_ends(depth, len(each)) for depth, each in zip(depths, ends, strict=True)):
        return {"encoder.levels": tuple(str(len(each)) for each in ends)}
    return {"encoder.level_ends": tuple(str(tuple(each)) for each in ends)}


def _predictor_settings(predictor: PredictorConfig, encoder: EncoderConfig) -> dict[str, str]:
    scale = predictor.rotary_scale
    if scale == "encoder":
        scale = "on" if encoder.rotary == "interleaved" else "off"
    return {
        "size": str(parse_size(predictor.size)),
        "mask_tokens": str(predictor.mask_tokens),
        "rotary_scale": scale,
    }


def _flag(name: str, value: str) -> str:
    return f'--config.{name}="{value}"' if " " in value or "," in value else f"--config.{name}={value}"


def load_record(folder: epath.Path) -> Record | None:
    """Returns what init.json of a run says; None without one.

    Raises:
        ConfigError: it cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"it is {content!r:.80}")
        return Record(
            **{name: content[name] for name in ("init", "file", "sha256", "step")},
            encoder=parse(EncoderConfig, content["encoder"], "encoder"),
            taken=tuple(content["taken"]),
            fresh=tuple(content["fresh"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not a record of the run's initial weights: {error!r}.") from error


def record(folder: epath.Path, initial: InitialWeights, taken: tuple[str, ...], fresh: tuple[str, ...]) -> None:
    """Writes init.json of a run that has no checkpoint yet. Call in process 0 only.

    Raises:
        ConfigError: the run was started with another file of this name, then killed before its first checkpoint.
    """
    before = load_record(folder)
    if before is not None and before.sha256 != initial.sha256:
        raise ConfigError(
            f"config.init is {initial.reference}, but the run in {folder} started from another file of this name "
            f"(SHA-256 {before.sha256[:12]}, now {initial.sha256[:12]}) and has no checkpoint. Add --resume=overwrite "
            "to start again, or use another --workdir."
        )
    found = Record(initial.reference, initial.file, initial.sha256, initial.step, initial.encoder, taken, fresh)
    workdir.write_json(folder / RECORD, dataclasses.asdict(found) | {"encoder": to_dict(initial.encoder)})
