"""Settings shared by all tests: jaxtyping checked at run time, eight virtual devices, golden numbers."""

import json
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
import pytest
from absl import flags
from jaxtyping import install_import_hook

install_import_hook("jepa_jax", "beartype.beartype")
flags.FLAGS.mark_as_parsed()  # grain reads absl's flags

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Programs compiled once a session, in this process and those that tests start."""
    folder = str(tmp_path_factory.mktemp("xla"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)


@pytest.fixture(scope="session")
def golden():
    """golden("encoder") is tests/golden/encoder.npz as a dict."""

    def load(name):
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def golden_folder():
    return GOLDEN


@pytest.fixture(scope="session")
def golden_meta():
    return json.loads((GOLDEN / "meta.json").read_text())
