"""Plots of one probe's result: its confusion matrix and the accuracy of each class."""

from typing import TYPE_CHECKING

import numpy as np

from jepa_jax.evaluation.results.probe_result import ProbeResult
from jepa_jax.show import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 40  # classes: more have no names on the axes
COUNTED = 12  # classes: more have no numbers in the cells
_BAR = 18  # pixels


def matrix(result: ProbeResult) -> "Figure":
    """Returns the confusion matrix: shares of each true class; call it inside of `plots.style`."""
    counts = np.array(result.confusion, float)
    totals = counts.sum(1, keepdims=True)
    share = 100 * counts / np.where(totals > 0, totals, 1)
    size = len(counts)
    side = 330 + (min(size, NAMED) * _BAR if size <= NAMED else 200)
    figure = plots.figure(side + 60, side)
    axes = figure.subplots()
    axes.grid(False)
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="share of the true class, %", shrink=0.8)
    axes.set_title("Confusion", loc="left")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size <= NAMED:
        axes.set_xticks(range(size), result.class_names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), result.class_names)
    if size <= COUNTED:
        for row, column in np.ndindex(share.shape):
            ink = "#1b1f24" if share[row, column] > 50 else "white"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=8)
    return figure


def by_class(result: ProbeResult) -> "Figure":
    """Returns the accuracy of each class with the mean and chance; call it inside of `plots.style`."""
    known = [
        (name, 100 * share)
        for name, share in zip(result.class_names, result.per_class, strict=True)
        if share is not None
    ]
    known.sort(key=lambda pair: pair[1])
    figure = plots.figure(460, 110 + _BAR * len(known))
    axes = figure.subplots()
    axes.barh(range(len(known)), [share for _, share in known], color="#0072b2")
    axes.axvline(100 * result.accuracy, color=plots.GREY, linewidth=2, label=f"mean {100 * result.accuracy:.1f} %")
    axes.axvline(
        100 * result.chance, color=plots.GREY, linestyle=(0, (2, 2)), label=f"chance {100 * result.chance:.1f} %"
    )
    axes.set_yticks(range(len(known)), [name for name, _ in known])
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, %")
    axes.set_title("Classes", loc="left")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
