"""From clips to features, a batch at a time: frozen encoders as pure functions, run over all devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, Num, Shaped

from jepa_jax import models, pixels
from jepa_jax.config import to_dict
from jepa_jax.probing.cache import Form, encode_rows
from jepa_jax.probing.encoders import FrozenEncoder

Video = Num[Array, "B F Y X 3"]
Row = Int[Array, "B"]
Apply = Callable[[Any, Video, Row], Mapping[str, Array]]
Forms = tuple[tuple[str, Form], ...]

# Clips a device and batch, and tokens a clip up to which it is so many; attention takes memory by their square. On two
# CPU cores 8 clips of 8×112×112 (196 tokens) are encoded fastest, and of 16×112×112 in patches of 8 (1,568) one or two.
AT_ONCE, ELSEWHERE = {"cpu": (8, 196)}, (32, 1568)


@dataclasses.dataclass(frozen=True)
class Encode:
    """A frozen function of clips.

    Attributes:
        apply: (params, video in 0…255, row int32 [B]) → features by kind, float32: "mean" [B, E], and what else there
            is, as "frames" [B, T, E] and "all" [B, N, E]; those that nobody asks for are not computed. Traceable, and
            hashable, so that it is compiled once (a function of a module, a partial of one, a frozen dataclass).
        params: pytree of arrays.
        identity: what makes the output what it is, as JSON; "params" in it is a fingerprint of the parameters.
        origin: where the parameters come from, for people.
    """

    apply: Apply
    params: Any
    identity: Mapping[str, Any]
    origin: str = ""

    def after(self, name: str, transform: Callable[[Video, Row], Video]) -> "Encode":
        """The same of clips that pass through `transform(video, row)` first.

        Args:
            name: of the transform, with its seed if it has one; part of the identity.
            transform: traceable and hashable; random choices are functions of the row number.
        """
        transforms = [*self.identity.get("transforms", []), name]
        identity = {**self.identity, "transforms": transforms}
        return dataclasses.replace(self, apply=_After(self.apply, transform), identity=identity)

    def row_shapes(self, clip_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of the features of one clip [F, Y, X, 3], by kind; nothing is computed."""
        video = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
        made = jax.eval_shape(self.apply, self.params, video, jax.ShapeDtypeStruct((1,), jnp.int32))
        return {kind: tuple(value.shape[1:]) for kind, value in made.items()}

    def tokens(self, clip_shape: tuple[int, ...]) -> int:
        """How many tokens a clip [F, Y, X, 3] has; 1 if features are no encoder's."""
        return self.row_shapes(clip_shape).get("all", (1,))[0]


@dataclasses.dataclass(frozen=True)
class _After:
    """One function of clips after another."""

    apply: Apply
    transform: Callable[[Video, Row], Video]

    def __call__(self, params: Any, video: Video, row: Row) -> Mapping[str, Array]:
        return self.apply(params, self.transform(video, row), row)


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """The encoder's plain output, its last level, and means, taken in float32.

    "mean" [B, E], "frames" [B, T, E] (means of each time step), "all" [B, N, E]; of all levels end to end
    "mean_levels" [B, D] and "frames_levels" [B, T, D].
    """

    encoder: models.Encoder

    def __call__(self, params: Any, video: Video, row: Row) -> Mapping[str, Array]:
        del row
        clips = pixels.normalise(video)
        z_BxNxD = cast(Array, self.encoder.apply({"params": params}, clips, all_levels=True)).astype(jnp.float32)
        z_BxTxHWxD = z_BxNxD.reshape(z_BxNxD.shape[0], self.encoder.grid(clips)[0], -1, z_BxNxD.shape[-1])
        mean_BxD, frames_BxTxD, width = z_BxNxD.mean(axis=1), z_BxTxHWxD.mean(axis=2), self.encoder.size.width
        return {
            "mean": mean_BxD[..., -width:],
            "frames": frames_BxTxD[..., -width:],
            "all": z_BxNxD[..., -width:],
            "mean_levels": mean_BxD,
            "frames_levels": frames_BxTxD,
        }


def of_encoder(frozen: FrozenEncoder, dtype: str) -> Encode:
    """The features of a frozen encoder that computes in `dtype`: see `_Tokens`."""
    identity = {"params": frozen.fingerprint, "encoder": to_dict(frozen.config.encoder), "dtype": dtype}
    origin = f"{frozen.source}:{frozen.step} ({frozen.weights})" if frozen.source else ""
    return Encode(_Tokens(models.build_encoder(frozen.config.encoder, dtype)), frozen.params, identity, origin)


class Device:
    """All devices of this process as one, to which batches of clips are split."""

    def __init__(self):
        """Takes what devices there are."""
        devices = jax.local_devices()
        self.count = len(devices)
        self._mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))

    def batch_size(self, wanted: int, rows: int, tokens: int) -> int:
        """A multiple of the devices, near `wanted` (0: what suits them), and no more than `rows` of `tokens` need."""
        most, usual = AT_ONCE.get(self._mesh.devices.flat[0].platform, ELSEWHERE)
        wanted = wanted or self.count * max(1, min(most, most * usual**2 // tokens**2))
        return -(-min(wanted, max(rows, 1)) // self.count) * self.count

    def hold(self, encode: Encode, forms: Forms) -> Callable[[Mapping[str, Any]], dict[str, dict[str, Array]]]:
        """A function from batches with `video` and `row` to features, by kind, as `cache.encode_rows` makes them.

        It does not wait for the result. In it is also `finite`, bool [B]: whether a row's values are numbers.
        """
        params = jax.device_put(encode.params, NamedSharding(self._mesh, PartitionSpec()))
        split = NamedSharding(self._mesh, PartitionSpec("data"))
        forms = tuple(sorted(forms))  # compiled once, whatever their order

        def run(batch: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
            video, row = (jax.device_put(batch[name], split) for name in ("video", "row"))
            # A probe that asks for exact products must not change the features it reads.
            with jax.default_matmul_precision(None), jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh):
                return _encode(encode.apply, forms, params, video, row)

        return run


@functools.partial(jax.jit, static_argnames=("apply", "forms"))
def _encode(
    apply: Apply, forms: Forms, params: Any, video: Video, row: Row
) -> dict[str, dict[str, Shaped[Array, "B ..."]]]:
    features = apply(params, video, row)
    stored = {kind: encode_rows(features[kind], form) for kind, form in forms}
    for arrays in stored.values():
        arrays["finite"] = _finite_rows(arrays)
    return stored


def _finite_rows(arrays: Mapping[str, Array]) -> Bool[Array, "B"]:
    floats = [a.astype(jnp.float16) for a in arrays.values() if jnp.issubdtype(a.dtype, jnp.floating)]
    finite = [jnp.isfinite(a).all(axis=tuple(range(1, a.ndim))) for a in floats]
    return functools.reduce(jnp.logical_and, finite)


def one_behind(
    batches: Iterable[dict[str, Any]], dispatch: Callable[[dict[str, Any]], Any]
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Batches, without their video, and what `dispatch` made of each, given out while the next is computed."""
    waiting = None
    for batch in batches:
        made = dispatch(batch)
        if waiting is not None:
            yield waiting
        waiting = {key: value for key, value in batch.items() if key != "video"}, made
    if waiting is not None:
        yield waiting
