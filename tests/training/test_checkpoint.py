import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from waiting import Pause, wait_until

from jepa_jax.checkpoints import integrity
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.checkpoints.reader import CheckpointDamaged, CheckpointError, CheckpointMismatch, read_encoder
from jepa_jax.config import Config, EmaConfig
from jepa_jax.run_dir.workdir import save_config
from jepa_jax.settings import ConfigError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: Any
    params: Any
    target_params: Any
    opt_state: Any
    key: Any


def make_state(seed=0, width=12, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    encoder = {"blocks": {"kernel": jax.random.normal(keys[0], (4, 16, width), dtype), "bias": jnp.zeros(4, dtype)}}
    params = {"encoder": encoder, "predictor": {"kernel": jax.random.normal(keys[1], (width, 3))}, "heads": {}}
    optimizer = optax.adamw(1e-3)
    gradients = jax.tree.map(lambda x: x + 1, params)
    _, opt_state = optimizer.update(gradients, optimizer.init(params), params)
    target = jax.tree.map(lambda x: 2 * x, encoder)
    return State(jnp.int32(seed), params, target, opt_state, jax.random.key_data(keys[2]))


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for path, leaf in jax.tree.leaves_with_path(actual):
        other = functools.reduce(lambda node, key: _get(node, key), path, expected)
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))


def _get(node, key):
    return getattr(node, key.name) if hasattr(key, "name") else node[getattr(key, "key", getattr(key, "idx", None))]


def save_all(workdir, steps, keep=10):
    with Checkpointer(workdir, keep=keep) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step))
    return workdir / "checkpoints"


def restore(workdir, state=None):
    with Checkpointer(workdir, keep=2) as checkpointer:
        return checkpointer.restore(abstract(make_state() if state is None else state))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints of steps 1 and 2, for tests to copy."""
    workdir = tmp_path_factory.mktemp("saved")
    save_all(workdir, [1, 2])
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Save and restore


def test_restored_state_equals_saved_state(workdir):
    step, state = restore(workdir)
    assert step == 2
    assert_same(state, make_state(2))


def test_restore_without_checkpoint_returns_none(tmp_path):
    assert restore(tmp_path / "new") is None


def test_restored_arrays_have_the_requested_shardings(workdir):
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    split, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((None, "fsdp"), ()))
    shardings = jax.tree.map(lambda x: split if x.ndim == 3 else replicated, make_state())
    wanted = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), make_state(), shardings)
    with Checkpointer(workdir, keep=2) as checkpointer:
        _, state = checkpointer.restore(wanted)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
        assert_same(state, make_state(2))
        checkpointer.save(3, state)  # a sharded state can be saved too
    assert_same(restore(workdir)[1], make_state(2))


def test_typed_keys_and_bfloat16_survive_a_round_trip(tmp_path):
    state = {"key": jax.random.key(3), "x": jnp.arange(5, dtype=jnp.bfloat16)}
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(1, state)
        checkpointer.wait()
        _, restored = checkpointer.restore(abstract(state))
    assert restored["key"].dtype == state["key"].dtype
    np.testing.assert_array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(state["key"]))
    assert restored["x"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(restored["x"], state["x"])


@pytest.mark.parametrize("devices", [1, 8])
def test_state_may_be_donated_right_after_save(tmp_path, devices):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shape = (512, 2000)  # large enough that files are still being written when the next steps run

    @functools.partial(jax.jit, donate_argnums=0)
    def next_step(state):
        return jax.tree.map(lambda x: x + 1, state)

    state = {"a": jax.device_put(jnp.zeros(shape), sharding), "b": jax.device_put(jnp.zeros(shape), sharding)}
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        for step in range(4):
            checkpointer.save(step, state)
            for _ in range(3):
                state = next_step(state)
            jax.block_until_ready(state)
        checkpointer.wait()
        for step in reversed(range(4)):
            restored_step, restored = checkpointer.restore(abstract(state))
            assert restored_step == step
            assert all((np.asarray(x) == 3 * step).all() for x in restored.values())
            shutil.rmtree(tmp_path / "checkpoints" / str(step))


def test_some_steps_are_always_kept(tmp_path):
    with Checkpointer(tmp_path, keep=1, always=(2, 9)) as checkpointer:
        for step in range(1, 5):
            checkpointer.save(step, {"a": jnp.zeros(1)})
        checkpointer.wait()
        assert checkpointer.saved_steps == [2, 4]


def test_only_finished_saves_are_reported(tmp_path, monkeypatch):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        write, allowed = integrity.write, threading.Event()
        monkeypatch.setattr(integrity, "write", lambda folder: (allowed.wait(60), write(folder))[1])
        checkpointer.save(7, make_state())  # returns before the files are written
        assert checkpointer.finished() == []
        assert checkpointer.saved_steps == []
        assert checkpointer.last_good is None
        allowed.set()
        checkpointer.wait()
        assert checkpointer.finished() == [7]
        assert checkpointer.finished() == []
        assert checkpointer.saved_steps == [7]
        assert checkpointer.last_good == 7


def test_checkpoint_is_renamed_after_all_its_files_are_flushed(tmp_path, monkeypatch):
    """After a power cut, a renamed checkpoint must have all its files, and a reported one its final name."""
    flushed, sync = [], os.fsync

    def fsync(descriptor):
        sync(descriptor)
        flushed.append(os.fstat(descriptor).st_ino)

    def rename(path, target):
        if path.name == "1.partial":  # orbax has renamed its own folder before
            assert not {file.name for file in pathlib.Path(path).rglob("*") if file.stat().st_ino not in flushed}
            flushed.append("renamed")
        os.rename(path, target)
        return type(path)(target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.rename", rename)
    folder = save_all(tmp_path, [1])
    assert flushed[flushed.index("renamed") + 1] == folder.stat().st_ino


def test_failed_save_raises_and_is_not_reported(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2)
    checkpointer.save(1, make_state())
    checkpointer.wait()
    (tmp_path / "checkpoints" / "2").touch()  # a file in place of the folder of the checkpoint
    checkpointer.save(2, make_state())
    with pytest.raises(OSError, match="checkpoints/2"):
        checkpointer.close()
    assert checkpointer.finished() == [1]
    assert checkpointer.last_good == 1


def test_valid_checkpoint_is_not_saved_again(workdir):
    with Checkpointer(workdir, keep=2) as checkpointer:
        checkpointer.restore(abstract(make_state()))
        checkpointer.save(2, make_state(2))
        checkpointer.wait()
        assert checkpointer.finished() == []


# Retention


def test_newest_checkpoints_are_kept(tmp_path):
    save_all(tmp_path, [1, 2, 3, 10, 11], keep=2)
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        assert checkpointer.saved_steps == [10, 11]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_checkpoints_are_not_counted_as_kept(tmp_path, keep):
    folder = save_all(tmp_path, [10, 20, 30, 40, 50])
    for step in (30, 40, 50):
        (folder / str(step) / "state" / "manifest.ocdbt").unlink()
    with Checkpointer(tmp_path, keep=keep) as checkpointer:
        step, _ = checkpointer.restore(abstract(make_state()))
        assert step == 20
        checkpointer.save(25, make_state(25))
        checkpointer.wait()
        assert checkpointer.saved_steps == ([25, 30, 40, 50] if keep == 1 else [20, 25, 30, 40, 50])
        for again in (30, 40, 50):  # damaged steps are saved again, and count from then on
            checkpointer.save(again, make_state(again))
            checkpointer.wait()
        assert checkpointer.saved_steps == [40, 50][-keep:]
    step, state = restore(tmp_path)
    assert step == 50
    assert_same(state, make_state(50))


def test_keep_below_one_raises(tmp_path):
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpointer(tmp_path, keep=0)


# Damage


def damage_cases(folder):
    """Yields the name of each damage to a file of a checkpoint, and a function that causes it."""
    for name in files_of(folder):
        yield f"missing {name}", (folder / name).unlink
        size = (folder / name).stat().st_size
        if size == 0:
            continue
        for length in sorted({0, size // 2, size - 1}):
            yield f"{name} cut to {length}", functools.partial(os.truncate, folder / name, length)
        for offset in sorted({0, 1, size // 3, size // 2, size - 2, size - 1}):
            yield f"{name} bit flipped at {offset}", functools.partial(flip, folder / name, offset, offset % 8)


def flip(path, offset, bit):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.slow
def test_damage_to_any_file_is_detected(workdir, caplog):
    """If any file of step 2 is missing, truncated or has a flipped bit, step 1 is restored, with a warning."""
    newest, pristine = workdir / "checkpoints" / "2", workdir / "pristine"
    shutil.copytree(newest, pristine)
    assert len([name for name in files_of(newest) if "/d/" in name]) == 2  # array data and the tree above it
    cases = list(damage_cases(newest))
    with Checkpointer(workdir, keep=2) as checkpointer:
        for name, damage in cases:
            damage()
            caplog.clear()
            step, _ = checkpointer.restore(abstract(make_state()))
            assert step == 1, name
            assert "checkpoint of step 2, which is damaged" in caplog.text, name
            shutil.rmtree(newest)
            shutil.copytree(pristine, newest)
        assert checkpointer.restore(abstract(make_state()))[0] == 2
    assert len(cases) > 60


@pytest.mark.slow
def test_flipped_bit_at_any_offset_is_detected(workdir):
    newest, random = workdir / "checkpoints" / "2", np.random.default_rng(0)
    with Checkpointer(workdir, keep=2) as checkpointer:
        for name in files_of(newest):
            path, original = newest / name, (newest / name).read_bytes()
            for offset in random.permutation(len(original))[:20]:
                flip(path, offset, random.integers(8))
                assert checkpointer.restore(abstract(make_state()))[0] == 1, (name, offset)
                path.write_bytes(original)


def test_empty_checkpoint_folder_counts_as_damaged(workdir, caplog):
    (workdir / "checkpoints" / "3").mkdir()
    assert restore(workdir)[0] == 2
    assert "step 3" in caplog.text
    assert "SHA256SUMS" in caplog.text


def test_leftovers_of_an_interrupted_save_are_removed_with_a_warning(workdir, caplog):
    folder = workdir / "checkpoints"
    # Step 3 was interrupted after orbax had finished, step 4 before.
    shutil.copytree(folder / "2", folder / "3.partial")
    (folder / "3.partial" / "SHA256SUMS").unlink()
    shutil.copytree(folder / "2" / "state", folder / "4.partial.orbax-checkpoint-tmp" / "state")
    assert restore(workdir)[0] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    assert "step 3 was never finished" in caplog.text
    assert "step 4 was never finished" in caplog.text


def test_renamed_checkpoint_is_not_used(workdir):
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "5")
    assert restore(workdir)[0] == 1


def test_only_damaged_checkpoints_raise_with_advice(workdir):
    for step in (1, 2):
        (workdir / "checkpoints" / str(step) / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointDamaged, match=r"(?s)step 2: .*step 1: .*--resume=overwrite"):
        restore(workdir)


def test_damaged_step_can_be_saved_again(workdir):
    flip(next((workdir / "checkpoints" / "2" / "state" / "ocdbt.process_0" / "d").iterdir()), 2000, 3)
    with Checkpointer(workdir, keep=2) as checkpointer:
        step, _ = checkpointer.restore(abstract(make_state()))
        assert step == 1
        checkpointer.save(2, make_state(2))
    step, state = restore(workdir)
    assert step == 2
    assert_same(state, make_state(2))


# Checkpoints of another model


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            make_state(width=13),
            r"params/encoder/blocks/kernel: float32 \[4, 16, 12\] in the checkpoint, .*16, 13\] exp",
        ),
        (make_state(dtype=jnp.bfloat16), r"target_params/blocks/kernel: float32 .* bfloat16 \[4, 16, 12\] expected"),
        (dataclasses.replace(make_state(), target_params=None), r"target_params/blocks/bias: .*, absent expected"),
        (dataclasses.replace(make_state(), key={"a": jnp.zeros(3)}), r"key/a: absent in the checkpoint, float32 \[3\]"),
    ],
)
def test_checkpoint_of_another_model_raises_mismatch(workdir, other, message):
    # The mismatch is detected before the large files are read, so this damage does not matter.
    flip(workdir / "checkpoints" / "2" / "state" / "manifest.ocdbt", 50, 1)
    with pytest.raises(CheckpointMismatch, match=message) as raised:
        restore(workdir, other)
    assert "checkpoints/2 is of another model" in str(raised.value)
    assert "--resume=overwrite" in str(raised.value)


def test_damaged_description_counts_as_damage_not_as_mismatch(workdir):
    path = workdir / "checkpoints" / "2" / "leaves.json"
    path.write_text(path.read_text().replace("[4, 16, 12]", "[4, 16, 13]"))
    assert restore(workdir)[0] == 1


def test_orbax_errors_on_valid_checkpoints_do_not_count_as_damage(workdir, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr("orbax.checkpoint.v1.load", fail)
    with pytest.raises(MemoryError, match="no room"):
        restore(workdir)


# Reading the encoder


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("step", [None, 1])
def test_read_encoder_returns_the_encoder_of_a_step(workdir, ema, step):
    config = Config(steps=99, ema=EmaConfig(enabled=ema))
    save_config(workdir, config)
    found = read_encoder(workdir, step)
    expected = make_state(2 if step is None else step)
    assert found.config == config
    assert found.step == (2 if step is None else step)
    assert_same(found.params, expected.target_params if ema else expected.params["encoder"])


def test_read_encoder_uses_the_newest_valid_checkpoint(workdir, caplog):
    save_config(workdir, Config())
    os.truncate(workdir / "checkpoints" / "2" / "state" / "manifest.ocdbt", 10)
    assert read_encoder(workdir).step == 1
    assert "step 2, which is damaged" in caplog.text
    with pytest.raises(CheckpointDamaged, match=r"(?s)step 2: state/manifest.ocdbt.*It has 1, 2"):
        read_encoder(workdir, 2)


def test_read_encoder_raises_if_run_or_checkpoint_is_missing(workdir, tmp_path):
    with pytest.raises(ConfigError, match="does not exist; use the --workdir"):
        read_encoder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        read_encoder(workdir)
    save_config(workdir, Config())
    with pytest.raises(CheckpointError, match="no checkpoint of step 5; it has 1, 2"):
        read_encoder(workdir, 5)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        read_encoder(workdir)


def test_read_encoder_raises_if_the_checkpoint_lacks_the_encoder(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(1, dataclasses.replace(make_state(), target_params=None))
    save_config(tmp_path, Config())
    with pytest.raises(CheckpointError, match="does not contain target_params"):
        read_encoder(tmp_path)


# Several processes

READER = """
import sys, jax, numpy as np
from jepa_jax.checkpoints.reader import read_encoder
found = read_encoder(sys.argv[1])
print(jax.device_count(), found.step, float(np.sum(np.abs(found.params["blocks"]["kernel"]), dtype=np.float64)))
"""

WRITER = """
import sys, jax, jax.numpy as jnp
from jepa_jax.checkpoints.manager import Checkpointer
step_of = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
state = {"a": jnp.zeros((400, 500)), "b": {"c": jnp.zeros((30, 70, 20))}}
with Checkpointer(sys.argv[1], keep=2) as checkpointer:
    step, state = checkpointer.restore(jax.eval_shape(lambda: state)) or (0, state)
    while True:
        state, step = step_of(state), step + 1
        checkpointer.save(step, state)
        for done in checkpointer.finished():
            print(done, flush=True)
"""


def environment(devices):
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


@pytest.mark.slow
def test_read_encoder_works_with_any_number_of_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    state = jax.tree.map(lambda x: jax.device_put(x, split) if x.ndim == 3 else x, make_state(4))
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(4, state)
    save_config(tmp_path, Config())
    total = float(np.sum(np.abs(state.target_params["blocks"]["kernel"]), dtype=np.float64))
    for devices in (1, 3):
        command = [sys.executable, "-c", READER, str(tmp_path)]
        shown = subprocess.run(command, env=environment(devices), check=True, capture_output=True, text=True).stdout
        assert shown.split() == [str(devices), "4", str(total)]


@pytest.mark.slow
def test_reported_checkpoints_survive_a_kill_while_saving(tmp_path):
    """Whenever the kill happens, reported checkpoints exist and the restored state is complete."""
    reached, workdir = 0, tmp_path / "run"
    points = {
        r"os.mkdir .*tmp/state$": 1,
        r"open .*tmp/state/_METADATA$": 1,
        r"os.rename .*tmp$": 1,
        r"open .*\.partial/leaves.json$": 3,
        r"open .*\.partial/SHA256SUMS$": 2,
        r"os.rename .*\.partial$": 1,
        r"os.rmdir .*/checkpoints/\d+$": 1,  # the last operation of deleting an old checkpoint
    }
    for number, (point, per_save) in enumerate(points.items()):
        # In the third save of the process, since the first is reported before it.
        pause = Pause(tmp_path / f"pause-{number}", point, count=2 * per_save + 1)
        command = [sys.executable, "-c", WRITER, str(workdir)]
        environ = pause.added_to(environment(1))
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            wait_until(pause.reached, process)
            process.send_signal(signal.SIGKILL)
            reported = [int(line) for line in process.stdout.read().split()]
        state = {"a": jnp.zeros((400, 500)), "b": {"c": jnp.zeros((30, 70, 20))}}
        step, restored = restore(workdir, state)
        assert reported
        assert step >= max(reported) > reached
        assert all((np.asarray(x) == step).all() for x in jax.tree.leaves(restored))
        reached = step


def test_sha256sum_can_verify_the_checksums(workdir):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    folder = workdir / "checkpoints" / "2"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert json.loads((folder / "leaves.json").read_text())["step"] == 2
