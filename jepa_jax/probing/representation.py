"""What can be said of a representation without labels: how many directions it uses, what changes in it over time.

Which of its channels are to hold appearance and which dynamics, the training settings say (`factorization.Split`): each
half's share of the variance, and how much of that is change within clips, show whether the factorization factorizes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_jax import masking, models, pixels
from jepa_jax.config import ClipConfig, Config, to_dict
from jepa_jax.objectives import factorization
from jepa_jax.probing.encoding import Encode, Row, Video
from jepa_jax.probing.features import Features, Rows
from jepa_jax.training.collapse import feature_std, rank_me

VIEWS = 8  # of a clip, for LiDAR
MAX_CLIPS = 4096  # that are measured, spread evenly over the set
LIDAR_DELTA = 1e-4  # added to the variance within clips, as in the paper
KINDS = ("mean", "frames", "mean_levels", "frames_levels")  # features that are measured
APPEARANCE, DYNAMICS = "appearance half", "dynamics half"


def measure(features: Features, views: Features, halves: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """All measures of a set of clips.

    Args:
        features: of the encoder, of all KINDS.
        views: of the same clips through random masks, see `masked_views`.
        halves: from `channel_halves`.

    Returns:
        `rankme`, `lidar`, `feature_std` and `straightness` of the plain output; of all levels `appearance_variance`,
        the share of the variance that lies in the appearance half, and `appearance_change` and `dynamics_change`, the
        share of each half's variance that is change over time within clips. None where it is not defined: straightness
        of fewer than three time steps, shares of a half without channels or variance.
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
    """Effective rank of what tells I clips apart, relative to how Q views of a clip differ (LiDAR, arXiv:2312.04000).

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
    """Mean cosine of the angle between one step of a clip's path through feature space and the next.

    1 is a straight line; −½ is what unrelated points give. Steps of length 0 have no direction and are left out. After
    the curvature of Hénaff, Goris & Simoncelli (Nature Neuroscience 22, 2019), which averages the angles. None for
    fewer than three time steps, or where nothing moves.
    """
    step_IxSxE = np.diff(frames_IxTxE.astype(np.float64), axis=1)
    length_IxS = np.linalg.norm(step_IxSxE, axis=-1)
    product = (step_IxSxE[:, 1:] * step_IxSxE[:, :-1]).sum(-1)
    lengths = length_IxS[:, 1:] * length_IxS[:, :-1]
    moving = lengths > 0
    return float((product[moving] / lengths[moving]).mean()) if moving.any() else None


def channel_halves(config: Config) -> dict[str, Int[np.ndarray, "_"]]:
    """Which channels of all levels are appearance and which dynamics, by the names APPEARANCE and DYNAMICS.

    As the run's factorization has it; without one, as the study's would: the shallow half of the levels is appearance.
    """
    splits = [part for part in config.objectives.values() if isinstance(part, factorization.Split)]
    split = splits[0] if splits else factorization.Split()
    channels = jnp.arange(models.build_encoder(config.encoder).size.width * config.encoder.levels, dtype=jnp.float32)
    appearance, dynamics = split.parts(channels[None, None], config.encoder.levels)
    return {APPEARANCE: np.asarray(appearance[0, 0], np.int32), DYNAMICS: np.asarray(dynamics[0, 0], np.int32)}


def half(features: Features, channels: Int[np.ndarray, "_"]) -> Features:
    """Features whose mean token has only these channels of all levels."""
    return dataclasses.replace(features, tokens={"mean": features.tokens["mean_levels"][:][:, channels]})


def masked_views(encode: Encode, config: Config, clip: ClipConfig, dtype: str) -> Encode:
    """VIEWS views of a clip as training shows them: the plain output, averaged over the tokens a random mask leaves.

    The masks are those of the run, in turn. "frames" has the views in place of time steps, [B, VIEWS, E].

    Args:
        encode: the encoder whose parameters are used.
        config: of the run that it comes from.
        clip: the form of the clips.
        dtype: what the encoder computes in.
    """
    encoder = models.build_encoder(config.encoder, dtype)
    grid = encoder.grid(jax.ShapeDtypeStruct((1, clip.frames, clip.size, clip.size, 3), jnp.float32))
    plans = tuple(masking.plan(mask, grid) for mask in config.masks.values())
    identity = {**encode.identity, "views": {"masks": to_dict(config.masks), "number": VIEWS}}
    return dataclasses.replace(encode, apply=_MaskedViews(encoder, plans), identity=identity)


@dataclasses.dataclass(frozen=True)
class _MaskedViews:
    encoder: models.Encoder
    plans: tuple[masking.MaskPlan, ...]

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B *S E"]]:
        clips = pixels.normalise(video)
        motion = masking.motion_map(clips, self.plans[0].grid)
        key = jax.random.key(0, impl="threefry2x32")

        def context(plan: masking.MaskPlan, view: int, number: Array, motion_TxHxW: Array) -> Array:
            one = jax.random.fold_in(jax.random.fold_in(key, number), view)
            return masking.draw(plan, one, 1, motion_TxHxW[None])[0][0]

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
    """Variance over clips and time steps, summed over channels, and the part of it that is within clips."""
    levels = levels_IxTxR.astype(np.float64)
    means_Ix1xR = levels.mean(1, keepdims=True)
    total = np.square(levels - levels.mean((0, 1))).mean((0, 1)).sum()
    return float(total), float(np.square(levels - means_Ix1xR).mean((0, 1)).sum())
