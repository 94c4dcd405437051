import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from jepa_jax.config import ClipConfig, SourceConfig
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.results import clip_predictions, probe_result, results_file
from jepa_jax.evaluation.results.results_file import ResultsError
from jepa_jax.settings import ConfigError, to_dict
from jepa_jax.show import confusion, kinds, plots
from jepa_jax.show.kinds import curves, results


def write_run(folder, losses, accuracy=None):
    folder.mkdir(parents=True)
    lines = [{"step": step, "loss": loss, "learning_rate": 0.1} for step, loss in enumerate(losses, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if accuracy is not None:
        row = {"task": "class", "probe": "knn", "features": "trained", "accuracy": accuracy, "chance": 0.5}
        record = {"checkpoint": {"step": 2}, "results": [row, {**row, "features": "untrained", "accuracy": 0.1}]}
        (folder / "evaluation.jsonl").write_text(json.dumps(record) + "\n")
    return str(folder)


def test_curves_have_a_panel_for_each_metric_and_a_line_for_each_run(request_of, tmp_path):
    folders = (write_run(tmp_path / "runs" / "a", [3, 2, 1]), write_run(tmp_path / "runs" / "b", [3, 1], accuracy=0.75))
    runs = dict(zip(curves.names(folders), map(curves.read, map(type(tmp_path), folders)), strict=True))
    with plots.style():
        figure = curves.figure(runs)
        panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
        assert list(panels) == ["loss", "learning rate", "class, knn probe"]
        lines = {line.get_label(): line.get_xydata().tolist() for line in panels["loss"].lines}
        assert lines == {"a": [[1, 3], [2, 2], [3, 1]], "b": [[1, 3], [2, 1]]}
        probe = panels["class, knn probe"]
        assert next(line.get_ydata() for line in probe.lines) == [75]
        assert (probe.get_ylabel(), probe.get_xlabel()) == ("accuracy, %", "step")
    (file,) = kinds.draw("curves", request_of(paths=folders))
    first = np.asarray(Image.open(file))
    kinds.draw("curves", request_of(paths=folders))
    np.testing.assert_array_equal(np.asarray(Image.open(file)), first)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no metrics.jsonl; name the --workdir of a training run"),
        ("", "is empty: the run has not reached step config.log.every yet"),
        ("{\n", "has a line that is not JSON"),
    ],
)
def test_folders_without_metrics_raise(request_of, tmp_path, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        kinds.draw("curves", request_of(paths=(str(tmp_path),)))


def test_curves_need_different_runs(request_of, tmp_path):
    with pytest.raises(ConfigError, match="curves needs runs"):
        kinds.draw("curves", request_of(checkpoint=""))
    with pytest.raises(ConfigError, match="a run is named twice"):
        kinds.draw("curves", request_of(paths=(str(tmp_path), f"{tmp_path}/")))


@pytest.fixture
def evaluated(videos, tmp_path):
    """results.json of a probe on the test videos run/c.mp4, walk/a.mp4 and walk/b.mp4: c is wrong."""
    score = {"features": "trained", "task": "class", "probe": "linear", "chosen": {}, "item_names": ("c", "a", "b")}
    predicted = np.array([[1, 1, 1]])
    result = probe_result.score(
        **score,
        predicted_SxI=predicted,
        train_labels=np.array([0, 1, 1]),
        test_labels=np.array([0, 1, 1]),
        class_names=("run", "walk"),
    )
    config = EvalConfig(train=SourceConfig(path="elsewhere"), test=SourceConfig(path=str(videos)))
    record = {
        "results": [dataclasses.asdict(result)],
        "representation": {},
        "checkpoint": {"source": "runs/mine", "step": 4, "weights": "ema"},
        "clip": to_dict(ClipConfig(frames=4, size=16)),
        "skipped": {"train": [], "test": []},
        "settings": to_dict(config),
    }
    results_file.write(tmp_path / "results.json", record)
    given = {"clips": ("run/c.mp4", "walk/a.mp4", "walk/b.mp4"), "class_names": ("run", "walk")}
    predictions = clip_predictions.ClipPredictions(
        **{name: score[name] for name in ("features", "task", "probe")},
        **given,
        label_I=np.array([0, 1, 1]),
        predicted_SxI=predicted,
        probability_SxI=np.array([[0.9, 0.8, 0.7]]),
    )
    clip_predictions.write(clip_predictions.path_beside(results.epath.Path(tmp_path / "results.json")), [predictions])
    return tmp_path / "results.json"


class Page(html.parser.HTMLParser):
    """Collects tags with their attributes, and checks that tags are closed in order."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_results_page_is_self_contained_and_shows_the_mistake(request_of, evaluated):
    (file,) = kinds.draw("results", request_of(paths=(str(evaluated),)))
    content = file.read_text()
    page = Page(content)
    assert not page.open
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe"})
    sources = [
        attributes.get("src", attributes.get("href", "")) for tag, attributes in page.tags if tag in ("img", "link")
    ]
    assert all(source.startswith("data:") for source in sources)
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == "frames of a clip labelled run → walk, 90 %"
    assert "run → walk, 90 % · run/c.mp4" in content
    assert "66.7" in content
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    kinds.draw("results", request_of(paths=(str(evaluated),)))
    assert file.read_text() == content


def test_results_without_predictions_have_no_mistakes(request_of, evaluated):
    (evaluated.parent / "predictions.csv").unlink()
    (file,) = kinds.draw("results", request_of(paths=(str(evaluated),)))
    assert "<img" not in file.read_text()


def test_results_need_one_readable_file(request_of, tmp_path):
    with pytest.raises(ConfigError, match="results needs one file"):
        kinds.draw("results", request_of())
    with pytest.raises(ResultsError, match=r"results\.json cannot be read"):
        kinds.draw("results", request_of(paths=(str(tmp_path / "results.json"),)))


def test_confusion_shows_shares_of_the_true_class(evaluated):
    (result,) = results_file.read(evaluated)["results"]
    with plots.style():
        axes = confusion.matrix(result).axes[0]
        np.testing.assert_array_equal(axes.images[0].get_array(), [[0, 100], [0, 100]])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
        bars = confusion.by_class(result).axes[0]
        assert [bar.get_width() for bar in bars.patches] == [0, 100]
        assert [label.get_text() for label in bars.get_yticklabels()] == ["run", "walk"]
