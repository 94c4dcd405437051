"""Shards: about 1 GB at most, the same ones when a set grows, and as many open files as they need."""

import json
import subprocess
import sys
import textwrap

import interrupted
import numpy as np
import pytest
from PIL import Image

from jepa_jax.data.preparation import build, plan, sets, verify
from jepa_jax.data.preparation.frames import JpegSettings
from jepa_jax.data.sources import array_record

SETTINGS = JpegSettings(short_side=16)


def add_pictures(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:04}.png")


def prepare(tmp_path, out="out", **options):
    return build.prepare(sets.OPEN["folder"](tmp_path / "raw"), tmp_path / out, SETTINGS, 0, **options)


def digest(folder):
    array_record.records.cache_clear()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def shard_names(folder):
    return sorted(path.name for path in folder.glob("*.array_record-*"))


@pytest.mark.parametrize(
    ("count", "item_bytes", "items", "shards"),
    [
        (150, 2e4, 64, 3),  # few items: 64 a shard
        (168_913, 7.4e5, 660, 256),  # Something-Something V2: 256 shards of 0.5 GB
        (650_000, 5e6, 200, 3_250),  # Kinetics-700: shards of 1 GB
        (1_200_000, 2e4, 4_688, 256),
        (100, 4e8, 2, 50),  # long videos
        (5, 3e9, 1, 5),
    ],
)
def test_shards_have_at_most_about_one_gigabyte(count, item_bytes, items, shards):
    size = plan.items_per_shard(count, item_bytes)
    assert size == items
    assert -(-count // size) == shards


def test_long_items_get_shards_of_their_own(tmp_path, monkeypatch):
    add_pictures(tmp_path / "raw" / "a", range(10))
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3_000)  # some three pictures
    prepare(tmp_path)
    assert len(shard_names(tmp_path / "out")) in (3, 4, 5)
    assert "10 frames of 10 images verified" in verify.verify(tmp_path / "out", 0)


def test_growing_set_keeps_its_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHARDS", 2)  # at most 2 shards, unless they are too large
    add_pictures(tmp_path / "raw" / "a", range(150))
    prepare(tmp_path)
    before = digest(tmp_path / "out")
    assert len(shard_names(tmp_path / "out")) == 2
    add_pictures(tmp_path / "raw" / "a", range(150, 250))
    prepare(tmp_path)
    after = digest(tmp_path / "out")
    assert len(shard_names(tmp_path / "out")) == 4  # of 75, as before; of 125 in a new set
    for number in (0, 1):
        old, new = (f"folder-train.array_record-{number:05d}-of-{count:05d}" for count in (2, 4))
        assert after[new] == before[old]
    assert "250 frames of 250 images verified" in verify.verify(tmp_path / "out", 0)


def as_planned_by_an_earlier_version(folder):
    """Earlier versions recorded neither the items nor how many are in a shard."""
    (folder / "preparing" / "items.json").unlink()
    file = folder / "preparing" / "plan.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({key: known[key] for key in known if key not in ("items a shard", "shares")}))


def test_set_of_an_earlier_version_is_resumed_with_its_shards(tmp_path, monkeypatch):
    """Their size followed from the number of items alone."""
    add_pictures(tmp_path / "raw" / "a", range(150))
    with interrupted.before_description(monkeypatch):
        prepare(tmp_path)
    as_planned_by_an_earlier_version(tmp_path / "out")
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3_000)  # a new set would get smaller shards
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record-*")}
    assert len(written) == 3
    prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.array_record-*")} == written
    assert "is already complete" in prepare(tmp_path)


def test_complete_set_of_an_earlier_version_stays_complete(tmp_path, monkeypatch):
    add_pictures(tmp_path / "raw" / "a", range(150))
    prepare(tmp_path)
    file = tmp_path / "out" / "prepared.json"
    known = json.loads(file.read_text())
    del known["shard_items"]
    file.write_text(json.dumps(known))
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3_000)
    assert "is already complete" in prepare(tmp_path)
    add_pictures(tmp_path / "raw" / "a", [150])
    prepare(tmp_path)
    assert len(shard_names(tmp_path / "out")) == 3


@pytest.mark.slow
def test_set_with_many_shards_raises_the_limit_of_open_files(tmp_path, monkeypatch):
    """Each process that reads a set keeps all its files open; more than the limit would look like damaged items."""
    add_pictures(tmp_path / "raw" / "a", range(300))
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 1)
    prepare(tmp_path)
    assert len(shard_names(tmp_path / "out")) == 300
    read = textwrap.dedent("""
        import resource, sys
        from jepa_jax import config
        from jepa_jax.data import sources
        from jepa_jax.settings import ConfigError
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[2])))
        try:
            source = sources.open_source(config.SourceConfig(kind="images", path=sys.argv[1]), "pictures")
        except ConfigError as error:
            sys.exit(str(error))
        print(sum(source.read_image(item).shape == (16, 16, 3) for item in range(source.size)))
        """)

    def run(most):
        command = [sys.executable, "-c", read, str(tmp_path / "out"), str(most)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(1000).stdout == "300\n"
    refused = run(400)
    assert "has 300 files, which are kept open, and a process may open 400; raise the limit to 428" in refused.stderr
