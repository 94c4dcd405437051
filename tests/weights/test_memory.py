"""Reading a file needs little more memory than its parameters."""

import json
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch_files

MEASURE = """
import sys
from jepa_jax import weights

def memory(name):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

before = memory("VmRSS:")
found = weights.read(sys.argv[1])
print(before, memory("VmHWM:"))
"""
WIDTH, DEPTH = 1024, 10  # 0.5 GB


def shapes():
    encoder, _ = torch_files.vjepa2(DEPTH, WIDTH, 4 * WIDTH)
    return {key.removeprefix("module.backbone."): shape for key, shape in encoder.items()}


def write(path):
    """Writes a PyTorch file of zeros, one tensor after another."""
    references = {}
    with zipfile.ZipFile(path, "w") as archive:
        for number, (key, shape) in enumerate(shapes().items()):
            elements = int(np.prod(shape))
            references[key] = torch_files.tensor(str(number), elements, shape)
            archive.writestr(f"archive/data/{number}", np.ones(elements, np.float32).tobytes())
        content = torch_files.pickled({"target_encoder": references})
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
    return path


def write_safetensors(folder):
    """Writes the same tensors with the names of transformers."""
    from jepa_jax.config import EncoderConfig, PredictorConfig
    from jepa_jax.weights import formats

    encoder = EncoderConfig(size=f"{WIDTH}x{DEPTH}x16", levels=1, rotary="tiled")
    predictor = PredictorConfig(size="384x1x12", mask_tokens=10)
    modules = formats.modules("transformers", encoder, predictor)
    offset, header = 0, {}
    entries = [entry for module in modules.values() for entry in module.entries]
    for entry in entries:
        size = 4 * int(np.prod(entry.shape))
        header[entry.key] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            file.write(np.ones(entry.shape, np.float32).tobytes())
    settings = {"model_type": "vjepa2", "num_hidden_layers": DEPTH, "pred_num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder / "model.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("write_file", [lambda folder: write(folder / "vitl.pt"), write_safetensors])
def test_reading_needs_at_most_1_3_times_the_size_of_the_file(tmp_path, write_file):
    path = write_file(tmp_path)
    size = path.stat().st_size
    assert size > 5e8
    output = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    before, peak = map(int, output.stdout.split())
    path.unlink()
    print(f"{size:,} bytes: a peak of {peak / size:.2f} times that, {(peak - before) / size:.2f} without the imports")
    assert peak - before <= 1.1 * size  # so that 1.3 times is enough for a ViT-g, where the imports are 0.1
