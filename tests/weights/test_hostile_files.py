"""Damaged and harmful files are errors that say what is wrong; nothing in them runs, and little memory is used."""

import json
import struct
import zipfile

import numpy as np
import pytest
import torch_files
from torch_files import call, pickled, storage, tensor, write_pickle, write_torch

from jepa_jax import weights
from jepa_jax.weights import WeightsError, safetensors_file
from jepa_jax.weights.unpickle import TorchFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pt"


@pytest.fixture
def good(path):
    return write_torch(path, {"encoder": {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, "epoch": 3})


def test_a_plain_file_is_read(good):
    file = TorchFile(good)
    assert file.content["epoch"] == 3
    np.testing.assert_array_equal(file.state_dict("encoder")["x"].read(), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
    ],
)
def test_functions_other_than_those_of_tensors_are_refused(path, tmp_path, module, name):
    written = tmp_path / "written"
    write_pickle(path, pickled({"encoder": call(module, name, f"touch {written}")}))
    with pytest.raises(WeightsError, match=f"asks for {module}.{name}, which tensors do not need"):
        weights.read(path)
    assert not written.exists()


def test_what_a_pickle_has_made_cannot_be_changed(path):
    """The BUILD opcode sets attributes."""
    changed = torch_files.Raw(tensor("0", 2, (2,)).opcodes + pickled((None, {"shape": (10**12,)})) + b"b")
    write_pickle(path, pickled({"encoder": {"x": changed}}), {"archive/data/0": bytes(8)})
    with pytest.raises(WeightsError, match=r"damaged data\.pkl: AttributeError"):
        weights.read(path)


def test_a_compressed_member_is_refused(path):
    write_torch(path, {"encoder": {"x": np.zeros(10**7, np.float32)}}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(WeightsError, match=r"data.pkl is compressed|is compressed, from 40,000,000 bytes"):
        weights.read(path)


def two_storages(path):
    """Returns the bytes of an archive with two storages, and where the zip's directory has them."""
    write_torch(path, {"encoder": {"x": np.zeros(1000, np.float32), "y": np.zeros(1000, np.float32)}})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\1\2")
    return content, *(content.index(f"archive/data/{number}".encode(), directory) - 46 for number in (0, 1))


def test_members_that_overlap_are_refused(path):
    """A zip bomb without compression: a member contains others."""
    content, first, _ = two_storages(path)
    content[first + 20 : first + 28] = struct.pack("<II", 8200, 8200)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="has overlapping members"):
        weights.read(path)


def test_two_members_of_a_name_are_refused(path):
    content, first, second = two_storages(path)
    content[second : second + 60] = content[first : first + 60]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="two members archive/data/0"):
        weights.read(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error(good, kept):
    content = good.read_bytes()
    good.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        weights.read(good)


def test_a_file_with_bytes_missing_in_the_middle_is_an_error(good):
    content = good.read_bytes()
    middle = content.index(b"archive/data/0") + 20
    good.write_bytes(content[:middle] + content[middle + 8 :])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        weights.read(good)


def test_an_empty_file_and_another_file_are_errors(path):
    for content in (b"", b"\x80\x02}q\x00.", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"is not a zip archive, as torch\.save writes"):
            weights.read(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "archive/../../x", "C:/x", "archive/..\\x"])
def test_paths_that_leave_the_archive_are_refused(path, name):
    write_pickle(path, pickled({}), {name: b"x"})
    with pytest.raises(WeightsError, match="which is not inside the archive"):
        weights.read(path)


def test_a_storage_shorter_than_its_shape_is_an_error(path):
    write_pickle(path, pickled({"encoder": {"x": tensor("0", 6, (2, 3))}}), {"archive/data/0": bytes(20)})
    with pytest.raises(WeightsError, match=r"\['encoder'\]\['x'\] has the shape \[2, 3\].* data/0 has 20 bytes"):
        weights.read(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((2, 3), (3, 1), 1), ((2, 3), (4, 1), 0), ((7,), (1,), 0), ((6,), (2,), 0), ((1,), (1,), 6)],
)
def test_a_view_beyond_its_storage_is_an_error(path, shape, strides, offset):
    view = tensor("0", 6, shape, strides, offset)
    write_pickle(path, pickled({"encoder": {"x": view}}), {"archive/data/0": bytes(24)})
    with pytest.raises(WeightsError, match=r"but data/0 has 24 bytes"):
        weights.read(path)


@pytest.mark.parametrize("strides", [None, (0, 0), (0, 1)])
def test_many_elements_in_a_small_storage_are_an_error(path, strides):
    """10^12 elements, also if strides of 0 repeat the few that there are."""
    view = tensor("0", 6, (10**6, 10**6), strides)
    write_pickle(path, pickled({"encoder": {"x": view}}), {"archive/data/0": bytes(24)})
    with pytest.raises(WeightsError, match=r"1,000,000,000,000 elements of float32"):
        weights.read(path)


def test_a_storage_that_claims_many_elements_is_an_error(path):
    view = tensor("0", 10**12, (10**12,))
    write_pickle(path, pickled({"encoder": {"x": view}}), {"archive/data/0": bytes(24)})
    with pytest.raises(WeightsError, match=r"1,000,000,000,000 elements of float32"):
        weights.read(path)


def test_many_tensors_of_one_storage_are_an_error(path):
    views = {f"x{i}": tensor("0", 10_000, (10_000,)) for i in range(100)}
    write_pickle(path, pickled({"encoder": views}), {"archive/data/0": bytes(40_000)})
    with pytest.raises(WeightsError, match=r"have 4,000,000 bytes, more than the file"):
        weights.read(path)


def test_negative_numbers_are_an_error(path):
    for view in (tensor("0", 6, (-2, 3)), tensor("0", 6, (2, 3), (-3, 1), 5), tensor("0", 6, (2,), (1,), -1)):
        write_pickle(path, pickled({"encoder": {"x": view}}), {"archive/data/0": bytes(24)})
        with pytest.raises(WeightsError, match="expected numbers that are not negative"):
            weights.read(path)


def test_a_missing_storage_is_an_error(path):
    write_pickle(path, pickled({"encoder": {"x": tensor("7", 6, (6,))}}))
    with pytest.raises(WeightsError, match="data/7, which is missing"):
        weights.read(path)


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"", "damaged data.pkl"),
        (b"}", "has no ema_encoder"),
        (b"](e", "holds a list"),
        (b"N", "holds a NoneType"),
        (b"}r\xff\xff\xff\x7f", "stores an object as number 2,147,483,647"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x00x", "damaged data.pkl"),
        (pickled({"encoder": 3}), "is a int; expected a state dict"),
        (pickled({"encoder": {"x": 3}}), "is a int; expected a tensor"),
        (pickled({"encoder": {3: tensor("0", 6, (6,))}}), r"\[3\] is a StoredTensor; expected a tensor"),
        (pickled({"encoder": {"x": storage("0", 6)}}), "is a Storage; expected a tensor"),
        (pickled({"encoder": {"x": call("torch._utils", "_rebuild_tensor_v2")}}), "damaged data.pkl: TypeError"),
        (pickled(("module", "x")) + b"Q", "refers to"),
    ],
)
def test_damaged_pickles_are_errors(path, opcodes, message):
    write_pickle(path, opcodes, {"archive/data/0": bytes(24)})
    with pytest.raises(WeightsError, match=message):
        weights.read(path)


def test_an_archive_without_a_pickle_or_of_the_other_byte_order_is_an_error(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/other", b"")
    with pytest.raises(WeightsError, match=r"without FOLDER/data.pkl"):
        weights.read(path)
    write_pickle(path, pickled({}), {"archive/byteorder": b"big"})
    with pytest.raises(WeightsError, match=r"byte order b'big'; expected little"):
        weights.read(path)


def test_changed_bytes_are_errors_or_change_numbers_only(good):
    """Nothing but a WeightsError is raised, whatever byte of the file has changed."""
    content, draw = good.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= int(draw.integers(1, 256))
        good.write_bytes(changed)
        try:
            file = TorchFile(good)
            for tensor in file.state_dict("encoder").values():
                assert tensor.read().nbytes <= len(content)
        except WeightsError:
            refused += 1
    assert refused > len(content) / 12


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        header(x={"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}) + bytes(20),
        header(x={"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 24]}) + bytes(24),
        header(
            x={"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},
            y={"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},
        )
        + bytes(24),
    ],
)
def test_damaged_safetensors_files_are_errors(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is not a complete safetensors file"):
        safetensors_file.read(path)
