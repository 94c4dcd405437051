"""Setup and fixtures shared by all tests: jaxtyping checks, eight virtual CPU devices, golden numbers, tiny clips.

In generated clips, frame k is uniformly grey with level 8·k + 8, so its index can be read from its pixels.
"""

import contextlib
import fractions
import json
import os
import pathlib
import signal

import jaxlib.version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Tests spend most of their time compiling.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # Halves compilation time. XLA aborts on unknown flags, and newer versions may have removed this one.
        "--xla_cpu_use_fusion_emitters=false" if jaxlib.version.__version_info__ < (0, 11) else "",
    ]
)

import av
import commands
import hypothesis
import jax
import numpy as np
import pytest
from absl import flags
from jaxtyping import install_import_hook

install_import_hook("jepa_jax", "beartype.beartype")
flags.FLAGS.mark_as_parsed()  # grain reads absl's flags

# hypothesis limits the seconds of an example and of drawing it, and a busy machine exceeds both.
hypothesis.settings.register_profile(
    "without clocks", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("without clocks")

# A shell starts background jobs with SIGINT ignored. Subprocesses that tests interrupt would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = pathlib.Path(__file__).parent / "golden"


# Test files that `pytest -m fast` runs, without their slow tests.
FAST = {
    "test_layering.py",
    "test_files.py",
    "test_jsonl.py",
    "test_progress.py",
    "cost_model/test_hlo.py",
    "data/test_file_types.py",
    "data/test_listing.py",
    "data/test_names.py",
    "data/test_sampling.py",
    "evaluation/test_labels.py",
    "evaluation/test_ridge.py",
    "evaluation/test_splits.py",
    "masks/test_kinds.py",
    "objectives/test_recipes.py",
    "training/test_changes.py",
    "training/test_collapse.py",
    "training/test_schedules.py",
}


def pytest_collection_modifyitems(items):
    """Adds the `fast` marker to the tests in FAST."""
    folder = pathlib.Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix() in FAST and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.fast)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Shares compiled programs between the pytest-xdist workers and the processes that tests start."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = str(shared / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # a run compiles about a hundred tiny programs first
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """forks.run(module, *arguments, cwd=…) runs, in a fraction of a second, a command that uses no device."""
    with contextlib.closing(commands.Forks(tmp_path_factory.mktemp("forks"))) as started:
        yield started


@pytest.fixture(scope="session")
def golden():
    """golden(name): the arrays of tests/golden/{name}.npz as a dict."""

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


CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".mpg": "mpeg1video"}


def _grey(number, height=48, width=64):
    return np.full((height, width, 3), 8 * number + 8, np.uint8)


def _numbers(frames):
    return np.rint((frames.reshape(len(frames), -1).mean(axis=1) - 8) / 8).astype(int).tolist()


def _write_video(path, frames=24, fps=25, gop=6, codec=None, times=None, sound=False, picture=_grey):
    """Encodes a video. `times` are presentation times in 1/1000 s, for a variable frame rate."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=fps)
        stream.height, stream.width = picture(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 400_000
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        audio = container.add_stream("mp2", rate=44100) if sound else None
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 2), np.int16), format="s16", layout="stereo")
            silence.rate = 44100
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return str(path)


@pytest.fixture(scope="session")
def grey():
    """grey(k): the image of frame k."""
    return _grey


@pytest.fixture(scope="session")
def numbers():
    """numbers(frames): the index of each frame."""
    return _numbers


@pytest.fixture(scope="session")
def write_video():
    """write_video(path, frames=24, …): encodes a video and returns its path as a string."""
    return _write_video


@pytest.fixture(scope="session")
def real_data():
    """The folder of real clips set by JEPA_TEST_DATA. The repository contains none."""
    folder = os.environ.get("JEPA_TEST_DATA")
    if not folder:
        pytest.skip("JEPA_TEST_DATA is not set to a folder of real clips")
    return pathlib.Path(folder)
