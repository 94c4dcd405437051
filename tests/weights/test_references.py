"""Names on the Hugging Face hub and files are told apart; errors say what to do."""

import sys

import pytest

from jepa_jax.weights import WeightsError, references


def test_files_and_folders_are_found_and_runs_are_not_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(b"{}")
    (tmp_path / "runs").mkdir()
    assert references.find("exported") == references.find("exported/model.safetensors").parent
    assert references.find("runs/mine") is None  # before it exists
    assert references.find("gs://bucket/run") is None
    with pytest.raises(FileNotFoundError, match=r"there is no file of weights none\.pt"):
        references.find("none.pt")


def test_name_on_the_hub_without_the_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'jepa_jax\[hub\]'"):
        references.find("facebook/vjepa2-vitl-fpc64-256")
