"""`jepa_jax.export`: a file that runs in another process, without this package."""

import dataclasses
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from tiny_encoder import random_clips

import jepa_jax
from jepa_jax.inference import stablehlo

PROGRAM = """
import pathlib, sys
import jax, numpy as np
program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
for count in (1, 3):
    np.save(f"tokens-{count}.npy", program.call(np.load(f"clips-{count}.npy")))
assert not [name for name in sys.modules if name.startswith(("jepa_jax", "flax"))]
"""


@pytest.mark.slow
def test_a_file_runs_without_this_package_at_any_batch_size(encoder, tmp_path):
    jepa_jax.export(encoder, tmp_path / "model.stablehlo")
    for count in (1, 3):
        np.save(tmp_path / f"clips-{count}.npy", random_clips(count))
    # Not from the repository, where `import jepa_jax` would find the package.
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True)
    for count in (1, 3):
        tokens = np.load(tmp_path / f"tokens-{count}.npy")
        assert tokens.dtype == np.float32
        np.testing.assert_allclose(tokens, encoder(random_clips(count)).tokens, atol=1e-5)
    assert sorted(path.suffix for path in tmp_path.iterdir()).count(".stablehlo") == 1


def test_what_cannot_be_exported_raises(encoder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="clips of 3 frames, 16×16 pixels do not divide"):
        jepa_jax.export(encoder, tmp_path / "x", frames=3)
    monkeypatch.setattr(stablehlo, "LIMIT", 2**10)
    with pytest.raises(ValueError, match=r"the parameters take 0\.0 GiB; .* Use jepa_jax\.save instead"):
        jepa_jax.export(encoder, tmp_path / "x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'jepa_jax\[export\]'"):
        jepa_jax.export(dataclasses.replace(encoder), tmp_path / "x")
    assert not list(tmp_path.iterdir())
