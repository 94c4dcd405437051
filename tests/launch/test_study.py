"""Launchers of studies: their commands, and their files against the schemas of the schedulers."""

import os
import pathlib
import shlex
import signal
import subprocess

import jsonschema
import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
STUDY = ["--config", "study/small", "--workdir=gs://bucket/it's a study", "--config.primary_seeds=3"]
PODS = ["--name", "s", "--image", "registry/jepa:1", "--queue", "research", "--workers", "12"]


def launch(script, *arguments, check=True):
    run = subprocess.run(["bash", str(LAUNCH / script), *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 or not check, run.stderr
    return run.stdout if check else run


def strict(properties, *required):
    """The schema of an object with no other fields."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
QUANTITY = {"anyOf": [COUNT, {"type": "string", "pattern": r"^\d+(m|[KMGT]i?)?$"}]}
CONTAINER = strict(
    {
        "name": TEXT,
        "image": TEXT,
        "command": {"type": "array", "items": TEXT},
        "args": {"type": "array", "items": TEXT},
        "resources": strict(
            {key: {"type": "object", "additionalProperties": QUANTITY} for key in ("requests", "limits")}
        ),
    },
    "name",
    "image",
)
POD_SPEC = strict(
    {
        "restartPolicy": {"enum": ["Never"]},  # a podFailurePolicy accepts no other
        "terminationGracePeriodSeconds": COUNT,
        "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
    },
    "restartPolicy",
    "containers",
)
RULE = {
    "oneOf": [
        strict(
            {
                "action": {"enum": ["Ignore", "FailJob", "FailIndex", "Count"]},
                "onExitCodes": strict(
                    {
                        "operator": {"enum": ["In", "NotIn"]},
                        "values": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
                    },
                    "operator",
                    "values",
                ),
            },
            "action",
            "onExitCodes",
        ),
        strict(
            {
                "action": {"enum": ["Ignore", "FailJob", "FailIndex", "Count"]},
                "onPodConditions": {"type": "array", "items": strict({"type": TEXT, "status": TEXT}, "type")},
            },
            "action",
            "onPodConditions",
        ),
    ]
}
JOB_SPEC = strict(
    {
        "completionMode": {"enum": ["Indexed"]},
        "parallelism": COUNT,
        "completions": COUNT,
        "backoffLimitPerIndex": COUNT,  # of indexed jobs only
        "maxFailedIndexes": COUNT,
        "podFailurePolicy": strict({"rules": {"type": "array", "items": RULE}}, "rules"),
        "template": strict({"spec": POD_SPEC}, "spec"),
    },
    "completionMode",
    "template",
)
JOBSET = strict(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": strict(
            {"name": TEXT, "labels": strict({"kueue.x-k8s.io/queue-name": TEXT}, "kueue.x-k8s.io/queue-name")},
            "name",
            "labels",
        ),
        "spec": strict(
            {
                "replicatedJobs": {
                    "type": "array",
                    "items": strict(
                        {"name": TEXT, "replicas": COUNT, "template": strict({"spec": JOB_SPEC}, "spec")}, "name"
                    ),
                }
            },
            "replicatedJobs",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
SKY = strict(
    {
        "name": TEXT,
        "workdir": TEXT,
        "setup": TEXT,
        "run": TEXT,
        "envs": {"type": "object", "additionalProperties": TEXT},
        "resources": strict(
            {
                "accelerators": {"type": "object", "additionalProperties": COUNT},
                "use_spot": {"type": "boolean"},
                "job_recovery": strict({"strategy": TEXT, "max_restarts_on_errors": COUNT}),
            }
        ),
    },
    "run",
)


def test_every_slurm_job_runs_the_same_command():
    output = launch("slurm_study.sbatch", "--dry-run", "--python", "py", *STUDY)
    assert shlex.split(output) == [
        "srun", "py", "-m", "jepa_jax.study", "--config=study/small", "--workdir=gs://bucket/it's a study",
        "--config.primary_seeds=3",
    ]  # fmt: skip


def test_jobset_has_indexed_workers_in_a_queue():
    output = launch("study_jobset.sh", *PODS, "--gpus", "2", "--dry-run", *STUDY)
    first, *body, last = output.splitlines()
    assert (first, last) == ("kubectl apply -f - <<'JOBSET'", "JOBSET")
    assert "${" not in "\n".join(body[3:])
    jobset = yaml.safe_load("\n".join(body))
    jsonschema.validate(jobset, JOBSET)
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "research"}
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"]) == (12, 12)
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "jepa_jax.study"]
    assert container["args"] == STUDY
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    ignored = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in ignored if "onExitCodes" in rule] == [[143]]
    assert launch("study_jobset.sh", "--name", "s", "--delete", "--dry-run") == "kubectl delete jobset s \n"


def test_sky_job_is_valid_and_runs_the_study(tmp_path):
    task = yaml.safe_load((LAUNCH / "study.sky.yaml").read_text())
    jsonschema.validate(task, SKY)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    given = task["envs"] | {"WORKDIR": "gs://bucket/a b", "FLAGS": "--jobs=2 --config.data.root=/data"}
    environment = os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", task["run"]], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "-m", "jepa_jax.study", "--config=study/small", "--workdir=gs://bucket/a b", "--jobs=2",
        "--config.data.root=/data",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("slurm_study.sbatch", ["--workdir", "/runs"], "--config is missing"),
        ("slurm_study.sbatch", ["--config", "study/small"], "--workdir is missing"),
        ("study_jobset.sh", [*PODS[:6], *STUDY], "--workers is ''"),
        ("study_jobset.sh", [*PODS[:4], *PODS[6:], *STUDY], "--queue is missing"),
        ("study_jobset.sh", [*PODS, "--gpus", "one", *STUDY], "--gpus is 'one'"),
        ("study_jobset.sh", [*PODS, "--config", "study/small", "--workdir=/tmp/x"], "machines share no disk"),
    ],
)
def test_invalid_arguments_are_reported(script, arguments, message):
    run = launch(script, *arguments, "--dry-run", check=False)
    assert run.returncode == 2
    assert message in run.stderr


def test_slurm_requeues_a_preempted_worker(tmp_path):
    for name, script in {
        "srun": "trap 'exit 143' TERM; echo ready; while :; do sleep 0.05; done",
        "scontrol": f'echo "$@" >"{tmp_path}/requeued"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
    }
    command = ["bash", str(LAUNCH / "slurm_study.sbatch"), "--config", "study/small", "--workdir", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.send_signal(signal.SIGUSR1)
        job.communicate(timeout=300)
    assert job.returncode == 143
    assert (tmp_path / "requeued").read_text() == "requeue 7_3\n"
