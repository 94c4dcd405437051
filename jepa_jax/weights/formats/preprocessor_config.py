"""preprocessor_config.json: how a model's own evaluation resizes, crops and normalizes clips."""

from collections.abc import Mapping
from typing import Any

from jepa_jax.config import ClipConfig
from jepa_jax.preprocessing import Channels, Preprocessing
from jepa_jax.weights.tensors import WeightsError

NAMES = ("preprocessor_config.json", "video_preprocessor_config.json")  # the second is that of newer transformers
BILINEAR = 2  # Pillow's number
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def write(preprocessing: Preprocessing, clip: ClipConfig) -> dict[str, Any]:
    """Returns the content of the file for square clips."""
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        **dict.fromkeys(STEPS, True),
        "size": {"shortest_edge": preprocessing.resized(clip.height)},
        "resample": BILINEAR,
        "crop_size": {"height": clip.height, "width": clip.width},
        "rescale_factor": 1 / 255,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def read(content: Mapping[str, Any], source: str) -> Preprocessing:
    """Parses the content of the file. The crop's size is that of config.json; only its ratio to the short side is used.

    Raises:
        WeightsError: a step is left out, or a value is missing or has another form.
    """
    for name in STEPS:
        if content.get(name, True) is not True:
            raise WeightsError(f"{source}: {name} is {content[name]!r}; only true is supported.")
    try:
        short, crop = int(content["size"]["shortest_edge"]), content["crop_size"]
        crop = int(crop["height"]) if isinstance(crop, Mapping) else int(crop)
        scale = float(content.get("rescale_factor", 1 / 255))
        mean, std = _channels(content["image_mean"]), _channels(content["image_std"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{source} has no usable size.shortest_edge, crop_size, image_mean or image_std: {error!r}."
        ) from error
    if abs(255 * scale - 1) > 1e-6 or not 0 < crop <= short or min(std) <= 0:
        raise WeightsError(
            f"{source}: rescale_factor is {scale}, crop_size {crop}, shortest_edge {short}, image_std {std}; expected "
            "1/255, a crop of at least one pixel and at most the short side, and deviations above 0."
        )
    return Preprocessing((1, 1) if short == crop else (short, crop), mean, std)


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue
