"""The question of the study on a few hundred real clips: a small form of its mixed regime and of its three probes.

    python -m jepa_jax.study --config study/real --workdir DIR --config.data.root=REAL [--plan] [--jobs=N]

Data: REAL has four folders, with these names. Videos are CLASS/clip.mp4.
    utd_mhad_part1          UTD-MHAD (Chen, Jafari and Kehtarnavaz, ICIP 2015), names aA_sS_tT_color.mp4: motion
    ucf101_3class           classes of UCF-101, names v_CLASS_gNN_cMM.mp4
    railcar_state_sibur     CCTV of a railcar loading station: direction of motion; for training only
    tiny_imagenet_20        {train,test}/CLASS/*.JPEG, classes of Tiny-ImageNet: appearance
Training: motion (UTD-MHAD's odd subjects, railcars), UCF-101 (split 1) and stills, 0.6 : 0.2 : 0.2 as in the study. No
flips, which would turn a swipe to the left into one to the right. Probes: UTD-MHAD's even subjects, the test clips of
UCF-101's split 1, Tiny-ImageNet's test images; training clips of probes are those of the encoder.
Hardware: two CPU cores; docs/study.md has times.
"""

import ml_collections

from jepa_jax import config_files
from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig, logistic_probe
from jepa_jax.settings import to_config_dict
from jepa_jax.study.study_config import StudyConfig

EVEN_SUBJECTS = r"_s[2468]_"
TEST_GROUPS = r"_g0[1-7]_"  # of UCF-101's split 1
MOTION, ACTION, RAILCAR, STILLS = "utd_mhad_part1", "ucf101_3class", "railcar_state_sibur", "tiny_imagenet_20"
SOURCES = {
    MOTION: SourceConfig(kind="videos", weight=0.3, exclude=EVEN_SUBJECTS),
    RAILCAR: SourceConfig(kind="videos", weight=0.3),
    ACTION: SourceConfig(kind="videos", weight=0.2, exclude=TEST_GROUPS),
    STILLS: SourceConfig(kind="images", weight=0.2),
}
VIDEOS = {"controls": ("first frame", "frame differences"), "workers": 2}


def get_config() -> ml_collections.ConfigDict:
    config = defaults(StudyConfig)
    config.name = "real"
    config.data.root = root = ml_collections.FieldReference("data")
    config.train = train = config_files.load_named("folder")
    train.steps = 2000
    train.clip.size, train.encoder.patch = 64, 8
    train.encoder.size, train.predictor.size = "128x4x4", "64x2x2"
    train.optim.peak_lr = train.optim.final_lr = 1e-3
    train.audit.every = 200
    train.data.augment.flip_probability = 0.0
    train.data.sources = to_config_dict(SOURCES)
    for name in SOURCES:
        train.data.sources[name].path = root + f"/{name}"
    evaluations = {
        "motion": (MOTION, EvalConfig(holdout=EVEN_SUBJECTS, groups=r"_s(\d+)_", **VIDEOS)),
        "action": (ACTION, EvalConfig(holdout=TEST_GROUPS, groups=r"_g(\d+)_", **VIDEOS)),
        "appearance": (
            STILLS,
            EvalConfig(
                train=SourceConfig(kind="images"),
                test=SourceConfig(kind="images", split="test"),
                controls=("raw pixels",),
            ),
        ),
    }
    for name, (folder, evaluation) in evaluations.items():
        config.evaluations[name] = to_config_dict(evaluation)
        config.evaluations[name].probes = to_config_dict({"linear": logistic_probe()})
        config.evaluations[name].train.path = root + f"/{folder}"
        if not evaluation.holdout:
            config.evaluations[name].test.path = root + f"/{folder}"
    config.primary = ("baseline", "fwm_hw_ld", "fwm_hw_ld_paper_code", "ld")
    config.primary_seeds = 3
    config.contrasts = tuple((recipe, "baseline") for recipe in config.primary[1:])
    return config
