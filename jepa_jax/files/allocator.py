"""Settings of glibc's memory allocator."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
LARGEST = 2**31 - 1  # bytes, the largest value of an int


def keep_freed_memory(kept: int = LARGEST) -> bool:
    """Makes glibc keep freed memory, instead of returning it to the kernel and taking newly cleared pages each time.

    It has no effect on arrays above 64 MiB that other threads than the main one allocate.

    Args:
        kept: largest number of bytes that are kept.

    Returns:
        Whether glibc is the allocator; with another one nothing changes.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, kept))


def release_freed_memory() -> bool:
    """Returns freed memory to the kernel, also if it is otherwise kept.

    Returns:
        Whether any was returned.
    """
    libc = ctypes.CDLL(None)
    return hasattr(libc, "malloc_trim") and bool(libc.malloc_trim(0))
