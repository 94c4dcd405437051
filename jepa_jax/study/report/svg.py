"""Small plots as SVG text. Colours come from classes in style.css; sizes are in units of a 360-wide panel.

A mark has a shape of its own for each style, and a line its own dashes, so that plots can be read without colour.
"""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

from jepa_jax.study.run_record import Number

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 38
SHAPES = ("circle", "square", "triangle", "diamond", "down")
_CHARACTER = 6.3  # width of a character of text


class Axis(NamedTuple):
    """One axis: its range, labelled ticks and title."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str
    log: bool = False

    def position(self, value: float) -> float:
        """Where a value is, from 0 at the lower end to 1."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)


def linear(values: Sequence[float], title: str, *, scale: float = 1.0, zero: bool = False) -> Axis:
    """An axis with round ticks that includes all finite values. Labels show value × scale."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    low = min(low, 0.0) if zero else low
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (low if zero and low == 0 else low - margin) * scale, (high + margin) * scale
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= raw)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple((n * step / scale, f"{n * step:.{digits}f}".replace("-", "−")) for n in range(first, last + 1))
    return Axis(low / scale, high / scale, ticks, title)


def logarithmic(values: Sequence[float], labels: Sequence[str], title: str) -> Axis:
    """A logarithmic axis with a tick for each value."""
    return Axis(values[0] / 1.12, values[-1] * 1.12, tuple(zip(values, labels, strict=True)), title, log=True)


class Panel:
    """A plot that elements are added to, later ones above earlier ones."""

    def __init__(self, title: str, x: Axis, y: Axis, description: str, height: int = HEIGHT):
        self._x, self._y, self._height = x, y, height
        self._description = description
        self._parts: list[str] = [f'<text class="title" x="{LEFT}" y="14">{html.escape(title)}</text>']
        self._boxes: list[tuple[float, float, float, float]] = []
        self._frame()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn."""
        width, height = WIDTH - LEFT - RIGHT, self._height - TOP - BOTTOM
        return LEFT + width * self._x.position(x), TOP + height * (1 - self._y.position(y))

    def _frame(self) -> None:
        bottom = self._height - BOTTOM
        for value, label in self._y.ticks:
            _, y = self.at(self._x.low, value)
            self._parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            self._parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{html.escape(label)}</text>')
        for value, label in self._x.ticks:
            x, _ = self.at(value, self._y.low)
            self._parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            self._parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{html.escape(label)}</text>')
        self._parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>')
        x = (LEFT + WIDTH - RIGHT) / 2
        self._parts.append(
            f'<text x="{x:.1f}" y="{self._height - 6}" text-anchor="middle">{html.escape(self._x.title)}</text>'
        )
        self._parts.append(
            f'<text transform="translate(11 {(TOP + bottom) / 2:.1f}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(self._y.title)}</text>"
        )

    def line(self, xs: Sequence[float], ys: Sequence[Number], style: str) -> None:
        """A line that is interrupted where a value is missing."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None or not math.isfinite(y):
                pen = "M"
                continue
            path.append("{}{:.1f} {:.1f}".format(pen, *self.at(x, y)))
            pen = "L"
        if path:
            self._parts.append(f'<path class="line {style}" d="{"".join(path)}"/>')

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: str) -> None:
        """The area between two lines; nothing where they are unknown."""
        if any(not math.isfinite(value) for value in (*lows, *highs)):
            return
        there = [self.at(x, min(y, self._y.high)) for x, y in zip(xs, highs, strict=True)]
        back = [self.at(x, max(y, self._y.low)) for x, y in zip(xs, lows, strict=True)][::-1]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in there + back)
        self._parts.append(f'<path class="band {style}" d="M{path}Z"/>')

    def marks(self, xs: Sequence[float], ys: Sequence[Number], style: str, shape: str = "circle") -> None:
        """A mark at each point."""
        for x, y in zip(xs, ys, strict=True):
            if y is not None and math.isfinite(y):
                self._parts.append(f'<path class="mark {style}" d="{_shape(shape, *self.at(x, y), 4.2)}"/>')

    def dots(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """A small dot at each point."""
        for x, y in zip(xs, ys, strict=True):
            self._parts.append('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="1.6"/>'.format(style, *self.at(x, y)))

    def oval(self, center: Sequence[float], major: Sequence[float], minor: Sequence[float], style: str) -> None:
        """An ellipse from its centre and semi-axes."""
        corners = []
        for step in range(60):
            c, s = math.cos(step * math.pi / 30), math.sin(step * math.pi / 30)
            corners.append(self.at(*(m + c * a + s * b for m, a, b in zip(center, major, minor, strict=True))))
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        # An inner svg clips what is outside the axes.
        size = f"{WIDTH - LEFT - RIGHT} {self._height - TOP - BOTTOM}"
        width, height = size.split()
        self._parts.append(
            f'<svg x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="{LEFT} {TOP} {size}">'
            f'<path class="oval {style}" d="M{path}Z"/></svg>'
        )

    def level(self, y: float, label: str, *, left: bool = False) -> None:
        """A horizontal line with a label at one end; nothing if it is outside the range."""
        if self._y.low <= y <= self._y.high:
            _, height = self.at(self._x.low, y)
            right = WIDTH - RIGHT
            self._parts.append(f'<path class="level" d="M{LEFT} {height:.1f}H{right}"/>')
            x, anchor = (LEFT + 4, "start") if left else (right, "end")
            self._parts.append(f'<text x="{x}" y="{height - 3:.1f}" text-anchor="{anchor}">{html.escape(label)}</text>')

    def keep_clear(self, x: float, y: float) -> None:
        """Keeps later labels off a mark."""
        left, top = self.at(x, y)
        self._boxes.append((left - 5, top - 5, left + 5, top + 5))

    def label(self, x: float, y: float, label: str, style: str) -> None:
        """A label near a point, where it covers no mark or other label, with a line to the point if it is far."""
        left, top = self.at(x, y)
        width = _CHARACTER * len(label) + 2
        choices = [
            (left + radius * math.cos(angle), top + radius * math.sin(angle))
            for radius in (11, 18, 26, 36, 48, 62)
            for angle in (k * math.pi / 4 for k in (0, -1, 1, 4, -3, 3, -2, 2))
        ]
        boxes = [(cx - width / 2, cy - 6, cx + width / 2, cy + 6) for cx, cy in choices]
        inside = [
            box
            for box in boxes
            if box[0] > LEFT and box[2] < WIDTH and box[1] > TOP - 8 and box[3] < self._height - BOTTOM
        ]
        box = next((box for box in inside if not any(_overlap(box, other) for other in self._boxes)), boxes[0])
        self._boxes.append(box)
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if math.hypot(cx - left, cy - top) > 16:
            self._parts.append(f'<path class="leader" d="M{left:.1f} {top:.1f}L{cx:.1f} {cy:.1f}"/>')
        self._parts.append(
            f'<text class="name {style}" x="{cx:.1f}" y="{cy + 4:.1f}" text-anchor="middle">{html.escape(label)}</text>'
        )

    def svg(self) -> str:
        """The plot."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" aria-label="{html.escape(self._description)}">'
            f"{''.join(self._parts)}</svg>"
        )


def _shape(shape: str, x: float, y: float, r: float) -> str:
    if shape == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
        "down": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[shape]
    return "M" + "L".join(f"{x + r * a:.1f} {y + r * b:.1f}" for a, b in corners) + "Z"


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
