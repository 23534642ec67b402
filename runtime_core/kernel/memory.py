"""Returns unused memory of this process to the kernel."""

from __future__ import annotations

import ctypes
import gc
import mmap

_M_ARENA_MAX, _ARENAS = -8, 2


def share_arenas() -> None:
    """Let threads allocate from a few heaps (mallopt(3)) instead of one each: what they free in many places is in none of
    them a page to give back. Before there are threads; where one interpreter lock lets them allocate in turns it costs
    nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def release_unused_memory() -> None:
    """Return to the kernel what only the start of a program needed: freed heap (malloc_trim(3)), and the pages of program
    text that were mapped on the way. Text that is run again comes from the page cache, 16 pages at a fault."""
    gc.collect()
    library = ctypes.CDLL(None)
    trim = getattr(library, "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    advise = library.madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/maps") as file:
        for line in file:
            extent, access, _offset, device, *_path = line.split()
            # Text alone: it is the same in the file, while what relocation has written on would be lost.
            if access == "r-xp" and device != "00:00":
                start, end = (int(number, 16) for number in extent.split("-"))
                advise(start, end - start, mmap.MADV_DONTNEED)
