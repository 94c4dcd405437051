"""A frozen encoder in Python: from videos, images or arrays to features."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Num, UInt8

from jepa_jax import models
from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor
from jepa_jax.inference import clip_reading
from jepa_jax.models import pixels
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing
from jepa_jax.progress import Progress

Path = str | os.PathLike[str]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["by_level"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of a batch of clips; a pytree.

    Attributes:
        by_level: of every token and level. float32; a numpy array, or a JAX array from `VideoEncoder.apply`.
    """

    by_level: Float[Array | np.ndarray, "B T H W L E"]

    @property
    def tokens(self) -> Float[Array | np.ndarray, "B T H W E"]:
        """The encoder's output: the tokens of the last level."""
        return self.by_level[..., -1, :]

    @property
    def levels(self) -> tuple[Float[Array | np.ndarray, "B T H W E"], ...]:
        """The tokens of each level, from the first; `tokens` is the last. V-JEPA 2 has one level."""
        return tuple(self.by_level[..., level, :] for level in range(self.by_level.shape[-2]))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tokens in time, height and width."""
        time, height, width = self.by_level.shape[1:4]
        return time, height, width

    def mean(self) -> Float[Array | np.ndarray, "B E"]:
        """Returns one vector for each clip, the mean of its tokens."""
        return self.tokens.mean((1, 2, 3))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "predictor_params"],
    meta_fields=["settings", "predictor_settings", "clip", "dtype", "preprocessing", "source"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class VideoEncoder:
    """An encoder with its parameters; a pytree whose leaves are the parameters.

    `encoder(clips)` decodes, resizes, normalizes and encodes. `encoder.apply(params, video)` is the pure function of
    it, for programs of your own: it can be traced, differentiated and compiled.

    Attributes:
        params: of the encoder, float32, nested dict.
        settings: of the encoder.
        clip: frames and size of clips that are read from files; of training, by default.
        dtype: of the computation; features are float32.
        preprocessing: of clips that are read from files, and normalization of all.
        source: the run or file it comes from.
        predictor_params: of the predictor; None without one.
        predictor_settings: of the predictor.
    """

    params: Any
    settings: EncoderConfig
    clip: ClipConfig
    dtype: str = "float32"
    preprocessing: Preprocessing = TRAINED_HERE
    source: str = ""
    predictor_params: Any = None
    predictor_settings: PredictorConfig | None = None

    def __call__(
        self,
        clips: Path
        | UInt8[np.ndarray, "F Y X 3"]
        | UInt8[np.ndarray, "B F Y X 3"]
        | Sequence[Path]
        | Sequence[UInt8[np.ndarray, "F Y X 3"]],
        *,
        frames: int = 0,
        size: int | tuple[int, int] = 0,
    ) -> VideoFeatures:
        """Returns the features of clips, in host memory: 4 · N · L · E bytes for each clip.

        Files are read as the encoder's own evaluation reads them: frames spread over the whole video, resized, centre
        crop. An image is a clip of one frame. Arrays are encoded at the size they have. Each shape and number of clips
        is compiled once; many clips are encoded in batches, on all devices, while the next ones are decoded.

        Args:
            clips: the path of a video or image, RGB frames (0 to 255), or several of them.
            frames: of a clip from a file; 0: `self.clip.frames`.
            size: of a clip from a file in pixels, its side or (height, width); 0: `self.clip.size`.

        Raises:
            DecodeError: a file that cannot be decoded.
            ValueError: no clips; clips of another type or of several shapes; or a shape that is not a grid of tokens.

        Example:
            >>> import jepa_jax
            >>> encoder = jepa_jax.load("random:quickstart")
            >>> clips = np.zeros((2, 8, 32, 32, 3), np.uint8)  # 2 clips of 8 frames
            >>> features = encoder(clips)
            >>> features.tokens.shape, features.mean().shape, len(features.levels)
            ((2, 4, 4, 4, 128), (2, 128), 4)
        """
        clip = ClipConfig(frames=frames or self.clip.frames, size=size or self.clip.size)
        reader = clip_reading.open_clips(clips, clip, self.preprocessing)
        video = jax.ShapeDtypeStruct((1, *reader.shape), jnp.float32)
        grid = models.build_encoder(self.settings).grid(video)
        program = self._program(reader.shape)
        device = extractor.Device()
        most = device.batch_size(0, reader.count, grid[0] * grid[1] * grid[2])
        batch_size = device.batch_size(-(-reader.count // -(-reader.count // most)), reader.count, 1)
        params = device.replicate(self.params)
        by_level = np.empty((reader.count, *grid, self.settings.levels, program.module.size.width), np.float32)
        done = 0
        with Progress(reader.count, "clips", shown=reader.count > batch_size) as bar:
            batches = ({"video": video, "count": count} for count, video in reader.batches(batch_size))
            encode = functools.partial(_encode, program, params)
            for batch, encoded in extractor.pipelined(batches, lambda batch: encode(device.split(batch["video"]))):
                by_level[done : done + batch["count"]] = np.asarray(encoded)[: batch["count"]]
                done += batch["count"]
                bar.update(done)
        return VideoFeatures(by_level)

    def apply(self, params: Any, video: Num[Array | np.ndarray, "B F Y X 3"]) -> VideoFeatures:
        """Returns the features of a batch, as a pure function of parameters and pixels.

        Args:
            params: like `self.params`.
            video: RGB values in 0…255, of any dtype.

        Raises:
            ValueError: clips that do not divide into tubelets.
        """
        return VideoFeatures(
            _Program(models.build_encoder(self.settings, self.dtype), self.preprocessing)(params, video)
        )

    def predict(
        self,
        clips: UInt8[np.ndarray, "F Y X 3"] | UInt8[np.ndarray, "B F Y X 3"] | Path | Sequence[Path],
        context: Int[np.ndarray, "*B K"] | Sequence[int],
        target: Int[np.ndarray, "*B M"] | Sequence[int],
    ) -> Float32[np.ndarray, "B M output"]:
        """Returns the predictor's output at masked positions, from the features of visible ones.

        As in training, the encoder sees only the tokens at `context`. The output has the channels of the target
        encoder's features: D for most runs and V-JEPA 2.1, E for V-JEPA 2, 1664 for the distilled V-JEPA 2.1 models.

        Args:
            clips: as in `encoder(clips)`.
            context: positions of visible tokens in time-major order, t·H·W + y·W + x; for all clips or for each.
            target: positions to predict.

        Raises:
            ValueError: the encoder has no predictor; positions are outside the grid; or as in `encoder(clips)`.
        """
        if self.predictor_params is None or self.predictor_settings is None:
            raise ValueError(
                f"predict needs a predictor, which {self.source or 'this encoder'} does not have. Training runs, "
                "V-JEPA 2 and 2.1 have one; untrained encoders and encoders saved alone do not."
            )
        reader = clip_reading.open_clips(clips, self.clip, self.preprocessing)
        ((_, video),) = reader.batches(reader.count)
        program = self._program(reader.shape)
        grid = program.module.grid(jax.ShapeDtypeStruct(video.shape, jnp.float32))
        positions = [
            _positions(name, index, reader.count, grid) for name, index in (("context", context), ("target", target))
        ]
        settings = dataclasses.replace(self.settings, attention=program.module.attention)
        predictor = models.build_predictor(self.predictor_settings, settings, self.dtype)
        return np.asarray(_predict(program, predictor, grid, self.params, self.predictor_params, video, *positions))

    def _program(self, clip_shape: tuple[int, ...]) -> "_Program":
        """The computation, with the attention for this machine and shape."""
        attention = frozen_encoder.attention_for(self.settings, clip_shape, self.dtype)
        settings = dataclasses.replace(self.settings, attention=attention)
        return _Program(models.build_encoder(settings, self.dtype), self.preprocessing)


@dataclasses.dataclass(frozen=True)
class _Program:
    """From pixels to features. Hashable, so that equal ones share a compiled program."""

    module: models.Encoder
    preprocessing: Preprocessing

    def __call__(
        self, params: Any, video: Num[Array | np.ndarray, "B F Y X 3"], index_BxK: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B ... E"]:
        """Features [B, T, H, W, L, E]; with positions, of these alone [B, K, D]."""
        clips = pixels.normalise(video, self.preprocessing.mean, self.preprocessing.std)
        features = self.module.apply({"params": params}, clips, index_BxK, all_levels=True)
        z_BxSxD = cast(Array, features).astype(jnp.float32)
        if index_BxK is not None:
            return z_BxSxD
        return z_BxSxD.reshape(video.shape[0], *self.module.grid(clips), self.module.levels, -1)


@functools.partial(jax.jit, static_argnames="program")
def _encode(program: _Program, params: Any, video: Num[Array, "B F Y X 3"]) -> Float[Array, "B T H W L E"]:
    return program(params, video)


@functools.partial(jax.jit, static_argnames=("program", "predictor", "grid"))
def _predict(
    program: _Program,
    predictor: models.Predictor,
    grid: tuple[int, int, int],
    params: Any,
    predictor_params: Any,
    video: Num[Array, "B F Y X 3"],
    context_BxK: Int[Array, "B K"],
    target_BxM: Int[Array, "B M"],
) -> Float[Array, "B M output"]:
    z_BxKxD = program(params, video, context_BxK)
    variables, image = {"params": predictor_params}, video.shape[1] == 1
    target_BxMxD, _ = predictor.apply(variables, z_BxKxD, context_BxK, target_BxM, grid=grid, image=image)
    return target_BxMxD.astype(jnp.float32)


def _positions(name: str, positions: Any, count: int, grid: tuple[int, int, int]) -> Int[np.ndarray, "B S"]:
    index, tokens = np.asarray(positions), grid[0] * grid[1] * grid[2]
    if index.ndim not in (1, 2) or not np.issubdtype(index.dtype, np.integer) or not index.size:
        raise ValueError(
            f"{name} is {index.dtype} {list(index.shape)}; expected positions, int [tokens] or [clips, tokens]."
        )
    if index.min() < 0 or index.max() >= tokens:
        raise ValueError(
            f"{name} has positions from {index.min()} to {index.max()}; a grid of {'×'.join(map(str, grid))} tokens "
            f"has 0 to {tokens - 1}."
        )
    return np.broadcast_to(index.astype(np.int32), (count, index.shape[-1]))
