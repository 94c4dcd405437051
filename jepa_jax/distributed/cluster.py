"""Cluster detection: the number of processes, this process's index and the coordinator, from flags and environment."""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Mapping

from jepa_jax.settings import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Arguments for jax.distributed.initialize.

    Attributes:
        kind: the detected environment, for messages.
        method: JAX's cluster detection method for fields that are None; "deactivate" if all are set.
        coordinator: HOST:PORT of process 0.
        processes: number of processes.
        process_id: index of this process.
        local_device_ids: accelerators of this machine that this process uses; None for JAX's default.
    """

    kind: str
    method: str
    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None
    local_device_ids: list[int] | None = None


def find_cluster(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    on_tpu_vm: bool | None = None,
) -> Cluster | None:
    """Returns how to connect to the run's other processes; None if this is the only process.

    Arguments take precedence over JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, and those over the
    variables that Slurm, Open MPI, Kubernetes (a JobSet, with or without TPUs) and Cloud TPU VMs set.

    Args:
        coordinator: HOST:PORT of process 0.
        processes: number of processes of the run.
        process_id: index of this process, from 0.
        environ: environment variables.
        on_tpu_vm: whether this machine has TPUs; detected if None.

    Raises:
        ConfigError: there are several processes, but a value is missing or invalid.
    """
    coordinator = coordinator or environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _integer(environ, "JAX_NUM_PROCESSES") if processes is None else processes
    process_id = _integer(environ, "JAX_PROCESS_ID") if process_id is None else process_id
    if processes == 1:
        return None
    if coordinator is not None or processes is not None or process_id is not None:
        return _from_flags(coordinator, processes, process_id, environ)
    if "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ:
        return _slurm(environ) if _count(environ, "SLURM_NTASKS") > 1 else None
    if _count(environ, "OMPI_COMM_WORLD_SIZE") > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environ:
            raise ConfigError(
                "mpirun (Open MPI 5 or newer) does not pass the address of rank 0 to its processes; add "
                "--coordinator=HOST:PORT with a free port of that machine."
            )
        return Cluster(kind="Open MPI", method="ompi")
    # A JobSet on one TPU slice, or on several.
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    if "," in workers or _count(environ, "MEGASCALE_NUM_SLICES") > 1:
        return Cluster(kind="Kubernetes with TPUs", method="gketpu" if workers else "gcetpu")
    if "KUBERNETES_SERVICE_HOST" in environ:
        return _kubernetes(environ)
    if detect_tpu_vm(environ) if on_tpu_vm is None else on_tpu_vm:
        return Cluster(kind="a Cloud TPU VM", method="gcetpu")
    return None


def _from_flags(
    coordinator: str | None, processes: int | None, process_id: int | None, environ: Mapping[str, str]
) -> Cluster:
    """A cluster from flags. Missing counts and indices come from the launcher's variables."""
    for count, index in (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        if count in environ and index in environ:
            processes = _integer(environ, count) if processes is None else processes
            process_id = _integer(environ, index) if process_id is None else process_id
    process_id = _integer(environ, "JOB_COMPLETION_INDEX") if process_id is None else process_id
    values = {"--coordinator": coordinator, "--processes": processes, "--process_id": process_id}
    if missing := [name for name, value in values.items() if value is None]:
        raise ConfigError(
            f"{' and '.join(missing)} missing: a run of several processes needs --coordinator=HOST:PORT (of process "
            "0), --processes=N and --process_id=I, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        )
    assert coordinator is not None
    assert processes is not None
    assert process_id is not None
    if not 0 <= process_id < processes:
        raise ConfigError(
            f"--process_id is {process_id}; expected 0 to {processes - 1}, since --processes is {processes}."
        )
    if not coordinator.rpartition(":")[2].isdecimal() or ":" not in coordinator:
        raise ConfigError(f"--coordinator is {coordinator!r}; expected HOST:PORT.")
    return Cluster(
        kind="a run of several processes",
        method="deactivate",
        coordinator=coordinator,
        processes=processes,
        process_id=process_id,
    )


def _slurm(environ: Mapping[str, str]) -> Cluster:
    """A Slurm step. JAX assigns one GPU to each task, so one task per node has to be given all GPUs explicitly."""
    gpus = _integer(environ, "SLURM_GPUS_ON_NODE") or 0
    one_task_a_node = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    return Cluster(
        kind="Slurm", method="slurm", local_device_ids=list(range(gpus)) if one_task_a_node and gpus else None
    )


def _kubernetes(environ: Mapping[str, str]) -> Cluster | None:
    """A pod of an indexed Job, which every Job of a JobSet is; None for other pods, which run alone."""
    if "JOB_COMPLETION_INDEX" not in environ:
        return None
    if importlib.util.find_spec("kubernetes") is None:
        raise ConfigError(
            "This pod belongs to an indexed Job, but the number of its pods is unknown: set JAX_NUM_PROCESSES (1 for a "
            "single pod) and JAX_COORDINATOR_ADDRESS in the pod's environment, or pip install 'jax[k8s]', which "
            "queries the cluster."
        )
    return Cluster(kind="a Kubernetes Job", method="k8s")


def detect_tpu_vm(environ: Mapping[str, str]) -> bool:
    """Whether JAX will use TPU chips of this machine, which implies a Google Cloud VM."""
    platforms = environ.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms) or "TPU_SKIP_MDS_QUERY" in environ:
        return False
    chips = [*pathlib.Path("/dev").glob("accel*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _count(environ: Mapping[str, str], name: str) -> int:
    return _integer(environ, name) or 1


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"The environment variable {name} is {text!r}; expected a number.") from None
