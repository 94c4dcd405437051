"""Glyphs: 4×4 textures of light and dark cells that no statistic of colour or of change distinguishes.

Count light cells as 1, dark ones as −1 and everything outside of a glyph as 0. Each glyph G has

- a sum of 0: as many light as dark cells, so that the mean colour is the same for every glyph;
- ⟨G, G moved by one or two cells along a row or a column⟩ = 0.

So every move by one or two cells over a background of 0 changes a frame by the same energy, Σ (new − old)² = 2·16, for
every glyph. 264 of the 12,870 balanced glyphs have these properties. GLYPHS has two of them and their mirror images.
"""

CELLS = 8  # cells in a side of the frame
SIDE = 4  # cells in a side of a glyph

GLYPHS: dict[str, tuple[str, ...]] = {
    "a": (
        "###.",
        ".###",
        ".#..",
        "..#.",
    ),
    "a mirrored": (
        ".###",
        "###.",
        "..#.",
        ".#..",
    ),
    "b": (
        "#.##",
        "##.#",
        "...#",
        "#...",
    ),
    "b mirrored": (
        "##.#",
        "#.##",
        "#...",
        "...#",
    ),
}
"""Rows of each glyph; # is light."""
