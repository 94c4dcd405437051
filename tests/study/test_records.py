import itertools
import json

import pytest
import tiny_study

from jepa_jax.study import results_folder, run_record
from jepa_jax.study.engine import prober, runner
from jepa_jax.study.results_folder import RecordError
from jepa_jax.study.run_record import Audit, AuditTerm, RunRecord, Training

RECORD = RunRecord(
    study="tiny",
    recipe="fwm",
    seed=239,
    settings_sha256="0" * 64,
    status="done",
    training=Training(steps=6, clips=48, seconds=2.5, clips_per_second=20.0, flops_per_step=1e9),
    curves={"step": (3, 6), "loss": (0.75, None)},
    audit=Audit(step=(1,), terms={"prediction": AuditTerm(loss=(1.0,), gradient_norm=(2,), cosine_to_prediction=(1,))}),
    accuracies=(tiny_study.accuracy(3), tiny_study.accuracy(4)),
    representation={"rankme": 3.25, "straightness": None},
    timing={"training": 2.5},
)


@pytest.fixture
def file(tmp_path):
    file = results_folder.run_file(tmp_path, "fwm", 239)
    results_folder.write(file, RECORD)
    return file


def test_records_are_read_back(file, tmp_path):
    assert results_folder.read_run(file) == RECORD
    (file.parent / "notes.json").write_text("{}")
    (tmp_path / "study.json").write_text("{}")
    assert results_folder.read_runs(tmp_path) == [RECORD]
    assert results_folder.read_controls(tmp_path) is None
    assert results_folder.read_runs(tmp_path / "nothing") == []


def test_record_has_the_documented_form(file):
    content = json.loads(file.read_text())
    assert content["version"] == 1
    assert content["audit"] == {
        "step": [1],
        "prediction": {"loss": [1.0], "gradient_norm": [2], "cosine_to_prediction": [1]},
    }
    assert content["accuracies"][0]["accuracy"] == 3 / 24
    assert file.read_text().count("\n") < 30  # a line for each probe


def test_times_and_machine_are_not_reproducible():
    content = RECORD.reproducible()
    assert not content.keys() & {"timing", "machine", "software"}
    assert content["training"] == {"steps": 6, "clips": 48, "flops_per_step": 1e9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "its version is 2"),
        ({"extra": 1}, "record.extra is not a setting"),
        ({"status": "failed"}, "only failed runs have an error"),
        ({"curves": {"loss": [1]}}, "no 'step'"),
        ({"curves": {"step": [1], "loss": [1, 2]}}, "curves.loss has 2 values for 1 steps"),
        ({"curves": 3}, "expected a group of settings"),
        ({"audit": [1]}, "expected a group of settings"),
        ({"audit": {"step": [1], "a": {"loss": []}}}, "a.loss has 0 values"),
        ({"accuracies": [{"clips_seen": 1}]}, "missing"),
        ({"seed": 7}, "of recipe fwm, seed 7"),
    ],
)
def test_invalid_record_raises_with_file_and_reason(file, changes, message):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RecordError) as caught:
        results_folder.read_run(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_damaged_record_raises(file, text):
    file.write_text(text)
    with pytest.raises(RecordError, match=r"239\.json"):
        results_folder.read_run(file)


def test_missing_field_raises(file):
    content = json.loads(file.read_text())
    del content["settings_sha256"]
    file.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="has no 'settings_sha256'"):
        results_folder.read_run(file)


def test_wrong_accuracy_raises():
    with pytest.raises(ValueError, match="expected accuracy = correct / total"):
        run_record.Accuracy(**{**vars(tiny_study.accuracy(3)), "accuracy": 0.5})


def test_curves_are_of_the_measured_steps_with_the_last_one():
    lines = [{"step": step, "loss": step / 3, "clips_per_second": 1.0, "data/wait": 0.1} for step in range(1, 301)]
    for line in lines[::2]:
        line["rank/target"] = 2.0
    lines[-1] |= {"rank/target": float("nan"), "audit/prediction/loss": 1.0}
    found = runner.curves(lines)
    assert found.keys() == {"step", "loss", "target_rank"}
    assert len(found["step"]) <= runner.POINTS
    assert found["step"][-1] == 300
    assert found["loss"][-2] == pytest.approx(found["step"][-2] / 3, rel=1e-5)  # pyright: ignore
    assert found["target_rank"][-2:] == (2.0, None)


def test_audit_is_gathered_by_objective():
    line = {"audit/a/loss": 1.0, "audit/a/gradient_encoder": 2.0, "audit/a/gradient_head": 0.0}
    lines = [{"step": 1, "loss": 0.5} | line, {"step": 2, "loss": 0.4}]
    assert runner.audit(lines) == Audit(
        step=(1,), terms={"a": AuditTerm(loss=(1.0,), gradient_norm=(2.0,), cosine_to_prediction=(None,))}
    )
    assert runner.audit(lines[1:]) == Audit()


def test_fewer_labels_are_nested_shares_of_each_class():
    labels = prober.np.repeat([0, 1, 2], [100, 40, 1])
    rows = {share: prober.labelled_rows(labels, share, seed=3) for share in (0.01, 0.05, 0.25, 1.0)}
    assert [prober.np.bincount(labels[chosen]).tolist() for chosen in rows.values()] == [
        [2, 2, 1], [5, 2, 1], [25, 10, 1], [100, 40, 1],
    ]  # fmt: skip
    shares = list(rows.values())
    assert all((more | ~fewer).all() for fewer, more in itertools.pairwise(shares))
    assert (prober.labelled_rows(labels, 0.25, seed=4) != rows[0.25]).any()
