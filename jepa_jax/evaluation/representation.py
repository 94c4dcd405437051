"""Label-free measures of a representation: effective rank, and change over time.

The training settings assign channels to appearance and to dynamics (`ChannelSplit`). Each half's share of the
variance, and the part of it that is change within clips, measure how well the factorization works.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_jax import masks, models
from jepa_jax.config import ClipConfig, Config
from jepa_jax.evaluation.features.extractor import FeatureExtractor, Row, Video
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.features.rows import Rows
from jepa_jax.models import pixels
from jepa_jax.objectives.channel_split import ChannelSplit, used_splits
from jepa_jax.settings import to_dict
from jepa_jax.training.collapse import feature_std, rank_me

VIEWS = 8  # of a clip, for LiDAR
MAX_CLIPS = 4096  # to measure, evenly spaced in the set
LIDAR_DELTA = 1e-4  # added to the variance within clips, as in the paper
KINDS = ("mean", "frames", "mean_levels", "frames_levels")  # features that are measured
APPEARANCE, DYNAMICS = "appearance half", "dynamics half"


def measure(features: Features, views: Features, halves: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """All measures of a set of clips.

    Args:
        features: of the encoder; has all KINDS.
        views: features of the same clips under random masks (`masked_views`).
        halves: from `channel_halves`.

    Returns:
        `rankme`, `lidar`, `feature_std` and `straightness` of the encoder's output. Of the channels of all levels:
        `appearance_variance`, the share of the variance in the appearance half; `appearance_change` and
        `dynamics_change`, the share of each half's variance that is change over time within clips. A measure is None
        if it is undefined: straightness of fewer than three time steps, a share of a half without channels or variance.
    """
    tokens = {kind: _some(features.tokens[kind]) for kind in KINDS}
    levels_IxTxD = tokens["frames_levels"]
    appearance, dynamics = (_variance(levels_IxTxD[..., halves[name]]) for name in (APPEARANCE, DYNAMICS))
    total = appearance[0] + dynamics[0]
    return {
        "rankme": rank_me(tokens["mean"]),
        "lidar": lidar(_some(views.tokens["frames"])),
        "feature_std": feature_std(tokens["mean"]),
        "straightness": straightness(tokens["frames"]),
        "appearance_variance": appearance[0] / total if total > 0 else None,
        "appearance_change": appearance[1] / appearance[0] if appearance[0] > 0 else None,
        "dynamics_change": dynamics[1] / dynamics[0] if dynamics[0] > 0 else None,
    }


def lidar(embeddings_IxQxE: Float[np.ndarray, "I Q E"]) -> float:
    """Effective rank of the variance between I clips relative to that between Q views of a clip (arXiv:2312.04000).

    exp of the entropy of the eigenvalues of Σ_w^(−½) Σ_b Σ_w^(−½): Σ_b the covariance of clips' means, Σ_w that of
    views about them, plus 1e-4 on the diagonal. Between 1 and min(I − 1, E).
    """
    clips, views, width = embeddings_IxQxE.shape
    embeddings = embeddings_IxQxE.astype(np.float64)
    means_IxE = embeddings.mean(1)
    between_IxE = means_IxE - means_IxE.mean(0)
    within_SxE = (embeddings - means_IxE[:, None]).reshape(clips * views, width)
    within_ExE = within_SxE.T @ within_SxE / (clips * views) + LIDAR_DELTA * np.eye(width)
    values_E, vectors_ExE = np.linalg.eigh(within_ExE)
    whitened_IxE = between_IxE @ (vectors_ExE / np.sqrt(values_E))
    # The eigenvalues of the covariance are the squares of these singular values.
    variance = np.square(np.linalg.svd(whitened_IxE, compute_uv=False))
    share = variance / max(variance.sum(), 1e-300) + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def straightness(frames_IxTxE: Float[np.ndarray, "I T E"]) -> float | None:
    """Mean cosine of the angle between successive steps of a clip's path through feature space.

    1 is a straight line; unrelated points give −½. Steps of length 0 are excluded. Related to the curvature of Hénaff,
    Goris & Simoncelli (Nature Neuroscience 22, 2019), which averages angles. None for fewer than three time steps, or
    if all steps have length 0.
    """
    step_IxSxE = np.diff(frames_IxTxE.astype(np.float64), axis=1)
    length_IxS = np.linalg.norm(step_IxSxE, axis=-1)
    product = (step_IxSxE[:, 1:] * step_IxSxE[:, :-1]).sum(-1)
    lengths = length_IxS[:, 1:] * length_IxS[:, :-1]
    moving = lengths > 0
    return float((product[moving] / lengths[moving]).mean()) if moving.any() else None


def channel_halves(config: Config) -> dict[str, Int[np.ndarray, "_"]]:
    """Returns the indices of the appearance and dynamics channels among those of all levels, by name.

    They are those of the run's factorization. A run without one gets the default: the shallow half of the levels is
    appearance.
    """
    split = next(iter(used_splits(config.objectives).values()), ChannelSplit())
    channels = jnp.arange(models.build_encoder(config.encoder).size.width * config.encoder.levels, dtype=jnp.float32)
    appearance, dynamics = split.parts(channels[None, None], config.encoder.levels)
    return {APPEARANCE: np.asarray(appearance[0, 0], np.int32), DYNAMICS: np.asarray(dynamics[0, 0], np.int32)}


def half(features: Features, channels: Int[np.ndarray, "_"]) -> Features:
    """Features with a single kind, "mean": these channels of the mean token of all levels."""
    return dataclasses.replace(features, tokens={"mean": features.tokens["mean_levels"][:][:, channels]})


def masked_views(encode: FeatureExtractor, config: Config, clip: ClipConfig, dtype: str) -> FeatureExtractor:
    """Returns an extractor of VIEWS masked views of a clip: the encoder's output, averaged over the context tokens.

    The views use the run's masks in turn. "frames" has a row for each view, [B, VIEWS, E].

    Args:
        encode: has the encoder's parameters.
        config: of the encoder's training run.
        clip: frames and size of the clips.
        dtype: of the encoder's computation.
    """
    encoder = models.build_encoder(config.encoder, dtype)
    grid = encoder.grid(jax.ShapeDtypeStruct((1, *clip.shape), jnp.float32))
    plans = tuple(masks.plan(mask, grid) for mask in config.masks.values())
    identity = {**encode.identity, "views": {"masks": to_dict(config)["masks"], "number": VIEWS}}
    return dataclasses.replace(encode, apply=_MaskedViews(encoder, plans), identity=identity)


@dataclasses.dataclass(frozen=True)
class _MaskedViews:
    encoder: models.Encoder
    plans: tuple[masks.MaskPlan, ...]

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B *S E"]]:
        clips = pixels.normalise(video)
        motion = masks.motion_map(clips, self.plans[0].grid)
        key = jax.random.key(0, impl="threefry2x32")

        def context(plan: masks.MaskPlan, view: int, number: Array, motion_TxHxW: Array) -> Array:
            one = jax.random.fold_in(jax.random.fold_in(key, number), view)
            return masks.draw(plan, one, 1, motion_TxHxW[None])[0][0]

        views = []
        for view in range(VIEWS):
            plan = self.plans[view % len(self.plans)]
            index_BxK = jax.vmap(lambda n, m, p=plan, v=view: context(p, v, n, m))(row, motion)
            tokens_BxKxE: Any = self.encoder.apply({"params": params}, clips, index_BxK)
            views.append(tokens_BxKxE.astype(jnp.float32).mean(1))
        views_BxQxE = jnp.stack(views, axis=1)
        return {"mean": views_BxQxE.mean(1), "frames": views_BxQxE}


def _some(rows: Rows) -> Float[np.ndarray, "I ..."]:
    """At most MAX_CLIPS rows, in float32."""
    step = -(-len(rows) // MAX_CLIPS)
    return rows[np.arange(0, len(rows), step)].astype(np.float32)


def _variance(levels_IxTxR: Float[np.ndarray, "I T R"]) -> tuple[float, float]:
    """Variance over clips and time steps, and its part within clips; both summed over channels."""
    levels = levels_IxTxR.astype(np.float64)
    means_Ix1xR = levels.mean(1, keepdims=True)
    total = np.square(levels - levels.mean((0, 1))).mean((0, 1)).sum()
    return float(total), float(np.square(levels - means_Ix1xR).mean((0, 1)).sum())
