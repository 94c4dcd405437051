"""Topologies: valid names give devices, invalid ones raise."""

import jax
import pytest
from jax.experimental import topologies

from jepa_jax.cost_model import chips, topology


@pytest.mark.parametrize(
    "name",
    ["", "cpu", "cpu:0", "cpu:x", "v5e", "v5e:", "v5e:4", "v5e:4x0", "v5e:4x4x4x4", "v9:2x2", "V5E:2x2", "gpu:8"],
)
def test_invalid_topologies_raise(name):
    with pytest.raises(topology.TopologyError, match=r"is not a topology; expected v4, v5e, v5p, v6e"):
        topology.parse_topology(name)


@pytest.mark.parametrize("name", ["v5e:2x2x2", "v6e:32x16", "v5p:16x24x24"])
def test_slices_that_do_not_exist_raise(name):
    with pytest.raises(topology.TopologyError, match=r"have [23] dimensions and at most"):
        topology.parse_topology(name)


def test_cpu_topology_uses_the_devices_of_this_machine():
    found = topology.parse_topology("cpu:4")
    assert found.devices == jax.devices("cpu")[:4]
    assert found.chip is None
    with pytest.raises(topology.TopologyError, match="JAX was already initialized with 8"):
        topology.parse_topology("cpu:9")


def test_missing_libtpu_raises_with_the_package_to_install(monkeypatch):
    def missing(**_):
        raise RuntimeError("JAX TPU support not installed; cannot generate TPU topology.")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    with pytest.raises(topology.TopologyError, match=r'pip install "jepa_jax\[tpu\]"'):
        topology.parse_topology("v5e:4x4")


@pytest.mark.parametrize(
    ("name", "count"), [("v4:2x2x2", 8), ("v5e:1x1", 1), ("v5e:4x4", 16), ("v5p:2x2x4", 16), ("v6e:2x4", 8)]
)
def test_tpu_slices_have_one_device_per_chip(name, count):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (extra `tpu`)")
    found = topology.parse_topology(name)
    assert len(found.devices) == count
    assert found.chip is chips.CHIPS[name.partition(":")[0]]
    assert {device.platform for device in found.devices} == {"tpu"}
