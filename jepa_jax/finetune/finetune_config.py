"""Settings of a fine-tuning run, parsed from `configs/finetune/*.py`."""

import dataclasses
from typing import Literal

from jepa_jax.config import OptimConfig, Remat, RunConfig, SourceConfig, ViewsConfig
from jepa_jax.settings import ConfigError, at_least, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The classification head. It takes the tokens of the encoder's last level."""

    # linear: of the mean token. attentive and attentive_blocks: the probes of the study and of V-JEPA 2.
    kind: Literal["linear", "attentive", "attentive_blocks"] = "linear"
    heads: int = 8  # attentive kinds only
    blocks: int = 4  # attentive_blocks only: self-attention blocks, the last one being the pooling by a learned query

    def __post_init__(self) -> None:
        at_least(self, 1, "heads", "blocks")


def _optim() -> OptimConfig:
    return OptimConfig(
        start_lr=0.0,
        peak_lr=1e-3,
        final_lr=1e-6,
        warmup_steps=100,
        weight_decay=0.05,
        final_weight_decay=0.05,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """A fine-tuning run. Its encoder is that of `init`; its training clips are the one source in `data.sources`."""

    seed: int = 0  # also of rendered test clips, as in an evaluation
    optim: OptimConfig = dataclasses.field(default_factory=_optim)
    head: HeadConfig = HeadConfig()
    task: str = ""  # the label to learn, if clips have several (sprites: appearance, motion, order)
    # The learning rate of block l of L is layer_decay^(L + 1 − l) times that of the head; the embeddings are block 0.
    layer_decay: float = 0.75
    freeze_blocks: int = 0  # this many blocks from the input, with the embeddings before them, stay as they are
    label_smoothing: float = 0.1
    remat: Remat = "none"  # of the encoder's blocks
    # The test clips, scored after training: `test`, or the clips of the training source whose paths match `holdout`.
    holdout: str = ""
    test: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    views: ViewsConfig = dataclasses.field(
        default_factory=ViewsConfig
    )  # of a test video; their probabilities are averaged

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "freeze_blocks")
        share(self, "label_smoothing", "layer_decay")
        if self.layer_decay == 0:
            raise ValueError("layer_decay is 0; expected above 0 and at most 1; 1 trains all blocks at the same rate")
        if self.data.images == "frames":
            raise ValueError("data.images is 'frames'; fine-tuning uses images as still clips ('clips')")

    @property
    def source(self) -> str:
        """The name of the training source.

        Raises:
            ConfigError: not exactly one source has a weight above 0.
        """
        used = [name for name, source in self.data.sources.items() if source.weight > 0]
        if len(used) != 1:
            raise ConfigError(
                f"config.data.sources: {len(used)} sources have a weight above 0 ({', '.join(used) or 'none'}); "
                "fine-tuning takes one."
            )
        return used[0]
