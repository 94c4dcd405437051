"""Launchers: `--dry-run` prints valid commands without running them."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(p for p in LAUNCH.rglob("*") if p.suffix in (".sh", ".sbatch"))
TRAIN = ["--config", "configs/mixed.py:fwm_hw_ld", "--workdir=gs://bucket/it's a run", "--config.steps=3"]
SLICE = ["--name", "pod", "--zone", "z", "--type", "v5litepod-16"]


def launch(script, *arguments, check=True):
    """Runs a launcher and returns its output, or the finished process if `check` is false."""
    run = subprocess.run(["bash", str(LAUNCH / script), *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 or not check, run.stderr
    return run.stdout if check else run


def commands(output):
    return [shlex.split(line) for line in output.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck_finds_no_problems(script):
    # Prefer the shellcheck of this environment, activated or not.
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None, "shellcheck is not installed (extra `test`)"
    run = subprocess.run([shellcheck, str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_launcher_is_checked():
    names = {p.name for p in SCRIPTS}
    assert {"tpu_pod.sh", "slurm.sbatch", "jobset.sh", "worker.sh", "run.sh"} <= names


def test_tpu_pod_run_creates_installs_trains_and_deletes():
    output = launch("tpu_pod.sh", "run", *SLICE, "--spot", "--dry-run", *TRAIN)
    lines = commands(output.replace("\\\n", ""))
    verbs = [line[4] for line in lines]
    assert verbs == ["create", "describe", "ssh", "scp", "ssh", "ssh", "delete"]
    assert {"--spot", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"} <= set(lines[0])
    for path in lines[3][6:-3]:
        assert pathlib.Path(path).exists()
    assert "--worker=all" in lines[5]
    remote = lines[5][-1].removeprefix("--command=")
    assert shlex.split(remote.split("launch/worker.sh ")[1]) == TRAIN


@pytest.mark.parametrize("command", ["create", "install", "train", "stop", "status", "delete"])
def test_each_tpu_pod_command_runs_alone(command):
    assert "gcloud compute tpus" in launch("tpu_pod.sh", command, *SLICE, "--project", "p", "--dry-run", *TRAIN)


def test_slurm_array_covers_all_recipes_and_seeds():
    asked = ["--recipes", "baseline,fwm", "--seeds=1,2,3", "--workdir", "/runs/a b", "--config.steps=3"]
    lines = commands(launch("slurm.sbatch", "--dry-run", "--config", "configs/mixed.py", *asked))
    assert len(lines) == 6
    assert lines[4][3:] == [
        "-m", "jepa_jax.train", "--config=configs/mixed.py:fwm", "--workdir=/runs/a b/fwm-2", "--config.seed=2",
        "--config.steps=3",
    ]  # fmt: skip
    (single,) = commands(launch("slurm.sbatch", "--dry-run", "--config=configs/mixed.py:fwm", "--workdir=/runs/fwm"))
    assert single[-2:] == ["--config=configs/mixed.py:fwm", "--workdir=/runs/fwm"]


@pytest.mark.parametrize(
    ("topology", "machines", "chips", "accelerator"),
    [
        ("v5e:4x4", 4, 4, "tpu-v5-lite-podslice"),
        ("v5p:2x2x4", 4, 4, "tpu-v5p-slice"),
        ("v6e:1x1", 1, 1, "tpu-v6e-slice"),
    ],
)
def test_jobset_is_valid_yaml_with_the_training_command(topology, machines, chips, accelerator):
    asked = ["--name", "pod", "--image", "registry/jepa:1", "--topology", topology]
    first, *body, last = launch("jobset.sh", *asked, "--dry-run", *TRAIN).splitlines()
    assert shlex.split(first)[:4] == ["kubectl", "apply", "-f", "-"]
    assert last == "JOBSET"
    jobset = yaml.safe_load("\n".join(body))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (machines, machines, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.partition(":")[2]
    (container,) = pod["containers"]
    assert (ROOT / container["command"][0]).exists()
    assert container["args"] == TRAIN
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert container["env"] == ([{"name": "JAX_NUM_PROCESSES", "value": "1"}] if machines == 1 else [])
    assert "${" not in "\n".join(body[1:])


def test_docker_builds_the_image_and_trains_in_it():
    build, run = commands(launch("gpu_docker/run.sh", "--dry-run", "--mount", "/data", *TRAIN))
    dockerfile = pathlib.Path(build[2].removeprefix("--file="))
    for line in dockerfile.read_text().splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])
    assert "--gpus=all" in run
    assert "--volume=/data:/data" in run
    assert run[-len(TRAIN) :] == TRAIN


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("tpu_pod.sh", ["start", *SLICE], "is not a command"),
        ("tpu_pod.sh", ["train", "--name", "a", *TRAIN], "--zone is missing"),
        ("tpu_pod.sh", ["train", *SLICE, "--config", "a.py", "--workdir=/tmp/x"], "machines share no disk"),
        ("tpu_pod.sh", ["train", *SLICE], "--config is missing"),
        ("tpu_pod.sh", ["create", "--name", "a", "--zone", "z", "--type", "v9-8"], "no --version is known"),
        ("slurm.sbatch", ["--workdir", "/runs"], "--config is missing"),
        ("slurm.sbatch", ["--config", "a.py:fwm", "--recipes", "ld", "--workdir", "/runs"], "leave it out"),
        ("jobset.sh", ["--name", "a", "--image", "i", "--topology", "cpu:8", *TRAIN], "expected v4, v5e"),
        ("jobset.sh", ["--name", "a", "--image", "i", "--topology", "v5e:3x3", *TRAIN], "not a multiple"),
        ("gpu_docker/run.sh", ["--mount", "data", *TRAIN], "expected a path that starts with /"),
    ],
)
def test_invalid_arguments_are_reported(script, arguments, message):
    run = launch(script, *arguments, "--dry-run", check=False)
    assert run.returncode == 2
    assert message in run.stderr


@pytest.mark.parametrize(("stopped", "code"), [(False, 0), (False, 7), (True, 143)])
def test_worker_exits_with_the_training_code_or_143_if_stopped(tmp_path, stopped, code):
    """The scheduler must see that the run is unfinished, even if training exits with 0."""
    waiting = "signal.pthread_sigmask(signal.SIG_BLOCK, term); print('ready', flush=True); signal.sigwait(term)"
    program = f"import signal, sys; term = [signal.SIGTERM]; {waiting if stopped else f'sys.exit({code})'}"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$*" = "-m jepa_jax.train --config a" ] && exec python3 -c "{program}"\nexit 99\n')
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    worker = subprocess.Popen(
        ["bash", str(LAUNCH / "worker.sh"), "--config", "a"], env=environment, stdout=subprocess.PIPE, text=True
    )
    if stopped:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=300)
    assert worker.returncode == code


@pytest.mark.parametrize(("code", "requeued"), [(143, True), (0, False), (1, False)])
def test_slurm_requeues_only_stopped_runs(tmp_path, code, requeued):
    for name, script in {
        "srun": f"trap 'exit {code}' TERM; echo ready; while :; do sleep 0.05; done",
        "scontrol": f'echo "$@" >"{tmp_path}/requeued"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sbatch"), "--config", "a.py", "--workdir", str(tmp_path)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=300)
    assert job.returncode == code
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 7\n"
