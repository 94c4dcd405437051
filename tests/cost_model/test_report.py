"""FLOPs, memory, roofline and the report."""

import dataclasses

import pytest

from jepa_jax.config import Config
from jepa_jax.cost_model import chips, collectives, flops, memory, report, roofline
from jepa_jax.cost_model.topology import Topology
from jepa_jax.models.attention import Choice
from jepa_jax.settings import parse

SMALL = {
    "batch_size": 8,
    "dtype": "float32",
    "clip": {"frames": 4, "size": 32},
    "encoder": {"size": "64x2x2", "patch": 4, "levels": 2},
    "predictor": {"size": "32x1x2"},
    "masks": {"short": {}},
}
V5E = chips.CHIPS["v5e"]


def small(**encoder):
    return parse(Config, SMALL | {"encoder": SMALL["encoder"] | encoder})


@pytest.fixture(scope="module")
def config():
    return small()


def test_model_flops_are_close_to_program_flops_without_remat(config):
    """Norms and softmax, which model FLOPs exclude, are about 20 % at this size and 5 % for ViT-B."""
    model, program = flops.model_flops(config), flops.program_flops(config)
    assert 0.75 * program < model < program


@pytest.mark.slow
def test_remat_policies_that_save_more_memory_add_more_flops():
    counts = [flops.program_flops(small(remat=policy)) for policy in ("dots", "full", "level")]
    assert counts == sorted(counts)
    assert len(set(counts)) == 3


def test_model_flops_of_vit_b_match_the_formula():
    """A forward pass over N tokens costs 12 (24 N E² + 4 N² E) FLOPs."""
    config = parse(Config, {"batch_size": 2})
    tokens, width = 8 * 14 * 14, 768
    target = 12 * (24 * tokens * width**2 + 4 * tokens**2 * width)
    assert flops.blocks(flops.Size(768, 12, 12), tokens) == target
    assert flops.model_flops(config) == 2 * flops.model_flops(dataclasses.replace(config, batch_size=1))
    assert 2 * target < flops.model_flops(config) < 8 * target


def test_target_with_gradient_adds_its_backward_pass(config):
    without = dataclasses.replace(config, ema=dataclasses.replace(config.ema, enabled=False))
    tokens = 2 * 8 * 8
    more = flops.model_flops(without) - flops.model_flops(config)
    assert more == pytest.approx(8 * 2 * flops.blocks(flops.Size(64, 2, 2), tokens), rel=0.1)


def test_out_of_memory_messages_of_the_compiler_are_parsed():
    early = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (112.50G) exceeds "
        "available HBM (95.74G)."
    )
    late = "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.53G of 15.75G hbm. Exceeded"
    read = memory.from_message(early, 2**30)
    assert read is not None
    assert (read.temporary, read.limit, read.total) == (112.5 * 2**30, round(95.74 * 2**30), 113.5 * 2**30)
    read = memory.from_message(late, 2**30)
    assert read is not None
    assert read.total == round(20.53 * 2**30)
    assert memory.from_message("INTERNAL: something else", 0) is None


def test_roofline_is_bound_by_the_slowest_resource():
    roof = roofline.roofline(V5E, flops=197e12, traffic=819e9 / 2, sent=200e9 / 4)
    assert dataclasses.asdict(roof) == pytest.approx({"compute": 1.0, "memory": 0.5, "network": 0.25})
    assert (roof.seconds, roof.binds) == (1.0, "compute")
    assert roofline.roofline(V5E, flops=0, traffic=0, sent=200e9).binds == "network"


def make_report(config, memory_used, **changes):
    values = {
        "config": config,
        "topology": Topology("v5e:2x2", [None] * 4, V5E),
        "seconds": 12.0,
        "model_flops": int(4e12),
        "program_flops": 8e12,
        "memory": memory_used,
        "state": 2**30,
        "traffic": int(819e6),
        "collectives": {"all-reduce": collectives.Total(3, 2000, 4e8)},
        "unknown_loops": 0,
        "attention": Choice("fused", "splash attention"),
    }
    return report.Report(**values | changes)


def test_report_of_a_step_that_fits_has_its_bound(config):
    """8 TFLOP on 4 chips of 197 TFLOP/s take 10.2 ms; 8 clips in this time are 788 clips/s."""
    built = make_report(config, memory.Memory(2**30, 2**31, 2**28))
    text = report.text(built)
    assert built.fits
    assert "compute 10.2 ms, memory 1.0 ms, network 2.0 ms: compute binds" in text
    assert "model ÷ compiled 0.50" in text
    assert "at most              788 clips/s, 50 % of the chips' peak" in text
    assert "all-reduce           3 per step" in text
    assert "fits in 16.00 GiB, 12.75 GiB to spare" in text
    assert report.table_row(built)[2:5] == ["fused", "3.25 GiB", "yes"]
    assert report.advice(built) == []


def test_report_of_a_step_that_does_not_fit_has_advice(config):
    refused = memory.Memory(8 * 2**30, 12 * 2**30, 0, limit=round(15.75 * 2**30))
    built = make_report(config, refused, state=8 * 2**30, traffic=None, collectives=None)
    assert not built.fits
    text = report.text(built)
    assert "DOES NOT FIT in 15.75 GiB: 4.25 GiB over. Try one of:" in text
    for change in ("encoder.remat=dots", "mesh.fsdp=4", "batch_size=4", "a slice of about 8 chips", "dtype=bfloat16"):
        assert change in text
    assert "roofline" not in text
    assert report.table_row(built)[4] == "no, 4.25 GiB over"


def test_report_of_a_memory_bound_step_with_xla_attention_suggests_auto():
    bound = make_report(small(attention="xla"), memory.Memory(2**30, 2**31, 2**28), traffic=int(819e8))
    assert "memory 100.0 ms, network 2.0 ms: memory binds" in report.text(bound)
    assert "--config.encoder.attention=auto" in report.text(bound)
    for kind in ("auto", "fused"):
        assert "--config.encoder.attention" not in report.text(dataclasses.replace(bound, config=small(attention=kind)))


def test_report_names_the_attention(config):
    text = report.text(make_report(config, memory.Memory(2**30, 2**31, 2**28)))
    assert "remat none, attention fused, " in text
    assert "attention            auto: fused (splash attention)\n" in text
    reason = "the platform cpu has no attention kernel"
    text = report.text(make_report(config, memory.Memory(0, 0, 0), attention=Choice("xla", reason)))
    assert f"attention            auto: xla, because {reason}\n" in text
    given = report.text(make_report(small(attention="xla"), memory.Memory(0, 0, 0), attention=Choice("xla", "")))
    assert "attention xla, " in given
    assert "auto: " not in given


def test_report_for_cpus_has_no_roofline(config):
    built = make_report(config, memory.Memory(0, 2**50, 0), topology=Topology("cpu:4", [None] * 4, None))
    assert built.fits
    assert "roofline" not in report.text(built)


def test_chips_have_a_source_for_their_figures():
    for name, chip in chips.CHIPS.items():
        assert chip.name == name
        assert "cloud.google.com/tpu/docs" in chip.source
