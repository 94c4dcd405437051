"""config.json of V-JEPA 2 in Hugging Face transformers."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.models.layers import EPSILON
from jepa_jax.models.sizes import Size, parse_size
from jepa_jax.settings import ConfigError, parse
from jepa_jax.weights.tensors import WeightsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformersConfig:
    """The settings of VJEPA2Config that determine what the model computes, with their defaults there."""

    crop_size: int = 256
    frames_per_clip: int = 64
    patch_size: int = 16
    tubelet_size: int = 2
    in_chans: int = 3
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    mlp_ratio: float = 4.0
    layer_norm_eps: float = EPSILON
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    num_pooler_layers: int = 3
    pred_hidden_size: int = 384
    pred_num_hidden_layers: int = 12
    pred_num_attention_heads: int = 12
    pred_num_mask_tokens: int = 10
    pred_mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        for name, only in {"in_chans": 3, "layer_norm_eps": EPSILON, "qkv_bias": True, "hidden_act": "gelu"}.items():
            if getattr(self, name) != only:
                raise ValueError(f"{name} is {getattr(self, name)!r}; only {only!r} is supported")

    @property
    def size(self) -> Size:
        """Size of the encoder."""
        return _size(self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.mlp_ratio)

    @property
    def predictor_size(self) -> Size:
        """Size of the predictor."""
        return _size(
            self.pred_hidden_size, self.pred_num_hidden_layers, self.pred_num_attention_heads, self.pred_mlp_ratio
        )

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder as a setting of ours."""
        return EncoderConfig(
            size=str(self.size), patch=self.patch_size, tubelet=self.tubelet_size, levels=1, rotary="tiled"
        )

    @property
    def predictor(self) -> PredictorConfig:
        """The predictor as a setting of ours."""
        return PredictorConfig(size=str(self.predictor_size), mask_tokens=self.pred_num_mask_tokens)

    @property
    def clip(self) -> ClipConfig:
        """Shape of the clips of pretraining."""
        return ClipConfig(frames=self.frames_per_clip, size=self.crop_size)


def read(content: Mapping[str, Any], source: str) -> TransformersConfig:
    """Parses config.json; settings that do not change what the model computes are left out.

    Raises:
        WeightsError: another model, or settings that are not supported.
    """
    if content.get("model_type") != "vjepa2":
        raise WeightsError(f"{source} is of model_type {content.get('model_type')!r}; expected 'vjepa2'.")
    known = {field.name for field in dataclasses.fields(TransformersConfig)}
    try:
        config = parse(TransformersConfig, {name: content[name] for name in known & content.keys()}, source)
        parse_size(str(config.size))
        parse_size(str(config.predictor_size))
    except (ConfigError, ValueError) as error:
        raise WeightsError(f"{error}.") from error
    return config


def write(encoder: EncoderConfig, predictor: PredictorConfig, clip: ClipConfig) -> dict[str, Any]:
    """Returns the content of config.json for a model that transformers can hold."""
    size, predictor_size = parse_size(encoder.size), parse_size(predictor.size)
    config = TransformersConfig(
        crop_size=clip.height,
        frames_per_clip=clip.frames,
        patch_size=encoder.patch,
        tubelet_size=encoder.tubelet,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        mlp_ratio=_ratio(size),
        pred_hidden_size=predictor_size.width,
        pred_num_hidden_layers=predictor_size.depth,
        pred_num_attention_heads=predictor_size.heads,
        pred_num_mask_tokens=predictor.mask_tokens,
        pred_mlp_ratio=_ratio(predictor_size),
    )
    return {"architectures": ["VJEPA2Model"], "model_type": "vjepa2", "dtype": "float32"} | dataclasses.asdict(config)


def _size(width: int, depth: int, heads: int, ratio: float) -> Size:
    hidden = int(width * ratio)  # as transformers rounds
    return Size(width, depth, heads, hidden / width if width else ratio)


def _ratio(size: Size) -> float:
    """Returns the ratio from which transformers computes this hidden width; it rounds down."""
    ratio = size.hidden / size.width
    return ratio if int(size.width * ratio) == size.hidden else math.nextafter(ratio, math.inf)
