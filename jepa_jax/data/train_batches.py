"""Training batches, addressed by step: a step's batch does not depend on the number of workers or restarts."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from jepa_jax import config
from jepa_jax.data import augment, faults, sampling, skipped_files, sources
from jepa_jax.data.decode import crops
from jepa_jax.data.workers import pool, timing, worker_process

if TYPE_CHECKING:
    import jax  # slow to import: preparing a dataset imports this package without needing JAX

Batch = dict[str, np.ndarray]
"""`video` uint8 [B, F, Y, X, C] (F is 1 in a batch of single frames), `source` and `item` int32 [B].

If the training step renders the video, the batch has `seed` int32 [B] instead: the run's, in every row. As an input, it
leaves the compiled step the same for all seeds.
"""

# Rendered clips of a mixed batch are drawn in calls of this many, so that one compiled function serves any number.
_RENDER_BATCH = 8


def renders_in_step(settings: config.DataConfig) -> bool:
    """Whether the training step renders the video, so that batches hold none: true for a single rendered source."""
    kinds = [sources.kind_of(source) for source in settings.sources.values()]
    return settings.render_in_step and len(kinds) == 1 and kinds[0].renders_in_step


class TrainBatches(Iterator[Batch]):
    """Host batches of steps `start_step` … `config.steps` − 1, restricted to the rows that this process holds."""

    def __init__(
        self,
        settings: config.RunConfig,
        *,
        start_step: int = 0,
        rows: Sequence[int] | None = None,
        ledger: skipped_files.SkipLedger | None = None,
        opened: Sequence[sources.Source | None] | None = None,
        throughput: timing.Throughput | None = None,
    ):
        """Worker processes start with the first call to `next`.

        Args:
            settings: the config of the run.
            start_step: the first step.
            rows: rows of the global batch to return, in this order; default all.
            ledger: records undecodable files; default in memory only.
            opened: the sources, if already open (see `sources.open_sources`).
            throughput: records the time of each stage.

        Raises:
            ConfigError: a source cannot be used.
            ValueError: `rows` is empty.
        """
        if rows is not None and not rows:
            raise ValueError(f"rows is {rows!r}; expected at least one row of the global batch, 0 to B − 1.")
        self._settings = settings
        self._sources = list(sources.open_sources(settings.data) if opened is None else opened)
        self._ledger = ledger or new_ledger(settings.data, self._sources)
        self._throughput = throughput or timing.Throughput(settings.data.workers, os.cpu_count() or 1)
        rows = range(settings.batch_size) if rows is None else rows
        local_rows = _local_rows(settings, self._sources, rows, start_step)
        self._in_step = renders_in_step(settings.data)
        make = _MakeBatch(
            local_rows,
            len(rows),
            tuple(self._sources),
            None if self._in_step else settings.clip,
            settings.data.images == "frames",
            settings.data.augment,
            settings.data.max_skip_fraction,
        )
        import grain  # slow to import; here, while the step is compiled

        dataset = grain.MapDataset.range(len(local_rows) // len(rows)).map(make)
        files = any(not source.rendered for source in self._sources if source)
        batch_bytes = len(rows) * make.most_frames * settings.clip.height * settings.clip.width * 3
        self._batches = pool.BatchPrefetcher(dataset, settings.data.workers if files else 0, batch_bytes)

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            TooManySkippedError: a source has more undecodable files than `max_skip_fraction`.
        """
        batch = next(self._batches)
        self._ledger.add(batch.pop("skips"))
        self._throughput.add_seconds(batch.pop("seconds") | {timing.RECEIVE: self._batches.copy_seconds})
        if self._in_step:
            batch["seed"] = np.full_like(batch["item"], self._settings.seed)
        else:
            watch = timing.Stopwatch(timing.RENDER)
            if self._render(batch):
                self._throughput.add_seconds(watch.stop())
        return batch

    def close(self) -> None:
        """Stops the workers."""
        self._batches.close()

    def _render(self, batch: Batch) -> bool:
        """Fills in the clips of rendered sources, which workers leave blank. Returns whether there were any."""
        rendered = False
        for number, source in enumerate(self._sources):
            if source is None or not source.rendered:
                continue
            (rows,) = np.nonzero(batch["source"] == number)
            rendered = rendered or len(rows) > 0
            for start in range(0, len(rows), _RENDER_BATCH):
                chunk = rows[start : start + _RENDER_BATCH]
                items = np.resize(batch["item"][chunk], _RENDER_BATCH).astype(np.int32)
                video_BxFxYxXxC, _ = source.render(self._settings.clip, self._settings.seed, items)
                batch["video"][chunk] = video_BxFxYxXxC[: len(chunk)]
        return rendered


def batch_shapes(settings: config.RunConfig) -> dict[str, "jax.ShapeDtypeStruct"]:
    """Shape and dtype of each array of the global batch that `TrainBatches` returns; opens no source."""
    import jax

    rows, clip = settings.batch_size, settings.clip
    in_step = renders_in_step(settings.data)
    names = ("source", "item", "seed") if in_step else ("source", "item")
    shapes = {name: jax.ShapeDtypeStruct((rows,), np.int32) for name in names}
    if not in_step:
        shapes["video"] = jax.ShapeDtypeStruct((rows, *clip.shape), np.uint8)
    return shapes


def new_ledger(
    settings: config.DataConfig, opened: Sequence[sources.Source | None], file: Any = None
) -> skipped_files.SkipLedger:
    """Creates the ledger of a run's sources; `file` is the pathlib.Path of its `skipped.jsonl`."""
    sizes = {source.name: source.size for source in opened if source}
    return skipped_files.SkipLedger(file, sizes, settings.max_skip_fraction)


def _local_rows(
    settings: config.RunConfig, opened: Sequence[sources.Source | None], rows: Sequence[int], start_step: int
) -> sampling.LocalRows:
    """The samples of this process; with `images="frames"`, image steps have an order of their own."""
    sizes = [source.size if source else 0 for source in opened]
    weights = [source.weight for source in settings.data.sources.values()]
    groups = [weights]
    if settings.data.images == "frames":
        image = [source is not None and source.is_image for source in opened]
        groups = [[w * (is_image == wanted) for w, is_image in zip(weights, image, strict=True)] for wanted in (0, 1)]
    groups = [group for group in groups if sum(group) > 0]
    return sampling.LocalRows(
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
    """Step number, relative to the first → decoded and augmented batch. Runs in the workers."""

    local_rows: sampling.LocalRows
    rows: int
    opened: tuple[sources.Source | None, ...]
    clip: config.ClipConfig | None  # None: batches without video
    images_as_frames: bool
    augment: config.AugmentConfig
    max_skip_fraction: float

    def __call__(self, number: int) -> dict[str, Any]:
        samples = [self.local_rows[number * self.rows + row] for row in range(self.rows)]
        batch: dict[str, Any] = {"source": np.array([sample.source for sample in samples], np.int32)}
        item_B = np.array([sample.item for sample in samples], np.int32)
        skips: tuple[skipped_files.Skip, ...] = ()
        seconds: Counter[str] = Counter()
        if self.clip is not None:
            shape = (self.rows, self._frames(samples[0]), *self.clip.shape[1:])
            batch["video"] = worker_process.empty(shape, np.dtype(np.uint8))
            for row, sample in enumerate(samples):
                watch = timing.Stopwatch(timing.READ)
                item_B[row], more = self._fill(batch["video"][row], sample, watch)
                skips += more
                seconds.update(watch.stop())  # pyright: ignore[reportArgumentType]
        return batch | {"item": item_B, "skips": skips, "seconds": dict(seconds)}

    @property
    def most_frames(self) -> int:
        """Frames per clip of the longest batch; 0 if batches hold no video."""
        if self.clip is None:
            return 0
        single = self.images_as_frames and all(source.is_image for source in self.opened if source)
        return 1 if single else self.clip.frames

    def _source(self, sample: sampling.Sample) -> sources.Source:
        source = self.opened[sample.source]
        assert source is not None  # sources of weight 0 are never sampled
        return source

    def _frames(self, sample: sampling.Sample) -> int:
        assert self.clip is not None
        return 1 if self.images_as_frames and self._source(sample).is_image else self.clip.frames

    def _fill(
        self, video_FxYxXxC: np.ndarray, sample: sampling.Sample, watch: timing.Stopwatch
    ) -> tuple[int, tuple[skipped_files.Skip, ...]]:
        """Writes a clip into `video_FxYxXxC`; returns the item it shows and the items skipped before it."""
        source = self._source(sample)
        if source.rendered:  # later, by the process that owns the device
            video_FxYxXxC[...] = 0
            return sample.item, ()
        item, clip, skips = skipped_files.first_decodable(
            source.name,
            source.size,
            sample.item,
            lambda item: self._read(item, sample, video_FxYxXxC, watch),
            self.max_skip_fraction,
        )
        if clip is None:  # too many skips: the training process raises when it receives them
            video_FxYxXxC[...] = 0
        return item, skips

    def _read(
        self, item: int, sample: sampling.Sample, out_FxYxXxC: np.ndarray, watch: timing.Stopwatch
    ) -> UInt8[np.ndarray, "F Y X 3"]:
        source = self._source(sample)
        _, height, width, _ = out_FxYxXxC.shape
        watch.switch(timing.READ)
        window_rng, view_rng = sample.generators()
        view = _TimedView(augment.RandomView(height, width, self.augment, view_rng), watch)

        def select_frames(count: int, fps: float) -> np.ndarray:
            step = sampling.stride(fps, source.settings.frame_step, source.settings.target_fps)
            return sampling.RANDOM_WINDOWS[source.settings.window](count, len(out_FxYxXxC), step, window_rng)

        with faults.as_decode_error(source.paths[item]):
            if source.is_image:
                watch.switch(timing.DECODE)
                out_FxYxXxC[...] = view(source.read_image(item))
                return out_FxYxXxC
            return source.read_clip(item, select_frames, view, watch.switch, out_FxYxXxC)


@dataclasses.dataclass(frozen=True)
class _TimedView(crops.CropTransform):
    """A view whose time is measured as augmentation, between stretches of decoding."""

    view: augment.RandomView
    watch: timing.Stopwatch

    def box(self, height: int, width: int) -> crops.Box:
        return self.view.box(height, width)

    def of_crop(self, crop_YxXxC: np.ndarray) -> np.ndarray:
        self.watch.switch(timing.AUGMENT)
        view_YxXxC = self.view.of_crop(crop_YxXxC)
        self.watch.switch(timing.DECODE)
        return view_YxXxC
