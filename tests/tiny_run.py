"""Settings of a minimal run, on which tests base their own."""

SETTINGS = {
    "steps": 6,
    "batch_size": 8,
    "dtype": "float32",
    "clip": {"frames": 4, "size": 16},
    "encoder": {"size": "16x2x1", "patch": 8, "levels": 2},
    "predictor": {"size": "16x1x1"},
    "masks": {"short": {"blocks": 1, "spatial_scale": 0.3}},
    "data": {"sources": {"sprites": {"kind": "sprites"}}, "workers": 0},
    "checkpoint": {"every": 2, "keep": 10},
    "log": {"every": 1, "features_every": 3},
}
