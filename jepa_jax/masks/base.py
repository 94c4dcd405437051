"""The base class of masks."""

import abc
import dataclasses

import jax
from jaxtyping import Array, Float, Int

Grid = tuple[int, int, int]  # tokens in time, height and width


class Mask(abc.ABC):
    """Base class of masks: a frozen dataclass of settings that plans token counts and draws positions.

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
        """Returns the mask with its token counts on a grid; depends only on the settings and the grid.

        Raises:
            ValueError: the grid is too small for this mask.
        """

    @abc.abstractmethod
    def draw(
        self, plan: "MaskPlan", key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
    ) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
        """Returns the context and target positions of each clip, ascending in time-major order; traced under jit.

        A clip's context and target are disjoint, and their sizes match the plan.
        """


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """A mask on a grid, with its token counts."""

    mask: Mask
    grid: Grid
    context: int  # K
    target: int  # M
