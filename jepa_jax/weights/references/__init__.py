"""References to weights: a file, a folder, or a name on the Hugging Face hub."""

import hashlib
import os
import pathlib
import re

from jepa_jax.files.paths import is_remote, require_local
from jepa_jax.weights.pretrained import CONFIG, WEIGHTS
from jepa_jax.weights.references import hub

SUFFIXES = (".pt", ".pth", ".safetensors")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # OWNER/MODEL


def find(reference: str) -> pathlib.Path | None:
    """Returns the file or folder that `weights.read` takes; None if the reference is not one of weights.

    OWNER/MODEL is a name on the hub unless there is a folder OWNER here: runs/mine is a training run, even before it
    exists.

    Args:
        reference: a .pt, .pth or .safetensors file; a folder with config.json and model.safetensors; or a name such as
            facebook/vjepa2-vitl-fpc64-256, which is downloaded (once) to huggingface_hub's cache.

    Raises:
        ConfigError: a file on an object store.
        WeightsError: a name that cannot be downloaded.
        FileNotFoundError: no such file.
    """
    if reference.endswith(SUFFIXES):
        path = require_local(reference, "The file of weights")
        if not path.exists():
            raise FileNotFoundError(f"there is no file of weights {reference} (looked from {pathlib.Path.cwd()}).")
        return path
    if is_remote(reference):
        return None
    path = pathlib.Path(reference)
    if path.is_dir():
        return path if (path / CONFIG).exists() and (path / WEIGHTS).exists() else None
    if NAME.fullmatch(reference) and not path.parent.exists():
        return hub.download(reference)
    return None


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of the file that `find` returned, or of the tensors' file in that folder."""
    file = pathlib.Path(path)
    with (file / WEIGHTS if file.is_dir() else file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
