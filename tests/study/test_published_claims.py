"""docs/claims.md: its numbers are those of paper_results.json and of the records."""

import json
import math
import pathlib
import re

import pytest
import synthetic_records as synthetic

from jepa_jax.study.report import published_claims

DOC = pathlib.Path(__file__).parent.parent.parent / "docs" / "claims.md"
CONTENT = DOC.read_text()
SECTIONS = {
    int(number): text for number, text in re.findall(r"^## Claim (\d+)\n(.*?)(?=^## |\Z)", CONTENT, flags=re.M | re.S)
}
RUNS = json.loads((DOC.parent.parent / "jepa_jax" / "paper_results.json").read_text())["runs"]
TOP1 = {(run["regime"], run["recipe"]): run["top1"] for run in RUNS}


def written(number):
    """The text of a claim without what the command fills in."""
    return re.sub(r"<!-- (published|runs).*?<!-- end -->", "", SECTIONS[number], flags=re.S)


def difference(run, reference, benchmark, regime="mixed"):
    return TOP1[regime, run][benchmark] - TOP1[regime, reference][benchmark]


def test_every_claim_has_its_parts():
    assert list(SECTIONS) == list(published_claims.CLAIMS) == list(range(1, 13))
    summary = dict(re.findall(r"^\| \[(\d+)\]\(#claim-\d+\) .* \| (.*) \|$", CONTENT, flags=re.M))
    for number, text in SECTIONS.items():
        for part in ("Claimed.", "The code.", "Noise.", "Our runs", f"<!-- runs {number} -->"):
            assert f"**{part}" in text or part in text, (number, part)
        verdict = re.search(r"\*\*Verdict: (holds|within noise|artefact|not tested)", text)
        assert verdict is not None, number
        assert summary[str(number)] == verdict[1]


def test_tables_are_computed_from_the_published_results():
    for number in published_claims.CLAIMS:
        table = f"<!-- published {number} -->\n{published_claims.published_table(number)}\n<!-- end -->"
        assert table in CONTENT, "Run python -m jepa_jax.study.report.published_claims"


def test_published_differences_and_standard_errors():
    for number, claim in published_claims.CLAIMS.items():
        found = published_claims.published(claim)
        assert bool(found) == (number != 11)
        for one in found:
            ours = TOP1[claim.regime, one.run][one.benchmark]
            theirs = TOP1[claim.regime, one.reference][one.benchmark]
            items = {"diving48": 1970, "imagenet100": 5000, "ssv2": 24777, "synthetic_directions": 40}[one.benchmark]
            variance = (ours * (100 - ours) + theirs * (100 - theirs)) / items
            assert (one.difference, one.error) == (pytest.approx(ours - theirs), pytest.approx(math.sqrt(variance)))


@pytest.mark.parametrize("number", published_claims.CLAIMS)
def test_differences_in_the_text_are_published(number):
    quoted = set(re.findall(r"[+−]\d+\.\d\d", written(number)))
    table = set(re.findall(r"[+−]\d+\.\d\d", published_claims.published_table(number)))
    assert quoted <= table


def test_noise_in_the_text():
    errors = [
        published_claims.standard_error(TOP1["mixed", "baseline_seed42"][name], items)
        for name, items in (("diving48", 1970), ("imagenet100", 5000), ("ssv2", 24777))
    ]
    text = re.sub(r"\s+", " ", CONTENT)
    assert "is {:.2f} points on Diving-48 (1,970 test clips), {:.2f} on ImageNet-100".format(*errors) in text
    assert f"and {errors[2]:.2f} on SSv2 (24,777)" in text
    seeds = [published_claims.between_seeds(name) for name in ("imagenet100", "ssv2", "diving48")]
    assert f"by {seeds[0]:.2f} points on ImageNet-100 and {seeds[1]:.2f} on SSv2" in text
    assert seeds[2] is None
    assert [round(seeds[0] / errors[1]), round(seeds[1] / errors[2])] == [6, 10]  # six and ten times


def test_ratios_to_the_difference_of_two_seeds():
    seeds = {name: published_claims.between_seeds(name) for name in ("imagenet100", "ssv2")}
    for number, recipe, benchmark, reference, ratio in (
        (3, "fwm_hw_ld", "imagenet100", "baseline_seed42", "1.6"),
        (3, "fwm_hw_ld", "ssv2", "baseline_seed42", "1.8"),
        (4, "ld", "ssv2", "baseline_seed42", "2.8"),
        (8, "fwm_ld", "imagenet100", "baseline_seed42", "2.8"),
        (8, "fwm_ld", "imagenet100", "baseline", "1.8"),
    ):
        assert f"{abs(difference(recipe, reference, benchmark)) / seeds[benchmark]:.1f}" == ratio
        assert f" {ratio} times" in written(number) or f" {ratio} or" in written(number)
    assert 0.45 < difference("fwm", "baseline_seed42", "imagenet100") / seeds["imagenet100"] < 0.55  # half


def test_counts_and_ranges():
    lost = {
        reference: [name for name in published_claims.FOURTEEN if difference(name, reference, "imagenet100") < -5]
        for reference in ("baseline_seed42", "baseline")
    }
    assert len(published_claims.FOURTEEN) == 14
    assert [len(names) for names in lost.values()] == [10, 5]
    assert "10 of 14 methods" in written(5)
    assert "5 of 14 lose more" in written(5)
    drops = sorted(published_claims.FOURTEEN, key=lambda name: TOP1["mixed", name]["imagenet100"])
    assert drops[:4] == ["fac", "ltc", "ac", "spectral"]

    kinematic = [TOP1["ucf101", name] for name in published_claims.KINEMATIC]
    random = [top1["imagenet100"] for top1 in kinematic if "imagenet100" in top1]
    assert len(random) == 4
    span = max(random) - min(random)
    assert f"span {span:.2f} points, a third" in re.sub(r"\s+", " ", written(2))
    assert span / published_claims.standard_error(13.6, 5000) == pytest.approx(1 / 3, abs=0.03)
    assert all(run["evaluated_encoder"] == "untrained" for run in RUNS if run["recipe"] in published_claims.KINEMATIC)
    seed = published_claims.between_seeds("imagenet100")
    for name in published_claims.TEMPORAL:
        drops = [difference(name, reference, "imagenet100") for reference in ("baseline_seed42", "baseline")]
        assert (max(drops) < -seed) == (name != "ld")


def test_motion_guided_gains_are_smaller_than_the_noise():
    diving, images, ssv2 = published_claims.published(published_claims.CLAIMS[1])
    assert abs(diving.difference) < diving.error
    assert abs(images.difference) < images.error
    assert 2 * ssv2.error < ssv2.difference < published_claims.between_seeds("ssv2")


def test_runs_are_filled_from_records_and_nothing_else_changes(tmp_path):
    assert published_claims.runs_text(3, []) == "Not yet run."
    results = synthetic.write(tmp_path, synthetic.whole(), plan=synthetic.study())
    runs = published_claims.read_runs([results])
    filled = published_claims.fill(CONTENT, runs)
    third = re.search(r"<!-- runs 3 -->\n(.*?)<!-- end -->", filled, flags=re.S)[1]
    assert re.search(r"\* synthetic, fwm_hw_ld − baseline, order: \*\*▲ \+1\d\.\d \(.* 6 seeds\)\*\*", third)
    assert "fwm_hw_ld − baseline, appearance: \\~ " in third
    assert "Not yet run." in re.search(r"<!-- runs 1 -->\n(.*?)<!-- end -->", filled, flags=re.S)[1]
    assert published_claims.fill(filled, runs) == filled
    marks = r"(<!-- (?:runs|published) \d+ -->\n).*?(<!-- end -->)"
    assert re.sub(marks, r"\1\2", filled, flags=re.S) == re.sub(marks, r"\1\2", CONTENT, flags=re.S)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<!-- runs 1 -->\nx", "do not alternate"),
        ("<!-- runs 1 -->\n<!-- published 1 -->\n<!-- end -->", "do not alternate"),
        ("<!-- runs 13 -->\n<!-- end -->", "no claim 13; expected 1 to 12"),
    ],
)
def test_wrong_marks_are_an_error(content, message):
    with pytest.raises(ValueError, match=message):
        published_claims.fill(content, [])
