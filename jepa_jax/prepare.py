"""Prepares a dataset for fast reading: JPEG frames in ArrayRecord files.

    python -m jepa_jax.prepare {ucf101,something_something_v2,diving48,imagenet100,folder} --source RAW --out DIR

If it is interrupted, run the same command again to resume. Run again on a complete set, it adds files that were added
to RAW or repaired since; with `--update` it also rewrites changed items and drops removed ones. `--verify` reads
everything back afterwards; without `--source` it only verifies a complete set.

With `--part=i/n` a job writes one part of the shards, so that n machines that share DIR prepare the set together. The
last one completes it; `--finish` does so too, or reports what is missing. With `--ray[=ADDRESS]` a Ray cluster writes
the shards.

RAW and DIR may be URLs of an object store, such as gs://BUCKET/FOLDER, or of any file system that fsspec opens. Shards
are written in TMPDIR and uploaded. `--verify` needs a local copy.

Exit codes: 0 after success, 143 after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import os
import pathlib
import sys

from absl import app, flags

# Importing TFDS takes seconds: it and the modules that use it are imported after the flags are parsed.
from jepa_jax.cli import command_line
from jepa_jax.distributed import exit_codes
from jepa_jax.files import write_errors
from jepa_jax.files.paths import require_local
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.connection import RemoteError
from jepa_jax.settings import ConfigError


class _RayAddress(flags.ArgumentParser):
    """Address of a Ray cluster; --ray alone is the one of this machine."""

    def parse(self, argument: str) -> str | None:
        from jepa_jax.data.preparation.runners import ray_tasks

        return {"true": ray_tasks.LOCAL, "false": None}.get(argument, argument)


SOURCE = flags.DEFINE_string(
    "source", None, 'Folder or URL of the dataset as downloaded (README, "The study\'s data").'
)
OUT = flags.DEFINE_string("out", None, "Folder or URL of the prepared set; configs look for it at DATA_ROOT/SET.")
SHORT_SIDE = flags.DEFINE_integer(
    "short_side", 256, "Larger frames are shrunk to this short side; none is enlarged.", lower_bound=16
)
QUALITY = flags.DEFINE_integer("quality", 90, "JPEG quality of the frames.", lower_bound=1, upper_bound=100)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes; 0 uses only this one.", lower_bound=0)
UPDATE = flags.DEFINE_bool("update", False, "Rewrite changed items of a complete set and drop those removed from RAW.")
PART = flags.DEFINE_string("part", None, "i/n: write only part i of n of the shards; others run on other machines.")
RAY = flags.DEFINE_flag(
    flags.Flag(
        _RayAddress(),
        flags.ArgumentSerializer(),
        "ray",
        None,
        "Write the shards on the Ray cluster of this machine, or on that at ADDRESS (HOST:PORT); one task a shard. "
        "--workers is for --verify only.",
        boolean=True,
    )
)
FINISH = flags.DEFINE_bool("finish", False, "Write no shards: check those of all parts, and complete the set.")
VERIFY = flags.DEFINE_bool("verify", False, "Read every frame back when the set is complete.")


def main(arguments: list[str]) -> int:
    """Prepares or verifies one dataset from flags. Returns the exit code."""
    from jepa_jax.data.preparation import build, frames, sets, share, verify
    from jepa_jax.data.preparation.raw import PrepareError
    from jepa_jax.data.sources import array_record

    if len(arguments) != 2 or arguments[1] not in sets.OPEN:
        raise app.UsageError(f"Expected the name of one dataset: {', '.join(sets.OPEN)}; got {arguments[1:]}.")
    command_line.escape_unprintable()  # file and class names need not be UTF-8
    exit_codes.raise_on_sigterm()
    name = arguments[1]
    try:
        part = share.WHOLE if PART.value is None else share.parse(PART.value)
        if FINISH.value and (PART.value is not None or UPDATE.value):
            raise PrepareError("--finish writes no shards; use it without --part and --update.")
        if RAY.value is not None and (FINISH.value or PART.value is not None):
            raise PrepareError("--ray writes all shards and completes the set; use it without --part and --finish.")
        local = require_local(OUT.value or "", "With --verify, --out") if VERIFY.value else pathlib.Path()
        folder = any_path.parse(OUT.value or "", "--out")
        if SOURCE.value is not None:
            raw = sets.OPEN[name](any_path.parse(SOURCE.value, "--source"))
            settings = frames.JpegSettings(SHORT_SIDE.value, QUALITY.value)
            if FINISH.value:
                print(build.finish(raw, folder, settings))
            else:
                print(
                    build.prepare(raw, folder, settings, WORKERS.value, update=UPDATE.value, share=part, ray=RAY.value)
                )
        elif not VERIFY.value:
            raise PrepareError("--source is missing: the folder of the downloaded dataset.")
        if VERIFY.value and (part.is_whole or (local / array_record.DESCRIPTION_FILE).is_file()):
            print(verify.verify(local, WORKERS.value))
    except KeyboardInterrupt as request:
        print("Stopped. Run the same command again to resume.", file=sys.stderr)
        return exit_codes.exit_code(request)
    except (ConfigError, PrepareError, RemoteError, array_record.NotPreparedError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        reason = write_errors.explain(error, OUT.value or "")
        if reason is None:
            raise
        print(f"Error: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command_line.run(main, "out")
