"""The classifier and its training step, which the training loop runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32

from jepa_jax import models
from jepa_jax.data import sources
from jepa_jax.finetune import layer_decay
from jepa_jax.finetune.finetune_config import FinetuneConfig, HeadConfig
from jepa_jax.models import batch_sharding, pixels, probe_heads
from jepa_jax.training import optimizer, schedules, step
from jepa_jax.training.setup import TrainState

Head = probe_heads.LinearProbe | probe_heads.AttentiveProbe | probe_heads.AttentiveBlocksProbe


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """Everything that stays constant during fine-tuning.

    Attributes:
        config: of the run.
        encoder: the module.
        head: the module.
        task: the label that is learned.
        classes: their names.
        label_I: class of each training item; None for clips rendered in the step.
        render: renders the clips and labels of a step; None if batches contain videos.
    """

    config: FinetuneConfig
    encoder: models.Encoder
    head: Head
    task: str
    classes: tuple[str, ...]
    label_I: Int32[np.ndarray, "I"] | None
    render: sources.Render | None

    def optimizer(self, params: Any) -> optax.GradientTransformation:
        """The optimizer, with a learning rate for each layer; `params` may be shapes."""
        config = self.config
        factors = layer_decay.multipliers(params, self.encoder, config.layer_decay, config.freeze_blocks)
        return layer_decay.scaled(optimizer.build(config.optim, schedules.length(config)), factors)

    def logits(self, params: Mapping[str, Any], clips: Float[Array, "B F Y X C"]) -> Float[Array, "B classes"]:
        """Classifies normalized clips."""
        tokens_BxNxE = self.encoder.apply({"params": params["encoder"]}, clips)
        return self.head.apply({"params": params[layer_decay.HEAD]}, _pooled(self.config.head, tokens_BxNxE))  # pyright: ignore


def build_head(config: HeadConfig, classes: int) -> Head:
    """Builds a head for this number of classes."""
    if config.kind == "linear":
        return probe_heads.LinearProbe(classes)
    if config.kind == "attentive":
        return probe_heads.AttentiveProbe(classes, config.heads)
    return probe_heads.AttentiveBlocksProbe(classes, config.heads, config.blocks)


def init_state(classifier: Classifier, seed: int | jax.Array) -> TrainState:
    """The initial state, a function of the seed only. The encoder is random; its weights replace it."""
    encoder_key, head_key, run_key = jax.random.split(jax.random.key(seed), 3)
    encoder = classifier.encoder.init(encoder_key, jnp.zeros((1, *classifier.config.clip.shape)))["params"]
    tokens_BxNxE = jnp.zeros((1, 1, classifier.encoder.size.width))
    head = classifier.head.init(head_key, _pooled(classifier.config.head, tokens_BxNxE))["params"]
    params = {"encoder": encoder, layer_decay.HEAD: head}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params={},
        opt_state=classifier.optimizer(params).init(params),
        key=jax.random.key_data(run_key),
    )


def train_step(classifier: Classifier, state: TrainState, batch: step.Batch) -> tuple[TrainState, dict[str, Any]]:
    """Makes one update.

    Args:
        classifier: modules and labels (static under jit).
        state: before the step; may be donated.
        batch: as of `training.step.train_step`.

    Returns:
        The new state, and scalar metrics: `loss` is the cross-entropy with smoothed labels, `accuracy` that of the
        batch before the update.
    """
    config, planned = classifier.config, schedules.length(classifier.config)
    clips, label_B = _inputs(classifier, batch)
    gradient, metrics = gradients(classifier, state.params, clips, label_B)
    with jax.named_scope("update"):
        transformation = classifier.optimizer(state.params)
        updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
    held = schedules.hold(planned, state.step + 1)
    metrics = metrics | {
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": schedules.learning_rate(config.optim, planned, held),
        "weight_decay": schedules.weight_decay(config.optim, planned, held),
    }
    return TrainState(state.step + 1, params, {}, opt_state, state.key), metrics


def gradients(
    classifier: Classifier,
    params: Mapping[str, Any],
    clips: Float[Array, "B F Y X C"],
    label_B: Int[Array, "B"],
) -> tuple[Any, dict[str, jax.Array]]:
    """The gradient of the loss and its metrics, in `optim.accumulate` parts of the batch."""

    def of_part(inputs: Any, key: None) -> tuple[Any, dict[str, jax.Array]]:
        del key
        part, labels = inputs
        return _gradients(classifier, params, batch_sharding.shard_batch(part), labels)

    parts = classifier.config.optim.accumulate
    if parts == 1:
        return _gradients(classifier, params, clips, label_B)
    gradient, metrics = step.accumulate(parts, of_part, params, (clips, label_B), None)
    return gradient, {name: values.mean(0) for name, values in metrics.items()}


def _gradients(
    classifier: Classifier, params: Mapping[str, Any], clips: jax.Array, label_B: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    smoothing = classifier.config.label_smoothing

    def loss_of(params: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        logits_BxC = classifier.logits(params, clips)
        with jax.named_scope("loss"):
            target_BxC = optax.smooth_labels(jax.nn.one_hot(label_B, len(classifier.classes)), smoothing)
            loss = optax.softmax_cross_entropy(logits_BxC, target_BxC).mean()
        return loss, (logits_BxC.argmax(axis=-1) == label_B).mean()

    (loss, accuracy), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    return gradient, {"loss": loss, "accuracy": accuracy}


def _inputs(classifier: Classifier, batch: step.Batch) -> tuple[Float[Array, "B F Y X C"], Int[Array, "B"]]:
    if classifier.render is not None:
        video_BxFxYxXxC, labels = classifier.render(batch["seed"][0], batch["item"])
        return pixels.normalise(video_BxFxYxXxC), labels[classifier.task]
    assert classifier.label_I is not None
    return pixels.normalise(batch["video"]), jnp.asarray(classifier.label_I)[batch["item"]]


def _pooled(head: HeadConfig, tokens_BxNxE: Any) -> jax.Array:
    """What the head takes: the mean token, or all tokens; float32."""
    tokens_BxNxE = tokens_BxNxE.astype(jnp.float32)
    return tokens_BxNxE.mean(axis=1) if head.kind == "linear" else tokens_BxNxE
