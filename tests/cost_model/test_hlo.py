"""Parsing HLO text: sizes, loops, fusions, collectives, memory traffic."""

import jax
import jax.numpy as jnp
import pytest

from jepa_jax.cost_model import collectives, hlo
from jepa_jax.cost_model.traffic import traffic

# As written by the TPU compiler: loops without a trip count, arrays in on-chip memory (S(1)), groups by mesh axes,
# reduce-scatter as a fusion, one all-gather spread over several fusions, attributes of a kernel on several lines.
TPU = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[8,128]) -> f32[2,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[8,128]{1,0} all-reduce(%p), channel_id=3, replica_groups=[4,4]<=[16], to_apply=%add
  %where = s32[] constant(0)
  ROOT %kept = f32[2,128]{1,0} dynamic-slice(%all-reduce.9, %where, %where), dynamic_slice_sizes={2,128}
}

%spread.1 (p: bf16[2,128]) -> bf16[32,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[32,128]{1,0} all-gather(%p), channel_id=7, replica_groups={}, dimensions={0}
}

%spread.2 (p: bf16[2,128]) -> bf16[32,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,128]{1,0} all-gather(%p), channel_id=7, replica_groups={}, dimensions={0}
}

%body (state: (s32[], f32[8,128], /*index=2*/f32[2,128])) -> (s32[], f32[8,128], f32[2,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, /*index=2*/f32[2,128]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[]{:T(128)S(2)} add(%i, %one)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1, frontend_attributes={kernel_metadata={
"block": "128"
}}, metadata={op_name="kernel"}
  %all-reduce.1 = f32[8,128]{1,0} all-reduce(%x), channel_id=1, replica_groups=mesh['data'=4,'fsdp'=4] {'fsdp'}
  %scattered = f32[2,128]{1,0} fusion(%all-reduce.1), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %after = (s32[], f32[8,128], f32[2,128]) tuple(%next, %all-reduce.1, %scattered)
}

%condition (state: (s32[], f32[8,128], f32[2,128])) -> pred[] {
  %state.1 = (s32[], f32[8,128], f32[2,128]) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %rounds = s32[]{:T(128)} constant(12)
  ROOT %more = pred[]{:T(512)} compare(%i.1, %rounds), direction=LT
}

ENTRY %main (x: f32[8,128], g: bf16[2,128]) -> bf16[32,128] {
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %g = bf16[2,128]{1,0} parameter(1)
  %fast = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x.1)
  %fast.1 = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%fast)
  %zero = s32[] constant(0)
  %none = f32[2,128]{1,0} slice(%x.1), slice={[0:2], [0:128]}
  %start = (s32[], f32[8,128], f32[2,128]) tuple(%zero, %x.1, %none)
  %loop = (s32[], f32[8,128], f32[2,128]) while(%start), condition=%condition, body=%body
  %gather.1 = bf16[32,128]{1,0} fusion(%g), kind=kCustom, calls=%spread.1
  ROOT %gather.2 = bf16[32,128]{1,0} fusion(%g), kind=kCustom, calls=%spread.2
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.parse(TPU)


def test_sizes_of_types():
    assert hlo.size("f32[8,128]{1,0:T(8,128)}") == 4096
    assert hlo.size("(bf16[3], s32[], (pred[5], u8[2,2]))") == 6 + 4 + 5 + 4
    assert hlo.size("f8e4m3fn[16]") == 16
    assert hlo.size("s4[3]") == 2
    assert hlo.size("(f32[2]{0:S(1)}, f32[3]{0}, u32[]{:S(2)})", in_memory=True) == 12


def test_text_without_a_program_raises():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("HloModule nothing\n")


def test_trip_counts_come_from_loop_conditions(program):
    runs = program.runs(into_fusions=True)
    assert runs["body"] == runs["all-reduce-scatter.1"] == 12
    assert runs["main"] == runs["spread.1"] == 1
    assert "add" not in runs
    assert program.unknown_loops == 0


def test_loop_with_another_condition_has_an_unknown_trip_count():
    assert hlo.parse(TPU.replace("direction=LT", "direction=NE")).unknown_loops == 1


def test_collectives_are_counted_by_kind_group_and_trip_count(program):
    totals = collectives.by_kind(collectives.find(program, 16))
    assert totals == {
        "all-reduce": collectives.Total(count=12, payload=12 * 4096, sent=12 * 2 * 4096 * 3 / 4),
        "reduce-scatter": collectives.Total(count=12, payload=12 * 4096, sent=12 * 4096 * 3 / 4),
        "all-gather": collectives.Total(count=1, payload=16 * 512, sent=15.0 * 512),
    }


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("[2,8]<=[16]", 8),
        ("[4,4]<=[4,4]T(1,0)", 4),
        ("{}", 16),
        ("mesh['a'=2,'b'=8] {'a','b'}", 16),
        ("mesh['a'=16] {'a':(2)4}", 4),
    ],
)
def test_group_sizes_of_collectives(groups, size):
    text = TPU.replace("mesh['data'=4,'fsdp'=4] {'fsdp'}", groups)
    (found,) = (c for c in collectives.find(hlo.parse(text), 16) if c.kind == "all-reduce")
    assert found.group == size


def test_traffic_of_main_memory(program):
    """Copy to on-chip memory: reads 4096 bytes. Slice: 1024 twice. Each iteration: 4096 in and out, then 4096 in and
    1024 out, and two numbers of 4 bytes read, whose sum stays on the chip. Condition, once: two numbers in, one byte
    out. All-gathers: 512 in, 8192 out, twice.
    """
    assert traffic(program) == 4096 + 2 * 1024 + 12 * (2 * 4096 + 4096 + 1024 + 8) + 9 + 2 * (512 + 8192)


def test_traffic_matches_xla_for_programs_without_loops():
    def layers(x, weights):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x.sum()

    shapes = jnp.zeros((64, 128)), jnp.zeros((4, 128, 128))
    compiled = jax.jit(jax.grad(layers, argnums=1)).lower(*shapes).compile()
    expected = compiled.cost_analysis()["bytes accessed"]
    assert traffic(hlo.parse(compiled.as_text())) == pytest.approx(expected, rel=0.15)


def test_traffic_of_a_scan_is_that_of_its_iterations():
    def scanned(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    def unrolled(x, weights):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    def moved(layers):
        compiled = jax.jit(scanned).lower(jnp.zeros((64, 256)), jnp.zeros((layers, 256, 256))).compile()
        program = hlo.parse(compiled.as_text())
        assert program.unknown_loops == 0
        return traffic(program)

    def moved_unrolled(layers):
        compiled = jax.jit(unrolled).lower(jnp.zeros((64, 256)), [jnp.zeros((256, 256))] * layers).compile()
        return compiled.cost_analysis()["bytes accessed"]  # correct for programs without loops

    # A scan also copies each layer's weights out of the stack, which doubles the traffic.
    per_layer = (moved_unrolled(24) - moved_unrolled(8)) / 16
    assert (moved(24) - moved(8)) / 16 == pytest.approx(2 * per_layer, rel=0.3)
