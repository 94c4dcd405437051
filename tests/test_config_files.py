"""Configs are found by name and by path, from any folder, in a checkout and in an installed package."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from jepa_jax import config_files
from jepa_jax.settings import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
FEW_CLIPS = """
from jepa_jax import config_files

def get_config():
    config = config_files.load(config_files.find("eval/sprites"))
    config.train.clips, config.test.clips, config.controls = 64, 32, ()
    config.beside_untrained = config.representation = False
    return config
"""


def test_every_config_file_has_a_name():
    names = config_files.names()
    assert {"quickstart", "mixed", "folder", "eval/sprites", "eval/folder"} <= set(names)
    for name in names:
        assert config_files.find(name) == str(ROOT / "configs" / f"{name}.py")


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("mixed:fwm_hw_ld", "mixed.py:fwm_hw_ld"),
        ("configs/eval/sprites.py:tiny", "eval/sprites.py:tiny"),
        ("eval/sprites.py", "eval/sprites.py"),
    ],
)
def test_names_are_found_from_any_folder(reference, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find(reference) == str(ROOT / "configs" / file)


def test_existing_paths_take_precedence_over_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "quickstart").mkdir()  # a folder is not a config
    (tmp_path / "configs" / "mixed.py").write_text("def get_config(recipe='mine'):\n    return recipe\n")
    found = config_files.find("configs/mixed.py:other")
    assert found == "configs/mixed.py:other"
    assert config_files.load(found) == "other"
    assert config_files.find("quickstart") == str(ROOT / "configs" / "quickstart.py")
    assert config_files.find("nowhere") is None


def test_references_in_config_files_are_looked_up_in_the_current_folder_last(tmp_path, monkeypatch):
    (tmp_path / "here" / "configs" / "eval").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "configs" / "eval" / "sprites.py").touch()
    quickstart = ROOT / "configs" / "quickstart.py"
    assert config_files.find("configs/eval/sprites.py", quickstart) == str(ROOT / "configs" / "eval" / "sprites.py")
    (tmp_path / "mine" / "probe.py").touch()
    assert config_files.find("probe.py:x", tmp_path / "mine" / "run.py") == f"{tmp_path / 'mine' / 'probe.py'}:x"
    (tmp_path / "here" / "own.py").touch()
    assert config_files.find("own.py", tmp_path / "mine" / "run.py") == "own.py"


def test_paths_are_shortened_to_names_unless_ambiguous(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = config_files.find("eval/sprites:tiny")
    assert config_files.shorten(found) == "eval/sprites:tiny"
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "sprites").touch()
    assert config_files.shorten(found) == found
    assert config_files.shorten("own.py:x") == "own.py:x"


@pytest.mark.parametrize(
    ("source", "argument", "message"),
    [
        ("x = 1\n", "", r"run\.py is not a config: it has no function get_config"),
        ("def get_config():\n    return 1\n", ":a", r"run\.py takes no argument, but 'a' follows the colon"),
        ("def get_config(which):\n    return 1\n", "", r"run\.py needs an argument after a colon"),
        ("def get_config():\n    return {}['a']\n", "", r"run\.py:2: KeyError: 'a'"),
        ("def get_config()\n    return 1\n", "", r"run\.py:1: expected ':'"),
        ("import no_such_module\n", "", r"run\.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_errors_in_config_files_name_file_and_line(tmp_path, source, argument, message):
    (tmp_path / "run.py").write_text(source)
    with pytest.raises(ConfigError, match=message):
        config_files.load(f"{tmp_path / 'run.py'}{argument}")


def environment():
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of a new environment with the wheel installed. It uses the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    wanted = [name for name in files.stdout.splitlines() if (ROOT / name).is_file()]
    for name in wanted:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    make = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(make, check=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    packaged = {name for name in wanted if name.startswith("jepa_jax/")}
    packaged |= {f"jepa_jax/{name}" for name in wanted if name.startswith("configs/")}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.startswith("jepa_jax/")} == packaged
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=600)
    python = str(folder / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, env=environment(), check=True, timeout=600)
    own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True)
    shared = pathlib.Path(own.stdout.decode().strip()) / "shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_installed_package_trains_and_evaluates_in_an_empty_folder(installed, tmp_path):
    kept = environment()

    def run(*arguments):
        return subprocess.run(
            [installed, "-m", *arguments], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=900
        )

    where = subprocess.run(
        [installed, "-c", "import jepa_jax; print(jepa_jax.__file__)"], cwd=tmp_path, env=kept, capture_output=True
    )
    assert not pathlib.Path(where.stdout.decode().strip()).is_relative_to(ROOT)
    small = ["--config.steps=2", "--config.batch_size=4", "--config.clip.size=32", "--config.encoder.size=32x4x2"]
    (tmp_path / "few.py").write_text(FEW_CLIPS)
    trained = run("jepa_jax.train", "--config", "quickstart", *small, "--config.probe=few.py")
    assert trained.returncode == 0, trained.stderr
    assert "Evaluating: python -m jepa_jax.evaluate --config=few.py" in trained.stdout
    assert (tmp_path / "runs" / "quickstart-baseline-239" / "results.json").exists()
    compiled = run("jepa_jax.compile", "--config", "mixed:fwm_hw", "--topology=cpu:1")
    assert compiled.returncode == 1
    assert re.search(r"Unknown recipe 'fwm_hw'\. Did you mean", compiled.stderr)
