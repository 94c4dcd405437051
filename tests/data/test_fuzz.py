"""Hundreds of damaged videos: each is read or logged with a reason, and none crashes the process."""

import os
import pathlib
import time

import numpy as np
import pytest

from jepa_jax import config, data

SEEDS = range(200)
SECONDS_A_FILE = 10


def mutate(content, other, rng):
    """Returns a damaged copy: truncated, bytes changed, a header zeroed, or with the end of another file."""
    damaged = np.frombuffer(content, np.uint8).copy()
    kind = rng.integers(4)
    if kind == 0:
        return damaged[: rng.integers(1, len(damaged))].tobytes()
    if kind == 1:
        where = rng.integers(0, len(damaged), int(len(damaged) ** rng.random()))
        damaged[where] = rng.integers(0, 256, len(where))
    elif kind == 2:
        start = int(rng.integers(0, 2000)) if rng.random() < 0.7 else int(rng.integers(len(damaged)))
        damaged[start : start + int(rng.integers(1, 400))] = 0
    else:
        at = rng.integers(1, len(damaged))
        return damaged[:at].tobytes() + other[min(at, len(other) // 2) :]
    return damaged.tobytes()


@pytest.fixture(scope="module")
def originals(tmp_path_factory, write_video):
    """Encoded clips in five containers, and real clips if available."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    for suffix in (".avi", ".mp4", ".mkv", ".webm", ".mpg"):
        write_video(folder / f"clip{suffix}", picture=lambda k: rng.integers(0, 255, (48, 64, 3), np.uint8))
    real = pathlib.Path(os.environ.get("JEPA_TEST_DATA", "nowhere")) / "formats"
    files = sorted(folder.iterdir()) + (sorted(real.iterdir()) if real.is_dir() else [])
    return [file for file in files if file.stat().st_size < 700_000]


@pytest.mark.slow
def test_damaged_videos_are_read_or_logged(tmp_path, originals):
    folder = tmp_path / "damaged"
    folder.mkdir()
    contents = [file.read_bytes() for file in originals]
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        chosen, other = rng.integers(len(originals), size=2)
        suffix = originals[chosen].suffix
        (folder / f"{seed:03}{suffix}").write_bytes(mutate(contents[chosen], contents[other], rng))
    settings = config.Config(
        steps=len(SEEDS),
        batch_size=1,
        clip=config.ClipConfig(frames=8, size=32),
        data=config.DataConfig(
            sources={"damaged": config.SourceConfig(path=str(folder), frame_step=2)}, workers=2, max_skip_fraction=0.99
        ),
    )
    ledger = data.new_ledger(settings.data, data.open_sources(settings.data), tmp_path / "skipped.jsonl")
    batches = data.TrainBatches(settings, ledger=ledger)
    read, longest = set(), 0.0
    try:
        for step in SEEDS:
            start = time.monotonic()
            batch = next(batches)
            if step:  # the first step includes the start of the workers
                longest = max(longest, time.monotonic() - start)
            assert batch["video"].shape == (1, 8, 32, 32, 3)
            read |= set(batch["item"].tolist())
    finally:
        batches.close()
    skipped = {skip.item for skip in ledger.skips}
    assert all(skip.reason for skip in ledger.skips)
    assert longest < SECONDS_A_FILE
    assert 10 < len(skipped) < len(SEEDS) - 10
    # Every file was drawn once and gave either a clip or a line in the log.
    assert skipped.isdisjoint(read)
    assert skipped | read == set(SEEDS)
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == len(skipped)
