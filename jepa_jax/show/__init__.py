"""Pictures of clips, masks, features and results: `python -m jepa_jax.show WHAT …`, and pure functions.

The functions take and return numpy arrays:

    from jepa_jax.show import pca_colours
    tokens_IxTxHxWxE = …                                  # of several clips
    rgb_IxTxHxWx3 = pca_colours(tokens_IxTxHxWxE)         # uint8; one basis for all of them

A kind of picture is a module in `kinds` and a line in `kinds.KINDS`.
"""

from jepa_jax.pictures.colour_map import paint as paint_values
from jepa_jax.pictures.film import write_gif, write_mp4, write_png
from jepa_jax.pictures.overlay import masked as masked_frames
from jepa_jax.pictures.pca import Basis as PcaBasis
from jepa_jax.pictures.pca import colours as pca_colours
from jepa_jax.pictures.pca import fit as fit_pca
from jepa_jax.pictures.pca import foreground as pca_foreground
from jepa_jax.pictures.sheet import Row, sheet

__all__ = [
    "PcaBasis",
    "Row",
    "fit_pca",
    "masked_frames",
    "paint_values",
    "pca_colours",
    "pca_foreground",
    "sheet",
    "write_gif",
    "write_mp4",
    "write_png",
]
