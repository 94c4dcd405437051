"""The table of the study: which objectives there are, and which recipe uses which."""

from jepa_jax.objectives import base, prediction

OBJECTIVES: dict[str, type] = {
    "prediction": prediction.Prediction,
    "context_prediction": prediction.ContextPrediction,
}


def baseline() -> dict[str, base.Objective]:
    """The objectives of every recipe."""
    return {"prediction": prediction.Prediction(), "context_prediction": prediction.ContextPrediction()}
