"""Features of any videos or images: `python -m jepa_jax.features --checkpoint WORKDIR --source FOLDER --out DIR`.

The source is a folder, a CSV file or a prepared dataset, with or without labels. DIR then contains a .npy file for each
kind of features, clips.csv with the clip of each row, features.json with a description of the arrays, and skipped.jsonl
with the files that could not be decoded. In Python:

    mean_IxE = numpy.load("DIR/mean.npy", mmap_mode="r")
    clips = pandas.read_csv("DIR/clips.csv")

If it is interrupted, run the same command again to resume.

Example: python -m jepa_jax.features --checkpoint runs/mine --source VIDEOS --out features --tokens=mean,all
"""

import sys

from absl import app, flags, logging

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are parsed.
from jepa_jax.cli import command_line
from jepa_jax.config import ClipConfig, SourceConfig, ViewsConfig
from jepa_jax.settings import ConfigError, parse

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "WORKDIR[:STEP], weights (a file, folder or name), random:WORKDIR or random:CONFIG."
)
SOURCE = flags.DEFINE_string("source", None, "A folder of files, a CSV file of paths, or a prepared dataset.")
OUT = flags.DEFINE_string("out", None, "Folder for the features; created if it does not exist.")
KIND = flags.DEFINE_enum("kind", "videos", ["videos", "images", "webdataset"], "Type of the source's files.")
TOKENS = flags.DEFINE_list(
    "tokens",
    ["mean"],
    "mean: average over a clip's tokens; frames: over each time step's tokens; all: every token.",
)
LEVELS = flags.DEFINE_list("levels", ["last"], "last, all (concatenated), or numbers from 1, as in --levels=1,2,last.")

INCLUDE = flags.DEFINE_string("include", "", "Only files with a path that matches this regular expression.")
EXCLUDE = flags.DEFINE_string("exclude", "", "No files with a path that matches this regular expression.")
SPLIT = flags.DEFINE_string("split", "train", "Split of a prepared dataset: train, validation or test.")
FRAMES = flags.DEFINE_integer("frames", 0, "Frames of a clip; 0: as in training.")
SIZE = flags.DEFINE_list("size", [], "Side of a clip in pixels, or HEIGHT,WIDTH; as in training by default.")
FRAME_STEP = flags.DEFINE_integer(
    "frame_step", 0, "Takes every n-th frame from the middle of a video; 0: frames spread evenly over the whole video."
)
DTYPE = flags.DEFINE_enum("dtype", "trained", ["trained", "float32", "bfloat16"], "Dtype of the encoder's computation.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Clips per call of the encoder; 0: chosen for the device.")
WORKERS = flags.DEFINE_integer("workers", 2, "Processes that decode; 0: decode in the main process.")
use_compilation_cache = command_line.define_compilation_cache()


def main(arguments: list[str]) -> int:
    """Writes one folder of features from flags. Returns the exit code."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; name the files with --source.")
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax
    with command_line.importing():
        from jepa_jax.checkpoints.reader import CheckpointError
        from jepa_jax.data import TooManySkippedError
        from jepa_jax.evaluation import frozen_encoder
        from jepa_jax.evaluation.features import export

    use_compilation_cache()
    command_line.reuse_memory()
    try:
        encoder = frozen_encoder.load(CHECKPOINT.value or "")
        trained = encoder.config
        source = {"kind": KIND.value, "path": SOURCE.value or "", "split": SPLIT.value}
        source |= {"include": INCLUDE.value, "exclude": EXCLUDE.value}
        written = export.write(
            encoder,
            parse(SourceConfig, source, "--source"),
            OUT.value or "",
            tokens=TOKENS.value,
            levels=LEVELS.value,
            clip=_clip(trained.clip),
            views=ViewsConfig(frame_step=FRAME_STEP.value),
            dtype=trained.dtype if DTYPE.value == "trained" else DTYPE.value,
            batch_size=BATCH_SIZE.value,
            workers=WORKERS.value,
        )
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to resume.", file=sys.stderr)
        return 130
    except (ConfigError, CheckpointError, TooManySkippedError, FloatingPointError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    skipped = f"; {written.skipped:,} could not be decoded: {OUT.value}/skipped.jsonl" if written.skipped else ""
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in written.shapes.items())
    print(f"Features of {written.clips:,} clips in {OUT.value}: {shapes}{skipped}.")
    return 0


def _clip(trained: ClipConfig) -> ClipConfig:
    """The shape of clips that the flags ask for.

    Raises:
        ConfigError: --size is not one or two whole numbers, or a clip of the flags' shape is not possible.
    """
    if len(SIZE.value) > 2 or not all(number.isdecimal() for number in SIZE.value):
        raise ConfigError(f"--size is {','.join(SIZE.value)!r}; expected SIDE or HEIGHT,WIDTH, as in --size=96,128.")
    sides = [int(number) for number in SIZE.value]
    size = trained.size if not any(sides) else sides[0] if len(sides) == 1 else (sides[0], sides[1])
    return parse(ClipConfig, {"frames": FRAMES.value or trained.frames, "size": size}, "--frames, --size")


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "source", "out"])
    command_line.escape_unprintable()
    app.run(main)
