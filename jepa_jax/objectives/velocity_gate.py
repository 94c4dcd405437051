"""Velocity gate: visible tokens stay constant where their targets move slowly."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs
from jepa_jax.settings import share


@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityGate(base.Objective):
    """Mean over temporal pairs of gate·|z(t+1) − z(t)|; closed gates count as zeros (arXiv:2605.17165).

    A gate is 1 where ‖h(t+1) − h(t)‖₂ is at most its quantile over all H·W positions of that clip and time step.
    """

    quantile: float = 0.5

    def __post_init__(self) -> None:
        share(self, "quantile")

    def value(self, head: base.Params, latents: base.Latents, context: base.StepContext) -> Float[Array, ""]:
        """Returns the mean over the temporal pairs of each mask. All masks share the gates."""
        if latents.grid[0] < 2:
            return jnp.zeros(())
        gate_BxNx1 = gates(latents.target_BxNxD, latents.grid, self.quantile)

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            gate_BxKx1 = temporal_pairs.at(gate_BxNx1, pairs.index_BxK)
            return pairs.mean(gate_BxKx1 * jnp.abs(pairs.change(view.context_BxKxD)))

        return base.mean_over_masks(of_view, latents)


def gates(h_BxNxD: Float[Array, "B N D"], grid: tuple[int, int, int], quantile: float) -> Float[Array, "B N 1"]:
    """Returns 1 where a position moves at most as fast as the quantile of its clip and time step, else 0.

    The last time step has no motion; its gates are 0.
    """
    time, height, width = grid
    h_BxTxHWxD = jax.lax.stop_gradient(h_BxNxD).astype(jnp.float32).reshape(-1, time, height * width, h_BxNxD.shape[-1])
    speed_BxTxHW = jnp.linalg.norm(h_BxTxHWxD[:, 1:] - h_BxTxHWxD[:, :-1], axis=-1)
    open_BxTxHW = speed_BxTxHW <= jnp.quantile(speed_BxTxHW, quantile, axis=-1, keepdims=True)
    open_BxTxHW = jnp.pad(open_BxTxHW, ((0, 0), (0, 1), (0, 0)))
    return open_BxTxHW.astype(jnp.float32).reshape(h_BxNxD.shape[0], -1, 1)
