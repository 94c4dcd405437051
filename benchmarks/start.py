"""Seconds until a training step is ready to run, without and with a compilation cache from an earlier start.

    python benchmarks/start.py [--config ucf101]

Each start is a new process that imports, builds and compiles the config's step for one CPU device, as training does,
but does not run it. The time is that of the whole process.
"""

import argparse
import subprocess
import sys
import tempfile
import time

COMPILE = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
from jepa_jax.cost_model import program, topology
from jepa_jax.evaluation.frozen_encoder import load_config_file
compiled = program.compile_step(load_config_file(sys.argv[1]), topology.parse_topology("cpu:1"))
print(f"lowered and compiled in {compiled.seconds:.1f} s")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ucf101")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        for which in ("first", "second"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", COMPILE, arguments.config, cache], check=True)
            print(f"{which} start: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
