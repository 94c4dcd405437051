"""Video-JEPA with auxiliary objectives, in JAX.

    import jepa_jax
    encoder = jepa_jax.load("runs/mine")           # or "random:quickstart", the encoder before training
    features = encoder.encode(["clip.mp4"])        # float32 [1, E]

Letters of the shape suffixes (`z_BxKxD`) and of the jaxtyping annotations, used everywhere in this package:

    B  clips of a batch            F  frames of a clip           Y X  pixel height and width      C  colour channels
    T H W  token grid (time, height, width)                      N  tokens of a clip, T·H·W (time-major)
    K  visible (context) tokens    M  predicted (target) tokens  S  any number of tokens
    E  encoder width               L  levels (4)                 D  all levels end to end, L·E
    P  predictor width             A  heads                      G  channels of a head           I  items of a dataset
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_jax.evaluation.load import LoadedEncoder, load

__version__ = "0.1.0"
__all__ = ["LoadedEncoder", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports the public API on first use, so that decoding workers start without JAX."""
    if name in ("LoadedEncoder", "load"):
        from jepa_jax.evaluation import load as module

        return getattr(module, name)
    raise AttributeError(f"module 'jepa_jax' has no attribute {name!r}")
