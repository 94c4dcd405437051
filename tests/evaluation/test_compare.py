import dataclasses

import numpy as np
import pytest

from jepa_jax.evaluation.results import compare, probe_result, results_file

LABELS = np.arange(400, dtype=np.int32) % 4
NAMES = [f"{i}.avi" for i in range(400)]


def answers(share, seeds=1, seed=0):
    wrong = np.random.default_rng(seed).random((seeds, 400)) >= share
    return np.where(wrong, (LABELS + 1) % 4, LABELS)


def row(share, seed=0, item_names=NAMES, **changes):
    settings = {"features": "trained", "task": "order", "probe": "linear"} | changes
    return probe_result.score(
        predicted_SxI=answers(share, seed=seed),
        train_labels=LABELS,
        test_labels=LABELS,
        class_names=("a", "b", "c", "d"),
        item_names=item_names,
        chosen={"lr": 0.1},
        **settings,
    )


@pytest.fixture
def write(tmp_path):
    def write(name, *rows, epochs=3, sprites=None):
        record = {
            "results": [dataclasses.asdict(found) for found in rows],
            "checkpoint": {"source": f"runs/{name}", "step": 5, "weights": "ema"},
            "settings": {"probes": {"linear": {"epochs": epochs}}},
        }
        if sprites:
            record["settings"]["test"] = {"kind": "sprites"}
            record["versions"] = {"sprites": sprites}
        results_file.write(tmp_path / f"{name}.json", record)
        return tmp_path / f"{name}.json"

    return write


def lines(text, *words):
    return [line for line in text.splitlines() if line.startswith(words)]


def test_differences_that_are_not_significant_are_marked(write):
    paths = [write("a", row(0.5)), write("b", row(0.8, seed=1)), write("c", row(0.46, seed=2))]
    text = compare.compare(paths)
    (line,) = lines(text, "order")
    cells = line.split()
    accuracies = [np.mean(answers(share, seed=seed) == LABELS) for share, seed in ((0.5, 0), (0.8, 1), (0.46, 2))]
    assert [cells[3], cells[6], cells[12]] == [f"{100 * accuracy:.1f}" for accuracy in accuracies]
    assert cells[9] == f"{100 * (accuracies[1] - accuracies[0]):+.1f}"
    assert line.count("~") == 1
    assert line.rstrip().endswith("~"), "only the third file does not differ significantly"
    assert "~  not statistically significant" in text
    assert "A: " in text
    assert "runs/a, step 5, ema" in text


def test_other_items_and_settings_are_marked(write):
    same, other = row(0.5), row(0.5, seed=1, item_names=[f"other/{name}" for name in NAMES])
    text = compare.compare([write("a", same), write("b", other, epochs=9)])
    (line,) = lines(text, "order")
    assert line.rstrip().endswith("~us")
    assert "u  not the same test items" in text
    assert "s  not the same probe settings" in text
    (line,) = lines(compare.compare([write("a", same), write("c", same)]), "order")
    assert "+0.0 [-0.5, +0.5] ~" in line


def test_rows_are_matched_by_task_probe_and_features(write):
    first = write("a", row(0.5), row(0.3, features="untrained"))
    second = write("b", row(0.3, features="untrained"), row(0.9, task="motion"))
    text = compare.compare([first, second])
    assert [line.split()[:3] for line in lines(text, "order", "motion")] == [["order", "linear", "untrained"]]
    assert "2 results without a counterpart are left out" in text


def test_files_that_cannot_be_compared_raise(write):
    with pytest.raises(results_file.ResultsError, match="needs two or more results files; found 1"):
        compare.compare([write("a", row(0.5))])
    with pytest.raises(results_file.ResultsError, match="in common with the others; it has order linear trained"):
        compare.compare([write("a", row(0.5)), write("b", row(0.5, task="motion"))])


def test_results_of_different_versions_of_sprites_are_refused(write):
    old, new = (write(f"v{version}", row(0.5), sprites=version) for version in (2, 3))
    with pytest.raises(results_file.ResultsError, match=r"v2.json has results of version 2 of sprites.*v3.json of"):
        compare.compare([old, new])
    assert "order" in compare.compare([new, write("same", row(0.6), sprites=3), write("files", row(0.5))])
