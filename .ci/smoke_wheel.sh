#!/usr/bin/env bash
# Builds the wheel with the environment $1, installs it without the tests' extras into a fresh one, and uses it in an empty
# folder: a short training run by config name, features of it, and the command list.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$environment/bin/uv" build --quiet --wheel --out-dir "$work/dist"
"$environment/bin/uv" venv --quiet --python "$environment/bin/python" "$work/env"
"$environment/bin/uv" pip install --quiet --python "$work/env/bin/python" "$work"/dist/*.whl
cd "$work"
env/bin/jepa-jax help
env/bin/jepa-jax train --config quickstart --workdir run --config.steps=4 --config.checkpoint.every=2 --config.probe=
env/bin/python - <<'PYTHON'
import numpy as np
import jepa_jax

config = jepa_jax.load("run").config
clips = np.zeros((2, config.clip.frames, config.clip.height, config.clip.width, 3), np.uint8)
features = jepa_jax.load("run").encode(clips)
assert features.shape[0] == 2 and np.isfinite(features).all(), features
PYTHON
