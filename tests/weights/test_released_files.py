"""Files with the names of every released one, at small widths, are read into parameters of the right shapes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files

from jepa_jax import models, weights
from jepa_jax.models.sizes import parse_size
from jepa_jax.weights import WeightsError, architecture, assemble, formats, pretrained, tensors
from jepa_jax.weights.entries import Entry, Module

# file: depth, heads, hidden width, predictor depth, width distilled from, where widths are 2 · heads; numbers of keys
# in the released file.
FILES = {
    "vitl": (24, 16, 128, 12, None, 292, 160),
    "vith": (32, 16, 128, 12, None, 388, 160),
    "vitg": (40, 22, 192, 12, None, 484, 160),
    "vitg-384": (40, 22, 192, 12, None, 484, 160),
    "vjepa2_1_vitb_dist_vitG_384": (12, 12, 96, 12, 52, 158, 162),
    "vjepa2_1_vitl_dist_vitG_384": (24, 16, 128, 12, 52, 302, 162),
    "vjepa2_1_vitg_384": (40, 22, 192, 24, 0, 494, 308),
    "vjepa2_1_vitG_384": (48, 26, 256, 24, 0, 590, 308),
}


def shapes(name):
    depth, heads, hidden, predictor_depth, distilled_from, *_ = FILES[name]
    if distilled_from is None:
        return torch_files.vjepa2(depth, 2 * heads, hidden)
    return torch_files.vjepa2_1(depth, 2 * heads, hidden, predictor_depth, distilled_from)


def content(name):
    """The state dicts of a file, without its other entries."""
    return tuple(torch_files.numbers(part, seed) for seed, part in enumerate(shapes(name)))


@functools.cache
def found(name):
    """The file as it is read, and its state dicts."""
    encoder, predictor = content(name)
    return pretrained.of_state_dicts(
        name, {"target_encoder": tensors.of_arrays(encoder)}, tensors.of_arrays(predictor), FILES[name][1], 2
    )


def expected_shapes(loaded):
    """The shapes of the parameters of the modules that the settings describe."""
    encoder = models.build_encoder(loaded.encoder)
    predictor = models.build_predictor(loaded.predictor, loaded.encoder)
    clip = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
    width = encoder.size.width * encoder.levels
    tokens, index = jax.ShapeDtypeStruct((1, 3, width), jnp.float32), jax.ShapeDtypeStruct((1, 3), jnp.int32)
    of_encoder = jax.eval_shape(encoder.init, jax.random.key(0), clip)
    initialise = functools.partial(predictor.init, grid=(2, 2, 2))
    of_predictor = jax.eval_shape(initialise, jax.random.key(0), tokens, index, index)
    return [jax.tree.map(jnp.shape, tree["params"]) for tree in (of_encoder, of_predictor)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_parameters_of_the_modules_that_its_settings_describe(name):
    depth, heads, hidden, predictor_depth, distilled_from, *_ = FILES[name]
    loaded = found(name)
    assert parse_size(loaded.encoder.size).hidden == hidden
    assert loaded.encoder.size.startswith(f"{2 * heads}x{depth}x{heads}")
    assert loaded.predictor.size == f"12x{predictor_depth}x2"
    assert loaded.predictor.output == (distilled_from or 0)
    assert loaded.predictor.mask_tokens == (10 if distilled_from is None else 8)
    assert (loaded.encoder.levels, loaded.encoder.rotary) == (
        (1, "tiled") if distilled_from is None else (4, "interleaved")
    )
    got = [jax.tree.map(np.shape, tree) for tree in (loaded.encoder_params, loaded.predictor_params)]
    assert got == expected_shapes(loaded)


def test_levels_of_the_largest_encoder_end_where_they_were_trained():
    assert found("vjepa2_1_vitG_384").encoder.level_ends == (12, 24, 38, 48)
    assert found("vjepa2_1_vitg_384").encoder.level_ends == ()


@pytest.mark.parametrize("name", FILES)
def test_the_files_have_as_many_keys_as_the_released_ones(name):
    assert tuple(map(len, shapes(name))) == FILES[name][5:]


@pytest.mark.parametrize("name", ["vitl", "vjepa2_1_vitl_dist_vitG_384", "vjepa2_1_vitG_384"])
def test_the_same_tensors_come_back(name):
    loaded, start = found(name), "module.backbone."
    modules = formats.modules(loaded.format, loaded.encoder, loaded.predictor, start, start)
    for part, params, arrays in zip(
        ("encoder", "predictor"), (loaded.encoder_params, loaded.predictor_params), content(name), strict=True
    ):
        back = assemble.tensors(modules[part], params)
        assert back.keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(back[key], array)


def test_tensors_are_where_the_modules_use_them():
    """A matrix is transposed, and a block is a row of the stacked parameters of its level."""
    encoder, predictor = content("vjepa2_1_vitG_384")
    loaded = found("vjepa2_1_vitG_384")
    group = loaded.encoder_params["groups_2"]["block"]
    np.testing.assert_array_equal(group["qkv"]["kernel"][13], encoder["module.backbone.blocks.37.attn.qkv.weight"].T)
    patch = encoder["module.backbone.patch_embed.proj.weight"]
    kernel = loaded.encoder_params["patch_embedding"]["kernel"]
    np.testing.assert_array_equal(kernel[1, 0, 1, 2], patch[:, 2, 1, 0, 1])
    tokens = loaded.predictor_params["mask_tokens"]
    np.testing.assert_array_equal(tokens[7], predictor["module.backbone.mask_tokens.7"])


def test_what_v_jepa_2_does_not_have_is_filled_and_listed():
    loaded = found("vitl")
    assert list(loaded.filled) == [
        "encoder/image_patch_embedding/kernel",
        "encoder/image_patch_embedding/bias",
        "encoder/video_modality",
        "encoder/image_modality",
        "predictor/video_modality",
        "predictor/image_modality",
        "predictor/head_context/kernel",
        "predictor/head_context/bias",
    ]
    video = loaded.encoder_params["patch_embedding"]["kernel"]
    image = loaded.encoder_params["image_patch_embedding"]["kernel"]
    np.testing.assert_array_equal(image[0], video[0] + video[1])
    assert not loaded.predictor_params["head_context"]["kernel"].any()
    assert found("vjepa2_1_vitg_384").filled == {}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vitl.pt"


def file_of(name, dtype=np.float32, **more):
    encoder, predictor = content(name)
    encoder = {key: array.astype(dtype) for key, array in encoder.items()}
    return {"encoder": {}, "target_encoder": encoder, "predictor": predictor, "epoch": 3, **more}


def test_a_file_with_everything_that_training_saves(path):
    moments = {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, None)}]}
    loaded = weights.read(
        torch_files.write_torch(path, file_of("vitl", opt=moments, scaler=None, lr=1e-3)), heads=16, predictor_heads=2
    )
    assert loaded.ignored == {
        "encoder": "target_encoder is used",
        "epoch": "not of encoder or predictor",
        "opt": "not of encoder or predictor",
        "scaler": "not of encoder or predictor",
        "lr": "not of encoder or predictor",
    }
    assert (loaded.clip.frames, loaded.clip.size) == (64, 256)
    jax.tree.map(np.testing.assert_array_equal, loaded.encoder_params, found("vitl").encoder_params)
    jax.tree.map(np.testing.assert_array_equal, loaded.predictor_params, found("vitl").predictor_params)


def test_the_moving_average_of_a_distilled_encoder_is_used(path):
    encoder, _ = content("vjepa2_1_vitb_dist_vitG_384")
    other = {key: array + 1 for key, array in encoder.items()}
    torch_files.write_torch(path, {"target_encoder": other, "ema_encoder": encoder})
    loaded = weights.read(path, heads=12)
    assert loaded.ignored == {"target_encoder": "ema_encoder is used"}
    assert loaded.predictor is None
    bias = encoder["module.backbone.patch_embed.proj.bias"]
    np.testing.assert_array_equal(loaded.encoder_params["patch_embedding"]["bias"], bias)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_converted_exactly(path, dtype):
    loaded = weights.read(torch_files.write_torch(path, file_of("vitl", dtype)), heads=16, predictor_heads=2)
    kernel = loaded.encoder_params["groups_0"]["block"]["mlp_in"]["kernel"]
    exact = content("vitl")[0]["module.backbone.blocks.5.mlp.fc1.weight"].astype(dtype)
    assert kernel.dtype == np.float32
    assert kernel[5].T.astype(dtype).tobytes() == exact.tobytes()
    np.testing.assert_array_equal(kernel[5].T.astype(np.float64), exact.astype(np.float64))


def test_every_number_of_half_precision_is_converted_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype, infinity in ((np.dtype(np.float16), 0x7C00), (np.dtype(jnp.bfloat16), 0x7F80)):
        values = bits.view(dtype)
        module = Module([Entry("x", values.shape, "x", (0,))], {}, {})
        single = assemble.params(module, tensors.of_arrays({"x": values}))["x"]
        finite = (bits & infinity) != infinity
        sign = np.where(bits >> 15, -1.0, 1.0)
        exponent_bits, bias = (5, 15) if dtype == np.float16 else (8, 127)
        mantissa_bits = 15 - exponent_bits
        exponent = ((bits >> mantissa_bits) & (2**exponent_bits - 1)).astype(np.float64)
        mantissa = (bits & (2**mantissa_bits - 1)) / 2.0**mantissa_bits
        exact = sign * np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias))
        np.testing.assert_array_equal(single[finite].astype(np.float64), exact[finite])
        np.testing.assert_array_equal(np.isnan(single), ~finite & (mantissa > 0))


def test_unused_positions_are_ignored_by_name(path):
    content_of = file_of("vitl")
    content_of["target_encoder"]["module.backbone.pos_embed"] = np.zeros((1, 4, 32), np.float32)
    content_of["predictor"]["module.backbone.predictor_pos_embed"] = np.zeros((1, 4, 12), np.float32)
    loaded = weights.read(torch_files.write_torch(path, content_of), heads=16, predictor_heads=2)
    assert [key for key in loaded.ignored if "pos_embed" in key] == [
        "target_encoder: module.backbone.pos_embed",
        "predictor: module.backbone.predictor_pos_embed",
    ]


def test_doubles_are_refused(path):
    with pytest.raises(WeightsError, match=r"norm\.weight is float64; expected float32, float16, bfloat16"):
        weights.read(torch_files.write_torch(path, file_of("vitl", np.float64)), heads=16, predictor_heads=2)


def once_each(keys):
    """The keys of the last block and those outside blocks."""
    numbers = {key: int(n) for key in keys for n in re.findall(r"blocks\.(\d+)\.", key)}
    return [key for key in keys if numbers.get(key) in (None, max(numbers.values()))]


def changes(key, array):
    """One change of a tensor each, and what the error says about it."""
    shape = list(array.shape)
    yield {key: None}, [f"{key} {shape} is missing"]
    yield {f"{key}2": array}, [f"{key}2 {shape} is unexpected"]
    yield {key: None, f"{key}2": array}, [f"{key} {shape} is missing", f"{key}2 {shape} is unexpected"]
    yield {key: array[..., None]}, [f"{key} is {[*shape, 1]}; expected {shape}"]


@pytest.mark.parametrize(
    "name",
    ["vitl", "vjepa2_1_vitb_dist_vitG_384", pytest.param("vjepa2_1_vitg_384", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("part", [0, 1])
def test_any_single_wrong_tensor_is_an_error_that_names_it(name, part):
    state_dicts = content(name)
    label = ("target_encoder", "predictor")[part]
    for key in once_each(state_dicts[part]):
        for change, problems in changes(key, state_dicts[part][key]):
            changed = [dict(state_dict) for state_dict in state_dicts]
            changed[part] = {k: x for k, x in (changed[part] | change).items() if x is not None}
            encoder, predictor = map(tensors.of_arrays, changed)
            with pytest.raises(WeightsError) as error:
                pretrained.of_state_dicts(name, {"target_encoder": encoder}, predictor, FILES[name][1], 2)
            assert str(error.value).split("\n  ")[1:] == [f"{label}: {problem}" for problem in problems]


def test_all_wrong_tensors_are_listed():
    encoder, predictor = content("vitl")
    del encoder["module.backbone.norm.bias"], predictor["module.backbone.mask_tokens.9"]
    with pytest.raises(
        WeightsError, match=r"vitl does not hold a vjepa2 encoder 32x24x16 with a predictor 12x12x2; 2 of"
    ):
        pretrained.of_state_dicts(
            "vitl", {"encoder": tensors.of_arrays(encoder)}, tensors.of_arrays(predictor), heads=16, predictor_heads=2
        )


def test_released_heads_are_known_by_width_and_others_must_be_given():
    assert architecture.HEADS == {768: 12, 1024: 16, 1280: 16, 1408: 22, 1664: 26}
    encoder, _ = map(tensors.of_arrays, content("vitl"))
    with pytest.raises(
        WeightsError, match=r"blocks of width 32\. Heads are known for .*; for others, give heads=NUMBER"
    ):
        pretrained.of_state_dicts("vitl", {"encoder": encoder}, None)
    with pytest.raises(WeightsError, match="heads is 5; expected a divisor of half the width, 16"):
        pretrained.of_state_dicts("vitl", {"encoder": encoder}, None, heads=5)


def test_a_file_of_another_model_is_an_error(path):
    other = {"encoder": {"conv1.weight": np.zeros((3, 3), np.float32)}}
    with pytest.raises(
        WeightsError, match=r"has no transformer blocks blocks\.0\.norm1\.weight, …; it has conv1\.weight"
    ):
        weights.read(torch_files.write_torch(path, other))
    with pytest.raises(WeightsError, match="has no ema_encoder, target_encoder, encoder; it has model"):
        weights.read(torch_files.write_torch(path, {"model": {}}))


def test_an_encoder_of_another_depth_has_no_known_levels():
    encoder, _ = torch_files.vjepa2_1(5, 8, 32, 1)
    with pytest.raises(WeightsError, match=r"has 5 blocks; V-JEPA 2\.1's levels are known for 12, 24, 40, 48"):
        pretrained.of_state_dicts("x", {"encoder": tensors.of_arrays(torch_files.numbers(encoder))}, None, heads=2)


@pytest.fixture
def probe_content():
    return torch_files.numbers(torch_files.attentive_probe(32, 5))


def test_a_released_probe_is_read(path, probe_content):
    loaded = weights.read_probe(torch_files.write_torch(path, {"classifiers": [probe_content], "epoch": 20}))
    module = loaded.module
    assert (module.classes, module.heads, module.blocks, module.epsilon) == (5, 16, 4, 1e-5)
    expected = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 32), jnp.float32))
    assert jax.tree.map(np.shape, loaded.params) == jax.tree.map(jnp.shape, expected["params"])
    query = probe_content["module.pooler.query_tokens"]
    np.testing.assert_array_equal(loaded.params["query"], query[0, 0])


def test_any_single_wrong_tensor_of_a_probe_is_an_error(path, probe_content):
    for key in once_each(probe_content):
        changed = {k: x for k, x in probe_content.items() if k != key}
        torch_files.write_torch(path, {"classifiers": [changed]})
        with pytest.raises(WeightsError, match=re.escape(f"classifiers[0]: {key}")):
            weights.read_probe(path)


def test_probes_that_do_not_exist_are_errors(path, probe_content):
    torch_files.write_torch(path, {"classifiers": [probe_content]})
    with pytest.raises(WeightsError, match=r"has no \['classifiers'\]\[1\]"):
        weights.read_probe(path, number=1)
    with pytest.raises(WeightsError, match="heads is 5; expected a divisor of the width, 32"):
        weights.read_probe(path, heads=5)
