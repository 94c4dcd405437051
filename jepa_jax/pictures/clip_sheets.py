"""Sheets of clips: features as colours, and masks, in rows below the frames."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jepa_jax.pictures import overlay, pca, sheet, upsample

COLUMNS = 8  # at most: time steps of a clip in a sheet
FEATURES_SAID = (
    "Colours: the first three principal components of the tokens, one basis for each kind of row.\n"
    "Lightness is the first component; the second and third set the hue. Equal colours: similar features."
)
MASKS_SAID = "Unchanged: context. Orange: target, to be predicted. Black: not used."

Parts = tuple[Bool[np.ndarray, "_ T H W"], Bool[np.ndarray, "_ T H W"]]
"""Which tokens of each clip are context, and which are target."""


def spread(size: int, count: int) -> tuple[int, ...]:
    """Returns up to `count` numbers below `size`, evenly spread."""
    return tuple(np.linspace(0, size - 1, min(count, size)).astype(int).tolist())


def frame_shape(video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"]) -> tuple[int, int]:
    """Returns height and width of a frame in a sheet; small frames are enlarged."""
    height, width = video_BxFxYxXx3.shape[2:4]
    times = upsample.factor(height, width)
    return height * times, width * times


def paint(
    found: Mapping[str, Float[np.ndarray, "B T H W _"]],
    shape: tuple[int, int],
    *,
    smooth: bool = True,
    foreground: bool = False,
) -> dict[str, UInt8[np.ndarray, "B T Y X 3"]]:
    """Returns the tokens of each row as colours. All clips of a row have one basis.

    Args:
        found: tokens by the name of the row.
        shape: height and width of a frame in pixels.
        smooth: interpolate between tokens.
        foreground: fit the basis to the foreground alone and blacken the background.
    """
    return {name: _paint_row(values, shape, smooth, foreground) for name, values in found.items()}


def _paint_row(
    tokens_BxTxHxWxE: Float[np.ndarray, "B T H W E"], shape: tuple[int, int], smooth: bool, foreground: bool
) -> UInt8[np.ndarray, "B T Y X 3"]:
    front_BxTxHxW: Bool[np.ndarray, "B T H W"] = np.ones(tokens_BxTxHxWxE.shape[:-1], bool)
    if foreground:
        front_BxTxHxW = pca.foreground(tokens_BxTxHxWxE)
        if not front_BxTxHxW.any():
            raise ValueError("all tokens are alike, so there is no foreground; leave it out.")
    basis = pca.fit(tokens_BxTxHxWxE[front_BxTxHxW])
    painted = []
    for values_TxHxWxE, front_TxHxW in zip(tokens_BxTxHxWxE, front_BxTxHxW, strict=True):
        values = upsample.to_pixels(pca.project(basis, values_TxHxWxE), *shape, smooth=smooth)
        front = upsample.to_pixels(front_TxHxW[..., None].astype(float), *shape, smooth=smooth) >= 0.5
        painted.append(np.where(front, pca.paint(values), 0).astype(np.uint8))
    return np.stack(painted)


def features(
    video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"],
    titles: Sequence[str],
    painted: Mapping[str, UInt8[np.ndarray, "_ T _ _ 3"]],
    title: str = "",
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, and below them a row of each kind of features (`paint`)."""
    time, frames = next(iter(painted.values())).shape[1], video_BxFxYxXx3.shape[1]
    steps = spread(time, COLUMNS)
    columns = [step * frames // time for step in steps]
    rows = []
    for index, name in enumerate(titles):
        video = upsample.frames(video_BxFxYxXx3[index], upsample.factor(*video_BxFxYxXx3.shape[2:4]))
        rows.append(sheet.Row("clip", [video[frame] for frame in columns], heading=name))
        rows += [sheet.Row(kind, [images[index][step] for step in steps]) for kind, images in painted.items()]
    return sheet.sheet(rows, title=title, columns=[f"frame {frame}" for frame in columns], footer=FEATURES_SAID)


def masks(
    video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"], titles: Sequence[str], found: Mapping[str, Parts], title: str = ""
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, and below them a row for each mask, by its name."""
    time, frames = next(iter(found.values()))[0].shape[1], video_BxFxYxXx3.shape[1]
    columns = [step * frames // time for step in spread(time, COLUMNS)]
    rows = []
    for index, name in enumerate(titles):
        video = upsample.frames(video_BxFxYxXx3[index], upsample.factor(*video_BxFxYxXx3.shape[2:4]))
        rows.append(sheet.Row("clip", [video[frame] for frame in columns], heading=name))
        for mask, (context, target) in found.items():
            painted = overlay.masked(video, context[index], target[index])
            rows.append(sheet.Row(mask, [painted[frame] for frame in columns]))
    counts = [
        f"{name}: {context[0].sum()} of {context[0].size} tokens are context, {target[0].sum()} target."
        for name, (context, target) in found.items()
    ]
    footer = "\n".join([MASKS_SAID, *counts])
    return sheet.sheet(rows, title=title, columns=[f"frame {frame}" for frame in columns], footer=footer)
