"""Training on moving discs and probing the direction, end to end."""

import json

import pytest
import tiny_run

from jepa_jax.config import Config, SourceConfig
from jepa_jax.evaluation import job
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.settings import parse
from jepa_jax.training import loop


@pytest.mark.slow
def test_training_renders_discs_in_the_step_and_evaluation_probes_directions(tmp_path):
    discs = {"sources": {"discs": {"kind": "moving_discs"}}, "workers": 0}
    kinematic = {"prediction": {}, "kinematic": {}}
    training = parse(Config, tiny_run.SETTINGS | {"data": discs, "target": "online", "objectives": kinematic})
    assert loop.train(training, tmp_path / "run") == loop.Outcome(step=6)

    evaluation = EvalConfig(
        train=SourceConfig(kind="directions", split="train", clips=80),
        test=SourceConfig(kind="directions", split="test", clips=40),
        probes={"attentive": ProbeConfig(kind="attentive", tokens="all", epochs=2, batch_size=32, seeds=1)},
        controls=("first frame", "one frame"),
        frames=8,
        size=32,
    )
    results = job.evaluate(evaluation, str(tmp_path / "run"), tmp_path / "results.json").results
    assert [(result.task, result.features) for result in results] == [
        ("direction", row) for row in ("trained", "untrained", "first frame", "one frame")
    ]
    assert all((result.chance, result.train, result.test) == (1 / 8, 80, 40) for result in results)
    assert len({result.items for result in results}) == 1  # all rows are scored on the same clips


@pytest.mark.slow
def test_rendering_in_the_step_and_on_the_host_train_alike(tmp_path):
    losses = []
    for in_step in (True, False):
        discs = {"sources": {"discs": {"kind": "moving_discs"}}, "workers": 0, "render_in_step": in_step}
        workdir = tmp_path / str(in_step)
        loop.train(parse(Config, tiny_run.SETTINGS | {"data": discs, "steps": 2}), workdir)
        losses.append([json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()])
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
