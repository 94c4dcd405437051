"""The frozen target encoder of a run: read from another run's checkpoint and identified by a fingerprint.

WORKDIR/target.json records the checkpoint's name, its step and the SHA-256 of the encoder's parameters.
"""

import json

from etils import epath

from jepa_jax.checkpoints import tree_paths
from jepa_jax.checkpoints.reader import EncoderCheckpoint, read_encoder
from jepa_jax.config import Config
from jepa_jax.files.paths import split_step
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError

RECORD = "target.json"


def load(config: Config) -> EncoderCheckpoint | None:
    """The encoder that `target_checkpoint` names; None if the target is not frozen.

    Raises:
        ConfigError: the folder is not a training run's folder.
        CheckpointError: the checkpoint does not exist or is damaged.
    """
    return read_encoder(*split_step(config.target_checkpoint)) if config.target == "frozen" else None


def require_same(folder: epath.Path, reference: str, target: EncoderCheckpoint) -> None:
    """Checks that the run in `folder` started with the same target; records the target of a new run.

    Args:
        folder: of the run.
        reference: the setting `target_checkpoint`.
        target: the encoder that it names.

    Raises:
        ConfigError: the run started with another encoder.
    """
    file, digest = folder / RECORD, tree_paths.fingerprint(target.params)
    if not file.exists():
        workdir.write_json(file, {"checkpoint": reference, "step": target.step, "sha256": digest})
        return
    recorded = json.loads(file.read_text())
    if recorded["sha256"] != digest:
        raise ConfigError(
            f"config.target_checkpoint is {reference} (step {target.step}, SHA-256 {digest[:12]}), but the run in "
            f"{folder} has the frozen target {recorded['checkpoint']} (step {recorded['step']}, SHA-256 "
            f"{recorded['sha256'][:12]}). Name that checkpoint, with its step (WORKDIR:{recorded['step']}), or use "
            "another --workdir."
        )
