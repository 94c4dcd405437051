"""The base class of masks."""

import abc
import dataclasses

import jax
from jaxtyping import Array, Float, Int

Grid = tuple[int, int, int]  # tokens in time, height and width


class Mask(abc.ABC):
    """A kind of mask: a frozen dataclass of settings that plans token counts and draws positions.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Checkerboard(Mask):
        ...     def plan(self, grid):
        ...         tokens = grid[0] * grid[1] * grid[2]
        ...         return MaskPlan(self, grid, context=tokens // 2, target=tokens // 2)
        ...
        ...     def draw(self, plan, key, batch, motion_BxTxHxW=None):
        ...         index_BxP = jnp.broadcast_to(2 * jnp.arange(plan.context), (batch, plan.context))
        ...         return index_BxP, index_BxP + 1
    """

    @property
    def follows_motion(self) -> bool:
        """Whether `draw` needs the motion map."""
        return False

    @abc.abstractmethod
    def plan(self, grid: Grid) -> "MaskPlan":
        """The mask with its token counts on a grid: a function of the settings and the grid alone.

        Raises:
            ValueError: the grid is too small for this mask.
        """

    @abc.abstractmethod
    def draw(
        self, plan: "MaskPlan", key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
    ) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
        """Context and target positions of each clip, ascending in time-major order; traced under jit.

        A clip's context and target are disjoint. Their counts are those of the plan.
        """


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """A mask on a grid, with its token counts."""

    mask: Mask
    grid: Grid
    context: int  # K
    target: int  # M
