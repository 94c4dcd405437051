"""Sheets: rows of images with their names, as one image."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, TEXT = 4, 10, 13  # pixels
INK, QUIET, PAPER = (27, 31, 36), (92, 101, 112), (255, 255, 255)

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclasses.dataclass(frozen=True)
class Row:
    """Images of one size side by side.

    Attributes:
        label: to the left of the images; lines are separated by newlines.
        cells: the images.
        notes: below each image, all with the same number of lines; empty for none.
        heading: above the row; empty for none.
    """

    label: str
    cells: Sequence[Picture]
    notes: Sequence[str] = ()
    heading: str = ""


def sheet(rows: Sequence[Row], *, title: str = "", columns: Sequence[str] = (), footer: str = "") -> Picture:
    """Returns the rows below each other, with their labels to the left.

    Args:
        rows: at least one.
        title: above the rows.
        columns: names above the images of the first row.
        footer: below the rows; lines are separated by newlines.

    Raises:
        ValueError: there are no rows, or a row without images.
    """
    if not rows or not all(len(row.cells) for row in rows):
        raise ValueError("a sheet needs rows, and every row an image.")
    left = MARGIN + max(_width(line) for row in rows for line in row.label.split("\n")) + GAP * 2
    right = left + max(sum(cell.shape[1] + GAP for cell in row.cells) for row in rows)
    words = [title, *footer.split("\n"), *(row.heading for row in rows)]
    wide = max(right, *(MARGIN + _width(line) for line in words)) + MARGIN
    line = TEXT + 5
    heights = [row.cells[0].shape[0] + line * _lines(row.notes) + line * bool(row.heading) + GAP for row in rows]
    top = MARGIN + (line + GAP) * bool(title) + line * bool(columns)
    tall = top + sum(heights) + (line * len(footer.split("\n")) + GAP) * bool(footer) + MARGIN
    canvas = Image.new("RGB", (wide, tall), PAPER)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, MARGIN), title, fill=INK, font=_font(TEXT + 1))
    y = top
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        cell_y = y + line * bool(row.heading)
        if row.heading:
            draw.text((MARGIN, y), row.heading, fill=INK, font=_font())
        tall_text = line * (row.label.count("\n") + 1)
        label_y = cell_y + (row.cells[0].shape[0] - tall_text) // 2
        draw.multiline_text((MARGIN, label_y), row.label, fill=INK, font=_font(), spacing=5)
        x = left
        for index, cell in enumerate(row.cells):
            canvas.paste(Image.fromarray(np.ascontiguousarray(cell)), (x, cell_y))
            if number == 0 and index < len(columns):
                draw.text((x, top - line), columns[index], fill=QUIET, font=_font())
            if index < len(row.notes):
                place = (x, cell_y + cell.shape[0] + 1)
                draw.multiline_text(place, row.notes[index], fill=QUIET, font=_font(), spacing=5)
            x += cell.shape[1] + GAP
        y += height
    if footer:
        draw.multiline_text((MARGIN, y + GAP), footer, fill=QUIET, font=_font(), spacing=5)
    return np.asarray(canvas)


def side_by_side(images: Sequence[Picture], gap: int = GAP) -> Picture:
    """Returns images of one height next to each other, `gap` pixels apart."""
    parts: list[np.ndarray] = []
    for image in images:
        parts += [image, np.full((image.shape[0], gap, 3), PAPER, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def stacked(images: Sequence[Picture]) -> Picture:
    """Returns images below each other, flush left."""
    wide = max(image.shape[1] for image in images)
    parts: list[np.ndarray] = []
    for image in images:
        tall = image.shape[0]
        parts.append(np.concatenate([image, np.full((tall, wide - image.shape[1], 3), PAPER, np.uint8)], axis=1))
        parts.append(np.full((GAP, wide, 3), PAPER, np.uint8))
    return np.concatenate(parts[:-1])


def shorten(text: str, width: int) -> str:
    """Returns the text, its beginning replaced by … if it is wider than `width` pixels."""
    if _width(text) <= width:
        return text
    while text and _width(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"


def _lines(notes: Sequence[str]) -> int:
    return max((note.count("\n") + 1 for note in notes), default=0)


@functools.cache
def _font(size: int = TEXT) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _width(text: str) -> int:
    return round(_font().getlength(text))
