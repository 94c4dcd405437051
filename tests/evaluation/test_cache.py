import dataclasses
import errno
import json
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from waiting import wait_until

from jepa_jax.evaluation.features import cache as caching
from jepa_jax.evaluation.features import storage
from jepa_jax.evaluation.features.cache import Cache, Entry
from jepa_jax.evaluation.features.storage import FeatureSpec
from jepa_jax.files import ownership
from jepa_jax.files.aligned import aligned_empty

KEY = {"encode": {"params": "abc", "dtype": "float32"}, "clips": {"rows": 5}, "kind": "all"}
SPEC = FeatureSpec((4, 3), "float16")
ROWS = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float16)


def entry(folder, key=KEY, spec=SPEC, rows=5):
    return Entry(folder / "all-1", key, spec, rows, ["class"], "run:3")


def append(opened, first, last):
    number = np.arange(first, last, dtype=np.int32)
    opened.append({"features": ROWS[first:last], "row": number, "label-class": number * 2})
    opened.clips = last


def test_only_committed_rows_are_kept(tmp_path):
    first = entry(tmp_path)
    append(first, 0, 2)
    first.commit()
    append(first, 2, 3)  # never committed
    second = entry(tmp_path)
    assert (second.clips, second.rows, second.complete) == (2, 2, False)
    append(second, 2, 5)
    second.commit(complete=True)
    third = entry(tmp_path)
    assert third.complete
    np.testing.assert_array_equal(third.features(2**20), ROWS)
    np.testing.assert_array_equal(third.column("label-class"), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(third.column("row"), np.arange(5))


def test_files_can_be_read_without_this_package(tmp_path):
    opened = entry(tmp_path)
    append(opened, 0, 5)
    opened.commit(complete=True)
    np.testing.assert_array_equal(np.load(tmp_path / "all-1" / "features.npy"), ROWS)
    assert json.loads((tmp_path / "all-1" / "key.json").read_text()) == {"origin": "run:3", "key": KEY}


def damage_progress(folder):
    (folder / "progress.json").write_text('{"clips": 9, "rows": 7, "complete": true, "skips": [], "seconds": 0}')


def damage_key(folder):
    (folder / "key.json").write_text(json.dumps({"origin": "run:3", "key": {**KEY, "kind": "mean"}}))


def cut_features(folder):
    content = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(content[:-1])


def lose_labels(folder):
    (folder / "label-class.npy").unlink()


@pytest.mark.parametrize("damage", [damage_progress, damage_key, cut_features, lose_labels])
def test_damaged_features_are_computed_again(tmp_path, capsys, damage):
    opened = entry(tmp_path)
    append(opened, 0, 5)
    opened.commit(complete=True)
    damage(tmp_path / "all-1")
    again = entry(tmp_path)
    assert (again.clips, again.rows, again.complete) == (0, 0, False)
    assert "computing them again" in capsys.readouterr().err
    append(again, 0, 5)
    again.commit(complete=True)
    assert entry(tmp_path).complete


def test_memory_limit(tmp_path):
    opened = entry(tmp_path)
    append(opened, 0, 5)
    size = ROWS.nbytes
    assert not isinstance(opened.features(size), np.memmap)
    assert isinstance(opened.features(size - 1), np.memmap)
    np.testing.assert_array_equal(opened.features(size), opened.features(size - 1))


def test_aligned_arrays_are_put_on_cpu_without_a_copy():
    array = aligned_empty((1000, 7), np.float16)
    array[:] = 1
    assert jax.device_put(array, jax.devices("cpu")[0]).unsafe_buffer_pointer() == array.ctypes.data


def test_int8_error_is_at_most_half_a_quantization_step():
    rng = np.random.default_rng(0)
    # Channels of very different offsets and scales, and a constant one.
    rows = np.float32(rng.normal(size=(6, 50, 4)) * [0.01, 1, 10, 0] + [3, 0, 100, 5])
    encoded = {name: np.asarray(value) for name, value in storage.encode_rows(jnp.asarray(rows), "int8").items()}
    assert encoded["features"].dtype == np.int8
    decoded = storage.Quantized(encoded["features"], encoded["range"])
    assert (decoded.shape, decoded.nbytes, len(decoded)) == (rows.shape, rows.size * 2, 6)
    span = rows.max(1, keepdims=True) - rows.min(1, keepdims=True)
    float16_rounding = np.abs(rows) * 2**-11
    read = decoded[np.array([4, 1])].astype(np.float32)
    assert (np.abs(read - rows[[4, 1]]) <= (span / 508 * 1.001 + float16_rounding)[[4, 1]]).all()
    assert (read[..., 3] == 5).all()
    np.testing.assert_array_equal(decoded[1:3], decoded[np.arange(1, 3)])


def test_int8_takes_half_the_space():
    sizes = [FeatureSpec((1568, 768), dtype).row_bytes for dtype in ("float16", "int8")]
    assert sizes[0] == 1568 * 768 * 2
    assert sizes[1] / sizes[0] < 0.51


def filled(folder, cache, key, origin):
    path = cache.path("all", key)
    opened = Entry(path, key, SPEC, 5, ["class"], origin)
    opened.commit(complete=True)
    return path


def changed(**changes):
    return {**KEY, "encode": {**KEY["encode"], **changes}}


def test_only_features_of_a_changed_checkpoint_are_stale(tmp_path, capsys):
    cache = Cache(tmp_path)
    stale = filled(tmp_path, cache, changed(params="old"), "run:3")
    others = [
        filled(tmp_path, cache, changed(params="other"), "run:4"),
        filled(tmp_path, cache, changed(params="old", dtype="bfloat16"), "run:3"),
        filled(tmp_path, cache, {**KEY, "kind": "mean"}, "run:3"),
        filled(tmp_path, cache, KEY, "run:3"),
    ]
    cache.remove_stale(KEY, "run:3")
    assert not stale.exists()
    assert all(path.exists() for path in others)
    assert "Checkpoint run:3 has changed" in capsys.readouterr().err


def test_features_of_other_checkpoints_of_a_run_can_be_deleted(tmp_path):
    cache = Cache(tmp_path)
    mine, other = (filled(tmp_path, cache, changed(params=p), "run:3") for p in ("mine", "other"))
    elsewhere = filled(tmp_path, cache, changed(params="third"), "another run:3")
    cache.remove_other_checkpoints("run", "mine")
    assert (mine.exists(), other.exists(), elsewhere.exists()) == (True, False, True)


def test_full_disk_raises_before_any_features_are_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        entry(tmp_path)
    assert not list((tmp_path / "all-1").iterdir())
    monkeypatch.undo()
    assert entry(tmp_path).clips == 0


def test_second_job_waits_for_the_first(tmp_path, capsys):
    cache, path, order = Cache(tmp_path), tmp_path / "all-1", []

    def second():
        with cache.locked([path]):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache.locked([path]):
        thread.start()
        wait_until(lambda: "Waiting for another job" in capsys.readouterr().err)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_features_locked_by_another_job_are_not_deleted(tmp_path, capsys):
    cache = Cache(tmp_path)
    stale, other = (filled(tmp_path, cache, changed(params=params), "run:3") for params in ("old", "older"))
    with cache.locked([stale]):
        cache.remove_stale(KEY, "run:3")
        cache.remove_other_checkpoints("run", "new")
        assert stale.exists()
    assert not other.exists()
    assert "Not deleted: The feature folder" in capsys.readouterr().err
    cache.remove_stale(KEY, "run:3")
    assert not stale.exists()


def test_job_that_waited_creates_the_folder_if_it_was_deleted(tmp_path, capsys):
    cache = Cache(tmp_path)

    def second():
        with cache.locked([tmp_path / "all-1"]):
            entry(tmp_path)

    thread = threading.Thread(target=second)
    with cache.locked([tmp_path / "all-1"]):
        thread.start()
        wait_until(lambda: "Waiting for another job" in capsys.readouterr().err)
        shutil.rmtree(tmp_path / "all-1")
    thread.join()
    assert list((tmp_path / "all-1").iterdir())


def test_lock_of_a_killed_job_is_taken_over(tmp_path):
    """The job ran on this machine, so the second one does not wait."""
    dead = dataclasses.replace(ownership.Owner.this_process(), started="1")
    (tmp_path / "all-1").mkdir()
    (tmp_path / "all-1" / caching.LOCK).write_text(json.dumps(dataclasses.asdict(dead) | {"renewed": 0.0}))
    with Cache(tmp_path).locked([tmp_path / "all-1"]):
        assert json.loads((tmp_path / "all-1" / caching.LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "all-1" / caching.LOCK).exists()
