"""What training sees: clips after crop and flip, with labels and skipped files: source.png. Is my data right?"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from jepa_jax import data
from jepa_jax.pictures import clip_sheets, film, sheet, upsample
from jepa_jax.show import training_data
from jepa_jax.show.request import Request

COLUMNS = 8  # at most: frames of a clip
_SHOWN = 10  # skipped files


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes source.png: the first `clips` clips of training from step `step` on."""
    config = training_data.config_of(request, "source")
    opened = data.open_sources(config.data)
    ledger = data.new_ledger(config.data, opened)
    rows = []
    for number, (title, video) in zip(
        range(request.clips), _clips(training_data.batches(config, request.step, opened, ledger)), strict=False
    ):
        enlarged = upsample.frames(video, upsample.factor(*video.shape[1:3]))
        columns = clip_sheets.spread(len(video), COLUMNS)
        notes = [f"frame {frame}" for frame in columns]
        rows.append(sheet.Row(str(number), [enlarged[frame] for frame in columns], notes=notes, heading=title))
    skips = ledger.skips
    footer = [data.describe(opened), f"Skipped so far: {len(skips)}", *map(str, skips[:_SHOWN])]
    file = request.out / "source.png"
    film.write_png(file, sheet.sheet(rows, title=f"Training clips from step {request.step}", footer="\n".join(footer)))
    print("\n".join(footer))
    return [file]


def _clips(
    batches: Iterator[training_data.TrainingClips],
) -> Iterator[tuple[str, UInt8[np.ndarray, "F Y X 3"]]]:
    for batch in batches:
        yield from zip(batch.titles, batch.video_BxFxYxXxC, strict=True)
