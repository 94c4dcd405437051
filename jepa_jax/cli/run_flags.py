"""Flags of the commands that run the training loop, and how they start and end."""

import dataclasses
import signal
import sys
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax.cli import command_line
from jepa_jax.config import Schedules
from jepa_jax.distributed import exit_codes
from jepa_jax.distributed.cluster import find_cluster
from jepa_jax.settings import ConfigError

if TYPE_CHECKING:
    from jepa_jax.training.loop import Outcome

flags.disclaim_key_flags()  # --help lists them with those of the command


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """The flags, and a function that sets the folder for compiled programs."""

    workdir: flags.FlagHolder[Any]
    resume: flags.FlagHolder[Any]
    schedules: flags.FlagHolder[Any]
    profile: flags.FlagHolder[Any]
    coordinator: flags.FlagHolder[Any]
    processes: flags.FlagHolder[Any]
    process_id: flags.FlagHolder[Any]
    use_compilation_cache: Callable[[], None]


def define(default_workdir: str) -> RunFlags:
    """Defines the flags; `default_workdir` is named in the help."""
    return RunFlags(
        workdir=flags.DEFINE_string(
            "workdir",
            None,
            "Folder for checkpoints and metrics. If it contains a run, that run is resumed. Default: "
            f"{default_workdir}.",
        ),
        resume=flags.DEFINE_enum(
            "resume",
            "auto",
            ["auto", "extend", "overwrite"],
            "extend: continue the run in --workdir with another --config.steps or other schedules. overwrite: move it "
            "aside and start again.",
        ),
        schedules=flags.DEFINE_enum(
            "schedules",
            None,
            list(typing.get_args(Schedules)),
            "With --resume=extend. hold (the default): schedules end as planned, then keep their final values. "
            "stretch: they are planned for the new length, as if the run had been that long from the start.",
        ),
        profile=flags.DEFINE_string(
            "profile",
            None,
            "STEP:STEPS. Traces STEPS steps, starting with step STEP, to WORKDIR/profile, for TensorBoard.",
        ),
        coordinator=flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if it cannot be detected."),
        processes=flags.DEFINE_integer("processes", None, "Number of processes of the run, if it cannot be detected."),
        process_id=flags.DEFINE_integer("process_id", None, "Index of this process from 0, if it cannot be detected."),
        use_compilation_cache=command_line.define_compilation_cache(),
    )


def require_no_arguments(arguments: list[str]) -> None:
    """Raises UsageError if there are positional arguments; the first of `arguments` is the command."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")


def extension(resume: str, schedules: str | None) -> Schedules | None:
    """What --resume=extend does with schedules; None without it.

    Raises:
        ConfigError: --schedules without --resume=extend.
    """
    if schedules and resume != "extend":
        raise ConfigError(f"--schedules={schedules} needs --resume=extend.")
    if resume != "extend":
        return None
    return "stretch" if schedules == "stretch" else "hold"


def launch(
    given: RunFlags,
    arguments: list[str],
    read_flags: Callable[[list[str]], Any],
    run: Callable[[list[str], Any], int],
) -> int:
    """Starts a command in all its processes. Returns the exit code.

    Args:
        given: the flags.
        arguments: of the command line.
        read_flags: parses the flags to a request. With several processes `run` gets None instead and calls it itself.
        run: runs the request.
    """
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax and jax
    request = None
    try:
        cluster = find_cluster(given.coordinator.value, given.processes.value, given.process_id.value)
        if cluster is None:
            exit_codes.exit_on_sigterm()  # until training starts, when SIGTERM becomes a request to save and stop
            with command_line.importing():  # of JAX, by the modules of masks and objectives
                request = read_flags(arguments)
            print(request, flush=True)
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    from jepa_jax.distributed import processes

    try:
        if cluster is not None:
            processes.join(cluster)  # JAX's preemption service then catches SIGTERM
        given.use_compilation_cache()
        command_line.reuse_memory()
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return processes.run_together(lambda: run(arguments, request))


def attempt(job: Callable[[], "Outcome"]) -> "Outcome | None":
    """Runs a job of the training loop; prints the errors that users can do something about, and returns None then."""
    with command_line.importing():
        from jepa_jax.checkpoints.manager import hide_orbax_tracebacks
        from jepa_jax.checkpoints.reader import CheckpointError
        from jepa_jax.data import TooManySkippedError
        from jepa_jax.files.ownership import OwnershipError
        from jepa_jax.files.write_errors import WriteError
        from jepa_jax.run_dir.run_lock import WorkdirLostError
        from jepa_jax.training.monitor import NonFiniteLossError

    logging.get_absl_logger().addFilter(hide_orbax_tracebacks)
    try:
        return job()
    except (
        ConfigError,
        CheckpointError,
        NonFiniteLossError,
        OwnershipError,
        TooManySkippedError,
        WorkdirLostError,
        WriteError,
        OSError,
    ) as error:
        print(f"Error: {error}", file=sys.stderr)
        return None


def exit_code(stopped_by: str) -> int:
    """The exit code of a command that a signal stopped."""
    return exit_codes.CODES[signal.Signals[stopped_by]]
