"""Velocity gate: visible tokens stand still where their targets move slowly."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityGate(term.Term):
    """Mean over temporal pairs of gate·|z(t+1) − z(t)|, closed gates counting as zeros (arXiv:2605.17165).

    A gate is 1 where ‖h(t+1) − h(t)‖₂ is at most its quantile over all H·W positions of that clip and time step.
    """

    quantile: float = 0.5

    def __post_init__(self) -> None:
        """Refuses a quantile outside [0, 1]."""
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}; expected a share in [0, 1]")

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""
        if latents.grid[0] < 2:
            return jnp.zeros(())
        gate_BxNx1 = gates(latents.target_BxNxD, latents.grid, self.quantile)

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            gate_BxKx1 = temporal_pairs.at(gate_BxNx1, pairs.index_BxK)
            return term.mean_where(gate_BxKx1 * jnp.abs(pairs.change(view.context_BxKxD)), pairs.valid)

        return term.mean_over_masks(of_view, latents)


def gates(h_BxNxD: Float[Array, "B N D"], grid: tuple[int, int, int], quantile: float) -> Float[Array, "B N 1"]:
    """1 where a position moves at most as fast as the quantile of its clip and time step, else 0 (and at the last)."""
    time, height, width = grid
    h_BxTxHWxD = jax.lax.stop_gradient(h_BxNxD).astype(jnp.float32).reshape(-1, time, height * width, h_BxNxD.shape[-1])
    speed_BxTxHW = jnp.linalg.norm(h_BxTxHWxD[:, 1:] - h_BxTxHWxD[:, :-1], axis=-1)
    open_BxTxHW = speed_BxTxHW <= jnp.quantile(speed_BxTxHW, quantile, axis=-1, keepdims=True)
    open_BxTxHW = jnp.pad(open_BxTxHW, ((0, 0), (0, 1), (0, 0)))
    return open_BxTxHW.astype(jnp.float32).reshape(h_BxNxD.shape[0], -1, 1)
