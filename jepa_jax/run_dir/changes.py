"""Which settings may change when a run is resumed.

Every setting is of one kind:

free        does not affect the computation
rounding    changes the order of the computation: results agree up to rounding, not bit for bit
data        the location of data; their content is compared instead (see `data_identity`)
extendable  changes the computation but keeps the shape of the state: accepted with `--resume=extend`, and recorded
fixed       everything else: another value needs a new run
"""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Literal

from jepa_jax.config import RunConfig
from jepa_jax.settings import difference

Kind = Literal["free", "rounding", "data", "extendable", "fixed"]

KINDS: dict[str, Kind] = {
    "config.recipe": "free",  # only a name; the settings it stands for are compared
    "config.data.path": "free",  # config files use these two only to fill in the paths of sources
    "config.data.root": "free",
    "config.data.workers": "free",  # a clip is a function of seed and index
    "config.data.prefetch": "free",
    "config.data.max_skip_fraction": "free",  # decides whether the run stops, not what it computes
    "config.checkpoint.*": "free",
    "config.log.*": "free",
    "config.audit.*": "free",
    "config.probe": "free",  # runs after training
    "config.test.*": "free",  # of fine-tuning: scored after training
    "config.views.*": "free",
    "config.mesh.*": "rounding",  # order of sums; restoring a checkpoint logs the change
    "config.encoder.scan": "rounding",  # unrolled blocks use the same stacked parameters
    "config.encoder.remat": "rounding",  # recomputes the same activations
    "config.remat": "rounding",  # of fine-tuning
    "config.encoder.attention": "rounding",  # order of sums
    "config.data.render_in_step": "rounding",  # the same sprites, rendered on the accelerator or on the CPU
    "config.data.sources.*.path": "data",
    "config.data.sources.*.include": "data",  # both select items, which are compared
    "config.data.sources.*.exclude": "data",
    "config.steps": "extendable",
    "config.schedule_steps": "extendable",
    "config.optim.name": "fixed",  # each optimizer has its own state
    "config.optim.*": "extendable",  # rates, decay, clipping: the state keeps its shape
    "config.target_checkpoint": "data",  # the encoder is compared by fingerprint
    "config.ema.decay": "extendable",  # not ema.enabled, which follows `target`
    "config.ema.schedule": "extendable",
    "config.objectives.*.coefficient": "extendable",  # except from or to 0, which adds or removes the objective
    "config.objectives.*.schedule.*": "extendable",
    "config.dtype": "extendable",  # of activations; the state is float32
}


def kind(setting: str) -> Kind:
    """The kind of a setting, by its full name, such as `config.optim.peak_lr`."""
    for pattern, found in KINDS.items():
        if fnmatch.fnmatchcase(setting, pattern):
            return found
    return "fixed"


def between(recorded: RunConfig, config: RunConfig) -> dict[Kind, list[str]]:
    """Lines `config.key: recorded → new` for the settings that differ, by kind."""
    lines: dict[Kind, list[str]] = {}
    for line in difference(recorded, config):
        lines.setdefault(kind(line.partition(": ")[0]), []).append(line)
    return lines


def refusal(found: Mapping[Kind, list[str]], extend: bool) -> str:
    """Why a run cannot resume with these changes, and what to do; empty if it can."""
    fixed, extendable = found.get("fixed", []), [] if extend else found.get("extendable", [])
    if fixed:
        could = [line.partition(": ")[0] for line in extendable]
        return indented([*fixed, *extendable]) + (
            "\nUse another --workdir for a new run, or --resume=overwrite to move that run aside and start again."
            + (f"\nIn that run only {', '.join(could)} can change, with --resume=extend." if could else "")
        )
    if extendable:
        return indented(extendable) + (
            "\nAdd --resume=extend to continue that run with the new settings. To resume it unchanged, pass the "
            "recorded settings; for a new run, use another --workdir."
        )
    return ""


def indented(lines: Iterable[str]) -> str:
    """Formats lines as an indented list for an error message."""
    return "".join(f"\n  {line}" for line in lines)
