"""Released probes, scored as they are: V-JEPA 2's own attentive probes and classifiers of transformers.

As in V-JEPA 2's evaluation (arXiv:2506.09985), a probe reads the tokens of all segments of a video together, one after
another, and its probabilities are averaged over the spatial crops.
"""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jepa_jax import weights
from jepa_jax.config import ViewsConfig
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.features.rows import Rows, read_ahead
from jepa_jax.models import probe_heads
from jepa_jax.settings import ConfigError
from jepa_jax.weights import references

TOKENS = 2**15  # in a batch of videos
IN_ORDER = "order"


class Predictions(NamedTuple):
    """Class and its probability for each item, as `fitting.Predictions` has them for one probe seed."""

    predicted_1xI: Int[np.ndarray, "1 items"]
    probability_1xI: Float[np.ndarray, "1 items"]


@functools.cache
def read(file: str) -> weights.Probe:
    """Reads a probe: evals/*.pt of V-JEPA 2, or the classifier in weights of transformers.

    Args:
        file: as `weights.references.find` takes it.

    Raises:
        ConfigError: weights without a classifier, or a reference that is not one of weights.
        WeightsError: a file that cannot be read.
        FileNotFoundError: no such file.
    """
    path = references.find(file)
    if path is None:
        raise ConfigError(
            f"{file} is not a probe; expected a .pt file, or a folder or name of weights with a classifier."
        )
    if path.suffix in (".pt", ".pth"):
        return weights.read_probe(path)
    probe = weights.read(path).probe
    if probe is None:
        raise ConfigError(f"{file} has no classifier; those of VJEPA2ForVideoClassification have one.")
    return probe


def require_width(name: str, config: ProbeConfig, width: int) -> None:
    """Checks that a probe reads features of this width.

    Raises:
        ConfigError: it does not.
    """
    expected = read(config.released).params["query"].shape[0]
    if expected != width:
        raise ConfigError(
            f"config.probes.{name}.released: {config.released} reads features of width {expected}; those of the "
            f"encoder have {width}."
        )


def class_numbers(name: str, config: ProbeConfig, classes: Sequence[str]) -> Int[np.ndarray, "classes"]:
    """Returns the probe's number of each class of the clips.

    Raises:
        ConfigError: the probe's classes are not known, or are not those of the clips.
    """
    probe, setting = read(config.released), f"config.probes.{name}"
    count = probe.module.classes
    if config.labels == IN_ORDER:
        labels = classes
    elif config.labels:
        labels = _read_labels(config.labels, f"{setting}.labels")
    elif probe.labels:
        labels = probe.labels
    elif all(each.isdecimal() for each in classes):
        labels = [str(number) for number in range(count)]
        classes = [str(int(each)) for each in classes]
    else:
        raise ConfigError(
            f"{setting}.labels is empty, and {config.released} has no names of its {count} classes. Name a file with "
            f"them in the probe's order (a name on each line, or JSON), or {IN_ORDER!r} if the clips' classes are in "
            "that order."
        )
    numbers = {_plain(label): number for number, label in enumerate(labels)}
    missing = [each for each in classes if _plain(each) not in numbers]
    if missing or len(classes) != count or len(labels) != count:
        shown = f", such as {missing[0]!r}, which it lacks" if missing else ""
        raise ConfigError(
            f"{setting}.released: the probe has {count} classes and {len(labels)} names; the clips have {len(classes)} "
            f"classes{shown}."
        )
    return np.array([numbers[_plain(each)] for each in classes])


def predict(
    config: ProbeConfig,
    tokens: Rows,
    rows_R: Int[np.ndarray, "R"],
    views: ViewsConfig,
    numbers_C: Int[np.ndarray, "C"],
) -> Predictions:
    """Predicts the classes of videos.

    Args:
        config: the probe.
        tokens: features [R, N, E].
        rows_R: number of each row in the set: item · views + segment · crops + crop.
        views: segments and crops of a video.
        numbers_C: the probe's number of each class.
    """
    probe = read(config.released)
    video_G, first_G, count_G = _videos(rows_R, views)
    scores = np.empty((len(video_G), len(numbers_C)), np.float32)
    batches = list(_batches(count_G, tokens.shape[1]))
    # Of a video's rows, those of a crop are every `crops`th; they are sorted so in `_videos`.
    order_R = _order(rows_R, views)
    parts = [np.concatenate([order_R[first_G[g] : first_G[g] + count_G[g]] for g in batch]) for batch in batches]
    with jax.default_matmul_precision("highest"):
        for batch, features in zip(batches, read_ahead(tokens, parts), strict=True):
            joined = features.reshape(len(batch), -1, features.shape[-1])
            scores[batch] = np.asarray(_probabilities(probe.module, probe.params, joined))[:, numbers_C]
    _, first, crops = np.unique(video_G, return_index=True, return_counts=True)
    score_IxC = np.add.reduceat(scores, first, axis=0) / crops[:, None]
    return Predictions(score_IxC.argmax(-1)[None].astype(np.int32), score_IxC.max(-1)[None])


def _order(rows_R: Int[np.ndarray, "R"], views: ViewsConfig) -> Int[np.ndarray, "R"]:
    """Returns the positions of rows, sorted by video, then crop, then segment."""
    video_R, view_R = np.divmod(rows_R, views.clips * views.crops)
    segment_R, crop_R = np.divmod(view_R, views.crops)
    return np.lexsort((segment_R, crop_R, video_R))


def _videos(rows_R: Int[np.ndarray, "R"], views: ViewsConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the video, first position and number of rows of each (video, crop), in the order of `_order`."""
    ordered = rows_R[_order(rows_R, views)]
    video_R = ordered // (views.clips * views.crops)
    group_R = video_R * views.crops + ordered % views.crops
    _, first_G, count_G = np.unique(group_R, return_index=True, return_counts=True)
    return video_R[first_G], first_G, count_G


def _batches(count_G: Int[np.ndarray, "G"], tokens: int) -> Iterator[Int[np.ndarray, "B"]]:
    """Yields groups with equal numbers of rows, so many that their tokens fit."""
    for count in np.unique(count_G):
        same = np.flatnonzero(count_G == count)
        size = max(1, TOKENS // (int(count) * tokens))
        yield from np.split(same, range(size, len(same), size))


@functools.partial(jax.jit, static_argnames="module")
def _probabilities(
    module: probe_heads.AttentiveBlocksProbe, params: Any, tokens_BxSxE: Num[np.ndarray | Array, "B S E"]
) -> Float[Array, "B classes"]:
    logits_BxC: Any = module.apply({"params": params}, tokens_BxSxE.astype(jnp.float32))
    return jax.nn.softmax(logits_BxC)


def _read_labels(file: str, setting: str) -> list[str]:
    try:
        text = pathlib.Path(file).read_text(encoding="utf-8")
        if not file.endswith(".json"):
            return [line.strip() for line in text.splitlines() if line.strip()]
        content = json.loads(text)
        if isinstance(content, Mapping):  # name → number, as labels.json of Something-Something V2
            return [str(name) for name, _ in sorted(content.items(), key=lambda pair: int(pair[1]))]
        return [str(name) for name in content]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{setting}: {file} has no names of classes ({error}); expected a name on each line, or JSON: a list, or "
            "an object of name and number."
        ) from error


def _plain(label: str) -> str:
    """A label without the brackets and capitals in which lists differ."""
    return label.replace("[", "").replace("]", "").casefold()
