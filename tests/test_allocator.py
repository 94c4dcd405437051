import platform
import subprocess
import sys

import pytest

# Takes and frees an array three times, and prints how many pages the kernel had to supply for the last one.
TAKE_AND_FREE = """
import resource
import numpy as np
from jepa_jax.files import allocator

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    allocator.keep_freed_memory()
print([pages() for _ in range(3)][-1])
"""


def pages(keep):
    ended = subprocess.run(
        [sys.executable, "-c", TAKE_AND_FREE.format(keep=keep)], capture_output=True, text=True, check=True, timeout=600
    )
    return int(ended.stdout)


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="glibc is not the allocator")
def test_freed_memory_is_used_again_without_new_pages():
    """An array of 64 MiB has 16,384 pages of 4 KiB. Some kernels supply larger ones."""
    assert pages(keep=True) < pages(keep=False) / 4


RELEASE = """
import numpy as np
from jepa_jax.files import allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

allocator.keep_freed_memory()
parts = [np.ones(2**20, np.uint8) for _ in range(64)]
last = np.ones(2**20, np.uint8)
full = resident()
del parts
kept = resident()
assert allocator.release_freed_memory()
print(full - kept, kept - resident())
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="glibc is not the allocator")
def test_freed_memory_is_kept_until_it_is_released():
    ended = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True, timeout=600)
    kept, released = map(int, ended.stdout.split())
    pages = 64 * 2**20 // 4096
    assert kept < 0.1 * pages
    assert released > 0.9 * pages
