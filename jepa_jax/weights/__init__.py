"""Released weights of V-JEPA 2 and 2.1: read without PyTorch, written for others to read.

from jepa_jax import weights
found = weights.read("vitl.pt")                # or a folder with config.json and model.safetensors
encoder = models.build_encoder(found.encoder)  # applied to {"params": found.encoder_params}
"""

from jepa_jax.weights.pretrained import Pretrained, Probe, read, read_probe
from jepa_jax.weights.saving import save
from jepa_jax.weights.tensors import WeightsError

__all__ = ["Pretrained", "Probe", "WeightsError", "read", "read_probe", "save"]
