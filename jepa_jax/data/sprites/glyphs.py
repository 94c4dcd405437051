"""Glyphs: 4×4 textures of light and dark cells that no statistic of colour or of change distinguishes.

All are turns and mirror images of one texture, so that they have the same cells and the same radial spectrum. No two of
them are equal, wherever they are on a torus. Count light cells as 1, dark ones as −1 and everything outside of a glyph
as 0. Each glyph G has

- a sum of 0: as many light as dark cells;
- ⟨G, G moved by one cell along a row or a column⟩ = 0, on a torus of 4×4 cells and on a background of 0.

So a step of half a cell changes a frame by the same energy, Σ (new − old)² = 16, for every glyph, and a step of a whole
cell by 2·16. 13 textures have these properties, up to turns, mirror images and moves over the torus. This one has the
largest difference between the spectra of rows and of columns.
"""

import numpy as np

SIDE = 4  # cells in a side of a glyph
TEXTURE = ("###.", ".##.", "##..", "..#.")  # # is light


def _turned(rows: tuple[str, ...], quarters: int, mirrored: bool) -> tuple[str, ...]:
    cells = np.array([list(row) for row in rows])
    return tuple("".join(row) for row in np.rot90(cells[:, ::-1] if mirrored else cells, quarters))


GLYPHS: dict[str, tuple[str, ...]] = {
    f"{90 * quarters}°{' mirrored' if mirrored else ''}": _turned(TEXTURE, quarters, mirrored)
    for mirrored in (False, True)
    for quarters in range(4)
}
"""Rows of each glyph, by its turn to the left; a mirrored one is mirrored first."""
