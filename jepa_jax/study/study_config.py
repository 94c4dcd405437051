"""Settings of a study, parsed from `configs/study/*.py`."""

import dataclasses
import re
from collections.abc import Mapping

from jepa_jax.config import Config
from jepa_jax.evaluation.eval_config import EvalConfig, PreparedConfig
from jepa_jax.settings import at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Recipes × seeds, each trained with the same settings and probed in the same way.

    A recipe (see `jepa_jax.recipes`) is applied to `train`. Runs with the same seed start from the same encoder and see
    the same clips in the same order, so recipes are compared seed by seed.
    """

    name: str = ""  # letters, digits, - and _
    data: PreparedConfig = dataclasses.field(default_factory=PreparedConfig)  # config files derive paths from data.root
    train: Config = dataclasses.field(default_factory=Config)
    # By name. Results of a set with one label, such as a folder of classes, are named after it; those of a set with
    # several labels after the label (NAME LABEL if there are several evaluations). Controls of pixels are probed once
    # per study, and so is the untrained encoder.
    evaluations: Mapping[str, EvalConfig] = dataclasses.field(default_factory=dict)
    primary: tuple[str, ...] = ()  # recipes with more seeds
    secondary: tuple[str, ...] = ()  # further recipes
    primary_seeds: int = 6  # number of seeds of each primary recipe: first_seed, first_seed + 1, …
    secondary_seeds: int = 3
    first_seed: int = 239
    contrasts: tuple[tuple[str, str], ...] = ()  # (recipe, reference): the differences to test, named before running
    clip_fractions: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training, after which it is probed
    label_fractions: tuple[float, ...] = (0.01, 0.05, 0.25, 1.0)  # of the labels that the final encoder is probed with
    keep_checkpoints: bool = False  # False: a run's checkpoints are deleted once its record is written

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]*", self.name):
            raise ValueError(f"name is {self.name!r}; expected letters, digits, - and _")
        at_least(self, 1, "primary_seeds", "secondary_seeds")
        at_least(self, 0, "first_seed")
        recipes = self.recipes
        if twice := sorted({name for name in recipes if recipes.count(name) > 1}):
            raise ValueError(f"primary and secondary both have {', '.join(twice)}; name each recipe once")
        for pair in self.contrasts:
            if missing := [name for name in pair if name not in recipes]:
                raise ValueError(
                    f"contrasts has {pair}, but neither primary nor secondary has {missing[0]!r}; add it to one of "
                    "them, or leave the contrast out"
                )
        for name in ("clip_fractions", "label_fractions"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or not values or values[0] <= 0 or values[-1] != 1:
                raise ValueError(f"{name} is {values}; expected ascending shares above 0, the last one 1")

    @property
    def recipes(self) -> tuple[str, ...]:
        """All recipes, primary ones first."""
        return (*self.primary, *self.secondary)
