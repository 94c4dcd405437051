"""Seconds until a training step is ready to run: first start, and second start with what the first one compiled.

    python benchmarks/start.py [--config configs/ucf101.py]

Each start is a process of its own that imports, builds and compiles the step of the config for one CPU device, as
training does; nothing is run. The time is that of the whole process.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

COMPILE = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
from jepa_jax.compiling import program, topology
from jepa_jax.probing.encoders import load_config_file
compiled = program.compile_step(load_config_file(sys.argv[1]), topology.parse_topology("cpu:1"))
print(f"lowered and compiled in {compiled.seconds:.1f} s")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(pathlib.Path(__file__).parent.parent / "configs" / "ucf101.py"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        for which in ("first", "second"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", COMPILE, arguments.config, cache], check=True)
            print(f"{which} start: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
