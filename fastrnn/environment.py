"""What a result depends on besides its inputs: versions, processor, cores, cache."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from fastrnn import __version__, threads
from fastrnn.kernels.jit import cache_folder

PACKAGES = ("numpy", "numba", "llvmlite", "matplotlib", "zarr")


def versions() -> dict[str, str]:
    """Version of fastrnn, of Python and of every package here that a result depends on."""
    found = {"fastrnn": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """Processor, its name to the compiler, system and usable cores."""
    from llvmlite import binding

    return {
        "cpu": _cpu_model(),
        "target": binding.get_host_cpu_name(),
        "system": platform.platform(),
        "cores": threads.available_cores(),
    }


def kernel_cache() -> str:
    """Folder of the compiled kernels."""
    folder = cache_folder()
    return "none: kernels are compiled anew in each process" if folder is None else str(folder)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
