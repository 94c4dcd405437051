"""Hamiltonian: one integration step with a learned energy moves each token to its next target."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, heads, temporal_pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hamiltonian(base.Objective):
    """Mean over temporal pairs of |q' − q_h(t+1)| + |p' − p_h(t+1)| (arXiv:2605.17165).

    q and p are the halves of z(t), H is a head with three Linear layers, and one step of symplectic Euler gives
    q' = q + dt·∂H/∂p(q, p), p' = p − dt·∂H/∂q(q', p).
    """

    hidden: int = 256
    dt: float = 0.1

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """Returns the parameters of a head (Linear, GELU, Linear, GELU, Linear): D → hidden → hidden → 1."""
        return heads.init_mlp(key, (dims.features, self.hidden, self.hidden, 1))

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the mean error over the temporal pairs."""

        def energy(q_BxKxR: Float[Array, "B K R"], p_BxKxR: Float[Array, "B K R"]) -> Float[Array, ""]:
            return heads.mlp(head, q_BxKxR, p_BxKxR).astype(jnp.float32).sum()

        pairs = temporal_pairs.pairs(view, latents.grid)
        q_BxKxR, p_BxKxR = jnp.split(view.context_BxKxD, 2, axis=-1)
        moved_q_BxKxR = q_BxKxR + self.dt * jax.grad(energy, argnums=1)(q_BxKxR, p_BxKxR)
        moved_p_BxKxR = p_BxKxR - self.dt * jax.grad(energy, argnums=0)(moved_q_BxKxR, p_BxKxR)
        q_h_BxKxR, p_h_BxKxR = jnp.split(pairs.at_later(latents.target_BxNxD), 2, axis=-1)
        return pairs.mean(jnp.abs(moved_q_BxKxR - q_h_BxKxR) + jnp.abs(moved_p_BxKxR - p_h_BxKxR))
