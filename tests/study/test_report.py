"""The report: what it says in every outcome, from complete and from incomplete records."""

import dataclasses
import html.parser
import json
import re
import xml.etree.ElementTree

import pytest
import synthetic_records as synthetic

from jepa_jax.study import report, results_folder
from jepa_jax.study.report import answer, formats
from jepa_jax.study.statistics import contrasts
from jepa_jax.study.statistics.evidence import Evidence
from jepa_jax.study.statistics.inference import Ratio


def write(folder, records, **others):
    """Writes records and their report, and returns the text of report.html and report.md."""
    report.write(synthetic.write(folder / "results", records, **others), folder / "report")
    return tuple((folder / "report" / name).read_text() for name in ("report.html", "report.md"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return write(folder, synthetic.whole(), plan=synthetic.study(), pixels=synthetic.controls())


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    """Of the whole study, by recipe and label."""
    folder = synthetic.write(tmp_path_factory.mktemp("comparisons"), synthetic.whole(), plan=synthetic.study())
    return {(one.recipe, one.endpoint.label): one for one in contrasts.compare(Evidence.read(folder))}


def sentences(folder, records, **others):
    evidence = Evidence.read(synthetic.write(folder, records, **others))
    found = answer.answer(evidence, contrasts.compare(evidence))
    return ["".join(span.text for span in sentence) for sentence in found]


class Tags(html.parser.HTMLParser):
    """Checks that tags are balanced, and collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_one_file_without_requests_or_scripts(whole):
    page, _ = whole
    tags = Tags(page)
    assert tags.open == []
    assert not re.search(r"<script|<iframe|<img|@import|url\(|https?://", page)
    assert {value for _, name, value in tags.attributes if name in ("href", "src")} == {"data:,"}
    for plot in re.findall(r"<figure>(<svg.*?</svg>)(?:<figcaption|</figure>)", page, flags=re.DOTALL):
        assert xml.etree.ElementTree.fromstring(plot).attrib["aria-label"]
        assert "nan" not in plot
        assert "inf" not in re.sub("<text.*?</text>", "", plot)


def test_same_records_give_the_same_bytes(whole, tmp_path):
    again = write(tmp_path, reversed(synthetic.whole()), plan=synthetic.study(), pixels=synthetic.controls())
    assert again == whole


def test_page_has_every_part(whole):
    for text in whole:
        for part in (
            "Answer", "What this does not show", "Accuracy", "Trade-offs", "Planned comparisons", "Sample efficiency",
            "Collapse", "Gradient audit", "halves", "Cost", "Failed runs", "Settings", "of an untrained encoder",
            "synthetic directions 67.5", "untrained", "3.13.1", "abc1234", "239–244", "patch", "dynamics half",
        ):  # fmt: skip
            assert part in text, part
    page, document = whole
    assert "&lt;it&gt;" in page
    assert "what <it>" not in page
    assert r"\<it\>" in document
    assert "FloatingPointError: the loss is &lt;nan&gt; at step 412." in page


def test_clear_differences_are_found_and_others_are_grey(whole):
    page, _ = whole
    differences = re.findall(r'<span class="(\w+)">([▲▼~]) ([+−]?[\d.]+) \(', page)
    assert {tone for tone, mark, _ in differences if mark == "~"} == {"unclear"}
    assert {(tone, mark) for tone, mark, _ in differences} == {("gain", "▲"), ("loss", "▼"), ("unclear", "~")}
    assert all(float(value) > 9 for tone, _, value in differences if tone == "gain")
    assert all(value.startswith("−1") for tone, _, value in differences if tone == "loss")


def test_a_collapse_and_an_objective_without_gradient_are_named(whole):
    page, _ = whole
    assert "The features of fwm (seeds 239–244) had collapsed" in page
    assert "fwm_hw_ld: latent_dynamics has a loss but no gradient on the encoder" in page
    assert "fwm: factorization_static has a loss but no gradient" not in page


def test_numbers_are_those_of_the_records(tmp_path):
    records = [synthetic.run(recipe, seed) for recipe in ("baseline", "ld") for seed in (239, 240, 241)]
    plan = synthetic.study(range(239, 242), ("baseline", "ld"), (("ld", "baseline"),))
    _, document = write(tmp_path, records, plan=plan)

    def final(recipe):
        return [
            row.accuracy
            for record in records
            for row in record.accuracies
            if record.recipe == recipe
            and (row.label, row.features, row.clips_seen, row.label_fraction) == ("order", "all", synthetic.CLIPS, 1.0)
        ]

    mean = sum(final("baseline")) / 3
    difference = sum(final("ld")) / 3 - mean
    assert f"**{100 * mean:.1f} ±" in document
    assert f"{100 * difference:+.1f} (".replace("-", "−") in document


def test_answer_with_a_gain_and_a_loss(tmp_path):
    differences, efficiency, power = sentences(tmp_path, synthetic.whole(), plan=synthetic.study())
    assert re.match(
        r"Of 12 comparisons named before running, 2 differences are clear: in order, fwm_hw_ld gains", differences
    )
    assert re.search(r"; in appearance, fwm loses ▼ 1\d\.\d points against baseline", differences)
    assert re.match(r"fwm_hw_ld reaches the final accuracy of baseline in order with \d+\s%", efficiency)
    assert "; baseline reaches the lower final accuracy of fwm in appearance with" in efficiency
    assert re.match(r"With 6 seeds a single comparison finds a true difference of [\d.]+ to [\d.]+ points", power)


def test_answer_without_a_clear_difference(tmp_path):
    records = [synthetic.run(recipe, seed) for recipe in ("baseline", "ld") for seed in range(239, 243)]
    plan = synthetic.study(contrasts=(("ld", "baseline"), ("fwm", "baseline")))
    differences, efficiency, power = sentences(tmp_path, records, plan=plan)
    assert differences.startswith(
        "No difference is clear in the 3 comparisons with enough seeds, of 6 comparisons named before running; "
        "the largest is ld against baseline in "
    )
    assert efficiency.startswith("No recipe clearly needs fewer clips than its reference (3 comparisons")
    assert power.endswith("3 comparisons of 6 cannot be tested yet.")


def test_answer_with_one_seed(tmp_path):
    records = [synthetic.run(recipe, 239) for recipe in synthetic.TRUTH]
    found = sentences(tmp_path, records, plan=synthetic.study())
    assert "none of the 12 comparisons named before running has the two seeds" in found[0]
    assert "Sample efficiency is not known" in found[1]
    assert "is not known; 12 comparisons of 12 cannot be tested yet" in found[2]


def test_answer_without_the_baseline(tmp_path):
    records = [synthetic.run("ld", seed) for seed in range(239, 245)]
    found = sentences(tmp_path, records, plan=synthetic.study())
    assert "none of the 12 comparisons named before running has been run on a seed of its reference" in found[0]


def test_answer_without_contrasts(tmp_path):
    found = sentences(tmp_path, synthetic.whole())
    assert found[0] == "No comparison was named before running, so there is no test, only estimates."


@pytest.mark.parametrize(
    "given",
    [
        {"records": []},
        {"records": [], "plan": synthetic.study()},
        {"records": [], "pixels": synthetic.controls()},
        {"records": [synthetic.failed("fwm", 239)], "plan": synthetic.study()},
        {"records": [synthetic.run("ld", 239)]},
        {"records": [synthetic.run("ld", 239, accuracies=(), representation={}, curves={})]},
        {"records": synthetic.whole(range(239, 241))},
        {"records": [synthetic.run("hw", 239, name="of_another_package")], "plan": synthetic.study()},
    ],
    ids=["nothing", "plan", "controls", "failed", "one run", "empty run", "no plan", "unknown recipe"],
)
def test_incomplete_records_give_a_report(given, tmp_path):
    page, document = write(tmp_path, **given)
    assert Tags(page).open == []
    assert "Answer" in document
    assert "nan" not in re.sub("<.*?>", "", page).replace("<nan>", "").replace("&lt;nan&gt;", "")
    if "plan" not in given:
        assert "study.json is missing" in document


def test_missing_runs_are_counted(tmp_path):
    _, few = write(tmp_path / "few", synthetic.whole(), plan=synthetic.study())
    assert "Missing or failed: 1 run of 1 recipe (hw 1)." in few
    plan = synthetic.study(recipes=tuple(synthetic.TRUTH) + tuple(f"other_{number}" for number in range(9)))
    _, many = write(tmp_path / "many", [synthetic.run("baseline", 239)], plan=plan)
    assert "Missing or failed: 95 runs of 16 recipes (baseline 5, " in many


def test_unreadable_record_is_named(tmp_path):
    results = synthetic.write(tmp_path / "results", [synthetic.run("ld", 239)])
    (results / "ld" / "240.json").write_text("{")
    with pytest.raises(results_folder.RecordError, match=r"240\.json is not valid JSON"):
        report.write(results, tmp_path / "report")


def test_runs_that_cannot_be_pooled_are_reported(tmp_path):
    record = synthetic.run("ld", 240)
    newer = dataclasses.replace(
        record, settings_sha256="7" * 64, software=dataclasses.replace(record.software, jax="0.13")
    )
    _, document = write(tmp_path, [synthetic.run("ld", 239), newer])
    assert "Runs of ld were made with different settings" in document
    assert "different versions of the software" in document


def test_exploratory_difference_is_never_clear(tmp_path):
    records = [synthetic.run(recipe, seed) for recipe in ("baseline", "fwm_hw_ld") for seed in range(239, 245)]
    evidence = Evidence.read(synthetic.write(tmp_path, records))
    order = contrasts.compare(evidence)[0]
    assert order.difference.p < 0.001
    assert (order.verdict, order.adjusted_p, formats.tone(order)) == ("exploratory", None, "unclear")


def test_exploratory_recipes_are_compared_with_the_baseline_of_their_target(comparisons):
    assert comparisons["hw", "order"].reference == "baseline"
    assert comparisons["baseline_no_ema", "order"].reference == "baseline"
    assert ("baseline", "order") not in comparisons


def test_missing_runs_do_not_loosen_the_family(tmp_path):
    records = [synthetic.run(recipe, seed) for recipe in ("baseline", "fwm_hw_ld") for seed in range(239, 245)]
    evidence = Evidence.read(synthetic.write(tmp_path, records, plan=synthetic.study()))
    order = contrasts.compare(evidence)[0]
    assert order.family == 12
    assert order.adjusted_p == pytest.approx(12 * order.difference.p)


def test_recipe_that_is_faster_to_the_same_end_gains_on_average(comparisons):
    appearance = comparisons["fwm_hw_ld", "appearance"]
    assert not appearance.clear
    assert appearance.average.low > 0


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (Ratio(0.45, 0.3, 0.71, 1 / 16, 1.0, 6), "45 % (30 to 71 %)"),
        (Ratio(float("inf"), 1.0, float("inf"), 1 / 16, 1.0, 6), "not reached (> 100 %)"),
        (Ratio(float("inf"), 0.62, float("inf"), 1 / 16, 1.0, 6), "not reached (≥ 62 %)"),
        (Ratio(1 / 16, 0.0, 1 / 16, 1 / 16, 1.0, 6), "≤ 6 %"),
        (Ratio(0.4, 0.0, float("inf"), 1 / 16, 1.0, 6), "40 % (no bound)"),
        (Ratio(0.4, 0.0, float("inf"), 1 / 16, 1.0, 1), "40 % (one seed)"),
        (None, "not measured"),
    ],
)
def test_ratio_in_words(needed, expected):
    assert formats.ratio(needed).replace(formats.SPACE, " ") == expected


def test_settings_are_all_there(whole):
    page, _ = whole
    settings = json.dumps(synthetic.study().settings, indent=1, sort_keys=True)
    assert settings in html.unescape(page)
