"""Encoders as StableHLO files that run without this package."""

import dataclasses
import importlib.util
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.inference.video_encoder import VideoEncoder

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2**31  # bytes that the format can hold


def export(
    encoder: VideoEncoder, path: str | os.PathLike[str], *, frames: int = 0, size: int | tuple[int, int] = 0
) -> None:
    """Writes an encoder with its parameters as one file, for CPUs, NVIDIA GPUs and TPUs.

    The program takes uint8 clips [B, F, Y, X, 3] in 0…255, of any B, and returns tokens [B, T, H, W, E] in float32:

        program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
        tokens = program.call(clips)

    Args:
        encoder: of `load`.
        path: of the file; an existing one is replaced.
        frames: of the clips; 0: `encoder.clip.frames`.
        size: of the clips in pixels, side or (height, width); 0: `encoder.clip.size`.

    Raises:
        ValueError: clips that do not divide into tubelets, or parameters of 2 GiB or more, which StableHLO files
            cannot hold.
        ImportError: flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError("jepa_jax.export needs flatbuffers: pip install 'jepa_jax[export]'.")
    clip = ClipConfig(frames=frames or encoder.clip.frames, size=size or encoder.clip.size)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(encoder.params))
    if total >= LIMIT:
        raise ValueError(
            f"the parameters take {total / 2**30:.1f} GiB; a StableHLO file holds less than {LIMIT / 2**30:.0f} "
            "GiB. Use jepa_jax.save instead."
        )
    # Kernels are of one platform; XLA's attention is of all.
    portable = dataclasses.replace(encoder, settings=dataclasses.replace(encoder.settings, attention="xla"))

    def tokens(video_BxFxYxXxC: UInt8[Array, "B F Y X 3"]) -> Float[Array | np.ndarray, "B T H W E"]:
        return portable.apply(portable.params, video_BxFxYxXxC).tokens

    batch = jax_export.symbolic_shape("batch")
    video = jax.ShapeDtypeStruct((*batch, *clip.shape), jnp.uint8)
    content = jax_export.export(jax.jit(tokens), platforms=PLATFORMS)(video).serialize()
    target = pathlib.Path(path)
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, target)
