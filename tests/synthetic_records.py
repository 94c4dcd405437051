"""Records of a study that was never run: accuracies are drawn from a known truth."""

import dataclasses

import numpy as np

from jepa_jax.study import results_folder
from jepa_jax.study.run_record import (
    Accuracy,
    Audit,
    AuditTerm,
    ControlsRecord,
    Label,
    Machine,
    RecipePlan,
    RunRecord,
    Software,
    StudyRecord,
    Training,
)

CLIPS = 19_200
CLIP_FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
LABEL_FRACTIONS = (0.01, 0.05, 0.25, 1.0)
LABELS = {"order": Label(classes=6, test=1024, train=2048), "motion": Label(classes=12, test=1024, train=2048)}
LABELS["appearance"] = Label(classes=16, test=1024, train=2048)
CONTRASTS = (("fwm_hw_ld", "baseline"), ("fwm", "baseline"), ("ld", "baseline"), ("kinematic", "baseline_no_ema"))

# Final accuracy of each recipe in order, motion and appearance, and its speed: clips needed relative to the baseline.
TRUTH = {
    "baseline": ((0.55, 0.30, 0.40), 1.0),
    "baseline_no_ema": ((0.50, 0.28, 0.38), 1.0),
    "fwm_hw_ld": ((0.68, 0.30, 0.40), 0.4),
    "fwm": ((0.55, 0.30, 0.28), 1.0),
    "ld": ((0.56, 0.31, 0.40), 1.0),
    "kinematic": ((0.50, 0.29, 0.37), 1.0),
    "hw": ((0.56, 0.30, 0.41), 1.0),
}


def accuracy(label, share, **where):
    total = LABELS[label].test
    correct = round(total * min(max(share, 0.0), 1.0))
    return Accuracy(label=label, probe="linear", correct=correct, total=total, accuracy=correct / total, **where)


def run(recipe, seed, *, noise=0.012, collapsed=False, name="", **changes):
    """The record of one run. Runs with the same seed share a part of their noise."""
    finals, speed = TRUTH[recipe]
    shared = np.random.default_rng(seed).normal(0, noise, 3)
    rng = np.random.default_rng([seed, sorted(TRUTH).index(recipe)])
    rows = []
    for number, (label, final) in enumerate(zip(LABELS, finals, strict=True)):
        chance = LABELS[label].chance
        for fraction in CLIP_FRACTIONS:
            learned = (1 - np.exp(-3 * (fraction / speed) ** 0.6)) / (1 - np.exp(-3 * (1 / speed) ** 0.6))
            value = chance + (final - chance) * learned + shared[number] + rng.normal(0, noise)
            clips = round(CLIPS * fraction)
            rows.append(accuracy(label, value, clips_seen=clips, label_fraction=1.0, features="all"))
        for fraction in LABEL_FRACTIONS[:-1]:
            few = chance + (value - chance) * (0.6 + 0.09 * np.log(fraction / 0.01))
            rows.append(accuracy(label, few, clips_seen=CLIPS, label_fraction=fraction, features="all"))
        for half in ("appearance half", "dynamics half"):
            found = value + rng.normal(-0.03, noise)
            rows.append(accuracy(label, found, clips_seen=CLIPS, label_fraction=1.0, features=half))
    steps = tuple(range(40, 601, 40))
    rank = [60 * np.exp(-step / (60 if collapsed else 2000)) + 1.2 for step in steps]
    record = RunRecord(
        study="synthetic",
        recipe=name or recipe,
        seed=seed,
        settings_sha256="5" * 64,
        status="done",
        software=Software(jepa_jax="0.1.0", jax="0.12.0", python="3.13.1", commit="abc1234"),
        machine=Machine(device="cpu", matmul_gflops=107.3),
        training=Training(
            steps=600, clips=CLIPS, seconds=90.0 + seed % 7, clips_per_second=240.5, flops_per_step=4.2e9
        ),
        curves={
            "step": steps,
            "loss": tuple(0.8 * np.exp(-step / 400) + 0.1 for step in steps),
            "target_std": tuple(value / 80 for value in rank),
            "target_rank": tuple(rank),
        },
        audit=audit(recipe),
        accuracies=tuple(rows),
        representation={"rankme": 20.0 + seed % 5, "feature_std": 0.8, "straightness": None},
        timing={"train": 90.0},
    )
    return dataclasses.replace(record, **changes)


def audit(recipe):
    def term(scale, cosine):
        return AuditTerm(loss=(0.5, 0.3), gradient_norm=(scale, scale / 2), cosine_to_prediction=(cosine, cosine / 2))

    terms = {"prediction": term(1.0, 1.0)}
    if "fwm" in recipe:
        terms["factorization_static"] = term(0.3, -0.2)
    if "ld" in recipe:
        terms["latent_dynamics"] = term(0.0 if recipe == "fwm_hw_ld" else 0.6, 0.4)
    return Audit(step=(100, 600), terms=terms)


def failed(recipe, seed):
    return RunRecord(
        study="synthetic",
        recipe=recipe,
        seed=seed,
        settings_sha256="5" * 64,
        status="failed",
        error="FloatingPointError: the loss is <nan> at step 412.\nCheckpoints before it are kept.",
    )


def controls():
    rows = [
        accuracy(label, share, clips_seen=0, label_fraction=1.0, features="all", row=row)
        for row, shares in (("untrained", (0.17, 0.12, 0.27)), ("raw pixels", (0.15, 0.08, 0.10)))
        for label, share in zip(LABELS, shares, strict=True)
    ]
    measures = {"untrained": {"rankme": 12.0, "feature_std": 0.5, "straightness": None}}
    return ControlsRecord(
        study="synthetic",
        settings_sha256="5" * 64,
        labels=LABELS,
        accuracies=tuple(rows),
        representation=measures,
    )


def study(seeds=range(239, 245), recipes=tuple(TRUTH), contrasts=CONTRASTS):
    plans = {
        recipe: RecipePlan(
            summary=f"{recipe} & what <it> changes",
            primary=recipe not in ("hw", "combo"),
            seeds=tuple(seeds),
            changes=("config.target: 'ema' → 'online'",) if recipe == "kinematic" else (),
        )
        for recipe in recipes
    }
    settings = {
        "name": "synthetic",
        "train": {
            "steps": 600,
            "batch_size": 32,
            "encoder": {"size": "96x4x3", "patch": 16},
            "clip": {"frames": 8, "size": 64},
        },
    }
    return StudyRecord(
        study="synthetic",
        recipes=plans,
        contrasts=contrasts,
        clip_fractions=CLIP_FRACTIONS,
        label_fractions=LABEL_FRACTIONS,
        settings=settings,
    )


def write(folder, records, *, plan=None, pixels=None):
    """Writes a folder of results and returns it."""
    for record in records:
        results_folder.write(results_folder.run_file(folder, record.recipe, record.seed), record)
    if plan is not None:
        results_folder.write(folder / "study.json", plan)
    if pixels is not None:
        results_folder.write(folder / "controls.json", pixels)
    return folder


def whole(seeds=range(239, 245)):
    """The runs of a whole study, of which one failed and one recipe collapsed."""
    records = [run(recipe, seed, collapsed=recipe == "fwm") for recipe in TRUTH for seed in seeds]
    failing = ("hw", seeds[-1])
    return [failed(*failing) if (record.recipe, record.seed) == failing else record for record in records]
