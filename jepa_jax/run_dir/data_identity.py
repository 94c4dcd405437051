"""Identifies the training data by content, so that a folder may move but not be replaced by other data.

WORKDIR/data.json, written when the run starts, records for each source

* of files or tar shards: the names of all files in order (relative to the source's folder, or to the common folder of
  the files in a CSV list), the sizes of up to `fingerprints.SIZES` of them, and digests of the first, middle and last
  bytes of up to `fingerprints.EXCERPTS` of them. A size takes one `stat`, and 16 run in parallel, so 170,000 files on a
  network disk cost no more than 4,096. Modification times are ignored because copying changes them.
* of prepared sets: the items and index, and sizes and digests of up to `fingerprints.EXCERPTS` record files, as for
  other files.
* of rendered sets: the version of the drawing code.

A file replaced by another of the same name and size may go unnoticed. A change in size is always detected in sets of up
to `fingerprints.SIZES` files.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping

from absl import logging
from etils import epath

from jepa_jax.config import RunConfig
from jepa_jax.data import sources
from jepa_jax.data.sources.fingerprints import Fingerprint
from jepa_jax.distributed import processes
from jepa_jax.run_dir import changes, workdir
from jepa_jax.settings import ConfigError

DATA = "data.json"
SHOWN = 3


Identities = Mapping[str, Fingerprint]  # by the name of the source


def identify_all(opened: Iterable[sources.Source | None]) -> dict[str, Fingerprint]:
    """The fingerprints of a run's sources by name, without those that are not used."""
    return {source.name: source.fingerprint() for source in opened if source is not None}


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Descriptions such as `1 removed ('a.mp4')`, `2 added (…)`, `1 changed (…)`; empty if the data are the same."""
    if old.digest == new.digest:
        return []
    before, after = Counter(old.names), Counter(new.names)
    found = {
        "removed": (before - after).keys(),
        "added": (after - before).keys(),
        "changed": [
            name
            for name in {**old.sizes, **old.content}
            if any(
                name in then and name in now and then[name] != now[name]
                for then, now in ((old.sizes, new.sizes), (old.content, new.content))
            )
        ],
    }
    phrases = [f"{len(names):,} {what} ({_examples(names)})" for what, names in found.items() if names]
    return phrases or ["the same items in another order or number"]


def require_same(folder: epath.Path, config: RunConfig, identities: Identities, *, extend: bool = False) -> list[str]:
    """Checks that the run in a folder resumes on the same data. Call in process 0 only.

    Args:
        folder: of the run.
        config: of the resumed run.
        identities: of its sources.
        extend: accepts changed data.

    Returns:
        A line for each source whose data changed, if `extend` accepts it.

    Raises:
        ConfigError: the data of a source changed; the message lists the differences.
    """
    settings = workdir.load_config(folder, type(config))
    recorded = settings.data.sources
    old = _load(folder) if (folder / DATA).exists() else _identify_recorded(settings, config)
    lines = []
    for name in identities.keys() & old.keys():
        before, now = recorded[name].path, config.data.sources[name].path
        found = differences(old[name], identities[name])
        if found:
            lines.append(
                f"config.data.sources.{name}: {now or 'it'} does not contain the data that the run in {folder} was "
                f"trained on{f', from {before}' if before != now else ''}: {', '.join(found)}."
            )
        elif before != now:
            items = f"{len(identities[name].names):,} items"
            processes.say(f"Source {name!r} moved from {before} to {now}: the same {items} by content.")
    if lines and not extend:
        raise ConfigError(
            "\n".join(sorted(lines))
            + "\nSet the path to the current location of that data, add --resume=extend to continue on the changed "
            "data, or use another --workdir for a new run."
        )
    return sorted(lines)


def record(folder: epath.Path, identities: Identities, *, changed: bool) -> None:
    """Writes data.json if the data changed or the file does not exist. Call in process 0 only."""
    if changed or not (folder / DATA).exists():
        workdir.write_json(folder / DATA, {name: dataclasses.asdict(found) for name, found in identities.items()})


def _load(folder: epath.Path) -> dict[str, Fingerprint]:
    try:
        content = json.loads((folder / DATA).read_text())
        return {
            name: Fingerprint(tuple(found["names"]), found["sizes"], found["content"])
            for name, found in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder / DATA} is not a record of the run's data ({error!r}). Delete it if the data have not changed; "
            "resuming writes it again."
        ) from error


def _identify_recorded(recorded: RunConfig, config: RunConfig) -> dict[str, Fingerprint]:
    """Fingerprints for a run without data.json: of each source whose settings changed, opened with its old settings.

    A source whose old path no longer exists is accepted with a warning.
    """
    found = {}
    for name, old in recorded.data.sources.items():
        changed = [
            line
            for line in changes.between(recorded, config).get("data", [])
            if line.startswith(f"config.data.sources.{name}.")
        ]
        if not changed or not old.weight:
            continue
        try:
            found[name] = sources.open_source(old, name).fingerprint()
        except ConfigError as error:
            if len(changed) > 1 or f".{name}.path: " not in changed[0]:
                raise ConfigError(
                    f"The run has other settings (recorded → given):{changes.indented(changed)}\n"
                    f"Whether both select the same items cannot be checked. {error}"
                ) from error
            logging.warning(
                "%s. The run was started by a version that did not record its data, and the old path no longer exists, "
                "so whether the data are the same cannot be checked.",
                changed[0],
            )
    return found


def _examples(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
