"""Training objectives. The loss is their weighted sum. To add one, write its module and add a line here."""

from jepa_jax.objectives import (
    action,
    delta,
    factorization,
    hamiltonian,
    hard_region,
    kinematic,
    latent_dynamics,
    prediction,
    sigreg,
    spectral,
    temporal_contrastive,
    velocity_gate,
)

CLASSES: dict[str, type] = {
    "prediction": prediction.Prediction,
    "context_prediction": prediction.ContextPrediction,
    "hard_region": hard_region.HardRegion,
    "factorization_static": factorization.Static,
    "factorization_orthogonality": factorization.Orthogonality,
    "latent_dynamics": latent_dynamics.LatentDynamics,
    "delta": delta.Delta,
    "spectral": spectral.Spectral,
    "temporal_contrastive": temporal_contrastive.TemporalContrastive,
    "action": action.Action,
    "kinematic": kinematic.Kinematic,
    "velocity_gate": velocity_gate.VelocityGate,
    "hamiltonian": hamiltonian.Hamiltonian,
    "sigreg": sigreg.SIGReg,
}
