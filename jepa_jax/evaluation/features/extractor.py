"""Features of batches of clips: frozen encoders as pure functions, run on all devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, Num, Shaped

from jepa_jax import models
from jepa_jax.evaluation.features.storage import StorageDtype, encode_rows
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.models import pixels
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing
from jepa_jax.settings import to_dict

Video = Num[Array, "B F Y X 3"]
Row = Int[Array, "B"]
Apply = Callable[[Any, Video, Row], Mapping[str, Array]]
Transform = Callable[[Video, Row], Video]
StorageDtypes = tuple[tuple[str, StorageDtype], ...]  # (kind, storage dtype)


class BatchRule(NamedTuple):
    """How many clips are encoded in one call on each device: fewer of clips with many tokens.

    The memory of attention, clips × tokens², stays at that of `clips` clips with `tokens` tokens.
    """

    clips: int
    tokens: int
    most: int

    def size(self, tokens: int) -> int:
        """Clips in a batch of clips with so many tokens."""
        return max(1, min(self.most, self.clips * self.tokens**2 // tokens**2))


# On two CPU cores, batches of 8 clips of 8×112×112 (196 tokens) are fastest, of one or two clips of 16×112×112 in
# patches of 8 (1,568 tokens), and of 32 clips of 8×32×32 in patches of 8 (64 tokens).
CPU_BATCH, ACCELERATOR_BATCH = BatchRule(8, 196, most=32), BatchRule(32, 1568, most=32)


@dataclasses.dataclass(frozen=True)
class FeatureExtractor:
    """A frozen function from clips to features.

    Attributes:
        apply: (params, video in 0…255, row int32 [B]) → features by kind, float32: "mean" [B, E], and others such as
            "frames" [B, T, E] and "all" [B, N, E]; unused kinds are not computed. Traceable, and hashable so that equal
            ones share a compiled program (a module-level function, a partial of one, or a frozen dataclass).
        params: pytree of arrays.
        identity: everything that determines the output, as JSON; its "params" is a fingerprint of the parameters.
        origin: where the parameters come from, for people.
        transforms: functions of (video, row) that are applied to the clips one after another, before `apply`. They are
            compiled separately, so that extractors that differ only in them share the program of `apply`.
    """

    apply: Apply
    params: Any
    identity: Mapping[str, Any]
    origin: str = ""
    transforms: tuple[Transform, ...] = ()

    def after(self, name: str, transform: Transform) -> "FeatureExtractor":
        """This extractor applied to `transform(video, row)`.

        Args:
            name: of the transform, with its seed if it has one; becomes part of the identity.
            transform: traceable, hashable, and returns clips of the same shape; its random choices depend on the row
                number.
        """
        names = [*self.identity.get("transforms", []), name]
        identity = {**self.identity, "transforms": names}
        return dataclasses.replace(self, transforms=(transform, *self.transforms), identity=identity)

    def row_shapes(self, clip_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of the features of one clip [F, Y, X, 3], by kind, without computing them."""
        video = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
        features = jax.eval_shape(self.apply, self.params, video, jax.ShapeDtypeStruct((1,), jnp.int32))
        return {kind: tuple(value.shape[1:]) for kind, value in features.items()}

    def tokens(self, clip_shape: tuple[int, ...]) -> int:
        """Number of tokens of a clip [F, Y, X, 3]; 1 if the features have no kind "all"."""
        return self.row_shapes(clip_shape).get("all", (1,))[0]


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """The tokens of every level of an encoder, and their means in float32.

    "mean" [B, E], "frames" [B, T, E] (the mean of each time step) and "all" [B, N, E] are of the last level, the
    encoder's output. "mean_level_2" and so on are of another level. "mean_levels" [B, D] and so on concatenate the
    channels of all levels; "all_stacked_levels" [B, L·N, E] concatenates the tokens of all levels.
    """

    encoder: models.Encoder
    preprocessing: Preprocessing

    def __call__(self, params: Any, video: Video, row: Row) -> Mapping[str, Array]:
        del row
        clips = pixels.normalise(video, self.preprocessing.mean, self.preprocessing.std)
        z_BxNxD = cast(Array, self.encoder.apply({"params": params}, clips, all_levels=True)).astype(jnp.float32)
        z_BxTxHWxD = z_BxNxD.reshape(z_BxNxD.shape[0], self.encoder.grid(clips)[0], -1, z_BxNxD.shape[-1])
        features = {}
        for name, x in {"mean": z_BxNxD.mean(axis=1), "frames": z_BxTxHWxD.mean(axis=2), "all": z_BxNxD}.items():
            levels = jnp.split(x, self.encoder.levels, axis=-1)
            features[name], features[f"{name}_levels"] = levels[-1], x
            features |= {f"{name}_level_{number}": level for number, level in enumerate(levels, start=1)}
            if x.ndim == 3:
                features[f"{name}_stacked_levels"] = jnp.concatenate(levels, axis=1)
        return features


def kind_of(tokens: str, level: str) -> str:
    """Name of a kind of features: `tokens` of a level, which is a number, "last" or "all"."""
    return {"last": tokens, "all": f"{tokens}_levels"}.get(level, f"{tokens}_level_{level}")


def of_encoder(frozen: FrozenEncoder, dtype: str) -> FeatureExtractor:
    """Features of a frozen encoder that computes in `dtype`; `_Tokens` lists their kinds."""
    settings = to_dict(frozen.config.encoder)
    if not settings["level_ends"]:  # caches written before this setting existed stay valid
        del settings["level_ends"]
    identity = {"params": frozen.fingerprint, "encoder": settings, "dtype": dtype}
    normalization = frozen.preprocessing.mean, frozen.preprocessing.std
    if normalization != (TRAINED_HERE.mean, TRAINED_HERE.std):  # as above
        identity["normalization"] = normalization
    origin = f"{frozen.source}:{frozen.step} ({frozen.weights})" if frozen.source else ""
    apply = _Tokens(models.build_encoder(frozen.config.encoder, dtype), frozen.preprocessing)
    return FeatureExtractor(apply, frozen.params, identity, origin)


class Device:
    """All devices of this process; batches of clips are split over them."""

    def __init__(self):
        """Takes all local devices."""
        devices = jax.local_devices()
        self.count = len(devices)
        self._mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))

    def batch_size(self, wanted: int, rows: int, tokens: int) -> int:
        """Clips in a batch: a multiple of the devices near `wanted` (0: what suits them), at most about `rows`.

        Args:
            wanted: the setting.
            rows: number of clips.
            tokens: of a clip.
        """
        rule = CPU_BATCH if self._mesh.devices.flat[0].platform == "cpu" else ACCELERATOR_BATCH
        wanted = wanted or self.count * rule.size(tokens)
        return -(-min(wanted, max(rows, 1)) // self.count) * self.count

    def bind(
        self, encode: FeatureExtractor, storage_dtypes: StorageDtypes
    ) -> Callable[[Mapping[str, Any]], dict[str, dict[str, Array]]]:
        """Returns a function from batches with `video` and `row` to stored features, by kind.

        It is asynchronous. For each kind it returns the arrays of `storage.encode_rows` and `finite`, bool [B]: whether
        all values of a row are finite.
        """
        params = self.replicate(encode.params)
        storage_dtypes = tuple(sorted(storage_dtypes))  # one compiled program for every order

        def run(batch: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
            video, row = (self.split(batch[name]) for name in ("video", "row"))
            # The matmul precision that a probe sets must not change the features it reads.
            with jax.default_matmul_precision(None), jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh):
                for transform in encode.transforms:
                    video = _transform(transform, video, row)
                return _encode(encode.apply, storage_dtypes, params, video, row)

        return run

    def replicate(self, params: Any) -> Any:
        """Returns the arrays of a pytree on every device; those that are there already are not copied."""
        return jax.device_put(params, NamedSharding(self._mesh, PartitionSpec()))

    def split(self, array: np.ndarray | Array) -> Array:
        """Returns an array [B, …] with an equal number of rows on each device."""
        return jax.device_put(array, NamedSharding(self._mesh, PartitionSpec("data")))


@functools.partial(jax.jit, static_argnames="transform")
def _transform(transform: Transform, video: Video, row: Row) -> Video:
    return transform(video, row)


@functools.partial(jax.jit, static_argnames=("apply", "storage_dtypes"))
def _encode(
    apply: Apply, storage_dtypes: StorageDtypes, params: Any, video: Video, row: Row
) -> dict[str, dict[str, Shaped[Array, "B ..."]]]:
    features = apply(params, video, row)
    stored = {kind: encode_rows(features[kind], storage_dtype) for kind, storage_dtype in storage_dtypes}
    for arrays in stored.values():
        arrays["finite"] = _finite_rows(arrays)
    return stored


def _finite_rows(arrays: Mapping[str, Array]) -> Bool[Array, "B"]:
    floats = [a.astype(jnp.float16) for a in arrays.values() if jnp.issubdtype(a.dtype, jnp.floating)]
    finite = [jnp.isfinite(a).all(axis=tuple(range(1, a.ndim))) for a in floats]
    return functools.reduce(jnp.logical_and, finite)


def pipelined(
    batches: Iterable[dict[str, Any]], dispatch: Callable[[dict[str, Any]], Any]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields each batch (without its video) with the result of `dispatch`, one batch behind, so that work overlaps."""
    previous = None
    for batch in batches:
        result = dispatch(batch)
        if previous is not None:
            yield previous
        previous = {key: value for key, value in batch.items() if key != "video"}, result
    if previous is not None:
        yield previous
