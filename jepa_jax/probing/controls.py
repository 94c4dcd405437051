"""What the trained encoder is reported beside: pixels, and the encoder itself on clips that lost something.

A probe of its own is trained for each control, on the control's features of the training clips, so that it shows what
*could* be read from what is left. All but `reversed`: there the probe trained on clips as they are is shown test clips
played backwards, and is right where it gives the label of the reversed clip.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jepa_jax.probing.config import Control
from jepa_jax.probing.encoding import Apply, Encode, Row, Video

REVERSED: Control = "reversed"
SIDE = 16  # pixels a side that clips are averaged to, where pixels take the place of features


def encoder(control: Control, trained: Encode, seed: int) -> Encode:
    """The control of this name as a function of clips.

    Args:
        control: of the clips' pixels, "raw pixels" (one frame, at a uniformly random time), "first frame" or "frame
            differences"; or of the trained encoder on clips of "one frame" repeated (at a uniformly random time),
            "shuffled", or "reversed".
        trained: the trained encoder.
        seed: of random times and orders.
    """
    match control:
        case "raw pixels":
            return _pixels(FramePixels(seed), {"pixels": "one frame", "seed": seed})
        case "first frame":
            return _pixels(FramePixels(), {"pixels": "first frame"})
        case "frame differences":
            return _pixels(FrameDifferences(), {"pixels": "frame differences"})
        case "one frame":
            return trained.after(f"one frame, seed {seed}", OneFrame(seed))
        case "shuffled":
            return trained.after(f"shuffled, seed {seed}", Shuffled(seed))
        case "reversed":
            return trained.after("reversed", Backwards())


def _pixels(apply: Apply, identity: Mapping[str, Any]) -> Encode:
    return Encode(apply, {}, {**identity, "side": SIDE})


@dataclasses.dataclass(frozen=True)
class OneFrame:
    """Clips that repeat one of their frames, drawn uniformly for each clip: how things look, without change or time."""

    seed: int

    def __call__(self, video: Video, row: Row) -> Video:
        """Of each clip the frame that its row number and the seed choose, as often as the clip has frames."""
        return jnp.repeat(random_frame(self.seed, video, row), video.shape[1], axis=1)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Clips whose frames come in a random order of their own: all that is seen, without when."""

    seed: int

    def __call__(self, video: Video, row: Row) -> Video:
        """The frames of each clip in the order that its row number and the seed choose."""
        keys = _keys(self.seed, row)
        order_BxF = jax.vmap(lambda key: jax.random.permutation(key, video.shape[1]))(keys)
        return jnp.take_along_axis(video, order_BxF[:, :, None, None, None], axis=1)


@dataclasses.dataclass(frozen=True)
class Backwards:
    """Clips played backwards."""

    def __call__(self, video: Video, row: Row) -> Video:
        """The frames of each clip from the last to the first."""
        del row
        return jnp.flip(video, axis=1)


@dataclasses.dataclass(frozen=True)
class FramePixels:
    """The colours of one frame, coarsely: of the first, or of one drawn uniformly for each clip."""

    seed: int | None = None

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, V], and as the one token of the clip [B, 1, V]; V = pixels × 3, in 0…1."""
        frame = video[:, :1] if self.seed is None else random_frame(self.seed, video, row)
        return _as_tokens(coarse(frame).reshape(len(row), 1, -1))


@dataclasses.dataclass(frozen=True)
class FrameDifferences:
    """How much each region changes from one frame to the next: the magnitude, averaged over colours."""

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, (F − 1)·V], and with one token a pair of frames [B, F − 1, V]; V = pixels, in 0…1."""
        difference = jnp.abs(jnp.diff(video.astype(jnp.float32), axis=1)).mean(-1, keepdims=True)
        return _as_tokens(coarse(difference).reshape(*difference.shape[:2], -1))


def random_frame(seed: int, video: Video, row: Row) -> Num[Array, "B 1 Y X 3"]:
    """One frame of each clip, at a uniformly random time that depends on seed and row number alone."""
    time_B = jax.vmap(lambda key: jax.random.randint(key, (), 0, video.shape[1]))(_keys(seed, row))
    return jnp.take_along_axis(video, time_B[:, None, None, None, None], axis=1)


def coarse(frames: Num[Array, "B F Y X C"]) -> Float[Array, "B F y x C"]:
    """Frames averaged over squares, to SIDE pixels a side where that divides them evenly, or about as many; in 0…1."""
    side = frames.shape[2]
    step = max(1, side // SIDE)
    kept = side // step  # what is left over at the right and lower edge is not seen
    cut = frames[:, :, : kept * step, : kept * step].astype(jnp.float32) / 255
    return cut.reshape(*frames.shape[:2], kept, step, kept, step, frames.shape[-1]).mean((3, 5))


def _as_tokens(tokens_BxSxV: Float[Array, "B S V"]) -> dict[str, Float[Array, "B ..."]]:
    flat_BxV = tokens_BxSxV.reshape(tokens_BxSxV.shape[0], -1)
    return {"mean": flat_BxV, "frames": tokens_BxSxV, "all": tokens_BxSxV}


def _keys(seed: int, row: Row) -> Array:
    # The generator is named: another default (rbg) would make a clip's draw depend on its batch.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(row)
