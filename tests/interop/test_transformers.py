"""Agreement with PyTorch and Hugging Face transformers, which `pip install "jepa_jax[interop]"` installs.

Models of random weights are built there, saved, read here and compared: encoder, predictor, pooler and classifier, at
two resolutions and two lengths. What is saved here is loaded there.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jepa_jax
from jepa_jax import models, weights
from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.models import encoder as encoder_module
from jepa_jax.preprocessing import VJEPA2
from jepa_jax.weights import assemble, formats, tensors
from jepa_jax.weights.unpickle import TorchFile

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'jepa_jax[interop]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed; see jepa_jax[interop]")

pytestmark = pytest.mark.interop
TOLERANCE = 1e-4
SHAPES = [(4, 32), (8, 32), (4, 48), (8, 48)]  # frames and side
WIDTH, HEADS, PATCH, PREDICTOR_WIDTH = 48, 2, 8, 24


def config(frames=4, side=32, **settings):
    """A small V-JEPA 2; the ratio of its MLP is that of ViT-g."""
    return transformers.VJEPA2Config(
        crop_size=side,
        frames_per_clip=frames,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        mlp_ratio=48 / 11,
        pred_hidden_size=PREDICTOR_WIDTH,
        pred_num_hidden_layers=2,
        pred_num_attention_heads=2,
        pred_num_mask_tokens=4,
        **settings,
    )


def randomize(model):
    """Draws all parameters, also those that are zero or one at first."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.2
            parameter.copy_(noise * scale + ("norm" in name and name.endswith("weight")))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """VJEPA2Model as transformers saves it."""
    path = tmp_path_factory.mktemp("model")
    randomize(transformers.VJEPA2Model(config())).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory):
    """VJEPA2ForVideoClassification as transformers saves it."""
    path = tmp_path_factory.mktemp("classifier")
    labels = {0: "fall", 1: "rise", 2: "still"}
    model = transformers.VJEPA2ForVideoClassification(config(id2label=labels, num_pooler_layers=2))
    randomize(model).save_pretrained(path)
    return path


def clips(frames, side):
    return np.random.default_rng(frames * side).standard_normal((2, frames, side, side, 3)).astype(np.float32)


def theirs(kind, folder, frames, side):
    """The model for clips of this shape; positions there come from the config, not from the clips."""
    settings = json.loads((folder / "config.json").read_text())
    changed = type(config()).from_dict(settings | {"crop_size": side, "frames_per_clip": frames})
    return kind.from_pretrained(folder, config=changed, attn_implementation="eager").eval()


def masks(count):
    order = np.random.default_rng(count).permutation(count)
    return np.stack([np.sort(order[: count // 3])] * 2), np.stack([np.sort(order[count // 3 :])] * 2)


def run_theirs(model, video, context, target):
    with torch.no_grad():
        return model(
            torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy()),
            context_mask=[torch.from_numpy(context)],
            target_mask=[torch.from_numpy(target)],
        )


def run_ours(found, video, context, target):
    """Features of all tokens, and predictions with mask token 1, which transformers uses."""
    encoder = models.build_encoder(found.encoder)
    predictor = models.build_predictor(found.predictor, found.encoder)
    hidden = jax.jit(encoder.apply)({"params": found.encoder_params}, video)
    predict = jax.jit(functools.partial(predictor.apply, grid=encoder.grid(jnp.asarray(video)), mask_token=1))
    tokens = encoder_module.gather_tokens(hidden, jnp.asarray(context))
    predicted, _ = predict({"params": found.predictor_params}, tokens, jnp.asarray(context), jnp.asarray(target))
    return hidden, predicted


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)
    assert np.std(expected) > 0.1


@pytest.mark.parametrize(("frames", "side"), SHAPES)
def test_encoder_and_predictor_agree(folder, frames, side):
    video = clips(frames, side)
    context, target = masks((frames // 2) * (side // PATCH) ** 2)
    expected = run_theirs(theirs(transformers.VJEPA2Model, folder, frames, side), video, context, target)
    hidden, predicted = run_ours(weights.read(folder), video, context, target)
    assert_close(hidden, expected.last_hidden_state.numpy())
    assert_close(predicted, expected.predictor_output.last_hidden_state.numpy())


@pytest.mark.parametrize(("frames", "side"), SHAPES)
def test_pooler_and_classifier_agree(classifier_folder, frames, side):
    video = clips(frames, side)
    model = theirs(transformers.VJEPA2ForVideoClassification, classifier_folder, frames, side)
    with torch.no_grad():
        expected = model(torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy())).logits.numpy()
    found = weights.read(classifier_folder)
    assert found.probe.labels == ("fall", "rise", "still")
    hidden = jax.jit(models.build_encoder(found.encoder).apply)({"params": found.encoder_params}, video)
    logits = jax.jit(found.probe.module.apply)({"params": found.probe.params}, hidden)
    assert_close(logits, expected)


def test_an_image_is_a_still_video(folder):
    """A single frame is repeated there; here it has an embedding of its own."""
    video = clips(1, 32)
    model = theirs(transformers.VJEPA2Model, folder, 4, 32)
    with torch.no_grad():
        expected = model(torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy()), skip_predictor=True)
    found = weights.read(folder)
    hidden = jax.jit(models.build_encoder(found.encoder).apply)({"params": found.encoder_params}, video)
    assert_close(hidden, expected.last_hidden_state.numpy())


@pytest.mark.parametrize(("frames", "side"), SHAPES)
def test_what_is_saved_here_loads_there_and_agrees(tmp_path, frames, side):
    encoder = EncoderConfig(size="48x3x2x209", patch=PATCH, levels=1, rotary="tiled")
    predictor = PredictorConfig(size="24x2x2", mask_tokens=4)
    clip = ClipConfig(frames=frames, size=side)
    found = weights.Pretrained("", "transformers", encoder, *random_params(encoder, predictor), None, clip, {}, {})
    weights.save(tmp_path / "saved", encoder, found.encoder_params, predictor, found.predictor_params, clip)
    model, report = transformers.VJEPA2Model.from_pretrained(
        tmp_path / "saved", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    video = clips(frames, side)
    context, target = masks((frames // 2) * (side // PATCH) ** 2)
    expected = run_theirs(model.eval(), video, context, target)
    hidden, predicted = run_ours(found, video, context, target)
    assert_close(hidden, expected.last_hidden_state.numpy())
    assert_close(predicted, expected.predictor_output.last_hidden_state.numpy())


def test_what_the_python_api_saves_agrees_on_the_features_of_a_clip(tmp_path):
    encoder = EncoderConfig(size="48x3x2x209", patch=PATCH, levels=1, rotary="tiled")
    predictor = PredictorConfig(size="24x2x2", mask_tokens=4)
    of_encoder, _, of_predictor = random_params(encoder, predictor)
    ours = jepa_jax.VideoEncoder(
        params=of_encoder,
        settings=encoder,
        clip=ClipConfig(frames=4, size=32),
        preprocessing=VJEPA2,
        predictor_params=of_predictor,
        predictor_settings=predictor,
    )
    jepa_jax.save(ours, tmp_path / "saved")
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    model = transformers.VJEPA2Model.from_pretrained(tmp_path / "saved", attn_implementation="eager").eval()
    settings = json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())
    assert settings["size"] == {"shortest_edge": 36}
    mean, std = (np.array(settings[name], np.float32) for name in ("image_mean", "image_std"))
    video = ((clip * settings["rescale_factor"] - mean) / std).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(video.transpose(0, 3, 1, 2)[None].copy()), skip_predictor=True)
    for found in (ours, jepa_jax.load(tmp_path / "saved")):
        assert_close(found(clip).tokens.reshape(1, -1, 48), expected.last_hidden_state.numpy())


def random_params(encoder, predictor):
    """Encoder parameters, predictor settings and predictor parameters, as `Pretrained` has them."""
    draw = np.random.default_rng(0)

    def random(entry):
        scale = entry.shape[1] ** -0.5 if len(entry.shape) == 2 else 0.2
        return draw.standard_normal(entry.shape).astype(np.float32) * np.float32(scale)

    def params(module):
        return assemble.params(module, tensors.of_arrays({entry.key: random(entry) for entry in module.entries}))

    found = formats.modules("transformers", encoder, predictor)
    of_encoder, of_predictor = params(found["encoder"]), params(found["predictor"])
    for tree in (of_encoder, of_predictor):
        tree["video_modality"] = draw.standard_normal(tree["video_modality"].shape).astype(np.float32)
    return of_encoder, predictor, of_predictor


def test_the_same_file_comes_back(folder, tmp_path):
    found = weights.read(folder)
    weights.save(
        tmp_path / "saved", found.encoder, found.encoder_params, found.predictor, found.predictor_params, found.clip
    )
    one, other = (transformers.VJEPA2Model.from_pretrained(path).state_dict() for path in (folder, tmp_path / "saved"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
    before, after = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "saved"))
    assert int(WIDTH * before.pop("mlp_ratio")) == int(WIDTH * after.pop("mlp_ratio")) == 209
    assert after == {key: before[key] for key in after}


def original_names(state_dict):
    """The names that V-JEPA 2's authors gave to the parameters of VJEPA2Model; queries, keys and values are packed."""
    names = (
        ("encoder.embeddings.patch_embeddings.proj", "patch_embed.proj"),
        ("predictor.embeddings.predictor_embeddings", "predictor_embed"),
        ("encoder.layernorm", "norm"),
        ("predictor.layernorm", "predictor_norm"),
        ("predictor.proj", "predictor_proj"),
        ("encoder.layer.", "blocks."),
        ("predictor.layer.", "predictor_blocks."),
        (".attention.proj", ".attn.proj"),
    )
    found = {"encoder": {}, "predictor": {}}
    for key, value in state_dict.items():
        if ".key." in key or ".value." in key:
            continue
        part = key.partition(".")[0]
        if key == "predictor.embeddings.mask_tokens":
            found[part] |= {f"module.backbone.mask_tokens.{i}": token.clone() for i, token in enumerate(value)}
            continue
        if ".query." in key:
            value = torch.cat([state_dict[key.replace(".query.", f".{name}.")] for name in ("query", "key", "value")])
            key = key.replace(".attention.query.", ".attn.qkv.")
        for theirs, original in names:
            key = key.replace(theirs, original)
        found[part][f"module.backbone.{key}"] = value
    return {"target_encoder": found["encoder"], "predictor": found["predictor"]}


def test_a_file_of_torch_save_with_the_original_names_agrees(tmp_path):
    model = randomize(transformers.VJEPA2Model(config(8, 48, attn_implementation="eager")))
    tokens = torch.nn.Parameter(torch.randn((10, 1, 1, PREDICTOR_WIDTH), generator=torch.Generator().manual_seed(1)))
    model.predictor.embeddings.mask_tokens = tokens
    model.predictor.embeddings.num_mask_tokens = 10
    optimizer = torch.optim.AdamW(model.parameters())
    saved = original_names(model.state_dict()) | {"opt": optimizer.state_dict(), "epoch": 3, "loss": 0.5}
    torch.save(saved, tmp_path / "vitl.pt")
    found = weights.read(tmp_path / "vitl.pt", heads=HEADS, predictor_heads=2)
    video, (context, target) = clips(8, 48), masks(4 * 36)
    expected = run_theirs(model, video, context, target)
    hidden, predicted = run_ours(found, video, context, target)
    assert_close(hidden, expected.last_hidden_state.numpy())
    assert_close(predicted, expected.predictor_output.last_hidden_state.numpy())


def original_probe(pooler, classifier):
    """The names of V-JEPA 2's authors; keys and values of the last block are packed."""
    names = (
        ("self_attention_layers.", "blocks."),
        ("cross_attention_layer.", "cross_attention_block."),
        ("layer_norm", "norm"),
        ("self_attn.out_proj", "attn.proj"),
        ("cross_attn.q_proj", "xattn.q"),
    )
    state_dict, found = pooler.state_dict(), {f"module.linear.{k}": x for k, x in classifier.state_dict().items()}
    for key, value in state_dict.items():
        if ".v_proj." in key or (".k_proj." in key and "self_attn" in key):
            continue
        if "self_attn.q_proj" in key:
            value = torch.cat([state_dict[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            key = key.replace("self_attn.q_proj", "attn.qkv")
        elif "cross_attn.k_proj" in key:
            value = torch.cat([value, state_dict[key.replace("k_proj", "v_proj")]])
            key = key.replace("cross_attn.k_proj", "xattn.kv")
        for theirs, original in names:
            key = key.replace(theirs, original)
        found[f"module.pooler.{key}"] = value
    return found


def test_a_released_probe_agrees_with_the_pooler_of_its_heads_and_epsilon(tmp_path):
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

    settings = config(layer_norm_eps=1e-5, attn_implementation="eager")
    settings.num_attention_heads = 16
    pooler, classifier = randomize(VJEPA2AttentivePooler(settings)), randomize(torch.nn.Linear(WIDTH, 5))
    torch.save({"classifiers": [original_probe(pooler, classifier)], "epoch": 20}, tmp_path / "probe.pt")
    found = weights.read_probe(tmp_path / "probe.pt")
    tokens = np.random.default_rng(0).standard_normal((2, 30, WIDTH)).astype(np.float32)
    with torch.no_grad():
        expected = classifier(pooler(torch.from_numpy(tokens))).numpy()
    assert_close(jax.jit(found.module.apply)({"params": found.params}, tokens), expected)


def test_tensors_of_torch_save_are_read_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((6, 4, 5), generator=generator)
    state = {
        "plain": x,
        "half": x.half(),
        "brain": x.bfloat16(),
        "transposed": x.transpose(0, 2),
        "slice": torch.randn((30, 5), generator=generator)[3:9, 1:4],
        "channels_last": torch.randn((2, 3, 4, 5, 6), generator=generator).to(memory_format=torch.channels_last_3d),
        "parameter": torch.nn.Parameter(x),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros((0, 3)),
        "integers": torch.arange(5),
    }
    torch.save({"encoder": state}, tmp_path / "file.pt")
    found = TorchFile(tmp_path / "file.pt").state_dict("encoder")
    assert found.keys() == state.keys()
    for name, value in state.items():
        array = found[name].read()
        assert array.shape == tuple(value.shape)
        expected = value.detach().float().numpy()
        np.testing.assert_array_equal(array.astype(np.float32), expected, name)


def test_a_state_dict_with_the_versions_of_its_modules_is_read(tmp_path):
    module = torch.nn.Linear(3, 2)
    torch.save(
        {"encoder": module.state_dict(), "opt": torch.optim.SGD(module.parameters()).state_dict()}, tmp_path / "x"
    )
    found = TorchFile(tmp_path / "x").state_dict("encoder")
    np.testing.assert_array_equal(found["weight"].read(), module.weight.detach().numpy())
