import dataclasses
import json

import numpy as np
import pytest

from jepa_jax.probing import results


@pytest.fixture
def scored():
    train = np.array([0, 0, 1, 2], np.int32)
    test = np.array([0, 1, 2, 0, 1], np.int32)
    predicted = np.array([0, 1, 2, 1, 0], np.int32)
    return results.score("order", "linear", predicted, train, test, 3, 1.234)


def test_score(scored):
    assert scored.accuracy == pytest.approx(3 / 5)
    assert scored.standard_error == pytest.approx((0.6 * 0.4 / 5) ** 0.5)
    assert scored.chance == pytest.approx(1 / 3)
    assert scored.majority == pytest.approx(2 / 5)  # class 0, the commonest in training
    assert (scored.classes, scored.train, scored.test) == (3, 4, 5)


def test_table_has_a_line_for_each_result(scored):
    other = dataclasses.replace(scored, task="appearance", accuracy=1.0, standard_error=0.0)
    head, rule, first, second = results.table([scored, other]).splitlines()
    assert "accuracy %" in head
    assert set(rule) == {"─"}
    assert first.split() == ["order", "linear", "60.0", "±", "21.9", "–", "33.3", "40.0", "4", "5"]
    assert second.split()[:3] == ["appearance", "linear", "100.0"]
    assert len({len(line) for line in (head, rule, first, second)}) == 1


def test_table_has_the_untrained_encoder_beside(scored):
    beside = dataclasses.replace(scored, untrained=0.5, untrained_standard_error=0.1)
    line = results.table([beside]).splitlines()[-1]
    assert line.split() == ["order", "linear", "60.0", "±", "21.9", "50.0", "±", "10.0", "33.3", "40.0", "4", "5"]


def test_results_are_replaced_in_one_piece(tmp_path):
    file = tmp_path / "results.json"
    results.write(file, {"results": [1]})
    with pytest.raises(ValueError, match="Out of range float"):
        results.write(file, {"results": [float("nan")]})
    assert json.loads(file.read_text()) == {"results": [1]}
    results.write(file, {"results": [2]})
    assert json.loads(file.read_text()) == {"results": [2]}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
