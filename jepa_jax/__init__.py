"""Video-JEPA with auxiliary objectives, in JAX.

    import jepa_jax
    encoder = jepa_jax.load("runs/mine")           # or "vitl.pt", "facebook/vjepa2-vitl-fpc64-256", "random:quickstart"
    features = encoder("clip.mp4")                 # .tokens [B, T, H, W, E], .mean() [B, E], .levels, .grid
    jepa_jax.save(encoder, "export/")              # for transformers.VJEPA2Model.from_pretrained

Letters of the shape suffixes (`z_BxKxD`) and of the jaxtyping annotations, used everywhere in this package:

    B  clips of a batch            F  frames of a clip           Y X  pixel height and width      C  colour channels
    T H W  token grid (time, height, width)                      N  tokens of a clip, T·H·W (time-major)
    K  visible (context) tokens    M  predicted (target) tokens  S  any number of tokens
    E  encoder width               L  levels (4)                 D  all levels end to end, L·E
    P  predictor width             A  heads                      G  channels of a head           I  items of a dataset
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_jax.inference.loading import load, save
    from jepa_jax.inference.stablehlo import export
    from jepa_jax.inference.video_encoder import VideoEncoder, VideoFeatures

__version__ = "0.1.0"
__all__ = ["VideoEncoder", "VideoFeatures", "__version__", "export", "load", "save"]

_MODULES = {
    "VideoEncoder": "video_encoder",
    "VideoFeatures": "video_encoder",
    "export": "stablehlo",
    "load": "loading",
    "save": "loading",
}


def __getattr__(name: str) -> Any:
    """Imports the public API on first use, so that decoding workers start without JAX."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"jepa_jax.inference.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'jepa_jax' has no attribute {name!r}")
