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

features = jepa_jax.load("run")(np.zeros((2, 8, 32, 32, 3), np.uint8))
assert features.mean().shape == (2, 128) and np.isfinite(features.mean()).all(), features
PYTHON
