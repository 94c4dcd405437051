"""Released encoders, predictors and probes as settings and parameters of this package."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.models import probe_heads
from jepa_jax.models.sizes import parse_size
from jepa_jax.preprocessing import VJEPA2, Preprocessing
from jepa_jax.settings import ConfigError, parse
from jepa_jax.weights import architecture, assemble, formats, safetensors_file
from jepa_jax.weights.assemble import Params
from jepa_jax.weights.formats import Format, attentive_probe, preprocessor_config, transformers_config
from jepa_jax.weights.tensors import Tensor, WeightsError
from jepa_jax.weights.unpickle import TorchFile

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OWN = "jepa_jax"  # settings in config.json that neither format has
VJEPA2_1_TYPE = "vjepa2_1"  # model_type in the config.json of files that this package writes
ENCODERS = ("ema_encoder", "target_encoder", "encoder")  # of a PyTorch file, the one to use first
FRAMES = 64  # of released encoders' last phase of training
SIDES = {  # of their clips, by the name of the file
    "vitl": 256,
    "vith": 256,
    "vitg": 256,
    "vitg-384": 384,
    "vjepa2_1_vitb_dist_vitG_384": 384,
    "vjepa2_1_vitl_dist_vitG_384": 384,
    "vjepa2_1_vitg_384": 384,
    "vjepa2_1_vitG_384": 384,
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """A released attentive probe.

    Attributes:
        module: built with its number of classes, heads and blocks.
        params: of the module, float32.
        labels: names of the classes, if the file has them.
    """

    module: probe_heads.AttentiveBlocksProbe
    params: Params
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a file of weights holds.

    Attributes:
        source: the file.
        format: of the file.
        encoder: its settings.
        encoder_params: float32 arrays in memory, in the layout of `models.build_encoder`.
        predictor: its settings; None if the file has none.
        predictor_params: in the layout of `models.build_predictor`.
        probe: the classifier of VJEPA2ForVideoClassification.
        clip: shape of the clips of its pretraining, where the file or its name says it.
        ignored: parts of the file that are not used, with the reason.
        filled: parameters that the format does not have, with their value and the reason.
        preprocessing: of the clips in the encoder's own evaluation.
        dtype: of its computation there: float32, or what `save` recorded.
    """

    source: str
    format: Format
    encoder: EncoderConfig
    encoder_params: Params
    predictor: PredictorConfig | None
    predictor_params: Params | None
    probe: Probe | None
    clip: ClipConfig | None
    ignored: Mapping[str, str]
    filled: Mapping[str, str]
    preprocessing: Preprocessing = VJEPA2
    dtype: str = "float32"


def read(path: str | os.PathLike[str], *, heads: int = 0, predictor_heads: int = 0) -> Pretrained:
    """Reads a released encoder, with its predictor and classifier where the file has them.

    Args:
        path: a .pt file of V-JEPA 2 or 2.1; a folder of transformers or of `save`, with config.json and
            model.safetensors; or the .safetensors file in such a folder.
        heads: attention heads of the encoder, for a .pt file of a width that was not released.
        predictor_heads: of the predictor.

    Raises:
        WeightsError: a damaged or harmful file, or tensors that are missing, unexpected or misshapen (lists them all).
        FileNotFoundError: no such file.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        if missing := [name for name in (CONFIG, WEIGHTS) if not (file / name).exists()]:
            raise WeightsError(
                f"{file} has no {' and no '.join(missing)}; expected a folder with {CONFIG} and {WEIGHTS}."
            )
        file = file / WEIGHTS
    if file.suffix != ".safetensors":
        return _read_torch(file, heads, predictor_heads)
    config = file.with_name(CONFIG)
    if not config.exists():
        raise WeightsError(f"{file} has no {CONFIG} beside it, which has the number of heads.")
    content, tensors = _read_json(config), safetensors_file.read(file)
    is_own = content.get("model_type") == VJEPA2_1_TYPE
    found = (_read_own if is_own else _read_transformers)(file, content, tensors)
    return dataclasses.replace(found, preprocessing=_read_preprocessing(file), dtype=_dtype(content, config))


def read_probe(path: str | os.PathLike[str], *, heads: int = 16, number: int = 0) -> Probe:
    """Reads a probe of V-JEPA 2's evaluation, evals/*.pt.

    Args:
        path: of the file.
        heads: attention heads. Released probes have 16 whatever their width.
        number: of the probe, where a file has several.

    Raises:
        WeightsError: as `read`.
    """
    source, name = os.fspath(path), "classifiers"
    tensors = TorchFile(path).state_dict(name, number)
    start = architecture.prefix(tensors)
    found = architecture.blocks(tensors, f"{start}pooler.blocks", source)
    if heads < 1 or found.width % heads:
        raise WeightsError(f"{source}: heads is {heads}; expected a divisor of the width, {found.width}.")
    classes = next((x.shape[0] for key, x in tensors.items() if key == f"{start}linear.bias" and x.shape), 1)
    module = attentive_probe.original(found.width, classes, found.depth + 1, start)
    part = assemble.Part(f"{name}[{number}]: ", tensors, {"probe": module})
    read = assemble.read(source, f"a probe of width {found.width} for {classes} classes", [part])
    return Probe(probe_heads.AttentiveBlocksProbe(classes, heads, found.depth + 1), read.params["probe"])


def _read_torch(path: pathlib.Path, heads: int, predictor_heads: int) -> Pretrained:
    file = TorchFile(path)
    name = next((name for name in ENCODERS if name in file.content), None)
    if name is None:
        raise WeightsError(f"{path} has no {', '.join(ENCODERS)}; it has {', '.join(map(str, file.content))}.")
    of_predictor = file.state_dict("predictor") if "predictor" in file.content else None
    found = of_state_dicts(str(path), {name: file.state_dict(name)}, of_predictor, heads, predictor_heads)
    unused = {
        str(other): f"{name} is used" if other in ENCODERS else "not of encoder or predictor"
        for other in file.content
        if other not in (name, "predictor")
    }
    side = SIDES.get(path.stem)
    clip = None if side is None else ClipConfig(frames=FRAMES, size=side)
    return dataclasses.replace(found, clip=clip, ignored=unused | dict(found.ignored))


def of_state_dicts(
    source: str,
    of_encoder: Mapping[str, Mapping[str, Tensor]],
    of_predictor: Mapping[str, Tensor] | None,
    heads: int = 0,
    predictor_heads: int = 0,
) -> Pretrained:
    """Returns encoder and predictor from state dicts with their original names.

    Args:
        source: the file, for errors.
        of_encoder: the state dict of the encoder, under its name in the file.
        of_predictor: the state dict of the predictor.
        heads: as of `read`.
        predictor_heads: as of `read`.

    Raises:
        WeightsError: as `read`.
    """
    ((name, tensors),) = of_encoder.items()
    start = architecture.prefix(tensors)
    encoder = architecture.encoder(tensors, start, source, heads)
    predictor, predictor_start = None, ""
    if of_predictor is not None:
        predictor_start = architecture.prefix(of_predictor)
        width = parse_size(encoder.size).width
        predictor = architecture.predictor(of_predictor, predictor_start, source, encoder, width, predictor_heads)
    format: Format = "vjepa2.1" if architecture.is_vjepa2_1(tensors) else "vjepa2"
    found = formats.modules(format, encoder, predictor, start, predictor_start)
    parts = [assemble.Part(f"{name}: ", tensors, {"encoder": found["encoder"]})]
    if of_predictor is not None:
        parts.append(assemble.Part("predictor: ", of_predictor, {"predictor": found["predictor"]}))
    read = assemble.read(source, formats.describe(format, encoder, predictor), parts)
    return _pretrained(source, format, encoder, predictor, None, read)


def _read_own(path: pathlib.Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Pretrained:
    """Reads what `saving.save` wrote in the format vjepa2.1."""
    try:
        encoder = parse(EncoderConfig, content.get("encoder", {}), "encoder")
        predictor = (
            None if content.get("predictor") is None else parse(PredictorConfig, content["predictor"], "predictor")
        )
        clip = parse(ClipConfig, content.get("clip", {}), "clip")
        found = formats.modules("vjepa2.1", encoder, predictor)
    except (ConfigError, ValueError) as error:
        raise WeightsError(f"{path.with_name(CONFIG)}: {error}") from error
    read = assemble.read(
        str(path), formats.describe("vjepa2.1", encoder, predictor), [assemble.Part("", tensors, found)]
    )
    return _pretrained(str(path), "vjepa2.1", encoder, predictor, clip, read)


def _read_transformers(path: pathlib.Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Pretrained:
    config = transformers_config.read(content, str(path.with_name(CONFIG)))
    encoder, predictor = config.encoder, config.predictor
    is_classifier = any(key.startswith("vjepa2.") for key in tensors)
    start = "vjepa2." if is_classifier else ""
    found = formats.modules("transformers", encoder, predictor, f"{start}encoder.", f"{start}predictor.")
    what = formats.describe("transformers", encoder, predictor)
    labels = content.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    blocks = config.num_pooler_layers + 1
    if is_classifier:
        found["probe"] = attentive_probe.transformers(config.hidden_size, len(labels), blocks)
        what = f"{what} and a classifier of {len(labels)} classes"
    read = assemble.read(str(path), what, [assemble.Part("", tensors, found)])
    probe = None
    if is_classifier:
        module = probe_heads.AttentiveBlocksProbe(
            len(labels), config.num_attention_heads, blocks, transformers_config.EPSILON
        )
        probe = Probe(module, read.params["probe"], tuple(labels[key] for key in sorted(labels, key=int)))
    return _pretrained(str(path), "transformers", encoder, predictor, config.clip, read, probe)


def _pretrained(
    source: str,
    format: Format,
    encoder: EncoderConfig,
    predictor: PredictorConfig | None,
    clip: ClipConfig | None,
    found: assemble.Found,
    probe: Probe | None = None,
) -> Pretrained:
    return Pretrained(
        source=source,
        format=format,
        encoder=encoder,
        encoder_params=found.params["encoder"],
        predictor=predictor,
        predictor_params=found.params.get("predictor"),
        probe=probe,
        clip=clip,
        ignored=found.ignored,
        filled=found.filled,
    )


def _read_preprocessing(file: pathlib.Path) -> Preprocessing:
    for name in preprocessor_config.NAMES:
        if (path := file.with_name(name)).exists():
            return preprocessor_config.read(_read_json(path), str(path))
    return VJEPA2


def _dtype(content: Mapping[str, Any], path: pathlib.Path) -> str:
    own = content.get(OWN, {})
    dtype = own.get("dtype", "float32") if isinstance(own, dict) else own
    if dtype not in ("float32", "bfloat16"):
        raise WeightsError(f"{path}: {OWN}.dtype is {dtype!r}; expected 'float32' or 'bfloat16'.")
    return dtype


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected the settings of a model.")
    return content
