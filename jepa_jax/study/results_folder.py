"""Reads and writes the folder `results` of a study; `run_record` defines its files."""

import dataclasses
import json
import re
from typing import Any

from etils import epath

from jepa_jax.files.paths import write_text
from jepa_jax.settings import ConfigError, parse
from jepa_jax.study import run_record


class RecordError(ValueError):
    """A file of results that cannot be read. The message has the file, the place in it and the reason."""


def run_file(results: epath.PathLike, recipe: str, seed: int) -> epath.Path:
    """The file of a run's record."""
    return epath.Path(results) / recipe / f"{seed}.json"


def run_files(results: epath.PathLike) -> list[epath.Path]:
    """The files of all runs that have ended, by recipe and seed."""
    folder = epath.Path(results)
    if not folder.exists():
        return []
    found = [file for recipe in folder.iterdir() if recipe.is_dir() for file in recipe.iterdir()]
    numbered = [file for file in found if re.fullmatch(r"\d+\.json", file.name)]
    return sorted(numbered, key=lambda file: (file.parent.name, int(file.stem)))


def read_runs(results: epath.PathLike) -> list[run_record.RunRecord]:
    """The records of all runs that have ended, by recipe and seed. Raises RecordError."""
    return [read_run(file) for file in run_files(results)]


def read_run(file: epath.PathLike) -> run_record.RunRecord:
    """The record of a run.

    Raises:
        RecordError: it cannot be read, has another version, or a field is missing, unknown or wrong.
    """
    content = _load(file)
    audit = content.get("audit", {})
    if isinstance(audit, dict):
        terms = {name: term for name, term in audit.items() if name != "step"}
        content["audit"] = {"step": audit.get("step", []), "terms": terms}
    record = _parse(run_record.RunRecord, file, content)
    path = epath.Path(file)
    if (record.recipe, str(record.seed)) != (path.parent.name, path.stem):
        raise RecordError(f"{file} is of recipe {record.recipe}, seed {record.seed}; expected the name of its file.")
    return record


def read_controls(results: epath.PathLike) -> run_record.ControlsRecord | None:
    """The controls; None if they have not been probed yet. Raises RecordError as `read_run`."""
    file = epath.Path(results) / run_record.CONTROLS
    return _parse(run_record.ControlsRecord, file, _load(file)) if file.exists() else None


def read_study(results: epath.PathLike) -> run_record.StudyRecord | None:
    """The plan; None if no study has been started in this folder. Raises RecordError as `read_run`."""
    file = epath.Path(results) / run_record.STUDY
    if not file.exists():
        return None
    content = _load(file)
    settings = content.pop("settings", None)
    if not isinstance(settings, dict):
        raise RecordError(f"{file}: settings is {settings!r}; expected a group of settings.")
    return dataclasses.replace(_parse(run_record.StudyRecord, file, content | {"settings": {}}), settings=settings)


def write(file: epath.PathLike, record: run_record.Record) -> None:
    """Writes a record atomically; creates its folder. Fields are on lines of their own, and so is each probe."""
    epath.Path(file).parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, value in run_record.to_json(record).items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if key == "accuracies" and value:
            rows = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value)
            text = "[\n  " + ",\n  ".join(rows) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def _load(file: epath.PathLike) -> dict[str, Any]:
    try:
        content = json.loads(epath.Path(file).read_text())
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise RecordError(f"{file} is not valid JSON: {error}.") from error
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version != run_record.VERSION:
        raise RecordError(f"{file} is not a record of version {run_record.VERSION}: its version is {version!r}.")
    return content


def _parse(cls: type[Any], file: epath.PathLike, content: dict[str, Any]) -> Any:
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in content]:
        raise RecordError(f"{file} has no {missing[0]!r}; expected {', '.join(required)}.")
    try:
        return parse(cls, content, "record")
    except ConfigError as error:
        raise RecordError(f"{file}: {error}") from error
    except TypeError as error:  # a nested field is missing
        raise RecordError(f"{file}: {error}.") from error
