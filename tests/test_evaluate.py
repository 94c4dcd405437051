"""`python -m jepa_jax.evaluate` in a subprocess."""

import json
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
SPRITES = "configs/eval/sprites.py"
TRAINING = """
from jepa_jax.config import Config, defaults

def get_config():
    config = defaults(Config)
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 2, 16
    config.encoder.size, config.encoder.patch, config.encoder.levels = "16x1x2", 4, 1
    config.predictor.size = "16x1x2"
    return config
"""


WATCHED_TRAINING = """
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict

def get_config():
    config = defaults(Config)
    config.steps, config.batch_size, config.dtype = 60, 8, "float32"
    config.clip.frames, config.clip.size = 8, 16
    config.encoder.size, config.encoder.patch, config.encoder.levels = "16x1x2", 8, 1
    config.predictor.size = "16x1x2"
    config.checkpoint.every, config.checkpoint.keep = 10, 1
    config.data.sources.sprites = to_config_dict(SourceConfig(kind="sprites"))
    return config
"""


def command(*arguments):
    return [sys.executable, "-m", "jepa_jax.evaluate", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture
def flags(tmp_path):
    """Flags to evaluate a tiny untrained encoder on images of two colours, with results in tmp_path/out."""
    for i in range(8):
        for name, shade in (("dark", 40 + i), ("light", 200 + i)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (20, 20), (shade, 0, 240 - shade)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "training.py").write_text(TRAINING)
    return [
        "--config=configs/eval/images.py",
        f"--config.train.path={tmp_path}",
        "--config.holdout=[23].png",
        "--config.workers=0",
        f"--checkpoint=random:{tmp_path / 'training.py'}",
        f"--out={tmp_path / 'out' / 'results.json'}",
    ]


@pytest.mark.slow
def test_evaluation_of_a_random_encoder(flags, tmp_path):
    done = run(*flags, "--config.probes.linear.epochs=3")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["settings"]["probes"]["linear"]["epochs"] == 3
    assert [(result["probe"], result["train"], result["test"]) for result in record["results"]] == [
        ("knn", 12, 4),
        ("linear", 12, 4),
    ]
    table = done.stdout.splitlines()
    for line, result in zip(table[2:4], record["results"], strict=True):
        assert line.split()[:4] == ["class", result["probe"], "trained", f"{100 * result['accuracy']:.1f}"]
    assert table[4] == f"Written to {tmp_path / 'out' / 'results.json'}."
    assert "train features: 12/12 clips" in done.stderr


@pytest.mark.slow
def test_compare_prints_results_side_by_side(flags, tmp_path):
    run(*flags, "--config.probes.linear.epochs=1", "--config.probes.linear.lr=(0.1,)")
    file = tmp_path / "out" / "results.json"
    done = run("--compare", file, file)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("class")] == [
        ["class", "knn", "trained"],
        ["class", "linear", "trained"],
    ]
    assert len(re.findall(r"\+0\.0 \[-(\d+\.\d), \+\1\] ~", done.stdout)) == 2
    done = run("--compare", file)
    assert (done.returncode, done.stderr) == (1, "Error: --compare needs two or more results files; found 1.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"--config={SPRITES}", "--checkpoint=random", "--config.batchsize=3"], 'Did you mean "batch_size"'),
        ([f"--config={SPRITES}", "--checkpoint=/nowhere"], "Error: /nowhere does not exist"),
        (["--config=configs/eval/sprits.py", "--checkpoint=random"], "No such file or directory"),
        (
            ["--config=eval/sprits", "--checkpoint=random"],
            "Did you mean 'eval/sprites'? Known here: directions, eval/directions, ",
        ),
        ([f"--config={SPRITES}"], "--checkpoint is missing: WORKDIR[:STEP], weights"),
        ([f"--config={SPRITES}", "--checkpoint=x", "--features=y"], "--checkpoint and --features are given"),
        ([f"--config={SPRITES}", "--features=y", "--cache=z"], "leave --watch and --cache out"),
        ([f"--config={SPRITES}", "--checkpoint=/nowhere/vitl.pt"], "there is no file of weights /nowhere/vitl.pt"),
        (["--compare=true"], "Error: --compare needs two or more results files; found 0."),
        (["--compare=false", "--checkpoint=random"], "--config is missing"),
        (["--nocompare", "--checkpoint=random"], "--config is missing"),
        ([f"--config={SPRITES}", "--checkpoint=random:mixd"], "Did you mean 'mixed'?"),
        ([f"--config={SPRITES}", "--checkpoint=random", "--config.lr=3"], "Did you mean --config.probes.linear.lr?"),
        (["--config=eval/images:foo", "--checkpoint=random"], "takes no argument, but 'foo' follows the colon"),
        (
            [f"--config={SPRITES}:hard", "--checkpoint=random"],
            "configs/eval/sprites.py:hard: expected one of tiny, small, full",
        ),
        (
            [f"--config={SPRITES}", "--checkpoint=runs/a:3", "--watch"],
            "--watch follows a training run: --checkpoint is",
        ),
    ],
)
def test_invalid_arguments_print_no_traceback(forks, arguments, message):
    done = forks.run("jepa_jax.evaluate", *arguments, cwd=ROOT)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_an_evaluation(flags, tmp_path, number, code):
    arguments = command(*flags, "--config.probes.linear.kind=linear", "--config.probes.linear.epochs=10000000")
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "class linear" not in line:
            assert line, "ended before the first epoch"
            line = process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(300) == code
    assert "Stopped; no results were written." in rest
    assert "Traceback" not in rest
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features"]


@pytest.mark.slow
def test_watch_follows_a_run_from_start_to_end(tmp_path):
    """Training deletes old checkpoints, so the watch may miss some, but never the last one."""
    (tmp_path / "training.py").write_text(WATCHED_TRAINING)
    run, out = tmp_path / "run", tmp_path / "curve.jsonl"
    watching = command(
        f"--config={SPRITES}", f"--checkpoint={run}", f"--out={out}", "--watch", "--config.train.clips=64",
        "--config.test.clips=32", "--config.probes.linear.epochs=2",
    )  # fmt: skip
    training = [sys.executable, "-m", "jepa_jax.train", f"--config={tmp_path / 'training.py'}", f"--workdir={run}"]
    with subprocess.Popen(watching, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        trained = subprocess.run(training, cwd=ROOT, capture_output=True, text=True, timeout=600)
        if trained.returncode:
            process.kill()  # it would wait forever
        output = process.stdout.read()
        assert trained.returncode == 0, trained.stderr
        assert process.wait(300) == 0, output
    steps = [json.loads(line)["checkpoint"]["step"] for line in out.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60
    assert "The run is done." in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_ctrl_c_stops_watch(tmp_path):
    watching = command(f"--config={SPRITES}", f"--checkpoint={tmp_path / 'nothing'}", "--watch")
    with subprocess.Popen(watching, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Waiting for a checkpoint in" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
        errors = process.stderr.read()
    assert "Stopped; the results so far are in" in errors
    assert "Traceback" not in errors
