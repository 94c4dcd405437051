import jax
import numpy as np
import pytest

from jepa_jax.config import ClipConfig, SourceConfig
from jepa_jax.data import EvaluationSet
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.features.rows import UncachedRows
from jepa_jax.evaluation.probes import fitting

CLASSES = 5
LABELS = np.random.default_rng(0).integers(CLASSES, size=20).astype(np.int32)


@pytest.mark.parametrize("standardise", [False, True])
def test_attentive_probe_is_the_same_without_a_cache(training_run, pictures, tmp_path, standardise):
    """Labels are random, so that predictions are sensitive to any difference in training."""
    encode = extractor.of_encoder(frozen_encoder.load(str(training_run)), "float32")
    clips = EvaluationSet(SourceConfig(kind="images", path=str(pictures / "train")), clip=ClipConfig(frames=2, size=16))
    cached, uncached = (
        feature_set.extract({"one": encode}, clips, ("all",), Cache(tmp_path, keep=keep), batch_size=8)["one"].tokens[
            "all"
        ]
        for keep in ("cache", "on_the_fly")
    )
    assert isinstance(uncached, UncachedRows)
    probe = ProbeConfig(
        kind="attentive", tokens="all", heads=2, epochs=5, batch_size=6, lr=(3e-3,), standardise=standardise
    )
    by_cache, on_the_fly = (
        fitting.run(probe, rows, LABELS, {"test": rows}, CLASSES, jax.random.key(0)).predicted["test"]
        for rows in (cached, uncached)
    )
    assert len(np.unique(by_cache)) > 1
    np.testing.assert_array_equal(on_the_fly, by_cache)
