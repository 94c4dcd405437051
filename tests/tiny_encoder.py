"""Tiny encoders with random parameters."""

import jax
import jax.numpy as jnp
import numpy as np

import jepa_jax
from jepa_jax import models
from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig

CLIP = ClipConfig(frames=4, size=16)
LEVELS = EncoderConfig(size="16x2x2", patch=8, levels=2)
TILED = EncoderConfig(size="16x2x2", patch=8, levels=1, rotary="tiled")
PREDICTOR = PredictorConfig(size="12x1x2", mask_tokens=3)


def random_like(tree, seed=0):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.2 * draw.standard_normal(x.shape)).astype(np.float32), tree)


def build(settings, predictor=PREDICTOR, **others):
    """A VideoEncoder of random parameters."""
    module, index = models.build_encoder(settings), jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *CLIP.shape)))
    of_predictor = None
    if predictor is not None:
        tokens = jnp.zeros((1, 2, module.size.width * settings.levels))
        of_predictor = jax.eval_shape(
            lambda key: models.build_predictor(predictor, settings).init(key, tokens, index, index, grid=(2, 2, 2)),
            jax.random.key(0),
        )["params"]
    return jepa_jax.VideoEncoder(
        params=random_like(shapes["params"]),
        settings=settings,
        clip=CLIP,
        predictor_params=None if predictor is None else random_like(of_predictor, 1),
        predictor_settings=predictor,
        **others,
    )


def random_clips(count, frames=4, side=16):
    return np.random.default_rng(count).integers(0, 256, (count, frames, side, side, 3), np.uint8)
