"""Has the representation collapsed? Spread and effective rank of features, without labels."""

import numpy as np
from jaxtyping import Float

LEAST_STD = 0.02
LEAST_RANK = 1.5
ADVICE = (
    "Try a lower --config.optim.peak_lr, a slower target (--config.ema.decay nearer 1), a larger batch, "
    "or an objective that spreads features."
)


def feature_std(features_SxD: Float[np.ndarray, "S D"]) -> float:
    """Standard deviation over tokens, averaged over channels: 0 when all tokens are alike."""
    return float(features_SxD.std(axis=0).mean())


def rank_me(features_SxD: Float[np.ndarray, "S D"]) -> float:
    """Effective rank: the exponential of the entropy of the normalised singular values (RankMe, arXiv:2210.02885).

    Between 1 and min(S, D).
    """
    singular = np.linalg.svd(features_SxD, compute_uv=False)
    share = singular / max(singular.sum(), 1e-12) + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def measure(features: dict[str, Float[np.ndarray, "S D"]]) -> dict[str, float]:
    """`feature_std/NAME` and `rank/NAME` of each set of features."""
    measures = {}
    for name, features_SxD in features.items():
        measures[f"feature_std/{name}"] = feature_std(features_SxD)
        measures[f"rank/{name}"] = rank_me(features_SxD)
    return measures


def alarm(measures: dict[str, float]) -> str | None:
    """What to tell the user if these measures show a collapse."""
    signs = [
        f"{name} is {value:.3g} (below {limit})"
        for kind, limit in (("feature_std", LEAST_STD), ("rank", LEAST_RANK))
        for name, value in measures.items()
        if name.startswith(kind) and value < limit
    ]
    return f"The features may have collapsed: {'; '.join(signs)}. {ADVICE}" if signs else None
