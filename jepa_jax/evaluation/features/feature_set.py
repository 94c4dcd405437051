"""Features of a whole set of clips: cached on disk, or encoded at every read if the disk is too small."""

import dataclasses
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from jepa_jax.data.evaluation_clips import FILE_TASK, EvaluationSet
from jepa_jax.data.skipped_files import Skip
from jepa_jax.evaluation.features import cache as caching
from jepa_jax.evaluation.features import extractor
from jepa_jax.evaluation.features.cache import Cache, Entry
from jepa_jax.evaluation.features.extractor import FeatureExtractor
from jepa_jax.evaluation.features.rows import Rows, UncachedRows
from jepa_jax.evaluation.features.storage import FeatureSpec
from jepa_jax.progress import Progress

COMMIT_EVERY = 10.0  # seconds between commits: the most work that a crash can lose
SPARE = 2**28  # bytes of the disk that stay free
GIB = 2**30

FeatureKey = tuple[str, str]  # name of the encoder, kind of features


@dataclasses.dataclass(frozen=True)
class Features:
    """Features and labels of the n rows of a set that could be decoded.

    Attributes:
        tokens: by kind, float16 [n, …]: "mean" averages a clip's tokens, "frames" those of each time step, "all" has
            all of them.
        labels: by task, the class of every row, int32 [n].
        items: number of each row in the set, int32 [n].
        seconds: time of the extraction, decoding and compilation included; that of the first time if cached.
    """

    tokens: Mapping[str, Rows]
    labels: Mapping[str, np.ndarray]
    items: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(self.items)


def only_labels(clips: EvaluationSet) -> Features:
    """Returns the labels of a set of files without features; decodes nothing."""
    return Features({}, {FILE_TASK: clips.item_labels}, np.arange(clips.size, dtype=np.int32), 0.0)


def extract(
    encoders: Mapping[str, FeatureExtractor],
    clips: EvaluationSet,
    kinds: Sequence[str] | Mapping[str, Sequence[str]],
    cache: Cache,
    *,
    batch_size: int = 0,
    workers: int = 0,
    name: str = "clips",
) -> dict[str, Features]:
    """Returns the features of all clips of a set by each encoder, from the cache if it has them.

    Every clip is decoded once for all encoders. After an interruption, the next call resumes.

    Args:
        encoders: by name.
        clips: the set.
        kinds: the kinds of features to return, for all encoders or by encoder; kinds that an encoder lacks are ignored.
        cache: where features are stored. All-token features that do not fit are encoded at every read instead.
        batch_size: clips encoded in one call, rounded up to a multiple of the devices; 0: what suits the device.
        workers: processes that decode.
        name: of the set, for the progress bar and errors.

    Raises:
        FloatingPointError: an encoder's output is not finite, or too large for float16.
        TooManySkippedError: too many clips cannot be decoded.
        ValueError: the set has no decodable clips.
        OSError: too little disk space for features that have to be cached.
    """
    by_encoder = kinds if isinstance(kinds, Mapping) else dict.fromkeys(encoders, kinds)
    wanted = {(encoder, kind) for encoder, own in by_encoder.items() for kind in own}
    specs = {
        (encoder, kind): FeatureSpec(shape, cache.storage_dtype if _every_token(kind) else "float16")
        for encoder, encode in encoders.items()
        for kind, shape in encode.row_shapes(clips.clip_shape).items()
        if (encoder, kind) in wanted or kind == "mean"
    }
    identities = {key: _identity(encoders[key[0]], clips, key[1], spec) for key, spec in specs.items()}
    all_paths = {key: cache.path(key[1], identity) for key, identity in identities.items()}
    paths = _choose(specs, all_paths, clips, wanted, cache, name)
    for key in paths:
        cache.remove_stale(identities[key], encoders[key[0]].origin)
    with cache.locked(list(paths.values())):
        entries = {
            key: Entry(path, identities[key], specs[key], clips.rows, list(clips.classes), encoders[key[0]].origin)
            for key, path in paths.items()
        }
        _fill(encoders, clips, entries, batch_size, workers, name)
    features = {}
    for encoder, encode in encoders.items():
        own = {kind: entry for (owner, kind), entry in entries.items() if owner == encoder}
        items, labels = _labels(own, clips, name)
        tokens: dict[str, Rows] = {kind: entry.features(cache.memory_limit) for kind, entry in own.items()}
        for kind in (kind for owner, kind in wanted & specs.keys() if owner == encoder and kind not in own):
            tokens[kind] = UncachedRows(encode, clips, kind, items, batch_size=batch_size, workers=workers)
        features[encoder] = Features(tokens, labels, items, max(entry.seconds for entry in own.values()))
    return features


def _every_token(kind: str) -> bool:
    """Whether a kind of features has all tokens of a clip, which may be too large to cache."""
    return kind.startswith("all")


def _identity(encode: FeatureExtractor, clips: EvaluationSet, kind: str, spec: FeatureSpec) -> dict[str, Any]:
    """Everything that determines the features, as JSON: the key of their cache entry."""
    return {
        "version": caching.VERSION,
        "encode": dict(encode.identity),
        "clips": clips.identity,
        "kind": kind,
        "form": spec.storage_dtype,
        "row": spec.shape,
    }


def _choose(
    specs: Mapping[FeatureKey, FeatureSpec],
    paths: Mapping[FeatureKey, pathlib.Path],
    clips: EvaluationSet,
    wanted: Set[FeatureKey],
    cache: Cache,
    name: str,
) -> dict[FeatureKey, pathlib.Path]:
    """The features to cache, with their folders: all wanted ones, or only pooled ones if the disk is too small."""
    free = cache.free_bytes() - SPARE

    def missing(keys: Iterable[FeatureKey]) -> int:
        return sum(cache.missing_bytes(paths[key], specs[key], clips.rows) for key in keys)

    every = [key for key in specs if key in wanted]
    pooled = [key for key in every if not _every_token(key[1])]
    if cache.keep != "on_the_fly":
        if missing(every) <= free:
            return {key: paths[key] for key in every}
        needed = f"features of the {name} clips take {missing(every) / GIB:.1f} GiB, and {cache.folder} has room for"
        needed += f" {max(free, 0) / GIB:.1f}"
        if cache.keep == "cache" or len(every) == len(pooled):
            raise OSError(
                f"{needed}. Name a folder on another disk with --cache, store int8 (config.feature_dtype), or encode "
                "clips again in each epoch (config.keep_features='on_the_fly')."
            )
        print(f"{needed[0].upper()}{needed[1:]}: clips are decoded and encoded again in each epoch of a probe.")
    # Every encoder needs one cached kind, since caching finds out which clips can be decoded.
    kept = [(encoder, kind) for encoder, kind in specs if kind == "mean" or (encoder, kind) in pooled]
    if missing(kept) > free:
        raise OSError(
            f"{cache.folder} has no room for {missing(kept) / GIB:.2f} GiB of pooled features; name another folder."
        )
    return {key: paths[key] for key in kept}


def _fill(
    encoders: Mapping[str, FeatureExtractor],
    clips: EvaluationSet,
    entries: Mapping[FeatureKey, Entry],
    batch_size: int,
    workers: int,
    name: str,
) -> None:
    """Encodes what the entries lack; commits every COMMIT_EVERY seconds and at the end, also after an error."""
    for entry in entries.values():
        clips.note_skipped([Skip(*skip) for skip in entry.skips])
    missing = {key: entry for key, entry in entries.items() if not entry.complete}
    if not missing:
        return
    device = extractor.Device()
    tokens = max(encoders[encoder].tokens(clips.clip_shape) for encoder, _ in missing)
    size = device.batch_size(batch_size, clips.rows, tokens)
    storage_dtypes: dict[str, list] = {}
    for encoder, kind in missing:
        storage_dtypes.setdefault(encoder, []).append((kind, missing[encoder, kind].storage_dtype))
    bound = {encoder: device.bind(encoders[encoder], tuple(dtypes)) for encoder, dtypes in storage_dtypes.items()}
    start = min(entry.clips for entry in missing.values())
    # A job killed after the last clip and before the last commit leaves nothing to encode.
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
            for batch, encoded in extractor.pipelined(
                batches, lambda batch: {encoder: run(batch) for encoder, run in bound.items()}
            ):
                for (encoder, kind), entry in missing.items():
                    arrays = {array: np.asarray(values) for array, values in encoded[encoder][kind].items()}
                    _append(entry, batch, arrays, name)
                bar.update(min(int(batch["row"].max()) + 1, clips.rows))
                if time.monotonic() - committed > COMMIT_EVERY:
                    commit()
        except BaseException:
            commit()
            raise
        for entry in missing.values():
            entry.write_index(clips.names, clips.views, clips.classes)
        commit(complete=True)


def _append(entry: Entry, batch: Mapping[str, Any], encoded: Mapping[str, np.ndarray], name: str) -> None:
    """Appends the decodable rows of a batch that the entry does not have yet."""
    new_B = batch["valid"] & (batch["row"] >= entry.clips)
    finite_B = encoded["finite"]
    if not finite_B[new_B].all():
        row = int(batch["row"][new_B & ~finite_B][0])
        raise FloatingPointError(f"the encoder's output on the {name} clips is not finite in float16 (clip {row}).")
    arrays = {array: values for array, values in encoded.items() if array != "finite"}
    arrays |= {"row": batch["row"], **{f"label-{task}": values for task, values in batch["labels"].items()}}
    entry.append(arrays if new_B.all() else {array: values[new_B] for array, values in arrays.items()})
    entry.clips = max(entry.clips, int(batch["row"].max()) + 1)


def _labels(entries: Mapping[str, Entry], clips: EvaluationSet, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Row numbers and labels of the rows that have features."""
    first, *others = entries.values()
    items = first.column("row")
    if not len(items):
        raise ValueError(f"the {name} set has no clips.")
    for other in others:
        if not np.array_equal(other.column("row"), items):
            raise OSError(
                f"the features in {first.folder} and {other.folder} are of different clips (a file could be decoded "
                "once and not another time); delete both folders."
            )
    return items, {task: first.column(f"label-{task}") for task in clips.classes}
