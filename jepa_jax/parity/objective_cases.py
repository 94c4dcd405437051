"""Cases of every objective on random latents: its loss and the gradients on its inputs."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_jax import models
from jepa_jax.config import EncoderConfig
from jepa_jax.models import pixels
from jepa_jax.objectives import CLASSES, base, prediction, sigreg
from jepa_jax.objectives.base import Schedule
from jepa_jax.objectives.channel_split import ChannelSplit, HeadChannels
from jepa_jax.parity.comparison import ARRAY, LEVELS, LOSS, Case, Comparison, Folder, linear

# PyTorch's names of each head and, in order, of its Linears.
HEADS = {
    "dyn_head": ("latent_dynamics", (0, 2)),
    "action_head": ("action", (0, 2)),
    "hamiltonian_net": ("hamiltonian", ("net.0", "net.2", "net.4")),
}
SEEN = {"z_enc": "context_BxKxD", "z_pred": "predicted_target_BxMxD", "z_context": "predicted_context_BxKxD"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _GivenDirections(sigreg.SIGReg):
    """SIGReg with stored directions."""

    given_DxR: Any

    def draw_directions(self, key: jax.Array, features: int) -> Float[Array, "D R"]:
        return jnp.asarray(self.given_DxR)


def cases(folder: Folder) -> Iterator[Case]:
    """Yields a case for each objective in objectives.npz."""
    if not folder.has("objectives.npz"):
        return
    data = folder.arrays("objectives")
    context: dict[str, base.Objective] = {
        "context_prediction": prediction.ContextPrediction(coefficient=1.0, schedule=Schedule())
    }
    by_name: dict[str, tuple[dict[str, base.Objective], dict[str, Any]]] = {
        "prediction": ({"prediction": prediction.Prediction()}, {}),
        "prediction_exp2": ({"prediction": prediction.Prediction(exponent=2.0)}, {}),
        "context_distance_weighted": (context, {}),
        "sigreg": ({"sigreg": _GivenDirections(given_DxR=data["sigreg/slices"])}, {}),
    }
    for name, settings in folder.meta["objectives"].items():
        by_name[name] = (objectives_of(settings, folder.meta["defaults"]), settings)
    for name, (objectives, settings) in by_name.items():
        yield Case(f"objectives/{name}", functools.partial(compare, folder, name, objectives, settings))
    unweighted = functools.partial(compare, folder, "context_unweighted", context, {})
    if all((data[f"context_distance_weighted/sqrt_distance{i}"] == 1).all() for i in (0, 1)):
        # If every context token is next to a target, the weighted loss equals the unweighted one.
        yield Case("objectives/context_unweighted", unweighted)
    yield Case("objectives/context_distances", functools.partial(_compare_distances, folder))


def objectives_of(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, base.Objective]:
    """Returns the objectives that a case's settings enable, from the study's names."""
    get = {**defaults, **settings}
    share = get["fwm_app_ratio"]
    split = {"channel_split": ChannelSplit(appearance_share=share)}
    factorized = "fwm_static_coeff" in settings or "fwm_orth_coeff" in settings
    seen = {"channel_split": HeadChannels(channels="dynamics" if factorized else "all", appearance_share=share)}
    weighting = "uniform"
    if "hw_coeff" in settings:
        weighting = "hard" if settings["as_described"] else "hard_without_gradient"
    schedule = Schedule(shape="cosine" if get.get("kinematic_anneal") else "constant")
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "hw_coeff": ("hard_region", {"temperature": get["hw_temp"], "exponent": get["loss_exp"]}),
        "fwm_static_coeff": ("factorization_static", split),
        "fwm_orth_coeff": ("factorization_orthogonality", split),
        "ld_coeff": ("latent_dynamics", {**seen, "weighting": weighting, "temperature": get["hw_temp"]}),
        "delta_coeff": ("delta", {}),
        "spectral_coeff": ("spectral", {}),
        "ltc_coeff": ("temporal_contrastive", {"margin": get["ltc_margin"]}),
        "ac_coeff": ("action", seen),
        "velgate_coeff": ("velocity_gate", {"quantile": get["velgate_percentile"]}),
        "sigreg_coeff": ("sigreg", {}),
        "hamiltonian_coeff": ("hamiltonian", {"dt": get["hamiltonian_dt"]}),
        "kinematic_coeff": (
            "kinematic",
            {"kind": get["kinematic_type"], "share": get["kinematic_split_ratio"], "schedule": schedule},
        ),
    }
    unknown = {key for key in settings if key.endswith("_coeff")} - set(fields)
    if unknown:
        raise ValueError(f"no objective has the coefficient {', '.join(sorted(unknown))}")
    return {
        name: CLASSES[name](coefficient=settings[key], **values)
        for key, (name, values) in fields.items()
        if key in settings
    }


def head_params(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Returns heads by objective, from arrays PREFIX/HEAD.LAYER.weight."""
    heads = {}
    for head, (objective, layers) in HEADS.items():
        if any(name.startswith(f"{prefix}/{head}.") for name in data):
            heads[objective] = {
                f"fc{i + 1}": linear(data, f"{prefix}/{head}.{layer}") for i, layer in enumerate(layers)
            }
    return heads


def head_arrays(heads: Mapping[str, Any]) -> dict[str, Any]:
    """Inverts `head_params`: arrays in PyTorch's names and layout, HEAD.LAYER.weight."""
    arrays = {}
    for head, (objective, layers) in HEADS.items():
        for i, layer in enumerate(layers if heads.get(objective) else ()):
            arrays[f"{head}.{layer}.weight"] = heads[objective][f"fc{i + 1}"]["kernel"].T
            arrays[f"{head}.{layer}.bias"] = heads[objective][f"fc{i + 1}"]["bias"]
    return arrays


def latents_of(folder: Folder, ragged: bool) -> base.Latents:
    """Returns the stored input: two tube masks, or one ragged mask without predictions."""
    data = folder.arrays("objectives")
    grid, dtype = folder.grid, folder.dtype
    names = ["_ragged"] if ragged else ["0", "1"]
    none = np.zeros((data["in/h"].shape[0], 0, data["in/h"].shape[-1]), np.float32)
    views = tuple(
        base.View(
            context_index_BxK=jnp.asarray(data[f"in/mask_context{name}"], jnp.int32),
            target_index_BxM=jnp.asarray(data.get(f"in/mask_target{name}", none[..., 0]), jnp.int32),
            context_BxKxD=jnp.asarray(data[f"in/z_enc{name}"], dtype),
            predicted_target_BxMxD=jnp.asarray(data.get(f"in/z_pred{name}", none), dtype),
            predicted_context_BxKxD=jnp.asarray(data.get(f"in/z_context{name}", none), dtype),
        )
        for name in names
    )
    config = EncoderConfig(patch=folder.meta["patch"], tubelet=folder.meta["tubelet"])
    patches_BxNxV = models.build_encoder(config).patches(pixels.normalise(data["in/video_uint8"]))
    colour_BxNxC = patches_BxNxV.reshape(*patches_BxNxV.shape[:2], -1, 3).mean(2)
    return base.Latents(views, jnp.asarray(data["in/h"]), colour_BxNxC, grid, LEVELS)


def compare(
    folder: Folder, case: str, objectives: dict[str, base.Objective], settings: Mapping[str, Any]
) -> Iterator[Comparison]:
    """Compares loss and gradients of objectives with those stored for a case."""
    data = {
        name.removeprefix(f"{case}/"): x
        for name, x in folder.arrays("objectives").items()
        if name.startswith(case + "/")
    }
    latents = latents_of(folder, settings.get("ragged_mask", False))
    heads = {name: {} for name in objectives} | head_params(data, "param")
    epochs = folder.meta["epochs"]
    context = base.StepContext(jnp.asarray(settings.get("epoch", 0)), jax.random.key(0), epochs)

    def loss_of(latents: base.Latents, heads: Mapping[str, Any]) -> jax.Array:
        return base.total_loss(objectives, heads, latents, context)[0]

    loss, (of_latents, of_heads) = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), allow_int=True))(latents, heads)
    yield Comparison("loss", loss, data["loss"], LOSS)
    for i, view in enumerate(of_latents.views):
        for name, field in SEEN.items():
            if getattr(view, field).size:
                yield _gradient(f"grad/{name}{i}", getattr(view, field), data.get(f"grad/{name}{i}"))
    if "grad/h" in data:  # stored only if the study does not stop it; in this package the training step stops it
        yield _gradient("grad/h", of_latents.target_BxNxD, data["grad/h"])
    for name, got in head_arrays(of_heads).items():
        yield _gradient(f"grad/{name}", got, data.get(f"grad/{name}"))


def _gradient(name: str, got: jax.Array, expected: np.ndarray | None) -> Comparison:
    """Checks the relative error too, as gradients are small. A gradient that is not stored must be exactly zero."""
    if expected is None:
        return Comparison(name, got, np.zeros(got.shape), tolerance=0.0)
    return Comparison(name, got, expected, ARRAY, share=ARRAY)


def _compare_distances(folder: Folder) -> Iterator[Comparison]:
    data = folder.arrays("objectives")
    for i in (0, 1):
        distance_BxN = prediction.distance_to_target(jnp.asarray(data[f"in/mask_target{i}"]), folder.grid)
        got = jnp.sqrt(jnp.take_along_axis(distance_BxN, jnp.asarray(data[f"in/mask_context{i}"]), axis=1))
        yield Comparison(f"sqrt_distance{i}", got, data[f"context_distance_weighted/sqrt_distance{i}"], 1e-6)
