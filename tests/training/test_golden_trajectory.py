"""Five AdamW steps from the study's weights, clip and masks give the study's losses and parameters."""

import pathlib

import pytest

from jepa_jax.golden import comparison, trajectories

CASES = list(trajectories.cases(comparison.Folder(pathlib.Path(__file__).parent.parent / "golden")))
PARAMETERS = {"trajectory/baseline": 370, "trajectory/fwm_hw_ld": 370, "trajectory/fwm_hw_ld_as_described": 374}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_five_steps(case):
    result = comparison.run(case)
    assert result.failed == []
    norms = sum(c.name.startswith("norm of") for c in result.comparisons)
    assert norms == PARAMETERS.get(case.name, 215)


def test_every_trajectory_is_there():
    assert len(CASES) == 4
