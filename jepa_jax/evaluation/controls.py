"""Controls of an evaluation: features of pixels, and the trained encoder on clips without motion or order.

Each control has its own probe, trained on the control's features of the training clips. The probe measures how much can
be predicted from them. `reversed` is the exception: the probe trained on unchanged clips is scored on test clips played
backwards, against the labels of the reversed clips.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jepa_jax.evaluation.eval_config import Control
from jepa_jax.evaluation.features.extractor import Apply, FeatureExtractor, Row, Video

REVERSED: Control = "reversed"
OF_ENCODER: tuple[Control, ...] = ("one frame", "shuffled", REVERSED)  # the others are of pixels and need no encoder
SIDE = 16  # pixels per side to which clips are averaged for controls of pixels


def encoder(control: Control, trained: FeatureExtractor, seed: int) -> FeatureExtractor:
    """Returns the feature extractor of a control.

    Args:
        control: pixels: "raw pixels" (one frame, at a uniformly random time), "first frame", "frame differences",
            "frame means" (mean colour of each frame) or "difference energy" (mean squared change from frame to frame).
            Trained encoder: "one frame" (repeated, at a uniformly random time), "shuffled" or "reversed" frames.
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
        case "frame means":
            return _pixels(FrameMeans(), {"pixels": "frame means"})
        case "difference energy":
            return _pixels(DifferenceEnergy(), {"pixels": "difference energy"})
        case "one frame":
            return trained.after(f"one frame, seed {seed}", OneFrame(seed))
        case "shuffled":
            return trained.after(f"shuffled, seed {seed}", Shuffled(seed))
        case "reversed":
            return trained.after("reversed", Backwards())


def _pixels(apply: Apply, identity: Mapping[str, Any]) -> FeatureExtractor:
    return FeatureExtractor(apply, {}, {**identity, "side": SIDE})


@dataclasses.dataclass(frozen=True)
class OneFrame:
    """Repeats one uniformly random frame of each clip: keeps appearance, removes motion."""

    seed: int

    def __call__(self, video: Video, row: Row) -> Video:
        """Returns clips of the same shape; row number and seed determine the frame."""
        return jnp.repeat(random_frame(self.seed, video, row), video.shape[1], axis=1)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Shuffles the frames of each clip: keeps all frames, removes their order."""

    seed: int

    def __call__(self, video: Video, row: Row) -> Video:
        """Returns clips of the same shape; row number and seed determine the order."""
        keys = _keys(self.seed, row)
        order_BxF = jax.vmap(lambda key: jax.random.permutation(key, video.shape[1]))(keys)
        return jnp.take_along_axis(video, order_BxF[:, :, None, None, None], axis=1)


@dataclasses.dataclass(frozen=True)
class Backwards:
    """Plays clips backwards."""

    def __call__(self, video: Video, row: Row) -> Video:
        """Returns each clip's frames from the last to the first."""
        del row
        return jnp.flip(video, axis=1)


@dataclasses.dataclass(frozen=True)
class FramePixels:
    """Coarse pixels of one frame: the first, or with a seed a uniformly random one."""

    seed: int | None = None

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, V], and as a single token [B, 1, V]; V = pixels × 3, in 0…1."""
        frame = video[:, :1] if self.seed is None else random_frame(self.seed, video, row)
        return _as_tokens(coarse(frame).reshape(len(row), 1, -1))


@dataclasses.dataclass(frozen=True)
class FrameDifferences:
    """Coarse absolute differences of successive frames, averaged over colours."""

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, (F − 1)·V], and with one token per pair of frames [B, F − 1, V]; V = pixels, in 0…1."""
        difference = jnp.abs(jnp.diff(video.astype(jnp.float32), axis=1)).mean(-1, keepdims=True)
        return _as_tokens(coarse(difference).reshape(*difference.shape[:2], -1))


@dataclasses.dataclass(frozen=True)
class FrameMeans:
    """The mean colour of each frame."""

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, F·3], and with one token per frame [B, F, 3], in 0…1."""
        return _as_tokens(video.astype(jnp.float32).mean((2, 3)) / 255)


@dataclasses.dataclass(frozen=True)
class DifferenceEnergy:
    """The mean squared change of pixels between successive frames."""

    def __call__(self, params: Any, video: Video, row: Row) -> dict[str, Float[Array, "B ..."]]:
        """Features [B, F − 1], and with one token per pair of frames [B, F − 1, 1], in 0…1."""
        change = jnp.diff(video.astype(jnp.float32) / 255, axis=1)
        return _as_tokens(jnp.square(change).mean((2, 3, 4))[..., None])


def random_frame(seed: int, video: Video, row: Row) -> Num[Array, "B 1 Y X 3"]:
    """One frame of each clip at a uniformly random time; seed and row number determine it."""
    time_B = jax.vmap(lambda key: jax.random.randint(key, (), 0, video.shape[1]))(_keys(seed, row))
    return jnp.take_along_axis(video, time_B[:, None, None, None, None], axis=1)


def coarse(frames: Num[Array, "B F Y X C"]) -> Float[Array, "B F y x C"]:
    """Averages frames over squares to about SIDE pixels per side; in 0…1."""
    side = frames.shape[2]
    step = max(1, side // SIDE)
    kept = side // step  # a remainder at the right and lower edges is cut off
    cut = frames[:, :, : kept * step, : kept * step].astype(jnp.float32) / 255
    return cut.reshape(*frames.shape[:2], kept, step, kept, step, frames.shape[-1]).mean((3, 5))


def _as_tokens(tokens_BxSxV: Float[Array, "B S V"]) -> dict[str, Float[Array, "B ..."]]:
    flat_BxV = tokens_BxSxV.reshape(tokens_BxSxV.shape[0], -1)
    return {"mean": flat_BxV, "frames": tokens_BxSxV, "all": tokens_BxSxV}


def _keys(seed: int, row: Row) -> Array:
    # Not the default generator, which may be rbg: its draws for a clip depend on the batch.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(row)
