"""The runs of a study, and whether results in its folder belong to it."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jepa_jax import recipes
from jepa_jax.config import Config, with_every_objective
from jepa_jax.run_dir import changes
from jepa_jax.settings import ConfigError, difference, error_prefix, parse, to_config_dict, to_dict
from jepa_jax.study import results_folder
from jepa_jax.study.run_record import STUDY, RecipePlan, StudyRecord
from jepa_jax.study.study_config import StudyConfig

# Settings of an evaluation that do not affect its results.
_NEUTRAL = re.compile(
    r"config\.evaluations\.[^.]+\."
    r"((train|test)\.path|data\.root|batch_size|workers|max_skip_fraction|keep_features|memory_limit|random_model|picture)"
)
_PLANNED = ("train", "evaluations", "clip_fractions", "label_fractions")  # the others choose runs and contrasts


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        recipe: its recipe.
        seed: its seed.
        config: its training settings.
        settings_sha256: fingerprint of all settings that affect its record.
    """

    recipe: str
    seed: int
    config: Config
    settings_sha256: str

    @property
    def name(self) -> str:
        """RECIPE-SEED."""
        return f"{self.recipe}-{self.seed}"

    @property
    def clips(self) -> int:
        """Clips that it trains on."""
        return self.config.steps * self.config.batch_size


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a study."""

    study: StudyConfig

    def __post_init__(self) -> None:
        """Raises ConfigError unless the study is complete and every run's settings are valid."""
        study = self.study
        for name in ("name", "evaluations", "primary"):
            if not getattr(study, name):
                raise ConfigError(f"config.{name} is empty; a study needs one.")
        if len(set(self.probed_steps)) < len(study.clip_fractions):
            raise ConfigError(
                f"config.clip_fractions is {study.clip_fractions}, of which several are the same step of "
                f"{study.train.steps}; name fewer fractions, or train longer."
            )
        assert self._configs.keys() == set(study.recipes)

    @property
    def probed_steps(self) -> tuple[int, ...]:
        """The steps after which encoders are probed."""
        return tuple(max(1, round(self.study.train.steps * share)) for share in self.study.clip_fractions)

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """All runs in order: seed by seed, so that an unfinished study has all recipes; primary recipes first."""
        sha = {recipe: self._sha_of(recipe) for recipe in self.study.recipes}
        return tuple(Run(recipe, seed, self.config_of(recipe, seed), sha[recipe]) for recipe, seed in self._order())

    def _order(self) -> Iterator[tuple[str, int]]:
        study = self.study
        for number in range(max(study.primary_seeds, study.secondary_seeds)):
            for names, count in ((study.primary, study.primary_seeds), (study.secondary, study.secondary_seeds)):
                if number < count:
                    yield from ((recipe, study.first_seed + number) for recipe in names)

    def seeds_of(self, recipe: str) -> tuple[int, ...]:
        """The seeds of a recipe."""
        study = self.study
        count = study.primary_seeds if recipe in study.primary else study.secondary_seeds
        return tuple(range(study.first_seed, study.first_seed + count))

    def config_of(self, recipe: str, seed: int) -> Config:
        """The training settings of a run."""
        return dataclasses.replace(self._configs[recipe], seed=seed)

    @functools.cached_property
    def _configs(self) -> dict[str, Config]:
        return {recipe: self._apply(recipe) for recipe in self.study.recipes}

    def _apply(self, recipe: str) -> Config:
        """The training settings of a recipe, with the seed of `train`.

        Raises:
            ConfigError: there is no such recipe, or it cannot be applied to `train`.
        """
        settings = with_every_objective(to_config_dict(self.study.train))
        try:
            recipes.apply(settings, recipe)
        except recipes.NoSuchRecipeError as error:
            raise ConfigError(f"config.primary, config.secondary: {error}") from error
        settings.probe = ""
        with error_prefix(f"recipe {recipe!r}"):
            config = parse(Config, settings, "config.train")
        # Steps to be probed are saved, and deleted with the run.
        return dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, at=self.probed_steps))

    @functools.cached_property
    def _evaluations(self) -> dict[str, Any]:
        return _relevant({name: _given(getattr(self.study, name)) for name in _PLANNED[1:]})

    def _sha_of(self, recipe: str) -> str:
        """The fingerprint of all settings that affect the record of a run of this recipe, apart from its seed."""
        return _sha({**self._evaluations, **_relevant({"train": _given(self._configs[recipe])})})

    @property
    def controls_sha256(self) -> str:
        """The fingerprint of all settings that affect the controls."""
        return self._sha_of(self.study.primary[0])

    def record(self) -> StudyRecord:
        """The content of study.json."""
        study, planned = self.study, {}
        base = self.study.train
        for recipe in study.recipes:
            lines = difference(base, self._configs[recipe])
            own = tuple(line for line in lines if _matters(f"config.train.{line.partition(': ')[0][len('config.') :]}"))
            summary = recipes.RECIPES[recipe].summary
            planned[recipe] = RecipePlan(
                summary=summary, primary=recipe in study.primary, seeds=self.seeds_of(recipe), changes=own
            )
        return StudyRecord(
            study=study.name,
            recipes=planned,
            contrasts=study.contrasts,
            clip_fractions=study.clip_fractions,
            label_fractions=study.label_fractions,
            settings=json.loads(json.dumps(to_dict(study))),
        )

    def open_results(self, results: epath.PathLike) -> None:
        """Checks that results already in the folder are of this study, then writes study.json.

        Raises:
            ConfigError: they were made with other settings; the message lists them.
            RecordError: a file cannot be read.
        """
        recorded, planned = results_folder.read_study(results), self.record()
        if recorded is not None:
            self._require_same(results, recorded, planned)
            planned = dataclasses.replace(planned, recipes={**planned.recipes, **_others(recorded, planned)})
        known = {run.recipe: run.settings_sha256 for run in self.runs}
        for record in results_folder.read_runs(results):
            file = results_folder.run_file(results, record.recipe, record.seed)
            if known.get(record.recipe, record.settings_sha256) != record.settings_sha256:
                raise ConfigError(f"{file} was made with other settings than {STUDY} has. {_advice(results)}")
        controls = results_folder.read_controls(results)
        if controls is not None and controls.settings_sha256 != self.controls_sha256:
            raise ConfigError(f"The controls in {results} were made with other settings. {_advice(results)}")
        if recorded != planned:
            results_folder.write(epath.Path(results) / STUDY, planned)

    def _require_same(self, results: epath.PathLike, recorded: StudyRecord, planned: StudyRecord) -> None:
        if recorded.study != planned.study:
            raise ConfigError(f"{results} has results of the study {recorded.study!r}; use another --workdir.")
        # Settings that were added since have their defaults.
        before = to_dict(parse(StudyConfig, recorded.settings, f"the settings in {epath.Path(results) / STUDY}"))
        lines = difference(json.loads(json.dumps(before)), planned.settings)
        lines = [line for line in lines if _matters(line.partition(": ")[0])]
        for recipe, new in planned.recipes.items():
            old = recorded.recipes.get(recipe)
            if old is not None and old.changes != new.changes and not lines:
                lines += [f"recipe {recipe!r}: {', '.join(old.changes)} → {', '.join(new.changes)}"]
        if lines:
            raise ConfigError(
                f"{results} has results of other settings (recorded → given):{changes.indented(lines)}\n"
                f"{_advice(results)}"
            )


def _others(recorded: StudyRecord, planned: StudyRecord) -> dict[str, RecipePlan]:
    """Recipes that an earlier command with more recipes planned."""
    return {name: recipe for name, recipe in recorded.recipes.items() if name not in planned.recipes}


def _advice(results: epath.PathLike) -> str:
    return f"Use another --workdir, or delete what is no longer wanted in {results} to run it again."


def _matters(setting: str) -> bool:
    """Whether a setting of a study, such as config.train.steps, affects the records of its runs."""
    group = setting.split(".")[1]
    if group not in _PLANNED:
        return False
    if group == "train":
        own = setting.replace("config.train.", "config.", 1)
        selects = re.fullmatch(r"config\.data\.sources\.[^.]+\.(include|exclude)", own) is not None
        return selects or (own != "config.seed" and changes.kind(own) in ("fixed", "extendable"))
    return _NEUTRAL.fullmatch(setting) is None


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that affect records, by their full names."""
    return {name: value for name, value in _flat(settings, "config") if _matters(name)}


def _given(value: Any) -> Any:
    """Settings that are not the defaults of their class, so that a setting that is added later changes no fingerprint.

    Values of a mapping, such as objectives by name, have the name of their class.
    """
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _given(own) for name, own in fields.items() if own != _default(type(value), name)}
    if isinstance(value, Mapping):
        return {
            key: {"type": type(own).__qualname__, **_given(own)} if dataclasses.is_dataclass(own) else own
            for key, own in value.items()
        }
    return value


def _default(cls: type, name: str) -> Any:
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}")
    else:
        yield name, value


def _sha(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
