"""What the command lines of all jobs share."""

import sys
from collections.abc import Callable

from absl import app, flags


def run(
    main: Callable[[list[str]], int], config: flags.FlagHolder, *required: str, unless: flags.FlagHolder | None = None
) -> None:
    """Runs a job with `--config` and other required flags; a mistake in them is one line, not a traceback.

    Where the switch `unless` is given, the job is another one, which needs none of them.
    """
    if unless is None or f"--{unless.name}" not in sys.argv:
        flags.mark_flags_as_required(["config", *required])

    def parse(arguments: list[str]) -> list[str]:
        try:
            remaining = app.parse_flags_with_usage(arguments)
            if config.present:
                _ = config.value.lock  # a file that could not be loaded says so at the first look
            return remaining
        except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            sys.exit(f"Error in --config: {_innermost(error)}")

    app.run(main, flags_parser=parse)


def _innermost(error: BaseException) -> object:
    """ml_collections wraps the error of a config file in its own, which say less."""
    reason: object = error
    while isinstance(reason, BaseException) and reason.args and not isinstance(reason, OSError):
        reason = reason.args[0]
    return reason
