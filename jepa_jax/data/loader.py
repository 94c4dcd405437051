"""Training batches, addressed by step: the batch of a step is the same however many workers and restarts it took."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import UInt8

from jepa_jax import config
from jepa_jax.data import augment, sampling, skipped, sources, sprites, stages, worker_process, workers

Batch = dict[str, np.ndarray]
"""`video` uint8 [B, F, Y, X, C] (absent where the step renders it; F is 1 in a batch of single frames), `source` and
`item` int32 [B].
"""

# Sprites among other clips are rendered this many at once, so that one compiled program serves any number of them.
_SPRITES_AT_ONCE = 8


def renders_in_step(settings: config.DataConfig) -> bool:
    """Whether batches hold no video because the training step can render it: one source, of sprites, and so wished."""
    return settings.render_in_step and [source.kind for source in settings.sources.values()] == ["sprites"]


class TrainBatches(Iterator[Batch]):
    """The host batches of steps `start_step` … `config.steps` − 1: those of their rows that this process holds."""

    def __init__(
        self,
        settings: config.Config,
        *,
        start_step: int = 0,
        rows: Sequence[int] | None = None,
        ledger: skipped.SkipLedger | None = None,
        opened: Sequence[sources.Source | None] | None = None,
        throughput: stages.Throughput | None = None,
    ):
        """Starts no process before the first batch is asked for.

        Args:
            settings: of the run.
            start_step: the first step to give a batch for.
            rows: which rows of the global batch, in the order wanted; all if left out.
            ledger: where undecodable files are written down; in memory if left out.
            opened: the sources, if they have been opened already (see `sources.open_sources`).
            throughput: is told how long each stage takes.

        Raises:
            ConfigError: a source that cannot be used.
        """
        self._settings = settings
        self._sources = list(sources.open_sources(settings.data) if opened is None else opened)
        self._ledger = ledger or new_ledger(settings.data, self._sources)
        self._throughput = throughput or stages.Throughput(settings.data.workers, os.cpu_count() or 1)
        rows = range(settings.batch_size) if rows is None else rows
        places = _places(settings, self._sources, rows, start_step)
        self._in_step = renders_in_step(settings.data)
        make = _MakeBatch(
            places,
            len(rows),
            tuple(self._sources),
            None if self._in_step else settings.clip,
            settings.data.images == "frames",
            settings.data.augment,
            settings.data.max_skip_fraction,
        )
        dataset = grain.MapDataset.range(len(places) // len(rows)).map(make)
        files = any(source.kind != "sprites" for source in self._sources if source)
        batch_bytes = len(rows) * settings.clip.frames * settings.clip.size**2 * 3
        self._batches = workers.Ahead(dataset, settings.data.workers if files else 0, batch_bytes)

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            TooManySkippedError: a source has more undecodable files than `max_skip_fraction`.
        """
        batch = next(self._batches)
        self._ledger.add(batch.pop("skips"))
        self._throughput.spent(batch.pop("seconds") | {stages.RECEIVE: self._batches.copy_seconds})
        if not self._in_step:
            watch = stages.Stopwatch(stages.RENDER)
            if self._render_sprites(batch):
                self._throughput.spent(watch.stop())
        return batch

    def close(self) -> None:
        """Ends the workers."""
        self._batches.close()

    def _render_sprites(self, batch: Batch) -> bool:
        """Fills in the clips of sprite sources, if any; workers leave them out, since they keep off devices."""
        found = False
        for number, source in enumerate(self._sources):
            if source is None or source.kind != "sprites":
                continue
            (rows,) = np.nonzero(batch["source"] == number)
            found = found or len(rows) > 0
            for start in range(0, len(rows), _SPRITES_AT_ONCE):
                some = rows[start : start + _SPRITES_AT_ONCE]
                items = np.resize(batch["item"][some], _SPRITES_AT_ONCE)
                spec = sprites.SpriteSpec(
                    self._settings.clip.frames, self._settings.clip.size, source.settings.difficulty
                )
                batch["video"][some] = render_sprites(spec, self._settings.seed, source.settings.split, items)[0][
                    : len(some)
                ]
        return found


def batch_shapes(settings: config.Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and type of each array of the global batch of clips that `TrainBatches` makes; no source is opened."""
    rows, clip = settings.batch_size, settings.clip
    shapes = {name: jax.ShapeDtypeStruct((rows,), np.int32) for name in ("source", "item")}
    if not renders_in_step(settings.data):
        shapes["video"] = jax.ShapeDtypeStruct((rows, clip.frames, clip.size, clip.size, 3), np.uint8)
    return shapes


def new_ledger(
    settings: config.DataConfig, opened: Sequence[sources.Source | None], file: Any = None
) -> skipped.SkipLedger:
    """The ledger of a run's sources; `file` is its `skipped.jsonl`, a pathlib.Path."""
    sizes = {source.name: source.size for source in opened if source}
    return skipped.SkipLedger(file, sizes, settings.max_skip_fraction)


def render_sprites(
    spec: sprites.SpriteSpec, seed: int, split: str, item_B: np.ndarray
) -> tuple[UInt8[np.ndarray, "B F Y X 3"], dict[str, np.ndarray]]:
    """Sprite clips and their labels as arrays of the host, rendered on the CPU where JAX has one."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        device = None
    with jax.default_device(device):
        video_BxFxYxXxC, labels = sprites.render(spec, seed, split, item_B.astype(np.int32))
    return np.asarray(video_BxFxYxXxC), {task: np.asarray(label_B) for task, label_B in labels.items()}


def _places(
    settings: config.Config, opened: Sequence[sources.Source | None], rows: Sequence[int], start_step: int
) -> sampling.Rows:
    """What this process's rows hold; steps of single frames, where wished, have an order of their own."""
    sizes = [source.size if source else 0 for source in opened]
    weights = [source.weight for source in settings.data.sources.values()]
    groups = [weights]
    if settings.data.images == "frames":
        image = [source is not None and source.kind == "images" for source in opened]
        groups = [[w * (is_image == wanted) for w, is_image in zip(weights, image, strict=True)] for wanted in (0, 1)]
    groups = [group for group in groups if sum(group) > 0]
    return sampling.Rows(
        [sampling.Order(sizes, group, settings.seed) for group in groups],
        [sum(group) for group in groups],
        settings.seed,
        settings.batch_size,
        rows,
        start_step,
        settings.steps,
    )


@dataclasses.dataclass(frozen=True)
class _MakeBatch:
    """A step's number, from the first one on → its batch, decoded and augmented. Runs in the workers."""

    places: sampling.Rows
    rows: int
    opened: tuple[sources.Source | None, ...]
    clip: config.ClipConfig | None  # None: no video wanted
    images_as_frames: bool
    augment: config.AugmentConfig
    max_skip_fraction: float

    def __call__(self, number: int) -> dict[str, Any]:
        draws = [self.places[number * self.rows + row] for row in range(self.rows)]
        batch: dict[str, Any] = {"source": np.array([draw.source for draw in draws], np.int32)}
        item_B = np.array([draw.item for draw in draws], np.int32)
        skips: tuple[skipped.Skip, ...] = ()
        seconds: Counter[str] = Counter()
        if self.clip is not None:
            shape = (self.rows, self._frames(draws[0]), self.clip.size, self.clip.size, 3)
            batch["video"] = worker_process.empty(shape, np.dtype(np.uint8))
            for row, draw in enumerate(draws):
                watch = stages.Stopwatch(stages.READ)
                item_B[row], more = self._fill(batch["video"][row], draw, watch)
                skips += more
                seconds.update(watch.stop())  # pyright: ignore[reportArgumentType]
        return batch | {"item": item_B, "skips": skips, "seconds": dict(seconds)}

    def _source(self, draw: sampling.Draw) -> sources.Source:
        source = self.opened[draw.source]
        assert source is not None  # sources of weight 0 are never drawn
        return source

    def _frames(self, draw: sampling.Draw) -> int:
        assert self.clip is not None
        return 1 if self.images_as_frames and self._source(draw).kind == "images" else self.clip.frames

    def _fill(
        self, video_FxYxXxC: np.ndarray, draw: sampling.Draw, watch: stages.Stopwatch
    ) -> tuple[int, tuple[skipped.Skip, ...]]:
        """Writes a clip in place; returns the item it is of, and those passed over."""
        source = self._source(draw)
        if source.kind == "sprites":  # rendered by the process that has a device
            video_FxYxXxC[...] = 0
            return draw.item, ()
        item, clip, skips = skipped.first_decodable(
            source.name,
            source.size,
            draw.item,
            lambda item: self._read(item, draw, video_FxYxXxC, watch),
            self.max_skip_fraction,
        )
        if clip is None:  # too many skips: the process that reads them refuses the source
            video_FxYxXxC[...] = 0
        return item, skips

    def _read(
        self, item: int, draw: sampling.Draw, out_FxYxXxC: np.ndarray, watch: stages.Stopwatch
    ) -> UInt8[np.ndarray, "F Y X 3"]:
        source, size = self._source(draw), out_FxYxXxC.shape[1]
        watch.switch(stages.READ)
        window_rng, view_rng = draw.generators()
        view = augment.RandomView(size, self.augment, view_rng)

        def choose(count: int, fps: float) -> np.ndarray:
            step = sampling.stride(fps, source.settings.frame_step, source.settings.target_fps)
            return sampling.random_window(count, len(out_FxYxXxC), step, window_rng)

        def transform(frame_YxXxC: np.ndarray) -> np.ndarray:
            watch.switch(stages.AUGMENT)
            view_YxXxC = view(frame_YxXxC)
            watch.switch(stages.DECODE)
            return view_YxXxC

        if source.kind == "images":
            watch.switch(stages.DECODE)
            out_FxYxXxC[...] = transform(source.read_image(item))
            return out_FxYxXxC
        return source.read_clip(item, choose, transform, watch.switch, out_FxYxXxC)


def stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Examples as one batch: arrays stacked, `skips` one after another."""
    batch: dict[str, Any] = {"skips": tuple(skip for example in examples for skip in example["skips"])}
    for key in examples[0].keys() - batch.keys():
        arrays = [np.asarray(example[key]) for example in examples]
        batch[key] = worker_process.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
        np.stack(arrays, out=batch[key])
    return batch
