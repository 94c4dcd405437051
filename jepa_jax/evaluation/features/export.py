"""Features as plain files for other programs: one array for each kind, and a table of the clips."""

import csv
import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jepa_jax.config import ClipConfig, SourceConfig, ViewsConfig
from jepa_jax.data.evaluation_clips import FILE_TASK, EvaluationSet
from jepa_jax.data.skipped_files import Skip
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features import rows as feature_rows
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.settings import ConfigError, nearest, to_dict

UNFINISHED = "unfinished"  # folder of the cache; deleted at the end
MEANING = {
    "mean": "tokens averaged: [clips, channels]",
    "frames": "tokens of each time step averaged: [clips, time steps, channels]",
    "all": "all tokens, time-major: [clips, tokens, channels]",
}


class Written(NamedTuple):
    """Content of a folder of features: numbers of clips with and without features, and the shape of each array."""

    clips: int
    skipped: int
    shapes: Mapping[str, tuple[int, ...]]


def write(
    encoder: FrozenEncoder,
    source: SourceConfig,
    out: str | pathlib.Path,
    *,
    tokens: Sequence[str],
    levels: Sequence[str],
    clip: ClipConfig,
    views: ViewsConfig,
    dtype: str,
    batch_size: int = 0,
    workers: int = 0,
) -> Written:
    """Encodes every clip of a source into arrays `out`/KIND.npy (float16), with clips.csv and features.json.

    Args:
        encoder: the frozen encoder.
        source: files or a prepared dataset; labels are optional.
        out: the folder; one that is unfinished is resumed.
        tokens: of "mean", "frames" and "all".
        levels: of "last", "all" and "1", "2", …
        clip: frames and size of the clips.
        views: which frames of a video are read.
        dtype: what the encoder computes in.
        batch_size: clips encoded in one call; 0: what suits the device.
        workers: processes that decode.

    Raises:
        ConfigError: a source that cannot be used, features that this encoder does not have, or an `out` that holds
            something else.
        FloatingPointError: features that are not finite.
        ValueError: no clip could be decoded.
        OSError: too little disk space.
    """
    out = pathlib.Path(out)
    clips = EvaluationSet(
        source,
        clip=clip,
        views=views,
        name="source",
        setting="--source",
        max_skip_fraction=1.0,
        labelled=False,
        preprocessing=encoder.preprocessing,
    )
    encode = extractor.of_encoder(frozen_encoder.resolve_attention(encoder, clip, dtype), dtype)
    kinds = _kinds(tokens, levels, encode.row_shapes(clips.clip_shape))
    key = {"encoder": dict(encode.identity), "clips": clips.identity, "kinds": sorted(kinds)}
    if written := _finished(out, key):
        return written
    _require_free(out)
    features = feature_set.extract(
        {"encoder": encode},
        clips,
        tuple(kinds.values()),
        Cache(out / UNFINISHED, keep="cache"),
        batch_size=batch_size,
        workers=workers,
        name="source",
    )["encoder"]
    shapes = {name: _save(out / f"{name}.npy", features.tokens[kind]) for name, kind in kinds.items()}
    _write_clips(out / "clips.csv", features, clips)
    _write_skipped(out / "skipped.jsonl", clips.skipped)
    description = {
        "arrays": {name: {"shape": shape, "dtype": "float16", "is": _meaning(name)} for name, shape in shapes.items()},
        "checkpoint": {"source": encoder.source, "step": encoder.step, "weights": encoder.weights},
        "clip": to_dict(clip),
        "skipped": len(clips.skipped),
        "key": key,
    }
    _write_json(out / "features.json", description)
    shutil.rmtree(out / UNFINISHED)
    return Written(len(features), len(clips.skipped), shapes)


def _kinds(tokens: Iterable[str], levels: Iterable[str], available: Mapping[str, Any]) -> dict[str, str]:
    """Kinds of features by the names of their arrays, such as mean, mean-level-2 and all-levels."""
    kinds = {}
    for token in tokens:
        if token not in MEANING:
            raise ConfigError(f"--tokens: {token!r} is not a kind of tokens.{nearest(token, MEANING)}")
        for level in levels:
            name = {"last": token, "all": f"{token}-levels"}.get(level, f"{token}-level-{level}")
            kind = extractor.kind_of(token, level)
            if kind not in available:
                known = sorted(
                    {
                        level
                        for level in ["last", "all", *map(str, range(1, 100))]
                        if extractor.kind_of(token, level) in available
                    }
                )
                raise ConfigError(f"--levels: this encoder has no level {level!r}; expected one of {', '.join(known)}.")
            kinds[name] = kind
    return kinds


def _meaning(name: str) -> str:
    token, _, level = name.partition("-")
    described = {"": "last level", "levels": "all levels concatenated"}.get(level, level.replace("-", " "))
    return f"{described}, {MEANING[token]}"


def _finished(out: pathlib.Path, key: Mapping[str, Any]) -> Written | None:
    """The content of a finished folder of these features; None if the folder is not finished."""
    file = out / "features.json"
    if not file.is_file():
        return None
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        if description["key"] != json.loads(json.dumps(key)):
            raise ConfigError(f"--out: {out} has other features (see {file}); name another folder or delete this one.")
        shapes = {name: tuple(array["shape"]) for name, array in description["arrays"].items()}
        return Written(next(iter(shapes.values()))[0], description["skipped"], shapes)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ConfigError(f"--out: {file} does not describe features ({error!r}); name another folder.") from error


def _require_free(out: pathlib.Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file; name a folder.")
    others = sorted(path.name for path in out.iterdir() if path.name != UNFINISHED) if out.is_dir() else []
    if others and not (out / UNFINISHED).is_dir():
        raise ConfigError(f"--out: {out} is not empty (it holds {', '.join(others[:5])}); name a new folder.")


def _save(file: pathlib.Path, rows: feature_rows.Rows) -> tuple[int, ...]:
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=rows.shape)
    first = 0
    for part in feature_rows.chunks(rows):
        array[first : first + len(part)] = part
        first += len(part)
    array.flush()
    return tuple(rows.shape)


def _write_clips(file: pathlib.Path, features: feature_set.Features, clips: EvaluationSet) -> None:
    classes, all_names = clips.classes[FILE_TASK], clips.names
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("row", "clip", "label"))
        for row, (item, label) in enumerate(
            zip(features.items.tolist(), features.labels[FILE_TASK].tolist(), strict=True)
        ):
            writer.writerow((row, all_names[item], "" if label < 0 else classes[label]))


def _write_skipped(file: pathlib.Path, skips: Iterable[Skip]) -> None:
    lines = [json.dumps({"path": skip.path, "reason": skip.reason}) + "\n" for skip in skips]
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: pathlib.Path, content: Mapping[str, Any]) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
