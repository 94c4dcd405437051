"""The limit of open files of this process and of the processes that it starts."""

import resource

from jepa_jax.settings import ConfigError

SPARE = 128  # files, sockets and libraries that are open besides
UNLIMITED = 2**20  # files, if the system sets no limit


def allow(count: int, what: str) -> None:
    """Raises the limit as far as the system permits.

    Args:
        count: number of files to keep open.
        what: description of these files, for the error; the subject of a sentence in the singular.

    Raises:
        ConfigError: the system permits fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if count + SPARE > most:
        raise ConfigError(
            f"{what} has {count:,} files, which are kept open, and a process may open {most:,}; raise the limit to "
            f"{count + SPARE:,} or more (ulimit -n, or LimitNOFILE of the service)."
        )
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
