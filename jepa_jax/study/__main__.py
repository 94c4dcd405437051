"""Runs a study: `python -m jepa_jax.study --config CONFIG --workdir DIR [--config.key=value …]`.

CONFIG is the name of a config (study/laptop, …) or a file. The command trains and probes every run of the study that
has no record in DIR/results, then writes DIR/report. Run it on any number of machines that share DIR: they divide the
runs among them. If it is interrupted, run it again to continue.

`--plan` prints the runs, hours and disk space; it measures a few steps first. `--report` writes the report of what is
there. `--jobs=N` starts N processes on this machine.

Exit codes: 0 once every run has a record, also if that is an error (`--retry_failed` runs these again); 143 after
SIGTERM, 130 after Ctrl-C; 1 after an error that is not of a run, such as a full disk.
"""

import signal
import sys

from absl import app, flags, logging
from etils import epath

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax.cli import command_line, config_flag
from jepa_jax.distributed import exit_codes
from jepa_jax.files import write_errors
from jepa_jax.files.ownership import OwnershipError
from jepa_jax.files.paths import reachable
from jepa_jax.settings import ConfigError, parse
from jepa_jax.study import results_folder
from jepa_jax.study.results_folder import RecordError
from jepa_jax.study.study_config import StudyConfig

CONFIG = config_flag.define(StudyConfig, "The name of a config (study/laptop, …) or a file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study, shared by all processes that work on it.")
PLAN = flags.DEFINE_bool("plan", False, "Print the runs, hours and disk space that the study takes; run nothing.")
REPORT = flags.DEFINE_bool("report", False, "Write the report of the runs that have ended; run nothing.")
RETRY = flags.DEFINE_bool("retry_failed", False, "Run failed runs again.")
JOBS = flags.DEFINE_integer("jobs", 1, "Number of processes on this machine, which share its cores and GPUs.", 1)
use_compilation_cache = command_line.define_compilation_cache()


def main(arguments: list[str]) -> int:
    """Runs, plans or reports a study from flags. Returns the exit code."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax and jax
    exit_codes.raise_on_sigterm()
    folder = WORKDIR.value or ""
    try:
        return run(parse(StudyConfig, CONFIG.value), reachable(folder))
    except KeyboardInterrupt as request:
        print("Stopped. Run the same command again to continue.", file=sys.stderr)
        return exit_codes.exit_code(request)
    except (ConfigError, RecordError, OwnershipError, OSError) as error:
        print(f"Error: {write_errors.explain(error, folder) or error}", file=sys.stderr)
        return 1


def run(study: StudyConfig, folder: epath.Path) -> int:
    """Does what the flags ask for. Returns the exit code."""
    from jepa_jax.study.plan import Plan

    plan, results = Plan(study), folder / "results"
    if REPORT.value:
        if not results_folder.run_files(results):
            raise ConfigError(f"{results} has no records yet; run the study without --report first.")
        write_report(folder)
        return 0
    if not PLAN.value:
        plan.open_results(results)
        if RETRY.value:
            forget_failed(results)
        if JOBS.value > 1:
            from jepa_jax.study.engine import jobs

            arguments = [word for word in sys.argv[1:] if "retry" not in word]
            return jobs.run(arguments, JOBS.value)
    with command_line.importing():
        from jepa_jax.study.engine import estimate, machine
        from jepa_jax.study.engine.prober import Prober
        from jepa_jax.study.engine.runner import Runner, StoppedError
        from jepa_jax.study.engine.worker import Worker
    use_compilation_cache()
    command_line.reuse_memory()
    if PLAN.value:
        records = {(record.recipe, record.seed): record.status for record in results_folder.read_runs(results)}
        remaining = [run for run in plan.runs if (run.recipe, run.seed) not in records]
        failed = list(records.values()).count("failed")
        device = machine.this_machine().device
        print(estimate.describe(plan, remaining, failed, estimate.measure(plan), device, JOBS.value))
        return 0
    runner = Runner(plan, folder / "runs", Prober(study), machine.this_software(), machine.this_machine())
    worker = Worker(plan, folder, runner)
    try:
        worker.work()
    except StoppedError as stopped:
        return exit_codes.CODES[signal.Signals[stopped.signal]]
    failed = [record for record in results_folder.read_runs(results) if record.status == "failed"]
    for record in failed:
        print(f"Failed: {record.recipe}, seed {record.seed}: {record.error}", file=sys.stderr)
    print(f"All {len(plan.runs)} runs have a record in {results}; {len(failed)} failed.")
    write_report(folder)
    return 0


def forget_failed(results: epath.Path) -> None:
    """Deletes the records of failed runs, which are then run again."""
    for record in results_folder.read_runs(results):
        if record.status == "failed":
            results_folder.run_file(results, record.recipe, record.seed).unlink()


def write_report(folder: epath.Path) -> None:
    """Writes the report of the records in the folder."""
    from jepa_jax.study import report

    report.write(folder / "results", folder / "report")
    print(f"Written to {folder / 'report'}.")


if __name__ == "__main__":
    command_line.run(main, "config", "workdir")
