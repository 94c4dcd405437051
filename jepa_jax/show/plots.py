"""Plots by matplotlib (extra `show`): one style, legible in greyscale, and pixels that depend on the data alone."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from jepa_jax.pictures.colour_map import OKABE_ITO
from jepa_jax.settings import ConfigError

if TYPE_CHECKING:  # not installed without the extra
    from matplotlib.figure import Figure

DPI = 100
DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#6b7480"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    # Lines are grey, which is seen on white and on black. Black text in SVG files takes the colour of the page's text.
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "svg.hashsalt": "jepa_jax",  # ids in SVG files are a function of the content
    "svg.fonttype": "none",
}


def style() -> Any:
    """Returns a context in which figures are made, drawn and written.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("this picture needs matplotlib: pip install 'jepa_jax[show]'.") from error
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "agg"} | _STYLE
    return matplotlib.rc_context(settings)


def figure(width: int, height: int) -> "Figure":
    """Returns an empty figure of a size in pixels; call it inside of `style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")


def line_style(number: int) -> dict[str, Any]:
    """Returns colour and dashes of line `number`: neighbours differ in both, and six differ in dashes alone."""
    return {"color": OKABE_ITO[number % len(OKABE_ITO)], "linestyle": DASHES[number % len(DASHES)], "linewidth": 1.6}


def pixels(drawn: "Figure") -> UInt8[np.ndarray, "Y X 3"]:
    """Returns the figure as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def svg(drawn: "Figure") -> str:
    """Returns the figure as an svg element without dates, for a page."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    content = text.getvalue()
    return content[content.index("<svg") :]
