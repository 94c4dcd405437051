"""Cosine similarity of one token to all others of its clip: similarity.png. Follows things by their features."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jepa_jax.evaluation import frozen_encoder
from jepa_jax.pictures import clip_sheets, colour_map, film, overlay, sheet, upsample
from jepa_jax.settings import ConfigError
from jepa_jax.show import clips, tokens
from jepa_jax.show.request import Request

Place = tuple[int, int, int]  # time step, row, column


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes similarity.png.

    Raises:
        ConfigError: no clips, or a token outside of the grid.
    """
    frozen = frozen_encoder.load(request.require_checkpoint("similarity"))
    chosen = clips.read(request, frozen.config)
    found = tokens.output(frozen, tokens.encode(frozen, chosen.video_BxFxYxXx3))
    place = place_of(request.token, found.shape[1:4])
    file = request.out / "similarity.png"
    film.write_png(file, picture(chosen, cosine(found, place), place))
    return [file]


def place_of(token: Sequence[int], grid: tuple[int, ...]) -> Place:
    """Returns time step, row and column of --token=COLUMN,ROW,TIME; by default the centre of the first time step.

    Raises:
        ConfigError: not three numbers, or outside of the grid.
    """
    time, height, width = grid
    if not token:
        return 0, height // 2, width // 2
    ranges = f"columns 0 to {width - 1}, rows 0 to {height - 1}, time steps 0 to {time - 1}"
    if len(token) != 3:
        raise ConfigError(f"--token is {','.join(map(str, token))}; expected COLUMN,ROW,TIME: {ranges}.")
    column, row, step = token
    if not (0 <= column < width and 0 <= row < height and 0 <= step < time):
        raise ConfigError(f"--token={column},{row},{step} is outside of the grid: {ranges}.")
    return step, row, column


def cosine(tokens_BxTxHxWxE: Float[np.ndarray, "B T H W E"], place: Place) -> Float[np.ndarray, "B T H W"]:
    """Returns the cosine of each token and the one at `place` of its clip, after subtracting the mean of all tokens.

    Without the subtraction all cosines are near 1, because tokens share a large mean.
    """
    centred = tokens_BxTxHxWxE.astype(np.float64) - tokens_BxTxHxWxE.mean((0, 1, 2, 3), dtype=np.float64)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1.0)
    return np.einsum("bthwe,be->bthw", unit, unit[:, *place])


def picture(
    chosen: clips.Clips, cosine_BxTxHxW: Float[np.ndarray, "B T H W"], place: Place
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, with the most similar token of each outlined, and the cosines."""
    grid = cosine_BxTxHxW.shape[1:]
    times = upsample.factor(*chosen.rgb.shape[2:4])
    steps = sorted({*clip_sheets.spread(grid[0], clip_sheets.COLUMNS), place[0]})
    frames_a_step = chosen.rgb.shape[1] // grid[0]
    rows = []
    for index, title in enumerate(chosen.titles):
        video = upsample.frames(chosen.rgb[index], times)
        maps = upsample.to_pixels(colour_map.paint(cosine_BxTxHxW[index], -1.0, 1.0), *video.shape[1:3], smooth=False)
        marked = []
        for step in steps:
            best = np.unravel_index(cosine_BxTxHxW[index, step].argmax(), grid[1:])
            row, column = place[1:] if step == place[0] else map(int, best)
            colour = colour_map.TARGET if step == place[0] else colour_map.CONTEXT
            marked.append(overlay.outline(video[step * frames_a_step], row, column, grid, colour))
        rows += [sheet.Row("clip", marked, heading=title), sheet.Row("cosine", [maps[step] for step in steps])]
    scale = colour_map.bar(240, 16).transpose(1, 0, 2)[:, ::-1]
    rows.append(sheet.Row("scale", [scale], notes=["-1 (opposite) to 1 (same)"]))
    footer = (
        f"Cosine to the token in column {place[2]}, row {place[1]}, time step {place[0]} (orange), minus the tokens' "
        "mean.\nBlue: the most similar token of each other time step."
    )
    return sheet.sheet(rows, columns=[f"frame {step * frames_a_step}" for step in steps], footer=footer)
