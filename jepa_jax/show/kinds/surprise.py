"""Error of the predictor for each token and frame, and what it predicts where tokens are hidden: surprise.png."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from jepa_jax.pictures import clip_sheets, colour_map, film, pca, sheet, upsample
from jepa_jax.show import clips, plots, predictor
from jepa_jax.show.request import Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "error, standard deviations"


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes surprise.png.

    Raises:
        ConfigError: no clips, or matplotlib is not installed.
        CheckpointError: the checkpoint cannot be used, or has no predictor.
    """
    with plots.style():
        model = predictor.load(request.require_checkpoint("surprise"))
        chosen = clips.read(request, model.config)
        found = predictor.predict(model, chosen.video_BxFxYxXx3, request.draws)
        curves = error_by_frame(chosen.titles, per_frame(found.error_BxTxHxW), chosen.video_BxFxYxXx3.shape[1])
        file = request.out / "surprise.png"
        film.write_png(file, sheet.stacked([picture(chosen, found), plots.pixels(curves)]))
    return [file]


def per_frame(error_BxTxHxW: Float[np.ndarray, "B T H W"]) -> Float[np.ndarray, "B T"]:
    """Returns the mean error over the tokens of each time step that were hidden; NaN if none was."""
    known = ~np.isnan(error_BxTxHxW)
    count_BxT = known.sum((2, 3))
    total_BxT = np.where(known, error_BxTxHxW, 0).sum((2, 3))
    return np.where(count_BxT > 0, total_BxT / np.maximum(count_BxT, 1), np.nan)


def picture(chosen: clips.Clips, found: predictor.Predictions) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, the target's features, the predicted ones and the error."""
    height, width = (side * upsample.factor(*chosen.rgb.shape[2:4]) for side in chosen.rgb.shape[2:4])
    time, frames = found.error_BxTxHxW.shape[1], chosen.rgb.shape[1]
    steps = clip_sheets.spread(time, clip_sheets.COLUMNS)
    columns = [step * frames // time for step in steps]
    basis = pca.fit(found.target_BxTxHxWxE)
    low, high = (float(value) for value in np.nanpercentile(found.error_BxTxHxW, (1, 99)))
    mean_BxT = per_frame(found.error_BxTxHxW)
    rows = []
    for index, title in enumerate(chosen.titles):
        video = upsample.frames(chosen.rgb[index], upsample.factor(*chosen.rgb.shape[2:4]))
        peak = int(np.nanargmax(mean_BxT[index])) * frames // time
        rows.append(sheet.Row("clip", [video[frame] for frame in columns], heading=f"{title}, peak at frame {peak}"))
        for label, values in (
            ("target", pca.paint(pca.project(basis, found.target_BxTxHxWxE[index]))),
            ("predicted", _hidden(basis, found.predicted_BxTxHxWxE[index])),
            ("error", colour_map.paint(found.error_BxTxHxW[index], low, high)),
        ):
            images = upsample.to_pixels(values, height, width, smooth=False)
            rows.append(sheet.Row(label, [images[step] for step in steps]))
    scale = colour_map.bar(3 * width, 16).transpose(1, 0, 2)[:, ::-1]
    rows.append(sheet.Row("scale", [scale], notes=[f"{low:.2f} to {high:.2f}: {UNIT} of a token's channels"]))
    footer = (
        "Target and predicted: principal components of the target encoder's tokens as colours, one basis.\n"
        "Predicted and error: means over draws of the run's masks. Grey: never hidden."
    )
    return sheet.sheet(rows, columns=[f"frame {frame}" for frame in columns], footer=footer)


def _hidden(basis: pca.Basis, predicted: Float[np.ndarray, "T H W E"]) -> UInt8[np.ndarray, "T H W 3"]:
    known = ~np.isnan(predicted).any(-1, keepdims=True)
    painted = pca.paint(pca.project(basis, np.nan_to_num(predicted)))
    return np.where(known, painted, np.array(colour_map.UNKNOWN, np.uint8))


def error_by_frame(titles: Sequence[str], mean_BxT: Float[np.ndarray, "B T"], frames: int) -> "Figure":
    """Returns a plot of the error over time, with the peak of each clip; call it inside of `plots.style`.

    Args:
        titles: of the clips.
        mean_BxT: mean error at each time step (`per_frame`).
        frames: number of frames of a clip.
    """
    figure = plots.figure(640, 240 + 16 * len(titles))
    axes = figure.subplots()
    time = mean_BxT.shape[1]
    frame_T = np.arange(time) * frames / time
    for number, (title, mean_T) in enumerate(zip(titles, mean_BxT, strict=True)):
        style = plots.line_style(number)
        axes.plot(frame_T, mean_T, label=sheet.shorten(title, 500), **style)
        peak = int(np.nanargmax(mean_T))
        axes.plot(frame_T[peak], mean_T[peak], "v", color=style["color"], markersize=8)
    axes.set_xlabel(f"frame ({frames // time} frames a time step)")
    axes.set_ylabel(UNIT)
    axes.set_title("Prediction error by frame; ▼ peak", loc="left")
    axes.margins(y=0.15)
    figure.legend(loc="outside lower left")
    return figure
