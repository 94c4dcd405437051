"""Every objective's loss and gradients agree with the study's: 2e-6 and 1e-5, and exactly zero where it has none."""

import pathlib

import pytest

from jepa_jax.parity import comparison, objective_cases

FOLDER = comparison.Folder(pathlib.Path(__file__).parent.parent / "golden")
CASES = {case.name: case for case in objective_cases.cases(FOLDER)}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients(name):
    assert comparison.run(CASES[name]).failed == []


def test_every_stored_case_is_compared():
    stored = {name.split("/")[0] for name in FOLDER.arrays("objectives") if name.endswith("/loss")}
    assert {f"objectives/{name}" for name in stored} <= set(CASES)
    assert len(stored) == 36


def test_a_gradient_that_should_be_zero_must_be_exactly_zero():
    """Latent dynamics as the paper describes it fails the case of the code, in which it has no gradient."""
    settings = FOLDER.meta["objectives"]["hw_ld"] | {"as_described": True}
    described = objective_cases.objectives_of(settings, FOLDER.meta["defaults"])
    result = comparison.Result("hw_ld", tuple(objective_cases.compare(FOLDER, "hw_ld", described, settings)))
    assert any(line.startswith("grad/z_enc0") for line in result.failed)
    assert any(line.startswith("grad/dyn_head.0.weight") for line in result.failed)


def test_a_setting_that_means_nothing_here_is_refused():
    with pytest.raises(ValueError, match="no objective has the coefficient other_coeff"):
        objective_cases.objectives_of({"other_coeff": 1.0, "as_described": False}, FOLDER.meta["defaults"])
