"""Local paths and URLs, and error messages for URLs that are not supported."""

import importlib.util
import pathlib

import pytest
from etils.epath import testing

from jepa_jax.files import paths
from jepa_jax.settings import ConfigError


def test_local_paths_become_absolute_and_urls_do_not_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(paths.locate("runs/a:7")) == f"{tmp_path}/runs/a:7"
    assert str(paths.locate("gs://bucket/run")) == "gs://bucket/run"
    assert str(paths.locate(paths.locate("s3://bucket/run"))) == "s3://bucket/run"
    assert str(paths.locate("gs://bucket/run") / "config.json") == "gs://bucket/run/config.json"
    assert [paths.is_remote(path) for path in ("gs://b/a", "a/gs", "2024-01-26T20:57:00Z", "a:/b")] == [True] + [
        False
    ] * 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs:/bucket/run", "write gs://bucket/run"),
        (pathlib.Path("gs://bucket/run"), "write gs://bucket/run"),
        (pathlib.Path("s3://bucket/run"), "write s3://bucket/run"),
        ("GS://bucket/run", "write gs://bucket/run"),
        ("gs://", "names no bucket"),
        ("hdfs://name/run", r"hdfs:// is not supported; expected .*this machine, gs://BUCKET/FOLDER"),
        ("https://host/run", "https:// is not supported"),
        ("/gs/bucket/run", "is in /gs, which is interpreted as gs://bucket/run"),
    ],
)
def test_invalid_paths_raise_with_a_suggestion(path, message):
    with pytest.raises(ConfigError, match=message):
        paths.locate(path)


def test_object_store_without_its_package_raises():
    def missing(*_):
        raise ImportError("Please install gcsfs")

    with testing.mock_epath(exists=missing), pytest.raises(ConfigError, match=r"gs:// needs gcsfs.*jepa_jax\[gcs\]"):
        paths.reachable("gs://bucket/run")


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_bucket_without_gcsfs_raises():
    with pytest.raises(ConfigError, match="gs:// needs gcsfs"):
        paths.reachable("gs://bucket/run")


def test_object_store_that_denies_access_raises():
    def refuses(*_):
        raise RuntimeError("401 anonymous caller")

    with testing.mock_epath(exists=refuses), pytest.raises(ConfigError, match="cannot be read: RuntimeError: 401"):
        paths.reachable("gs://bucket/run")


def test_require_local_raises_for_urls():
    assert paths.require_local("a/b", "--cache") == pathlib.Path("a/b")
    for url in ("gs://bucket/a", "gs:/bucket/a", "https://host/a"):
        with pytest.raises(ConfigError, match=f"--cache is {url}; expected a path on this machine"):
            paths.require_local(url, "--cache")
    copy = r"copy the files \(aws s3 sync s3://bucket/a DIR\) or mount the bucket \(mount-s3 BUCKET DIR\)\."
    with pytest.raises(ConfigError, match=copy):
        paths.require_local("s3://bucket/a", "--cache")


def test_write_text_replaces_the_file_and_leaves_no_temporary_files(tmp_path):
    paths.write_text(tmp_path / "a", "1")
    paths.write_text(tmp_path / "a", "→ 2")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "→ 2"}
