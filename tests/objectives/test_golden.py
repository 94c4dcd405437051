"""Losses and gradients of all objectives match the study's to 2e-6 and 1e-5. Zero gradients are exactly zero."""

import pathlib

import pytest

from jepa_jax.parity import comparison, objective_cases

FOLDER = comparison.Folder(pathlib.Path(__file__).parent.parent / "golden")
CASES = {case.name: case for case in objective_cases.cases(FOLDER)}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_match_the_golden_ones(name):
    assert comparison.run(CASES[name]).failed == []


def test_every_stored_case_is_compared():
    stored = {name.split("/")[0] for name in FOLDER.arrays("objectives") if name.endswith("/loss")}
    assert {f"objectives/{name}" for name in stored} <= set(CASES)
    assert len(stored) == 36


def test_nonzero_gradient_fails_if_zero_is_expected():
    """Latent dynamics as described in the paper has a gradient that the study's code lacks."""
    settings = FOLDER.meta["objectives"]["hw_ld"] | {"as_described": True}
    described = objective_cases.objectives_of(settings, FOLDER.meta["defaults"])
    result = comparison.Result("hw_ld", tuple(objective_cases.compare(FOLDER, "hw_ld", described, settings)))
    assert any(line.startswith("grad/z_enc0") for line in result.failed)
    assert any(line.startswith("grad/dyn_head.0.weight") for line in result.failed)


def test_unknown_coefficient_raises():
    with pytest.raises(ValueError, match="no objective has the coefficient other_coeff"):
        objective_cases.objectives_of({"other_coeff": 1.0, "as_described": False}, FOLDER.meta["defaults"])
