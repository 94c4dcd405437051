"""Glyphs: 4×4 textures of light and dark cells that no statistic of colour or of change distinguishes.

Count light cells as 1, dark ones as −1 and everything outside of a glyph as 0. Each glyph G has

- a sum of 0: as many light as dark cells, so that the mean colour is the same for every glyph, turned or not;
- ⟨G, G turned by 90°⟩ = ⟨G, G turned by 180°⟩ = 0: any two of its four turns differ in half of the cells;
- ⟨G, G moved by one or two cells along a row or a column⟩ = 0.

So every turn of a glyph, and every move by one or two cells over a background of 0, changes a frame by the same energy,
Σ (new − old)² = 2·16. 48 of the 12,870 balanced glyphs have these properties: 12 glyphs and their turns. GLYPHS has the
four whose light cells are furthest to one side, which is up when the glyph is upright: the light side shows the turn.
"""

SIDE = 4  # cells

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
"""Rows of each glyph, upright; # is light."""
