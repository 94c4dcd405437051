"""Command-line handling shared by all entry points."""

import contextlib
import gc
import io
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags

from jepa_jax.cli import config_flag
from jepa_jax.files import allocator


def run(
    main: Callable[[list[str]], int],
    *required: str,
    unless: flags.FlagHolder[bool] | None = None,
) -> None:
    """Runs `main` with absl. An invalid flag prints one line instead of a traceback.

    --a-b is accepted for the flag --a_b.

    Args:
        main: takes the positional arguments and returns the exit code.
        required: names of required flags.
        unless: a boolean flag that makes the others optional if it is set.
    """

    def parse(arguments: list[str]) -> list[str]:
        try:
            remaining = flags.FLAGS(arguments)
        except flags.Error as error:
            sys.exit(f"Error: {config_flag.explain(error)}")
        except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            # str(KeyError) puts quotes around its message.
            sys.exit(f"Error in --config: {error.args[0] if isinstance(error, LookupError) and error.args else error}")
        if unless is None or not unless.value:
            for name in required:
                if flags.FLAGS[name].value is None:
                    sys.exit(f"Error: --{name} is missing: {flags.FLAGS[name].help}")
        return remaining

    escape_unprintable()
    app.run(main, argv=with_underscores(sys.argv), flags_parser=parse)


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Replaces --a-b=VALUE by --a_b=VALUE."""
    return [re.sub(r"^--[\w-]+", lambda name: "--" + name[0][2:].replace("-", "_"), given) for given in arguments]


def escape_unprintable() -> None:
    """Makes standard output escape characters that its encoding lacks, as standard error does, instead of raising."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def define_compilation_cache() -> Callable[[], None]:
    """Defines `--compilation_cache`. Call the returned function once flags are parsed, before anything compiles."""
    folder = flags.DEFINE_string(
        "compilation_cache",
        None,
        "Folder for compiled programs, which later runs reuse; '' disables it. It may be deleted at any time. "
        "Default: JAX_COMPILATION_CACHE_DIR, else ~/.cache/jepa_jax.",
    )

    def use() -> None:
        import jax  # slow to import, and neither --help nor a mistake in a flag needs it

        if folder.value is not None:
            jax.config.update("jax_compilation_cache_dir", folder.value or None)
        elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", str(pathlib.Path("~/.cache/jepa_jax").expanduser()))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # JAX's default, 1 s, would compile dozens of small programs in every run.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    return use


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Disables garbage collection while modules are imported, and excludes what they created from later collections.

    Modules live until the process exits; searching them for garbage takes a tenth of the time of their import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def reuse_memory() -> None:
    """Makes programs on a CPU reuse the memory of earlier calls. Call it before anything runs on a device.

    XLA allocates temporary arrays in every call. The kernel had to clear 172 MB of pages for each step of the
    quickstart, which took a quarter of the step's processor time.
    """
    if allocator.keep_freed_memory():
        import jax

        # Calls run in the calling thread then, the only one whose large arrays glibc keeps.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
