"""How many cores and how much memory this process may use."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ibma_app.core.errors import UsageError
from ibma_app.core.from_files import whole_number_in

UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
FALLBACK_MEMORY = 4 * 1024**3
SHARE = 0.8
SMALLEST = 1024**2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def available_cores(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> int:
    """Count the cores that may be used: affinity, cgroup quota (v1 and v2), SLURM's allocation.

    Parameters
    ----------
    root : Path
        The folder of ``proc`` and ``sys``; tests have one of their own.
    environ : mapping
        The environment.
    """
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    limits += [max(1, int(quota)) for quota in _cpu_quotas(root)]
    slurm = environ.get("SLURM_CPUS_PER_TASK") or environ.get("SLURM_CPUS_ON_NODE") or ""
    limits += [cores] if (cores := _positive(slurm)) else []
    return min(limits)


def available_memory(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> int:
    """Return the bytes of memory that are free: the least of the machine's, the cgroup's and SLURM's.

    Parameters
    ----------
    root : Path
        The folder of ``proc`` and ``sys``; tests have one of their own.
    environ : mapping
        The environment.
    """
    limits = [_machine_memory(root), *_cgroup_memory(root)]
    if per_node := _positive(environ.get("SLURM_MEM_PER_NODE", "")):
        limits.append(per_node * 1024**2)
    elif per_core := _positive(environ.get("SLURM_MEM_PER_CPU", "")):
        limits.append(per_core * 1024**2 * available_cores(root, environ))
    return min(limits)


def return_freed_memory() -> None:
    """Have the C library return arrays of over 5 MiB to the system as soon as they are freed.

    By default glibc raises this limit to 32 MiB once it sees large arrays
    freed, and keeps fragments that make up a tenth of a whole-brain run's peak
    memory. Up to 16 MiB of smaller arrays are kept for reuse: fresh pages for
    each volume of 2 mm took a tenth of the run's time.
    """
    if not sys.platform.startswith("linux") or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 5 * 1024**2)
        mallopt(M_TRIM_THRESHOLD, 16 * 1024**2)


def default_memory() -> int:
    """Return the default of ``--mem`` in bytes: 80 % of what is free."""
    return int(SHARE * available_memory())


def parse_size(text: str) -> int:
    """Parse a size in bytes: ``8G``, ``500M``, ``2GiB``, ``1.5T``, or a plain number of bytes.

    K, M, G and T are powers of 1024, as in SLURM; so are KB, MB, ...

    Raises
    ------
    UsageError
        The text is not a size of at least 1 MiB: a small number lacks its unit.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(?:i?b)?\s*", text, flags=re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].lower()]) if match else 0
    if size <= 0:
        raise UsageError(f"{text!r} is not a size of memory. Write it as 8G, 500M or 2GiB.")
    if size < SMALLEST:
        number = match[1] if match else text
        meant = f"{number}M" if float(number) >= 512 else f"{number}G"  # as MB of SLURM, and as people count
        raise UsageError(
            f"{text!r} is {size} bytes of memory, too little for anything. Give the unit: {meant}, or 500M or 2GiB."
        )
    return size


def _positive(text: str) -> int:
    return whole_number_in(text) or 0


def _machine_memory(root: Path) -> int:
    """Read MemAvailable; where there is no /proc, return the physical memory."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return FALLBACK_MEMORY


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups of this process, innermost first (v2 when controller is "")."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller not in names.split(","):
            continue
        base = root / "sys/fs/cgroup" / controller
        inner = base / path.lstrip("/")
        # in a container the path may be the host's: then the base itself is the process's group
        yield from (folder for folder in (inner, *inner.parents) if folder == base or base in folder.parents)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield how many cores each cgroup of this process allows."""
    for folder in _cgroup_folders(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _cgroup_memory(root: Path) -> Iterator[int]:
    """Yield the bytes left in each cgroup of this process; its file cache counts as free."""
    for folder in _cgroup_folders(root, ""):
        yield from _left(_text(folder / "memory.max"), _text(folder / "memory.current"), folder, "inactive_file")
    for folder in _cgroup_folders(root, "memory"):
        limit = _text(folder / "memory.limit_in_bytes")
        yield from _left(limit, _text(folder / "memory.usage_in_bytes"), folder, "total_inactive_file")


def _left(limit: str, used: str, folder: Path, cache: str) -> Iterator[int]:
    if not limit.isdigit() or int(limit) >= 2**60:  # v1 writes "no limit" as a huge number
        return
    cached = 0
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        cached += _positive(value) if name == cache else 0
    yield max(int(limit) - _positive(used) + cached, 1)
