import sys
import types

import pytest

from jepa_jax.distributed import cluster
from jepa_jax.distributed.cluster import Cluster, find_cluster
from jepa_jax.settings import ConfigError

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[001-004]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
OMPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
ORTE = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}


def find(environ, *flags, on_tpu_vm=False):
    return find_cluster(*flags, environ=environ, on_tpu_vm=on_tpu_vm)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script, not a task of srun
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        OMPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        POD | {"JAX_NUM_PROCESSES": "1"},
    ],
)
def test_single_process_has_no_cluster(environ):
    assert find(environ) is None


@pytest.mark.parametrize(
    ("environ", "method"),
    [
        (SLURM, "slurm"),
        (OMPI | ORTE, "ompi"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
        (POD | {"TPU_PROCESS_ADDRESSES": "a:8471,b:8471"}, "gketpu"),
    ],
)
def test_clusters_are_detected_from_the_environment(environ, method):
    found = find(environ)
    assert found is not None
    assert found.method == method
    assert found.coordinator is None  # JAX detects it


def test_cloud_tpu_vm_is_detected():
    assert find({}, on_tpu_vm=True) == Cluster(kind="a Cloud TPU VM", method="gcetpu")


def test_cluster_is_defined_by_flags_or_variables():
    expected = Cluster(
        kind="a run of several processes", method="deactivate", coordinator="h:1234", processes=2, process_id=1
    )
    variables = {"JAX_COORDINATOR_ADDRESS": "h:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert find({}, "h:1234", 2, 1) == expected
    assert find(variables) == expected
    assert find(variables | {"JAX_PROCESS_ID": "0"} | SLURM, None, None, 1) == expected  # flags take precedence
    assert find(variables, None, 1, None) is None


@pytest.mark.parametrize(
    ("environ", "flags", "processes", "process_id"),
    [
        (OMPI, ("h:1",), 4, 1),
        (SLURM, ("h:1",), 4, 3),
        (POD | {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "8"}, (), 8, 2),
    ],
)
def test_process_id_comes_from_the_launcher_if_not_given(environ, flags, processes, process_id):
    found = find(environ, *flags)
    assert (found.method, found.processes, found.process_id) == ("deactivate", processes, process_id)


@pytest.mark.parametrize(("per_node", "gpus", "expected"), [("1(x4)", "8", list(range(8))), ("8(x2)", "8", None)])
def test_single_slurm_task_of_a_node_uses_all_its_gpus(per_node, gpus, expected):
    found = find(SLURM | {"SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_GPUS_ON_NODE": gpus})
    assert found.local_device_ids == expected


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        (OMPI, (), "Open MPI 5 or newer.*--coordinator=HOST:PORT"),
        (POD, (), r"JAX_NUM_PROCESSES \(1 for a single pod\).*jax\[k8s\]"),
        ({}, ("h:1", 2), "^--process_id missing"),
        ({}, (None, 2, 0), "^--coordinator missing"),
        ({}, ("h:1", 2, 2), "--process_id is 2; expected 0 to 1"),
        ({}, ("h", 2, 1), "--coordinator is 'h'; expected HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "two"}, (), "JAX_NUM_PROCESSES is 'two'; expected a number"),
    ],
)
def test_missing_or_invalid_values_raise(environ, flags, message, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        find(environ, *flags)


def test_kubernetes_job_is_detected_if_the_package_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", types.SimpleNamespace(__spec__=object()))
    assert find(POD) == Cluster(kind="a Kubernetes Job", method="k8s")


@pytest.mark.parametrize("environ", [{"JAX_PLATFORMS": "cpu"}, {"TPU_SKIP_MDS_QUERY": "1"}])
def test_tpu_vm_that_does_not_use_its_tpu_is_ignored(environ):
    assert not cluster.detect_tpu_vm(environ)
