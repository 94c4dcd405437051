"""Each probe's prediction for each test clip, written to predictions.csv."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from jepa_jax.files.paths import write_text

COLUMNS = ("clip", "task", "probe", "features", "seed", "label", "predicted", "correct", "probability")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipPredictions:
    """Predictions of one probe for one test set.

    Attributes:
        features, task, probe: as in `probe_result.ProbeResult`.
        clips: name of each test item.
        class_names: of all classes.
        label_I: true class of each item.
        predicted_SxI: class predicted by each probe seed.
        probability_SxI: of the predicted class; None if the probe's scores are not probabilities.
    """

    features: str
    task: str
    probe: str
    clips: Sequence[str]
    class_names: Sequence[str]
    label_I: Int[np.ndarray, "items"]
    predicted_SxI: Int[np.ndarray, "seeds items"]
    probability_SxI: Float[np.ndarray, "seeds items"] | None

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yields the `COLUMNS` of each item and seed."""
        for item, (clip, label) in enumerate(zip(self.clips, self.label_I.tolist(), strict=True)):
            for seed, predicted_I in enumerate(self.predicted_SxI):
                predicted = int(predicted_I[item])
                probability = "" if self.probability_SxI is None else f"{self.probability_SxI[seed, item]:.6g}"
                names = self.class_names[label], self.class_names[predicted]
                yield (clip, self.task, self.probe, self.features, seed, *names, int(label == predicted), probability)


def path_beside(results: epath.Path) -> epath.Path:
    """predictions.csv beside results.json; NAME.predictions.csv beside NAME.json."""
    return results.parent / ("predictions.csv" if results.stem == "results" else f"{results.stem}.predictions.csv")


def write(path: epath.Path, predictions: Iterable[ClipPredictions]) -> None:
    """Writes one CSV file with a header; names of clips keep their bytes on disk."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for probe in predictions:
        writer.writerows(probe.rows())
    write_text(path, text.getvalue(), errors="surrogateescape")
