"""results.json and evaluation.jsonl: their encoding as JSON and their reading.

The schema, with the meaning and unit of every field, is `schema.json` in this folder.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jepa_jax.data.listing import names
from jepa_jax.evaluation.results import intervals
from jepa_jax.evaluation.results.probe_result import ProbeResult
from jepa_jax.files import paths
from jepa_jax.settings import ConfigError

SCHEMA = "jepa_jax/results"
VERSION = 1
UNITS = {"accuracy": "share of test items, 0 to 1", "seconds": "s", "clip": "frames and pixels"}
INTERVALS = {"accuracy": intervals.ONE, "difference": intervals.TWO, "level": intervals.LEVEL}


class ResultsError(ValueError):
    """A results file that cannot be read; the message has the file and the reason."""


def write(path: os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Writes `record` with the schema's name and version as JSON, atomically."""
    content = {"schema": SCHEMA, "version": VERSION, "units": UNITS, "intervals": INTERVALS, **record}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    paths.write_text(path, _short_lists(text) + "\n", errors=names.JSON_ERRORS)


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a results file; its `results` become `ProbeResult`s.

    Args:
        path: results.json, FILE.jsonl as written by `--watch` (its last step), or FILE.jsonl:STEP.

    Raises:
        ResultsError: no such file or step, not JSON, another schema or version, or a missing field.
    """
    file, _, step = str(path).rpartition(":")
    file, step = (file, step) if file.endswith(".jsonl") else (str(path), "")
    try:
        text = paths.reachable(file).read_text()
        record = _of_step(file, text, step) if file.endswith(".jsonl") else json.loads(text)
    except ConfigError as error:  # a URL that cannot be read
        raise ResultsError(str(error)) from error
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{file} is not valid JSON: {error}.") from error
    schema = (record.get("schema"), record.get("version")) if isinstance(record, dict) else (None, None)
    if schema != (SCHEMA, VERSION):
        raise ResultsError(
            f"{path} is not a results file of version {VERSION}: its schema is {schema[0]!r}, version {schema[1]!r}; "
            f"expected {SCHEMA!r}. Evaluate again to replace it."
        )
    try:
        record["results"] = [
            ProbeResult(**{key: _frozen(value) for key, value in row.items()}) for row in record["results"]
        ]
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path} does not follow {SCHEMA} version {VERSION}: {error}.") from error
    return record


def _of_step(file: str, lines: str, step: str) -> Any:
    """The record of `step`, or of the last step if that is empty; a later line replaces an earlier one."""
    # Names may have other line ends than \n. What follows the last one is an incomplete line.
    whole = lines.split("\n")[:-1]
    try:
        records = {record["checkpoint"]["step"]: record for record in map(json.loads, whole)}
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{file} has lines that are not results of a checkpoint.") from error
    if not records:
        raise ResultsError(f"{file} has no results yet.")
    if step and step not in map(str, records):
        raise ResultsError(f"{file} has no step {step!r}; it has {', '.join(map(str, sorted(records)))}.")
    return records[int(step) if step else max(records)]


def _frozen(value: Any) -> Any:
    """Converts lists to tuples, recursively."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _short_lists(text: str) -> str:
    """Puts each list of numbers on one line, so that a confusion matrix has a line for each class."""
    scalar = r"(?:-?\d[\d.eE+-]*|null)"
    return re.sub(  # matches line breaks between values, which a string in JSON cannot have
        rf"\[\n\s*({scalar}(?:,\n\s*{scalar})*)\n\s*\]", lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text
    )
