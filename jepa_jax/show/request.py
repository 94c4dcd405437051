"""What a picture is asked to show."""

import dataclasses
import pathlib

from jepa_jax.config import Config, SourceConfig
from jepa_jax.settings import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of `python -m jepa_jax.show`.

    Attributes:
        out: folder for the files.
        checkpoint: WORKDIR[:STEP], random:WORKDIR or random:CONFIG; empty for none.
        config: of a training run, for its data; None without --config.
        paths: runs or results files named after WHAT.
        source: clips; None: those that the run was trained on. A media file is a clip of its own.
        split: of the source; empty: its own.
        items: numbers of the clips in the source; empty: `clips` of them, spread evenly.
        clips: number of clips.
        rows: of `features`: output, levels, halves, untrained.
        film: gif, mp4 or none.
        foreground: whether `features` blackens the background.
        smooth: whether `features` interpolates between tokens.
        token: column, row and time step of a token, from 0; empty: the centre of the first time step.
        step: number of the training step, from 0, whose batch and masks are shown.
        draws: number of times that `surprise` draws each mask.
        neighbours: number of neighbours of each query.
        gallery: most clips that are searched.
    """

    out: pathlib.Path
    checkpoint: str = ""
    config: Config | None = None
    paths: tuple[str, ...] = ()
    source: SourceConfig | None = None
    split: str = ""
    items: tuple[int, ...] = ()
    clips: int = 3
    rows: tuple[str, ...] = ("output",)
    film: str = "gif"
    foreground: bool = False
    smooth: bool = True
    token: tuple[int, ...] = ()
    step: int = 0
    draws: int = 8
    neighbours: int = 4
    gallery: int = 256

    def require_checkpoint(self, what: str) -> str:
        """Returns the checkpoint.

        Raises:
            ConfigError: there is none.
        """
        if not self.checkpoint:
            raise ConfigError(f"{what} needs an encoder: add --checkpoint=WORKDIR, WORKDIR:STEP or random:CONFIG.")
        return self.checkpoint
