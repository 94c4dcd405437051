"""Features of a whole set of clips: encoded once, kept on disk for every probe, or encoded anew where no disk fits."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jepa_jax.data.evaluation import EvaluationSet
from jepa_jax.data.skipped import Skip
from jepa_jax.probing import cache as caching
from jepa_jax.probing import encoding
from jepa_jax.probing.cache import Cache, Entry, Layout
from jepa_jax.probing.encoding import Encode, of_encoder
from jepa_jax.probing.reencode import Reencoded
from jepa_jax.progress import Progress

__all__ = ["Encode", "Features", "Rows", "channel_statistics", "chunks", "extract", "of_encoder", "read"]

COMMIT_EVERY = 10.0  # seconds of work that a crash can cost
SPARE = 2**28  # bytes of the disk left to others
GIB = 2**30

Which = tuple[str, str]  # encoder, kind


@runtime_checkable
class Rows(Protocol):
    """Features of n clips, [n, E], [n, T, E] or [n, N, E]: an array, or what decodes or encodes when it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Features:
    """What probes see of a set, n of whose rows could be decoded.

    Attributes:
        tokens: by kind, float16 [n, …]: "mean" is a clip's tokens averaged, "frames" those of each time step, "all" is
            all of them.
        labels: of each task, the class of every clip, int32 [n].
        items: number of each row in the set, int32 [n].
        seconds: how long it took, decoding and compilation included, whenever that was.
    """

    tokens: Mapping[str, Rows]
    labels: Mapping[str, np.ndarray]
    items: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(self.items)


def extract(
    encoders: Mapping[str, Encode],
    clips: EvaluationSet,
    kinds: Sequence[str],
    cache: Cache,
    *,
    batch_size: int = 0,
    workers: int = 0,
    name: str = "clips",
) -> dict[str, Features]:
    """Features of all clips of a set by each of the encoders, from the cache where it has them.

    Every clip is decoded once for all encoders. After an interruption the next call goes on where this one was.

    Args:
        encoders: by name.
        clips: the set.
        kinds: the features that are read later, of those that an encoder has.
        cache: where they are kept. All-token features that do not fit are encoded anew whenever they are read.
        batch_size: clips encoded at once, made a multiple of the devices; 0: what suits the device.
        workers: processes that decode.
        name: of the set, for the progress bar and errors.

    Raises:
        FloatingPointError: an encoder's output is not finite, or too large for float16.
        TooManySkippedError: too many clips cannot be decoded.
        ValueError: no clips came.
        OSError: no room for features that have to be kept.
    """
    layouts = {
        (encoder, kind): Layout(shape, cache.form if kind == "all" else "float16")
        for encoder, encode in encoders.items()
        for kind, shape in encode.row_shapes(clips.clip_shape).items()
        if kind in kinds or kind == "mean"
    }
    keys = {which: _key(encoders[which[0]], clips, which[1], layout) for which, layout in layouts.items()}
    kept = _choose(
        layouts, {which: cache.path(which[1], key) for which, key in keys.items()}, clips, kinds, cache, name
    )
    for which in kept:
        cache.remove_stale(keys[which], encoders[which[0]].origin)
    with cache.locked(list(kept.values())):
        entries = {
            which: Entry(path, keys[which], layouts[which], clips.rows, list(clips.classes), encoders[which[0]].origin)
            for which, path in kept.items()
        }
        _fill(encoders, clips, entries, batch_size, workers, name)
    found = {}
    for encoder, encode in encoders.items():
        own = {kind: entry for (owner, kind), entry in entries.items() if owner == encoder}
        items, labels = _labels(own, clips, name)
        tokens: dict[str, Rows] = {kind: entry.features(cache.memory_limit) for kind, entry in own.items()}
        if "all" in kinds and (encoder, "all") in layouts and "all" not in own:
            tokens["all"] = Reencoded(encode, clips, "all", items, batch_size=batch_size, workers=workers)
        found[encoder] = Features(tokens, labels, items, max(entry.seconds for entry in own.values()))
    return found


def read(rows: Rows, index: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of each index array in turn: the way to read them where they may have to be encoded first."""
    if isinstance(rows, Reencoded):
        return rows.batches(list(index))
    return (rows[index_B] for index_B in index)


def channel_statistics(features: Rows) -> tuple[Float[np.ndarray, "E"], Float[np.ndarray, "E"]]:
    """Mean and standard deviation of each channel over all clips (and tokens); 1 in place of a deviation of 0.

    In one pass, block by block (Chan, Golub & LeVeque 1983).
    """
    width = features.shape[-1]
    count, mean, squares = 0, np.zeros(width), np.zeros(width)
    for part in chunks(features):
        values = part.reshape(-1, width).astype(np.float64)
        size, centre = len(values), values.mean(0)
        squares += np.square(values - centre).sum(0) + np.square(centre - mean) * count * size / (count + size)
        mean += (centre - mean) * size / (count + size)
        count += size
    deviation = np.sqrt(squares / count)
    # A channel that varies by rounding errors only would be blown up to noise.
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)


def chunks(features: Rows, limit: int = 2**26) -> Iterator[np.ndarray]:
    """Consecutive rows, about `limit` bytes at a time: a file on disk is never loaded as a whole."""
    rows = max(1, limit * len(features) // max(features.nbytes, 1))
    places = np.arange(len(features))
    return read(features, [places[first : first + rows] for first in range(0, len(features), rows)])


def _key(encode: Encode, clips: EvaluationSet, kind: str, layout: Layout) -> dict[str, Any]:
    """What decides the features, as JSON; the name of their place in the cache."""
    return {
        "version": caching.VERSION,
        "encode": dict(encode.identity),
        "clips": clips.identity,
        "kind": kind,
        "form": layout.form,
        "row": layout.shape,
    }


def _choose(
    layouts: Mapping[Which, Layout],
    paths: Mapping[Which, Any],
    clips: EvaluationSet,
    kinds: Sequence[str],
    cache: Cache,
    name: str,
) -> dict[Which, Any]:
    """The features to keep, and where: all that are wanted, or without all tokens where the disk has no room."""
    free = cache.free_bytes() - SPARE

    def missing(wanted: Iterable[Which]) -> int:
        return sum(cache.missing_bytes(paths[which], layouts[which], clips.rows) for which in wanted)

    # The means come along only where nothing else would be kept: some pass has to find what can be decoded.
    pooled = [which for which in layouts if which[1] != "all" and which[1] in kinds]
    every = [which for which in layouts if which[1] in kinds]
    if cache.keep != "on_the_fly":
        if missing(every) <= free:
            return {which: paths[which] for which in every}
        wanted = f"features of the {name} clips take {missing(every) / GIB:.1f} GiB, and {cache.folder} has room for"
        wanted += f" {max(free, 0) / GIB:.1f}"
        if cache.keep == "cache" or len(every) == len(pooled):
            raise OSError(
                f"{wanted}. Name another disk with --cache, keep int8 (config.feature_dtype), or let clips be encoded "
                "anew in each epoch (config.keep_features='on_the_fly')."
            )
        print(f"{wanted[0].upper()}{wanted[1:]}: clips are decoded and encoded anew in each epoch of a probe.")
    kept = [(encoder, kind) for encoder, kind in layouts if kind == "mean" or (encoder, kind) in pooled]
    if missing(kept) > free:
        raise OSError(f"{cache.folder} has no room for {missing(kept) / GIB:.2f} GiB of pooled features; name another.")
    return {which: paths[which] for which in kept}


def _fill(
    encoders: Mapping[str, Encode],
    clips: EvaluationSet,
    entries: Mapping[Which, Entry],
    batch_size: int,
    workers: int,
    name: str,
) -> None:
    """Encodes what is missing, and commits it now and then and on the way out."""
    for entry in entries.values():
        clips.note_skipped([Skip(*skip) for skip in entry.skips])
    missing = {which: entry for which, entry in entries.items() if not entry.complete}
    if not missing:
        return
    device = encoding.Device()
    tokens = max(encoders[encoder].tokens(clips.clip_shape) for encoder, _ in missing)
    size = device.batch_size(batch_size, clips.rows, tokens)
    forms: dict[str, list] = {}
    for encoder, kind in missing:
        forms.setdefault(encoder, []).append((kind, missing[encoder, kind].form))
    dispatch = {encoder: device.hold(encoders[encoder], tuple(wanted)) for encoder, wanted in forms.items()}
    start = min(entry.clips for entry in missing.values())
    # Killed after the last clip, before that was written down: nothing is left to encode.
    batches = clips.batches(size, workers, range(start, clips.rows)) if start < clips.rows else ()
    committed = time.monotonic()

    def commit(complete: bool = False) -> None:
        nonlocal committed
        now = time.monotonic()
        for entry in missing.values():
            entry.skips, entry.seconds = [list(skip) for skip in clips.skipped], entry.seconds + now - committed
            entry.commit(complete)
        committed = now

    with Progress(clips.rows, "clips", name=f"{name} features", done=start) as bar:
        try:
            for batch, made in encoding.one_behind(
                batches, lambda batch: {encoder: run(batch) for encoder, run in dispatch.items()}
            ):
                for (encoder, kind), entry in missing.items():
                    _append(entry, batch, {key: np.asarray(value) for key, value in made[encoder][kind].items()}, name)
                bar.update(min(int(batch["row"].max()) + 1, clips.rows))
                if time.monotonic() - committed > COMMIT_EVERY:
                    commit()
        except BaseException:
            commit()
            raise
        commit(complete=True)


def _append(entry: Entry, batch: Mapping[str, Any], made: Mapping[str, np.ndarray], name: str) -> None:
    """Adds those rows of a batch that the entry does not have yet."""
    new_B = batch["valid"] & (batch["row"] >= entry.clips)
    finite_B = made["finite"]
    if not finite_B[new_B].all():
        row = int(batch["row"][new_B & ~finite_B][0])
        raise FloatingPointError(f"the encoder's output on the {name} clips is not finite in float16 (clip {row}).")
    arrays = {key: value for key, value in made.items() if key != "finite"}
    arrays |= {"row": batch["row"], **{f"label-{task}": values for task, values in batch["labels"].items()}}
    entry.append(arrays if new_B.all() else {key: value[new_B] for key, value in arrays.items()})
    entry.clips = max(entry.clips, int(batch["row"].max()) + 1)


def _labels(entries: Mapping[str, Entry], clips: EvaluationSet, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Row numbers and labels of the clips that have features."""
    first, *others = entries.values()
    items = first.column("row")
    if not len(items):
        raise ValueError(f"the {name} set has no clips.")
    for other in others:
        if not np.array_equal(other.column("row"), items):
            raise OSError(
                f"the features in {first.folder} and {other.folder} are of different clips (a file could be decoded "
                "one time and not the other); delete both folders."
            )
    return items, {task: first.column(f"label-{task}") for task in clips.classes}
