"""Self-attention among the tokens of a clip: XLA operations or a fused kernel, and the choice between them."""

from jepa_jax.models.attention.choice import Choice, agree, choose
from jepa_jax.models.attention.kernels import Attend, attend, fused
from jepa_jax.models.attention.support import Shape

__all__ = ["Attend", "Choice", "Shape", "agree", "attend", "choose", "fused"]
