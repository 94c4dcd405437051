import dataclasses
import json

import numpy as np
import pytest

from jepa_jax.evaluation.results import probe_result, results_file, table

NAMES = ("bow", "hug", "kick")
TRAIN = np.array([0, 0, 1], np.int32)
TEST = np.array([0, 1, 1, 0, 1], np.int32)
PREDICTED = np.array([[0, 1, 1, 1, 0], [0, 1, 2, 0, 1]], np.int32)  # 3 and 4 of 5 are correct


def scored(predicted=PREDICTED, **changes):
    settings = {
        "features": "trained",
        "task": "order",
        "probe": "linear",
        "predicted_SxI": predicted,
        "train_labels": TRAIN,
        "test_labels": TEST,
        "class_names": NAMES,
        "item_names": [f"{i}.avi" for i in range(5)],
        "chosen": {"lr": 0.1},
    }
    return probe_result.score(**(settings | changes))


def test_score_of_two_probe_seeds():
    found = scored()
    assert found.accuracies == pytest.approx((3 / 5, 4 / 5))
    assert found.accuracy == pytest.approx(0.7)
    assert found.standard_deviation == pytest.approx(np.sqrt(2) / 10)
    assert found.chance == pytest.approx(1 / 3)
    assert found.majority == pytest.approx(2 / 5)  # class 0, the most common one in training
    assert (found.train, found.test) == (3, 5)
    assert found.confusion == ((3, 1, 0), (1, 4, 1), (0, 0, 0))
    assert found.per_class == (3 / 4, 4 / 6, None)  # no test item has the class kick
    assert found.interval[0] < 0.7 < found.interval[1]


def test_single_seed_has_no_standard_deviation():
    assert scored(PREDICTED[:1]).standard_deviation is None


def test_unpack_returns_the_correctness_of_each_item():
    found = scored()
    np.testing.assert_array_equal(probe_result.unpack(found.correct, found.test), PREDICTED == TEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"item_names": ["x.avi", *(f"{i}.avi" for i in range(1, 5))]},
        {"test_labels": np.array([1, 1, 1, 0, 1], np.int32)},
        {"class_names": ("bow", "hop", "kick")},
    ],
)
def test_items_fingerprint_depends_on_names_labels_and_classes(changes):
    assert scored().items == scored(probe="knn", train_labels=TEST).items
    assert scored().items != scored(**changes).items


def test_table_has_one_line_per_result():
    first, second = scored(), scored(PREDICTED[:1], features="untrained")
    head, rule, *lines = table.table([first, second]).splitlines()
    assert "95 % interval" in head
    assert set(rule) == {"─"}
    low, high = (f"{100 * bound:.1f}" for bound in first.interval)
    assert lines[0].split() == ["order", "linear", "trained", "70.0", low, "–", high, "14.1", "33.3", "40.0", "3", "5"]
    assert lines[1].split()[2:4] == ["untrained", "60.0"]
    assert lines[1].split()[7] == "–"
    assert len({len(line) for line in (head, rule, *lines)}) == 1


def test_results_survive_a_round_trip(tmp_path):
    found = [scored(), scored(features="untrained", validation=[{"lr": 0.1, "accuracy": None}])]
    file = tmp_path / "results.json"
    results_file.write(file, {"results": [dataclasses.asdict(row) for row in found], "seconds": 3})
    record = results_file.read(file)
    assert record["results"] == found
    assert (record["version"], record["seconds"]) == (results_file.VERSION, 3)
    assert "Clopper-Pearson" in record["intervals"]["accuracy"]
    assert "   [1, 4, 1],\n" in file.read_text(), "a row of the confusion matrix must be one line"


def test_results_file_is_replaced_atomically(tmp_path):
    file = tmp_path / "results.json"
    results_file.write(file, {"results": [1]})
    with pytest.raises(ValueError, match="Out of range float"):
        results_file.write(file, {"results": [float("nan")]})
    assert json.loads(file.read_text())["results"] == [1]
    results_file.write(file, {"results": [2]})
    assert json.loads(file.read_text())["results"] == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not valid JSON"),
        ("[]", "is not a results file of version 1"),
        ('{"results": []}', "its schema is None, version None"),
        ('{"schema": "jepa_jax/results", "version": 99, "results": []}', "version 99; expected"),
        ('{"schema": "jepa_jax/results", "version": 1}', "does not follow jepa_jax/results version 1: 'results'"),
        ('{"schema": "jepa_jax/results", "version": 1, "results": [{"task": "a"}]}', "missing .* argument"),
    ],
)
def test_invalid_results_files_raise(tmp_path, text, message):
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(results_file.ResultsError, match=message):
        results_file.read(file)


@pytest.mark.parametrize("name", ["results.json", "evaluation.jsonl"])
def test_binary_results_file_raises(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\n")
    with pytest.raises(results_file.ResultsError, match="is not valid JSON"):
        results_file.read(tmp_path / name)


def test_results_of_a_step_of_a_watched_run_are_read(tmp_path):
    """A later line of a step replaces an earlier one, and incomplete lines are ignored."""
    head = {"schema": results_file.SCHEMA, "version": results_file.VERSION}
    scores = {"results": [dataclasses.asdict(scored())]}
    lines = [
        json.dumps({**head, **scores, "checkpoint": {"step": step}, "seconds": seconds})
        for step, seconds in ((10, 1), (9, 2), (10, 3))
    ]
    file = tmp_path / "evaluation.jsonl"
    file.write_text("\n".join([*lines, lines[0][:-5]]))
    assert results_file.read(file)["seconds"] == 3
    assert results_file.read(f"{file}:9")["seconds"] == 2
    assert results_file.read(f"{file}:9")["results"] == [scored()]
    with pytest.raises(results_file.ResultsError, match=r"evaluation.jsonl has no step '11'; it has 9, 10\."):
        results_file.read(f"{file}:11")
    file.write_text(lines[0][:-5])
    with pytest.raises(results_file.ResultsError, match="has no results yet"):
        results_file.read(file)
    file.write_text('{"step": 3, "loss": 1.0}\n')
    with pytest.raises(results_file.ResultsError, match="not results of a checkpoint"):
        results_file.read(file)


def test_pooled_folds_equal_one_result_on_all_items():
    def fold(number, items):
        return scored(
            PREDICTED[:, items],
            test_labels=TEST[items],
            item_names=[f"{i}.avi" for i in range(5)][items],
            train_labels=TRAIN[: 1 + number],
            validation=[{"lr": 0.1, "accuracy": number / 2}],
        )

    parts = [fold(1, slice(0, 2)), fold(2, slice(2, 5))]
    whole, pooled = scored(), probe_result.pool(parts)
    for field in ("accuracy", "accuracies", "standard_deviation", "interval", "per_class", "confusion", "correct"):
        assert getattr(pooled, field) == getattr(whole, field), field
    assert (pooled.train, pooled.test, pooled.chosen) == (2, 5, {"lr": 0.1})
    assert pooled.majority == pytest.approx((1 + 1) / 5)
    assert [setting["fold"] for setting in pooled.validation] == [0, 1]
    assert pooled.items == probe_result.pool(parts).items != probe_result.pool(parts[::-1]).items
    other = dataclasses.replace(parts[1], chosen={"lr": 1.0})
    assert probe_result.pool([parts[0], other]).chosen == {}


def test_unusual_class_names_survive_a_round_trip(tmp_path):
    """Invalid UTF-8, a name like a list of numbers, and line breaks that JSON does not escape."""
    names = ("caf\udce9", "[ 1,  2 ]", "u\u2028", "走る")
    predicted = np.array([[0, 1, 2, 3]])
    found = probe_result.score(
        features="trained",
        task="class",
        probe="linear",
        predicted_SxI=predicted,
        train_labels=predicted[0],
        test_labels=predicted[0],
        class_names=names,
        item_names=["a\udcff.mp4", "b", "c", "d"],
        chosen={},
    )
    record = {"results": [dataclasses.asdict(found)], "skipped": {"train": ["x\udcff\u2028.mp4"]}}
    results_file.write(tmp_path / "results.json", record)
    read = results_file.read(tmp_path / "results.json")
    assert read["results"] == [found]
    assert read["skipped"] == record["skipped"]
    assert "走る" in (tmp_path / "results.json").read_text(encoding="utf-8")
    line = {"schema": results_file.SCHEMA, "version": results_file.VERSION, "checkpoint": {"step": 3}, **record}
    (tmp_path / "all.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", errors="backslashreplace")
    assert results_file.read(tmp_path / "all.jsonl")["results"] == [found]


def test_probe_that_did_not_converge_is_marked_in_the_table(tmp_path):
    lines = table.table([scored(converged=value) for value in (False, True, None)]).splitlines()
    assert ["(not converged)" in line for line in lines[2:]] == [True, False, False]
    assert len(set(map(len, lines))) == 1
    assert scored().converged is None
    folds = [scored(converged=value) for value in (True, False)]
    assert probe_result.pool(folds).converged is False
    assert probe_result.pool(folds[:1]).converged is True
    assert probe_result.pool([scored(), scored()]).converged is None
