"""Collapse detection: spread and effective rank of features, without labels."""

import numpy as np
from jaxtyping import Float

from jepa_jax.config import Config, RunConfig

LEAST_STD = 0.02
LEAST_RANK = 1.5


def feature_std(features_SxD: Float[np.ndarray, "S D"]) -> float:
    """Standard deviation over tokens, averaged over channels; 0 if all tokens are equal."""
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


def alarm(measures: dict[str, float], config: RunConfig | None = None) -> str | None:
    """A warning with advice for this config if the measures indicate a collapse; None otherwise."""
    signs = [
        f"{name} is {value:.3g} (below {limit})"
        for kind, limit in (("feature_std", LEAST_STD), ("rank", LEAST_RANK))
        for name, value in measures.items()
        if name.startswith(kind) and value < limit
    ]
    advice = _advice(config if isinstance(config, Config) else Config())
    return f"The features may have collapsed: {'; '.join(signs)}. {advice}" if signs else None


def _advice(config: Config) -> str:
    ways = ["a lower --config.optim.peak_lr", "a larger --config.batch_size"]
    if config.target == "online":
        ways.append("a separate target encoder (--config.target=ema)")
    elif config.target == "ema" and config.ema.decay < 1:
        ways.append(f"a slower target (--config.ema.decay nearer 1 than {config.ema.decay:g})")
    if "sigreg" not in config.objectives:
        ways.append("an objective that spreads features (--config.objectives.sigreg.coefficient)")
    return f"Try {', '.join(ways[:-1])} or {ways[-1]}."
