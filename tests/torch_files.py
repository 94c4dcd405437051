"""Writes files like `torch.save`, without PyTorch, and state dicts with the keys and shapes of released files."""

import pickle
import struct
import zipfile

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


class Raw:
    """Opcodes to put into a pickle as they are."""

    def __init__(self, opcodes):
        self.opcodes = opcodes


def call(module, name, *arguments):
    """Pickles a call of module.name."""
    return Raw(f"c{module}\n{name}\n".encode() + pickled(tuple(arguments)) + b"R")


def storage(key, elements, name="FloatStorage"):
    """Pickles a reference to the member data/KEY."""
    return Raw(pickled(("storage", Raw(f"ctorch\n{name}\n".encode()), key, "cpu", elements)) + b"Q")


def tensor(key, elements, shape, strides=None, offset=0, name="FloatStorage"):
    """Pickles a tensor in the member data/KEY."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape)))
    reference = storage(key, elements, name)
    return call("torch._utils", "_rebuild_tensor_v2", reference, offset, shape, strides, False, {})


def pickled(value):
    """The opcodes of a value: containers, strings, numbers, `Raw`."""
    match value:
        case Raw():
            return value.opcodes
        case dict():
            return b"}(" + b"".join(pickled(x) for item in value.items() for x in item) + b"u"
        case list():
            return b"](" + b"".join(map(pickled, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return pickle.dumps(value, 2)[2:-1]
        case float():
            return b"G" + struct.pack(">d", value)
    raise TypeError(type(value))


def write_torch(path, content, top="archive", compression=zipfile.ZIP_STORED):
    """Writes nested dicts and lists, whose arrays become tensors. Returns the path."""
    storages = []

    def stored(value):
        if isinstance(value, dict):
            return {key: stored(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [stored(inner) for inner in value]
        if isinstance(value, np.ndarray):
            storages.append(np.ascontiguousarray(value))
            return tensor(str(len(storages) - 1), value.size, value.shape, name=STORAGES[value.dtype.name])
        return value

    root = stored(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{top}/data.pkl", b"\x80\x02" + pickled(root) + b".")
        archive.writestr(f"{top}/byteorder", b"little")
        for number, array in enumerate(storages):
            archive.writestr(f"{top}/data/{number}", array.tobytes())
        archive.writestr(f"{top}/version", b"3\n")
    return path


def write_pickle(path, opcodes, members=None):
    """Writes an archive whose data.pkl holds these opcodes, with further members by name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return path


def numbers(shapes, seed=0):
    """Random float32 tensors by name."""
    draw = np.random.default_rng(seed)
    return {key: draw.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def blocks(name, depth, width, hidden):
    """The shapes of blocks, with the original names."""
    found = {}
    for i in range(depth):
        found |= norm(f"{name}.{i}.norm1", width) | linear(f"{name}.{i}.attn.qkv", 3 * width, width)
        found |= linear(f"{name}.{i}.attn.proj", width, width) | norm(f"{name}.{i}.norm2", width)
        found |= linear(f"{name}.{i}.mlp.fc1", hidden, width) | linear(f"{name}.{i}.mlp.fc2", width, hidden)
    return found


def wrapped(shapes):
    return {f"module.backbone.{key}": shape for key, shape in shapes.items()}


def vjepa2(depth, width, hidden, patch=16):
    """The shapes of encoder and predictor of V-JEPA 2; the predictor has width 12."""
    encoder = {"patch_embed.proj.weight": (width, 3, 2, patch, patch), "patch_embed.proj.bias": (width,)}
    encoder |= blocks("blocks", depth, width, hidden) | norm("norm", width)
    predictor = linear("predictor_embed", 12, width) | {f"mask_tokens.{i}": (1, 1, 12) for i in range(10)}
    predictor |= blocks("predictor_blocks", 12, 12, 48) | norm("predictor_norm", 12)
    predictor |= linear("predictor_proj", width, 12)
    return wrapped(encoder), wrapped(predictor)


def vjepa2_1(depth, width, hidden, predictor_depth, distilled_from=0, patch=16):
    """The shapes of encoder and predictor of V-JEPA 2.1; the predictor has width 12."""
    modalities = ("img_mod_embed", "video_mod_embed")
    encoder = {"patch_embed.proj.weight": (width, 3, 2, patch, patch), "patch_embed.proj.bias": (width,)}
    encoder |= {"patch_embed_img.proj.weight": (width, 3, 1, patch, patch), "patch_embed_img.proj.bias": (width,)}
    encoder |= {name: (1, 1, width) for name in modalities} | blocks("blocks", depth, width, hidden)
    for i in range(4):
        encoder |= norm(f"norms_block.{i}", width)
    outputs = distilled_from or 4 * width
    predictor = {name: (1, 1, 12) for name in modalities} | {f"mask_tokens.{i}": (1, 1, 12) for i in range(8)}
    if distilled_from:
        predictor |= linear("predictor_embed", 12, width)
    else:
        predictor |= linear("predictor_embed.0", width, 4 * width) | linear("predictor_embed.2", 12, width)
    predictor |= blocks("predictor_blocks", predictor_depth, 12, 48) | norm("predictor_norm", 12)
    predictor |= linear("predictor_proj", outputs, 12) | linear("predictor_proj_context", outputs, 12)
    return wrapped(encoder), wrapped(predictor)


def attentive_probe(width, classes):
    """The shapes of a released probe."""
    pooler, cross = "module.pooler", "module.pooler.cross_attention_block"
    found = {f"{pooler}.query_tokens": (1, 1, width)} | blocks(f"{pooler}.blocks", 3, width, 4 * width)
    found |= norm(f"{cross}.norm1", width) | norm(f"{cross}.norm2", width)
    found |= linear(f"{cross}.xattn.q", width, width) | linear(f"{cross}.xattn.kv", 2 * width, width)
    found |= linear(f"{cross}.mlp.fc1", 4 * width, width) | linear(f"{cross}.mlp.fc2", width, 4 * width)
    return found | linear("module.linear", classes, width)
