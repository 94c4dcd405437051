"""Random token dropping: a fixed fraction of the tokens, drawn uniformly, is the target; the rest is the context."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jepa_jax.masks import positions
from jepa_jax.masks.base import Grid, Mask, MaskPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomTokens(Mask):
    """Removes a fraction of the tokens (usually 0.5 to 0.95) from the context and predicts them."""

    drop: float = 0.75  # fraction of the tokens that are dropped
    tubes: bool = False  # drop the same positions at every time step

    def __post_init__(self) -> None:
        if not 0 < self.drop < 1:
            raise ValueError(f"drop is {self.drop}; expected a share greater than 0 and less than 1")

    def plan(self, grid: Grid) -> MaskPlan:
        """Returns the mask with its token counts: round(drop·N) target tokens; at least one target and one context.

        Raises:
            ValueError: the grid has one token or, for tubes, a frame has one position.
        """
        time, height, width = grid
        times = time if self.tubes else 1
        places = time * height * width // times
        if places < 2:
            where = "positions in a frame" if self.tubes else "tokens"
            raise ValueError(f"masks need at least two {where}, and the grid of tokens is {time}×{height}×{width}")
        dropped = min(max(round(self.drop * places), 1), places - 1)
        return MaskPlan(self, grid, (places - dropped) * times, dropped * times)

    def draw(
        self, plan: MaskPlan, key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
    ) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
        """Returns the context and target positions of each clip, ascending; together they are all tokens."""
        time, height, width = plan.grid
        times = time if self.tubes else 1
        places = time * height * width // times
        ranked_BxP = positions.rank(key, jnp.zeros((batch, places)))
        kept = plan.context // times
        context, target = (
            positions.over_time(index, times, places) for index in (ranked_BxP[:, :kept], ranked_BxP[:, kept:])
        )
        return jnp.sort(context, axis=-1), jnp.sort(target, axis=-1)
