"""Attention `auto` of a training run: resolved once, for all modules and all processes."""

import dataclasses
import functools

import jax
import pytest
import tiny_run

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.distributed import processes
from jepa_jax.models import attention
from jepa_jax.settings import parse
from jepa_jax.training import loop, setup, step

CONFIG = parse(Config, tiny_run.SETTINGS)
xla = jax.nn.dot_product_attention


def with_attention(kind):
    return dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, attention=kind))


def kinds(resolved):
    return {module.attention for module in (resolved.encoder, resolved.target_encoder, resolved.predictor)}


@pytest.mark.parametrize(
    ("asked", "platform", "expected"),
    [
        ("auto", "cpu", "xla"),
        ("auto", "tpu", "fused"),
        ("xla", "tpu", "xla"),
        ("fused", "tpu", "fused"),
        ("fused", "cpu", "fused"),
    ],
)
def test_every_module_has_the_resolved_attention(asked, platform, expected):
    resolved, chosen = setup.resolve_attention(setup.build_setup(with_attention(asked)), platform, xla)
    assert chosen.kind == expected
    assert kinds(resolved) == {expected}


def test_fused_attention_is_not_checked():
    def kernel(q, k, v):
        raise AssertionError("compared")

    assert setup.resolve_attention(setup.build_setup(with_attention("fused")), "tpu", kernel)[1].kind == "fused"
    assert setup.resolve_attention(setup.build_setup(with_attention("auto")), "tpu", kernel)[1].kind == "xla"


def test_frozen_target_and_single_frames_have_the_resolved_attention():
    images = {"sprites": {"kind": "sprites"}}
    config = parse(Config, tiny_run.SETTINGS | {"data": {"sources": images, "images": "frames"}})
    target = with_attention("xla").encoder
    resolved, _ = setup.resolve_attention(setup.build_setup(config, target), "tpu", xla)
    assert resolved.images is not None
    assert kinds(resolved) == kinds(resolved.images) == {"fused"}


def test_processes_agree(monkeypatch):
    failed = attention.Choice("xla", "splash attention failed")
    monkeypatch.setattr(processes, "gather", lambda own: [own, failed])
    resolved, chosen = setup.resolve_attention(setup.build_setup(CONFIG), "tpu", xla)
    assert str(chosen) == "xla, because splash attention failed (in process 1)"
    assert kinds(resolved) == {"xla"}


def test_shapes_are_those_of_a_step(monkeypatch):
    seen = set()

    def record(q, k, v, kind):
        seen.add(attention.Shape(q.shape[1], q.shape[3]))
        return xla(q, k, v)

    monkeypatch.setattr("jepa_jax.models.layers.attend", record)
    built = setup.build_setup(CONFIG)
    state = jax.eval_shape(functools.partial(setup.init_state, built), 0)
    seen.clear()
    jax.eval_shape(functools.partial(step.train_step, built), state, data.batch_shapes(CONFIG))
    assert setup.attention_shapes(built) == seen


@pytest.mark.slow
def test_choice_is_reported_on_accelerators(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    loop.train(dataclasses.replace(CONFIG, steps=1), tmp_path)
    assert capsys.readouterr().out.count("Attention: fused (splash attention, within ") == 1
