"""Prepares a set once, for training and evaluation to read it fast: JPEG frames in ArrayRecord files.

    python -m jepa_jax.prepare {ucf101,something_something_v2,diving48,imagenet100,folder} --source RAW --out DIR

Killed and started again it goes on where it was. `--verify` then reads everything back; with it alone, a set that is
complete needs no `--source`.
"""

import os
import pathlib
import re
import sys

from absl import app, flags

from jepa_jax.data import prepared
from jepa_jax.preparation import frames, job, sets, verify
from jepa_jax.preparation.raw import PrepareError

SOURCE = flags.DEFINE_string("source", None, 'The set as downloaded (README, "The study\'s data").')
OUT = flags.DEFINE_string(
    "out", None, "Folder of the prepared set; configs look for it at DATA_ROOT/SET.", required=True
)
SHORT_SIDE = flags.DEFINE_integer("short_side", 256, "Frames are shrunk to this, never enlarged.", lower_bound=16)
QUALITY = flags.DEFINE_integer("quality", 90, "Of the JPEG frames.", lower_bound=1, upper_bound=100)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes; 0 works in this one.", lower_bound=0)
VERIFY = flags.DEFINE_bool("verify", False, "Read every frame back when the set is complete.")


def main(arguments: list[str]) -> int:
    """Flags in, one set, exit code out."""
    if len(arguments) != 2 or arguments[1] not in sets.OPEN:
        raise app.UsageError(f"Expected the name of one set: {', '.join(sets.OPEN)}; got {arguments[1:]}.")
    name, folder = arguments[1], pathlib.Path(OUT.value)
    try:
        if SOURCE.value is not None:
            raw = sets.OPEN[name](pathlib.Path(SOURCE.value))
            print(job.prepare(raw, folder, frames.JpegSettings(SHORT_SIDE.value, QUALITY.value), WORKERS.value))
        elif not VERIFY.value:
            raise PrepareError("--source is missing: where the set lies as downloaded.")
        if VERIFY.value:
            print(verify.verify(folder, WORKERS.value))
    except KeyboardInterrupt:
        print("Stopped; the same command goes on where it was.", file=sys.stderr)
        return 130
    except (PrepareError, prepared.NotPreparedError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def with_underscores(arguments: list[str]) -> list[str]:
    """--short-side is --short_side, as absl calls it."""
    return [re.sub(r"^--[\w-]+", lambda name: "--" + name[0][2:].replace("-", "_"), given) for given in arguments]


if __name__ == "__main__":
    app.run(main, argv=with_underscores(sys.argv))
