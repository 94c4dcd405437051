"""Hundreds of damaged images: each is read or raises with a reason, and none crashes the process."""

import json
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from image_files import HAS_AVIF, encoded, exif_of_all_types
from PIL import Image

from jepa_jax.data.decode import images

SEEDS = range(500)
FORMS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF")
SECONDS_A_FILE = 10
MOST_MIB = 1024  # resident memory, including libraries
READ = r"""
import json, pathlib, re, sys, time
import numpy as np
from jepa_jax.data import faults
from jepa_jax.data.decode import images
from jepa_jax.data.preparation import frames
from jepa_jax.data.preparation.raw import Item
from jepa_jax.data.sources import array_record

results = {}
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(file, file=sys.stderr, flush=True)
    start = time.process_time()
    outcome = {}
    try:
        picture = images.read_image(str(file))
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, picture.shape
        outcome["read"] = picture.shape
    except faults.DecodeError as error:
        assert error.path == str(file) and error.reason
        outcome["reason"] = error.reason
    try:
        (jpeg,) = frames.of_item(Item("", 0, str(file)), "images", frames.JpegSettings(256)).frames
        stored = array_record.decode_jpeg(jpeg)
        wanted = frames.shrink(picture, 256)
        outcome["prepared"] = picture.shape if stored.shape == wanted.shape else stored.shape
        outcome["difference"] = float(np.abs(stored.mean(-1) - wanted.mean(-1)).mean())  # JPEG keeps grey best
        outcome["kept"] = jpeg == file.read_bytes()
    except faults.DecodeError:
        pass
    results[file.name] = outcome | {"seconds": time.process_time() - start}
# The peak of this program alone; getrusage begins with that of the process that started it.
peak = int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
print(json.dumps([results, peak / 1024]))
"""


def originals():
    """Yields an image of every format, with EXIF data that has values of all types and rotates by 90°."""
    exif = exif_of_all_types()
    parsed = Image.Exif()  # TIFF accepts only parsed EXIF
    parsed.load(exif.tobytes())
    y, x = np.mgrid[:64, :80]
    noise = np.random.default_rng(0).integers(0, 40, (64, 80))
    picture = Image.fromarray(np.stack([y * 3 + noise, x * 2 + noise, 100 + noise], -1).astype(np.uint8))
    for form in FORMS:
        if form == "AVIF" and not HAS_AVIF:
            continue
        options = {} if form == "GIF" else {"exif": parsed if form == "TIFF" else exif}
        yield form, encoded(picture, form, **options)


def mutate(content, other, rng):
    """Returns a damaged copy: truncated, bytes changed (often in the header), zeroed, or with another file's end."""
    damaged = np.frombuffer(content, np.uint8).copy()
    end = min(400, len(damaged)) if rng.random() < 0.5 else len(damaged)
    match rng.integers(4):
        case 0:
            return damaged[: rng.integers(1, len(damaged))].tobytes()
        case 1:
            where = rng.integers(0, end, int(end ** rng.random()))
            damaged[where] = rng.integers(0, 256, len(where))
        case 2:
            start = int(rng.integers(end))
            damaged[start : start + int(rng.integers(1, 100))] = 0
        case _:
            at = rng.integers(1, len(damaged))
            return damaged[:at].tobytes() + other[min(at, len(other) // 2) :]
    return damaged.tobytes()


def with_checksums(content):
    """Returns a damaged PNG with valid chunk checksums, so that readers do not detect the damage early."""
    repaired, at = bytearray(content), 8
    while at + 12 <= len(repaired):
        end = at + 8 + struct.unpack_from(">I", repaired, at)[0]
        if end + 4 > len(repaired):
            break
        struct.pack_into(">I", repaired, end, zlib.crc32(repaired[at + 4 : end]))
        at = end + 4
    return bytes(repaired)


def test_damaged_images_are_read_or_raise_with_a_reason(tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    whole = list(originals())
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        form, content = whole[seed % len(whole)]
        _, other = whole[rng.integers(len(whole))]
        damaged = mutate(content, other, rng)
        damaged = with_checksums(damaged) if form == "PNG" else damaged
        (folder / f"{seed:03}.{form.lower()}").write_bytes(damaged)
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    results, mebibytes = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == len(SEEDS)
    assert mebibytes < MOST_MIB
    for name, outcome in results.items():
        assert ("read" in outcome) != ("reason" in outcome), name
        assert outcome["seconds"] < SECONDS_A_FILE, name
        # The prepared set has the same image as the file, or neither has one.
        assert outcome.get("read") == outcome.get("prepared"), (name, outcome)
        assert outcome.get("difference", 0) < (1e-9 if outcome.get("kept") else 12), (name, outcome)
    for form, _ in whole:
        read = ["read" in outcome for name, outcome in results.items() if name.endswith(form.lower())]
        assert 5 < sum(read) < len(read) - 5, (form, sum(read), len(read))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF"])
def test_damaged_exif_data_does_not_change_the_pixels(form):
    """Damage to EXIF offsets and types keeps all pixels, rotated or not."""
    content = dict(originals()).get(form)
    if content is None:
        pytest.skip(f"this Pillow cannot write {form}")
    whole = images.read_image("whole", content)
    start = content.index(b"MM\0*", 8)
    upright = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(content, np.uint8).copy()
        where = start + rng.integers(0, 150, int(150 ** rng.random()))
        damaged[where] = rng.integers(0, 256, len(where))
        picture = images.read_image("damaged", damaged.tobytes())
        np.testing.assert_array_equal(np.sort(picture, axis=None), np.sort(whole, axis=None))
        upright += np.array_equal(picture, whole)
    assert upright > 20
