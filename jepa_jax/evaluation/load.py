"""A frozen encoder in Python: `jepa_jax.load(CHECKPOINT).encode(clips)`."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Num, UInt8

from jepa_jax.config import Config
from jepa_jax.data import augment, sampling
from jepa_jax.data.decode import images, videos
from jepa_jax.data.listing import file_types
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor
from jepa_jax.progress import Progress
from jepa_jax.settings import nearest

TOKENS = ("mean", "frames", "all")


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """A frozen encoder that turns clips into features."""

    frozen: frozen_encoder.FrozenEncoder
    extractor: extractor.FeatureExtractor

    @property
    def config(self) -> Config:
        """The settings of the training run."""
        return self.frozen.config

    def encode(
        self,
        clips: UInt8[np.ndarray, "I F Y X 3"] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        tokens: str = "mean",
        level: str | int = "last",
        batch_size: int = 8,
    ) -> Float32[np.ndarray, "I ..."]:
        """The features of clips.

        Args:
            clips: RGB frames, uint8 [clips, frames, height, width, 3]; or the path of a video or image, or a list of
                them, each read as `evaluate` does: frames spread over the whole video, centre square, at the size that
                the encoder was trained with. An image is one frame (F = 1), which the encoder embeds by its image path.
            tokens: "mean" [clips, E], the mean over a clip's tokens; "frames" [clips, T, E], over those of each time
                step; "all" [clips, N, E], every token, time-major.
            level: "last"; a number from 1; or "all", the levels concatenated (E becomes D).
            batch_size: clips encoded together; the last batch is padded.

        Returns:
            float32 features, one row a clip.

        Raises:
            DecodeError: a file that cannot be decoded.
            ValueError: frames of another type or shape, or features that this encoder does not have.
        """
        if tokens not in TOKENS:
            raise ValueError(f"tokens is {tokens!r}.{nearest(tokens, TOKENS)}")
        kind = extractor.kind_of(tokens, str(level))
        batches = _batches(clips, batch_size, self.config)
        features = []
        with Progress(len(batches), "batch", clips_each=batch_size, shown=len(batches) > 1) as bar:
            for number, batch in enumerate(batches, start=1):
                video_BxFxYxXxC, valid = batch()
                row_B = np.arange(len(video_BxFxYxXxC), dtype=np.int32)
                self._check(kind, level, video_BxFxYxXxC.shape[1:])
                made = _encode(self.extractor.apply, kind, self.extractor.params, video_BxFxYxXxC, row_B)
                features.append(np.asarray(made)[:valid])
                bar.update(number)
        return np.concatenate(features)

    def _check(self, kind: str, level: str | int, clip_shape: tuple[int, ...]) -> None:
        known = self.extractor.row_shapes(clip_shape)
        if kind not in known:
            levels = [number for number in range(1, 100) if extractor.kind_of("mean", str(number)) in known]
            raise ValueError(f"level is {level!r}; expected 'last', 'all' or a number from 1 to {max(levels)}.")


def load(checkpoint: str) -> LoadedEncoder:
    """The frozen encoder of a training run.

    Args:
        checkpoint: WORKDIR (its last checkpoint), WORKDIR:STEP, or an encoder before training: random:WORKDIR or
            random:CONFIG[:RECIPE].

    Raises:
        ConfigError: no training run or config of this name.
        CheckpointError: no checkpoint, none of that step, or a damaged one.

    Example:
        >>> import jepa_jax
        >>> encoder = jepa_jax.load("random:quickstart")
        >>> clips = np.zeros((2, 8, 32, 32, 3), np.uint8)  # 2 clips of 8 frames
        >>> encoder.encode(clips).shape
        (2, 128)
        >>> encoder.encode(clips, tokens="all", level=2).shape
        (2, 64, 128)
    """
    frozen = frozen_encoder.load(checkpoint)
    dtype = frozen.config.dtype
    resolved = frozen_encoder.resolve_attention(frozen, frozen.config.clip, dtype)
    return LoadedEncoder(frozen, extractor.of_encoder(resolved, dtype))


def _batches(clips: Any, batch_size: int, config: Config) -> list[Any]:
    """Functions that return a batch of frames [batch_size, F, Y, X, 3] each, and how many clips of it are wanted."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
    if isinstance(clips, str | os.PathLike):
        clips = [clips]
    read = _as_they_are if isinstance(clips, np.ndarray) else functools.partial(_read, config=config)
    if isinstance(clips, np.ndarray) and (clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3):
        raise ValueError(
            f"clips are {clips.dtype} {list(clips.shape)}; expected uint8 (0 to 255) [clips, frames, height, width, 3]."
        )
    if not len(clips):
        raise ValueError("there are no clips; expected at least one.")
    batch_size = min(batch_size, len(clips))
    return [
        functools.partial(_padded, read, clips[start : start + batch_size], batch_size)
        for start in range(0, len(clips), batch_size)
    ]


def _padded(read: Any, clips: Any, batch_size: int) -> tuple[Num[np.ndarray, "B F Y X 3"], int]:
    video_BxFxYxXxC = read(clips)
    missing = batch_size - len(video_BxFxYxXxC)
    return np.concatenate([video_BxFxYxXxC, np.repeat(video_BxFxYxXxC[-1:], missing, axis=0)]), len(clips)


def _as_they_are(clips: np.ndarray) -> np.ndarray:
    return clips


def _read(paths: Sequence[str | os.PathLike[str]], config: Config) -> np.ndarray:
    names = [os.fspath(path) for path in paths]
    views = [_view(name, config) for name in names]
    if len({view.shape for view in views}) > 1:
        raise ValueError(f"{', '.join(names)} are videos and images; encode them separately.")
    return np.stack(views)


def _view(path: str, config: Config) -> np.ndarray:
    clip = config.clip
    if os.path.splitext(path)[1].lower() in file_types.IMAGE_SUFFIXES:
        return augment.centre_view_of_image(images.read_image(path), clip.height, clip.width)[None]
    frames = videos.read_clip(path, lambda count, _: sampling.spread_window(count, clip.frames))
    return augment.centre_view(frames, clip.height, clip.width)


@functools.partial(jax.jit, static_argnames=("apply", "kind"))
def _encode(apply: extractor.Apply, kind: str, params: Any, video: Any, row: Any) -> Array:
    with jax.default_matmul_precision(None):
        return apply(params, video, row)[kind].astype(jnp.float32)
