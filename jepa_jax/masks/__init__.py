"""Masks: which tokens of a clip are visible (context) and which are predicted (target).

Each kind of mask is a frozen dataclass of settings that derives from `base.Mask`. It has its own module and one line in
`CLASSES`; `config.masks.NAME.kind` selects it. `plan` fixes the token counts, so shapes are static.
"""

import jax
from jaxtyping import Array, Float, Int

from jepa_jax.masks.base import Grid, Mask, MaskPlan
from jepa_jax.masks.block import BlockMask
from jepa_jax.masks.motion_guided import motion_map
from jepa_jax.masks.random_tokens import RandomTokens

__all__ = ["CLASSES", "Grid", "Mask", "MaskPlan", "draw", "draw_all", "motion_map", "plan"]

CLASSES: dict[str, type] = {
    "block": BlockMask,
    "random_tokens": RandomTokens,
}


def plan(mask: object, grid: Grid) -> MaskPlan:
    """Returns the mask with its token counts on a grid.

    Raises:
        ValueError: the mask is not a `Mask`, or its counts do not fit the grid.
    """
    if not isinstance(mask, Mask):
        raise ValueError(f"{type(mask).__qualname__} is not a mask; derive it from jepa_jax.masks.Mask")
    planned, tokens = mask.plan(grid), grid[0] * grid[1] * grid[2]
    if planned.context < 1 or planned.target < 1 or planned.context + planned.target > tokens:
        raise ValueError(
            f"{type(mask).__qualname__} plans {planned.context} context and {planned.target} target tokens; "
            f"expected at least one of each, and together at most the clip's {tokens}"
        )
    return planned


def draw(
    plan: MaskPlan, key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
    """Returns the context and target positions of each clip, ascending in time-major order.

    Args:
        plan: from `plan`.
        key: a PRNG key.
        batch: number of clips.
        motion_BxTxHxW: from `motion_map`; needed if the mask follows motion.

    Raises:
        ValueError: the mask follows motion but no motion map is given, or the drawn counts differ from the plan.
    """
    if plan.mask.follows_motion and motion_BxTxHxW is None:
        raise ValueError(f"{type(plan.mask).__qualname__} follows motion: pass the motion map")
    context_BxK, target_BxM = plan.mask.draw(plan, key, batch, motion_BxTxHxW)
    if context_BxK.shape != (batch, plan.context) or target_BxM.shape != (batch, plan.target):
        raise ValueError(
            f"{type(plan.mask).__qualname__} draws context {context_BxK.shape} and target {target_BxM.shape}; "
            f"its plan says {(batch, plan.context)} and {(batch, plan.target)}"
        )
    return context_BxK, target_BxM


def draw_all(
    plans: tuple[MaskPlan, ...], key: jax.Array, clips: Float[Array, "B F Y X C"]
) -> list[tuple[Int[Array, "B _"], Int[Array, "B _"]]]:
    """Returns context [B, K] and target [B, M] of each mask, for normalised clips. Mask i uses `fold_in(key, i)`."""
    motion = None
    if any(plan.mask.follows_motion for plan in plans):
        motion = motion_map(clips, plans[0].grid)
    return [draw(plan, jax.random.fold_in(key, i), clips.shape[0], motion) for i, plan in enumerate(plans)]
