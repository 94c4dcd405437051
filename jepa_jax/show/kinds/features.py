"""Principal components of the tokens as colours, beside the frames: features.png and a film."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.pictures import film, pca, sheet, upsample
from jepa_jax.settings import ConfigError, nearest
from jepa_jax.show import clips, tokens
from jepa_jax.show.request import Request

ROWS = ("output", "levels", "halves", "untrained")
COLUMNS = 8  # at most: time steps of a clip in features.png
FOOTER = (
    "Colours: the first three principal components of the tokens, one basis for each kind of row.\n"
    "Lightness is the first component; the second and third set the hue. Equal colours: similar features."
)


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes features.png and, unless `film` is none, features.gif or features.mp4."""
    if wrong := [name for name in request.rows if name not in ROWS]:
        raise ConfigError(f"--rows has {wrong[0]!r}.{nearest(wrong[0], ROWS)}")
    frozen = frozen_encoder.load(request.require_checkpoint("features"))
    chosen = clips.read(request, frozen.config)
    found = token_rows(frozen, chosen, request.rows)
    painted = paint(found, frame_shape(chosen), smooth=request.smooth, foreground=request.foreground)
    files = [request.out / "features.png"]
    film.write_png(files[0], strip(chosen, painted))
    if request.film != "none":
        files.append(request.out / f"features.{request.film}")
        write = film.write_gif if request.film == "gif" else film.write_mp4
        write(files[1], frames(chosen, painted))
    return files


def beside_untrained(config: EvalConfig, reference: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture with which an evaluation ends: three test clips, the encoder beside the untrained one."""
    frozen = frozen_encoder.load(reference, config.random_model)
    trained = frozen.config
    clip = ClipConfig(frames=config.frames or trained.clip.frames, size=config.size or trained.clip.size)
    _, source = config.split_sources()
    chosen = clips.read(Request(out=pathlib.Path(), source=source), dataclasses.replace(trained, clip=clip))
    rows = ("output",) if frozen.weights == "random" else ("output", "untrained")
    return strip(chosen, paint(token_rows(frozen, chosen, rows), frame_shape(chosen)))


def token_rows(
    frozen: FrozenEncoder, chosen: clips.Clips, rows: Sequence[str]
) -> dict[str, Float[np.ndarray, "B T H W _"]]:
    """Returns the tokens of each row of the picture, by its name.

    Args:
        frozen: the encoder.
        chosen: the clips.
        rows: some of ROWS.
    """
    encoded = tokens.encode(frozen, chosen.video_BxFxYxXx3)
    found = {}
    for name in rows:
        if name == "output":
            found["untrained" if frozen.weights == "random" else "trained"] = tokens.output(frozen, encoded)
        elif name == "untrained":
            untrained = frozen_encoder.untrained(frozen.config)
            found[name] = tokens.output(untrained, tokens.encode(untrained, chosen.video_BxFxYxXx3))
        else:
            found |= {"levels": tokens.levels, "halves": tokens.halves}[name](frozen, encoded)
    return found


def frame_shape(chosen: clips.Clips) -> tuple[int, int]:
    """Returns height and width of a frame in the picture; small frames are enlarged."""
    height, width = chosen.video_BxFxYxXx3.shape[2:4]
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
            raise ConfigError("--foreground: all tokens are alike, so there is no foreground; leave it out.")
    basis = pca.fit(tokens_BxTxHxWxE[front_BxTxHxW])
    painted = []
    for values_TxHxWxE, front_TxHxW in zip(tokens_BxTxHxWxE, front_BxTxHxW, strict=True):
        values = upsample.to_pixels(pca.project(basis, values_TxHxWxE), *shape, smooth=smooth)
        front = upsample.to_pixels(front_TxHxW[..., None].astype(float), *shape, smooth=smooth) >= 0.5
        painted.append(np.where(front, pca.paint(values), 0).astype(np.uint8))
    return np.stack(painted)


def strip(chosen: clips.Clips, painted: Mapping[str, UInt8[np.ndarray, "B T Y X 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, and below them a row of each kind."""
    steps = next(iter(painted.values())).shape[1]
    frame_count = chosen.video_BxFxYxXx3.shape[1]
    shown_steps = clips.spread(steps, COLUMNS)
    shown_frames = [step * frame_count // steps for step in shown_steps]
    rows = []
    for index, title in enumerate(chosen.titles):
        enlarged = _enlarged(chosen.rgb[index])
        rows.append(sheet.Row("clip", [enlarged[frame] for frame in shown_frames], heading=title))
        rows += [sheet.Row(name, [images[index][step] for step in shown_steps]) for name, images in painted.items()]
    return sheet.sheet(rows, columns=[f"frame {frame}" for frame in shown_frames], footer=FOOTER)


def frames(
    chosen: clips.Clips, painted: Mapping[str, UInt8[np.ndarray, "B T Y X 3"]]
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Returns the frames of a film: a line of panels for each clip, its frames first."""
    enlarged = [_enlarged(video) for video in chosen.rgb]
    steps = next(iter(painted.values())).shape[1]
    count = chosen.video_BxFxYxXx3.shape[1]
    film_frames = []
    for frame in range(count):
        rows = []
        for index, title in enumerate(chosen.titles):
            panels = [images[index][frame * steps // count] for images in painted.values()]
            rows.append(sheet.Row("", [enlarged[index][frame], *panels], heading=title))
        film_frames.append(sheet.sheet(rows, columns=["clip", *painted]))
    return film_frames


def _enlarged(video_FxYxXx3: UInt8[np.ndarray, "F Y X 3"]) -> UInt8[np.ndarray, "F _ _ 3"]:
    return upsample.frames(video_FxYxXx3, upsample.factor(*video_FxYxXx3.shape[1:3]))
