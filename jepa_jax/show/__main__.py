"""Pictures: `python -m jepa_jax.show WHAT --checkpoint WORKDIR[:STEP] [--source FOLDER] --out DIR`.

WHAT is one of:
{kinds}

--source is a folder, a CSV file, a prepared dataset, or one video or image; by default the clips that the run was
trained on. The files are written to DIR and named on standard output. Examples:

    python -m jepa_jax.show features --checkpoint runs/mine --source VIDEOS --rows=output,untrained --out pictures
    python -m jepa_jax.show curves runs/a runs/b --out pictures
    python -m jepa_jax.show results runs/mine/results.json --out pictures
    python -m jepa_jax.show source --config folder --config.data.path=VIDEOS --out pictures

Exit codes: 0 after success, 130 after Ctrl-C, 1 after an error.
"""

import pathlib
import sys

from absl import flags, logging

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are parsed.
from jepa_jax.cli import command_line, config_flag
from jepa_jax.config import Config, SourceConfig
from jepa_jax.settings import ConfigError, parse
from jepa_jax.show import kinds
from jepa_jax.show.request import Request

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "WORKDIR[:STEP], random:WORKDIR or random:CONFIG.")
OUT = flags.DEFINE_string("out", None, "Folder for the pictures; created if it does not exist.")
SOURCE = flags.DEFINE_string("source", "", "Folder, CSV file, prepared dataset, or one video or image.")
CONFIG = config_flag.define(Config, "source: the training config (quickstart, …) whose data is shown.")
KIND = flags.DEFINE_string("kind", "", "Kind of source: videos (the default with --source), images, sprites, …")
SPLIT = flags.DEFINE_string("split", "", "Split of the source: train, validation or test.")
ITEMS = flags.DEFINE_list("items", [], "Numbers of clips in the source, from 0. Default: --clips of them.")
CLIPS = flags.DEFINE_integer("clips", 3, "Number of clips, spread evenly over the source.", lower_bound=1)
ROWS = flags.DEFINE_list("rows", ["output"], "features: output, levels, halves, untrained; several with commas.")
FILM = flags.DEFINE_enum("film", "gif", ["gif", "mp4", "none"], "features: the format of the film.")
FOREGROUND = flags.DEFINE_bool("foreground", False, "features: blacken what the first component calls background.")
SMOOTH = flags.DEFINE_bool("smooth", True, "features: interpolate between tokens. --nosmooth shows each as a square.")
STEP = flags.DEFINE_integer("step", 0, "masks, source: the training step, from 0, whose batch is shown.", lower_bound=0)
DRAWS = flags.DEFINE_integer("draws", 8, "surprise: how often each mask is drawn.", lower_bound=1)
TOKEN = flags.DEFINE_list("token", [], "similarity: COLUMN,ROW,TIME of a token, from 0. Default: the centre.")
NEIGHBOURS = flags.DEFINE_integer("neighbours", 4, "neighbours: number of clips beside each query.", lower_bound=1)
GALLERY = flags.DEFINE_integer("gallery", 256, "neighbours: most clips to search, spread evenly.", lower_bound=2)
use_compilation_cache = command_line.define_compilation_cache()
__doc__ = (__doc__ or "").replace("{kinds}", "\n".join(f"    {name:12}{text}" for name, text in kinds.KINDS.items()))


def main(arguments: list[str]) -> int:
    """Draws one kind of picture from flags. Returns the exit code."""
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax
    try:
        if len(arguments) < 2:
            raise ConfigError(f"WHAT is missing; expected one of {', '.join(kinds.KINDS)}.")
        what = arguments[1]
        kinds.require(what)
        with command_line.importing():
            request = read_flags(arguments[2:])
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    with command_line.importing():
        from jepa_jax.checkpoints.reader import CheckpointError
        from jepa_jax.data import DecodeError, TooManySkippedError
        from jepa_jax.evaluation.results.results_file import ResultsError

    try:
        use_compilation_cache()
        command_line.reuse_memory()
        files = kinds.draw(what, request)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (ConfigError, CheckpointError, DecodeError, ResultsError, TooManySkippedError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, files)))
    return 0


def read_flags(paths: list[str]) -> Request:
    """Returns the request of the flags; `paths` are the arguments after WHAT.

    Raises:
        ConfigError: a flag that cannot be used.
    """
    if OUT.value is None:
        raise ConfigError(f"--out is missing: {flags.FLAGS['out'].help}")
    source = None
    if SOURCE.value or KIND.value:
        source = parse(SourceConfig, {"kind": KIND.value or "videos", "path": SOURCE.value}, "--source, --kind")
    return Request(
        out=pathlib.Path(OUT.value),
        checkpoint=CHECKPOINT.value,
        config=parse(Config, CONFIG.value) if CONFIG.value is not None else None,
        paths=tuple(paths),
        source=source,
        split=SPLIT.value,
        items=_numbers("items", ITEMS.value),
        clips=CLIPS.value,
        rows=tuple(ROWS.value),
        film=FILM.value,
        foreground=FOREGROUND.value,
        smooth=SMOOTH.value,
        step=STEP.value,
        draws=DRAWS.value,
        token=_numbers("token", TOKEN.value),
        neighbours=NEIGHBOURS.value,
        gallery=GALLERY.value,
    )


def _numbers(flag: str, texts: list[str]) -> tuple[int, ...]:
    if not all(text.isdecimal() for text in texts):
        raise ConfigError(f"--{flag} is {','.join(texts)!r}; expected whole numbers from 0, as in --{flag}=0,3.")
    return tuple(map(int, texts))


if __name__ == "__main__":
    command_line.run(main)
