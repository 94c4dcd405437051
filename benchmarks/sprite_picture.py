"""Draws a sample clip of each class of sprites, as in docs/sprites.png.

    python benchmarks/sprite_picture.py [--out docs/sprites.png] [--size 48]

One row per class and one column per frame. Appearance classes share a row, as one frame is enough to show each.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from jepa_jax.data import sprites

FRAMES = 16
GAP = 3
LABEL = 190  # width of the labels in pixels
LINE = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/sprites.png"))
    parser.add_argument("--size", type=int, default=48)
    arguments = parser.parse_args()
    video, labels = samples(arguments.size)
    looks = len(sprites.CLASSES["appearance"])
    rows = [(f"appearance: {looks} classes, a frame each", video[first_of(labels["appearance"], looks), 0])]
    rows += [
        (f"{task}: {name}", video[clip])
        for task in ("motion", "order")
        for clip, name in zip(first_of(labels[task], len(sprites.CLASSES[task])), sprites.CLASSES[task], strict=True)
    ]
    picture = draw(rows, arguments.size).quantize(64, dither=Image.Dither.NONE)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(arguments.out, optimize=True)
    print(f"{arguments.out}: {picture.width}×{picture.height}, {arguments.out.stat().st_size / 1000:.0f} kB")


def samples(size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Enough clips to include every class, and their labels."""
    spec = sprites.SpriteSpec(FRAMES, size)
    return jax.device_get(sprites.render(spec, 0, "train", jnp.arange(300, dtype=jnp.int32)))


def first_of(label_B: np.ndarray, classes: int) -> np.ndarray:
    """The first clip of each class."""
    found, first = np.unique(label_B, return_index=True)
    assert len(found) == classes
    return first


def draw(rows: list[tuple[str, np.ndarray]], size: int) -> Image.Image:
    """Draws rows of frames, each with its name to the left."""
    step = size + GAP
    canvas = Image.new("RGB", (LABEL + FRAMES * step, len(rows) * step), "white")
    text = ImageDraw.Draw(canvas)
    for y, (name, frames) in enumerate(rows):
        lines = name.replace(": ", ":\n", 1) if len(name) > 30 else name
        text.multiline_text((4, y * step + size // 2 - LINE * (lines.count("\n") + 1) // 2), lines, fill="black")
        for x, frame in enumerate(frames):
            canvas.paste(Image.fromarray(frame), (LABEL + x * step, y * step))
    return canvas


if __name__ == "__main__":
    main()
