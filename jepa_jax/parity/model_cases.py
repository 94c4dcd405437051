"""Cases of encoder, predictor and attentive probe on stored weights, and of V-JEPA 2 from transformers."""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax import models
from jepa_jax.config import EncoderConfig, PredictorConfig
from jepa_jax.models import encoder as encoder_module
from jepa_jax.models import pixels, probe_heads
from jepa_jax.parity.comparison import LEVELS, LOSS, Case, Comparison, Folder, linear
from jepa_jax.weights import assemble, formats, tensors
from jepa_jax.weights.assemble import Params
from jepa_jax.weights.entries import Module
from jepa_jax.weights.formats import transformers_config

ENCODER = {  # output: mask, all levels, image path
    "out_all_levels": (None, True, False),
    "out_last": (None, False, False),
    "out_context_tube": ("masks_context_tube", True, False),
    "out_context_ragged": ("masks_context_ragged", True, False),
    "out_image_all_levels": (None, True, True),
}
PREDICTOR = {  # suffix of the outputs' names: masks, mask token, image modality
    "tube": ("tube", 0, False),
    "tube_image_modality": ("tube", 0, True),
    "ragged_masktoken1": ("ragged", 1, False),
}
PROBE_HEADS = 4


def cases(folder: Folder) -> Iterator[Case]:
    """Yields a case for each output of encoder and predictor, one for the probe and one for V-JEPA 2."""
    if folder.has("encoder.npz"):
        for name in ENCODER:
            yield Case(f"encoder/{name}", functools.partial(_compare_encoder, folder, name))
    if folder.has("predictor.npz"):
        for name in PREDICTOR:
            yield Case(f"predictor/{name}", functools.partial(_compare_predictor, folder, name))
    if folder.has("attentive_probe.npz"):
        yield Case("attentive_probe", functools.partial(_compare_probe, folder))
    if folder.has("vjepa2_transformers.npz"):
        yield Case("vjepa2_transformers", functools.partial(_compare_transformers, folder))


def encoder_config(folder: Folder) -> EncoderConfig:
    """Returns the encoder settings of meta.json."""
    meta = folder.meta
    return EncoderConfig(
        size=f"{meta['embed']}x{meta['depth']}x{meta['heads']}",
        patch=meta["patch"],
        tubelet=meta["tubelet"],
        levels=LEVELS,
    )


def predictor_config(folder: Folder) -> PredictorConfig:
    """Returns the predictor settings of meta.json."""
    meta = folder.meta
    return PredictorConfig(size=f"{meta['pred_embed']}x{meta['pred_depth']}x{meta['pred_heads']}")


def modules(folder: Folder) -> dict[str, Module]:
    """Returns where the arrays of weights.npz belong in the parameters of encoder and predictor."""
    return formats.modules("vjepa2.1", encoder_config(folder), predictor_config(folder))


def params(folder: Folder) -> dict[str, Params]:
    """Returns the parameters of encoder and predictor."""
    weights = tensors.of_arrays(folder.arrays("weights"))
    return {name: assemble.params(module, weights) for name, module in modules(folder).items()}


def _compare_encoder(folder: Folder, name: str) -> Iterator[Comparison]:
    mask, all_levels, image = ENCODER[name]
    data = folder.arrays("encoder")
    clips = pixels.normalise(data["video_uint8"][:, :1] if image else data["video_uint8"])
    index = None if mask is None else jnp.asarray(data[mask])
    encoder = models.build_encoder(encoder_config(folder), folder.dtype)
    encode = jax.jit(functools.partial(encoder.apply, all_levels=all_levels))
    yield Comparison(name, encode({"params": params(folder)["encoder"]}, clips, index), data[name])


def _compare_predictor(folder: Folder, name: str) -> Iterator[Comparison]:
    masks, mask_token, image = PREDICTOR[name]
    data = folder.arrays("predictor")
    predictor = models.build_predictor(predictor_config(folder), encoder_config(folder), folder.dtype)
    predict = functools.partial(predictor.apply, grid=folder.grid, mask_token=mask_token, image=image)
    predicted, context = jax.jit(predict)(
        {"params": params(folder)["predictor"]},
        jnp.asarray(data[f"z_{masks}"]),
        jnp.asarray(data[f"masks_context_{masks}"]),
        jnp.asarray(data[f"masks_target_{masks}"]),
    )
    yield Comparison(f"pred_{name}", predicted, data[f"pred_{name}"])
    yield Comparison(f"context_{name}", context, data[f"context_{name}"])


def probe_params(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Converts the attentive probe's parameters or gradients from PyTorch's names and layout."""
    get = {name.removeprefix(prefix): value for name, value in data.items() if name.startswith(prefix)}
    return {
        "query": get["cls_token"][0, 0],
        "qkv_kernel": get["attn.in_proj_weight"].T,
        "qkv_bias": get["attn.in_proj_bias"],
        "out": linear(get, "attn.out_proj"),
        "norm": {"scale": get["norm.weight"], "bias": get["norm.bias"]},
        "head": linear(get, "head"),
    }


def _compare_probe(folder: Folder) -> Iterator[Comparison]:
    data = folder.arrays("attentive_probe")
    tokens = jnp.asarray(data["tokens"], folder.dtype)
    probe = probe_heads.AttentiveProbe(classes=data["logits"].shape[-1], heads=PROBE_HEADS)
    params = jax.tree.map(jnp.asarray, probe_params(data, "param."))

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = probe.apply({"params": params}, tokens)
        assert isinstance(logits, jax.Array)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(data["labels"])).mean(), logits

    (loss, logits), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    yield Comparison("loss", loss, data["loss"], LOSS)
    yield Comparison("logits", logits, data["logits"], LOSS)
    pooled = probe.apply({"params": params}, tokens.mean(1, keepdims=True))
    yield Comparison("pooled_logits", pooled, data["pooled_logits"], LOSS)
    expected = dict(jax.tree_util.tree_leaves_with_path(probe_params(data, "grad.")))
    for path, got in jax.tree_util.tree_leaves_with_path(gradient):
        yield Comparison(f"gradient of {jax.tree_util.keystr(path)}", got, expected[path])


def _compare_transformers(folder: Folder) -> Iterator[Comparison]:
    """Compares with Transformers: tiled rotary layout, one level, one Linear into the predictor, mask token 1."""
    data = folder.arrays("vjepa2_transformers")
    config = transformers_config.read(json.loads(str(data["config"])), "vjepa2_transformers.npz")
    weights = tensors.of_arrays(
        {name.removeprefix("param."): value for name, value in data.items() if name.startswith("param.")}
    )
    found = {
        name: assemble.params(module, weights)
        for name, module in formats.modules("transformers", config.encoder, config.predictor).items()
    }
    encoder = models.build_encoder(config.encoder, folder.dtype)
    clips = pixels.normalise(data["video_uint8"])
    hidden = jax.jit(encoder.apply)({"params": found["encoder"]}, clips, None)
    yield Comparison("last_hidden_state", hidden, data["last_hidden_state"])

    predictor = models.build_predictor(config.predictor, config.encoder, folder.dtype)
    context, target = jnp.asarray(data["context_mask"]), jnp.asarray(data["target_mask"])
    predict = jax.jit(functools.partial(predictor.apply, grid=encoder.grid(clips), mask_token=1))
    tokens_BxKxE = encoder_module.gather_tokens(hidden, context)  # pyright: ignore[reportArgumentType]
    out, _ = predict({"params": found["predictor"]}, tokens_BxKxE, context, target)
    yield Comparison("predictor_last_hidden_state", out, data["predictor_last_hidden_state"])
