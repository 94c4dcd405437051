"""Principal components of the tokens as colours, beside the frames: features.png and a film."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.pictures import clip_sheets, film, sheet, upsample
from jepa_jax.settings import ConfigError, error_prefix, nearest
from jepa_jax.show import clips, tokens
from jepa_jax.show.request import Request

ROWS = ("output", "levels", "halves", "untrained")


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes features.png and, unless `film` is none, features.gif or features.mp4."""
    if wrong := [name for name in request.rows if name not in ROWS]:
        raise ConfigError(f"--rows has {wrong[0]!r}.{nearest(wrong[0], ROWS)}")
    frozen = frozen_encoder.load(request.require_checkpoint("features"))
    chosen = clips.read(request, frozen.config)
    found = token_rows(frozen, chosen, request.rows)
    shape = clip_sheets.frame_shape(chosen.rgb)
    with error_prefix("--foreground"):
        painted = clip_sheets.paint(found, shape, smooth=request.smooth, foreground=request.foreground)
    files = [request.out / "features.png"]
    film.write_png(files[0], clip_sheets.features(chosen.rgb, chosen.titles, painted))
    if request.film != "none":
        files.append(request.out / f"features.{request.film}")
        write = film.write_gif if request.film == "gif" else film.write_mp4
        write(files[1], film_frames(chosen, painted))
    return files


def beside_untrained(config: EvalConfig, reference: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture with which an evaluation ends: three test clips, the encoder beside the untrained one."""
    frozen = frozen_encoder.load(reference, config.random_model)
    trained = frozen.config
    clip = ClipConfig(frames=config.frames or trained.clip.frames, size=config.size or trained.clip.size)
    _, source = config.split_sources()
    chosen = clips.read(Request(out=pathlib.Path(), source=source), dataclasses.replace(trained, clip=clip))
    rows = ("output",) if frozen.weights == "random" else ("output", "untrained")
    painted = clip_sheets.paint(token_rows(frozen, chosen, rows), clip_sheets.frame_shape(chosen.rgb))
    return clip_sheets.features(chosen.rgb, chosen.titles, painted)


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


def film_frames(
    chosen: clips.Clips, painted: Mapping[str, UInt8[np.ndarray, "B T Y X 3"]]
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Returns the frames of a film: a line of panels for each clip, its frames first."""
    video_BxFxYxXx3 = chosen.rgb
    enlarged = [upsample.frames(video, upsample.factor(*video.shape[1:3])) for video in video_BxFxYxXx3]
    steps, count = next(iter(painted.values())).shape[1], video_BxFxYxXx3.shape[1]
    made = []
    for frame in range(count):
        rows = []
        for index, title in enumerate(chosen.titles):
            panels = [images[index][frame * steps // count] for images in painted.values()]
            rows.append(sheet.Row("", [enlarged[index][frame], *panels], heading=title))
        made.append(sheet.sheet(rows, columns=["clip", *painted]))
    return made
