"""Models on the Hugging Face hub, downloaded by huggingface_hub (extra `hub`)."""

import pathlib

from jepa_jax.weights.pretrained import CONFIG, WEIGHTS
from jepa_jax.weights.tensors import WeightsError

FILES = (CONFIG, WEIGHTS, "preprocessor_config.json", "video_preprocessor_config.json")


def download(name: str) -> pathlib.Path:
    """Returns the folder of a model in huggingface_hub's cache; downloads what is missing.

    Args:
        name: OWNER/MODEL.

    Raises:
        WeightsError: huggingface_hub is not installed, the hub cannot be reached, or it has no such model.
    """
    here = f"There is no folder {name} here, so it is read as a name on the Hugging Face hub"
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
        from huggingface_hub import errors  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WeightsError(f"{here}, which needs huggingface_hub: pip install 'jepa_jax[hub]'.") from error
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FILES)))
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{here}, where {name} needs its owner's permission: ask at https://huggingface.co/{name}, then log in "
            "(hf auth login)."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise WeightsError(f"{here}, which has no model {name} (or it is private).") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{here}, which cannot be reached, and {name} is not in its cache ({type(error).__name__}). Check the "
            "network, or name a folder with config.json and model.safetensors."
        ) from error
