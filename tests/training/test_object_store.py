"""Working directories at gs://…, where folders exist only while they contain files and cannot be renamed."""

import json
import shutil

import jax
import jax.numpy as jnp
import mock_store
import numpy as np
import pytest
import tiny_run
from etils import epath

from jepa_jax.checkpoints import reader
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.config import Config
from jepa_jax.files import ownership
from jepa_jax.run_dir import workdir
from jepa_jax.run_dir.local_mirror import LocalMirror
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop

RUN = "gs://bucket/run"
SETTINGS = tiny_run.SETTINGS | {"steps": 4}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The local folder that gs://bucket is redirected to."""
    monkeypatch.setattr(ownership, "SETTLE_S", 0.05)
    with mock_store.mounted(tmp_path / "bucket", monkeypatch) as here:
        yield here


def state(step):
    return {"params": {"kernel": jnp.full((3, 5), step, jnp.float32)}, "step": jnp.int32(step)}


def abstract():
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))


def test_checkpoints_are_saved_kept_and_restored(bucket):
    with Checkpointer(RUN, keep=2) as checkpointer:
        assert checkpointer.restore(abstract()) is None
        for step in (1, 2, 3, 10):
            checkpointer.save(step, state(step))
    assert sorted(path.name for path in (bucket / "run" / "checkpoints").iterdir()) == ["10", "3"]
    assert reader.saved_steps(RUN) == [3, 10]
    with Checkpointer(RUN, keep=2) as checkpointer:
        step, restored = checkpointer.restore(abstract())
    assert step == 10
    np.testing.assert_array_equal(restored["params"]["kernel"], state(10)["params"]["kernel"])


def test_checkpoint_without_checksums_is_incomplete_and_removed(bucket, caplog):
    """In an object store, an interrupted save already has its final name. The next start removes it."""
    with Checkpointer(RUN, keep=5) as checkpointer:
        checkpointer.save(1, state(1))
    folder = bucket / "run" / "checkpoints"
    shutil.copytree(folder / "1", folder / "2")
    (folder / "2" / "SHA256SUMS").unlink()
    assert reader.saved_steps(RUN) == [1]
    with Checkpointer(RUN, keep=5) as checkpointer:
        assert checkpointer.restore(abstract())[0] == 1
    assert "step 2 was never finished" in caplog.text
    assert not (folder / "2").exists()


def test_damaged_checkpoint_is_skipped_and_saved_again(bucket, caplog):
    with Checkpointer(RUN, keep=5) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state(step))
    (bucket / "run" / "checkpoints" / "2" / "state" / "manifest.ocdbt").unlink()
    with Checkpointer(RUN, keep=5) as checkpointer:
        assert checkpointer.restore(abstract())[0] == 1
        checkpointer.save(2, state(2))
    assert "step 2, which is damaged" in caplog.text
    with Checkpointer(RUN, keep=5) as checkpointer:
        assert checkpointer.restore(abstract())[0] == 2


def test_workdir_stores_its_settings(bucket):
    config = parse(Config, SETTINGS)
    workdir.open_workdir(RUN, config)
    assert workdir.load_config(RUN) == config
    assert sorted(path.name for path in (bucket / "run").iterdir()) == ["config.json", "versions.json"]
    assert workdir.open_workdir(RUN, config) == epath.Path(RUN)
    with pytest.raises(ConfigError, match=r"config\.steps: 4 → 5"):
        workdir.open_workdir(RUN, parse(Config, SETTINGS | {"steps": 5}))


def test_overwrite_raises_with_advice_on_moving_the_run(bucket):
    """Folders cannot be renamed in an object store. Nothing is changed."""
    workdir.open_workdir(RUN, parse(Config, SETTINGS))
    with pytest.raises(ConfigError, match=r"cannot move gs://bucket/run aside.*another --workdir.*gcloud storage mv"):
        workdir.open_workdir(RUN, parse(Config, SETTINGS | {"steps": 5}), overwrite=True)
    assert workdir.load_config(RUN).steps == 4
    workdir.open_workdir("gs://bucket/new", parse(Config, SETTINGS), overwrite=True)  # does not exist yet
    assert workdir.load_config("gs://bucket/new").steps == 4


def test_growing_files_are_copied_on_publish(bucket):
    mirror = LocalMirror(epath.Path(RUN), "metrics.jsonl")
    (mirror.folder / "metrics.jsonl").write_text("1\n")
    (mirror.folder / "tensorboard").mkdir()
    (mirror.folder / "tensorboard" / "events").write_text("a")
    assert not (bucket / "run").exists()
    mirror.publish()
    with (mirror.folder / "metrics.jsonl").open("a") as file:
        file.write("2\n")
    mirror.close()
    assert not mirror.folder.exists()
    assert (bucket / "run" / "metrics.jsonl").read_text() == "1\n2\n"
    assert (bucket / "run" / "tensorboard" / "events").read_text() == "a"
    again = LocalMirror(epath.Path(RUN), "metrics.jsonl", "skipped.jsonl")
    assert [path.name for path in again.folder.iterdir()] == ["metrics.jsonl"]
    assert (again.folder / "metrics.jsonl").read_text() == "1\n2\n"
    again.close()


def test_local_workdir_is_written_to_directly(tmp_path):
    mirror = LocalMirror(epath.Path(tmp_path), "metrics.jsonl")
    assert mirror.folder == tmp_path
    (tmp_path / "metrics.jsonl").write_text("1\n")
    mirror.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "1\n"


@pytest.mark.slow
def test_run_is_trained_and_resumed_as_on_disk(bucket, tmp_path):
    """Losses are bit-identical, and all metrics are kept on resume."""
    loop.train(parse(Config, SETTINGS), RUN)
    loop.train(parse(Config, SETTINGS), tmp_path / "disk")
    metrics = [
        [(record["step"], record["loss"]) for record in map(json.loads, file.read_text().splitlines())]
        for file in (bucket / "run" / "metrics.jsonl", tmp_path / "disk" / "metrics.jsonl")
    ]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) == 4
    assert reader.saved_steps(RUN) == [2, 4]
    assert not list((bucket / "run").glob("lock*"))
    shutil.rmtree(bucket / "run" / "checkpoints" / "4")
    loop.train(parse(Config, SETTINGS), RUN)
    lines = (bucket / "run" / "metrics.jsonl").read_text().splitlines()
    assert [(record["step"], record["loss"]) for record in map(json.loads, lines)] == metrics[1]
    assert reader.read_encoder(RUN).step == 4
