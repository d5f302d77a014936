"""Cores and memory, from files as the kernel writes them."""

import os

import pytest

from ibma_app.core.errors import UsageError
from ibma_app.stream.workers.machine import available_cores, available_memory, default_memory, parse_size

GIB = 1024**3


@pytest.fixture
def machine(tmp_path):
    """Write files below a root of our own: machine({path: content})."""

    def write(files):
        for name, content in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8388608 kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 * GIB),
        ("500M", 500 * 1024**2),
        ("2GiB", 2 * GIB),
        ("1500.5k", 1536512),
        (" 8589934592 ", 8 * GIB),
        ("1TB", 1024 * GIB),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8X", "-1G", "0", "G", "eight", "1e3"])
def test_nonsense_sizes_are_usage_errors(text):
    with pytest.raises(UsageError, match="8G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("8", "8G"), ("1.5", "1.5G"), ("16 ", "16G"), ("8000", "8000M"), ("4k", "4G"), ("8b", "8G")]
)
def test_a_number_without_its_unit_is_told_so(text, meant):
    with pytest.raises(UsageError, match=rf"Give the unit: {meant},"):
        parse_size(text)


def test_cores_by_affinity_quota_and_slurm(machine):
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert available_cores(machine({}), {}) == own
    assert available_cores(machine({}), {"SLURM_CPUS_PER_TASK": "1"}) == 1
    v2 = machine({"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"})
    assert available_cores(v2, {}) == 1


def test_cores_of_cgroup_v1(machine):
    folder = "sys/fs/cgroup/cpu/docker/x"
    files = {f"{folder}/cpu.cfs_quota_us": "50000", f"{folder}/cpu.cfs_period_us": "100000"}
    assert available_cores(machine({"proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n", **files}), {}) == 1


def test_memory_is_the_tightest_limit(machine):
    assert available_memory(machine({}), {}) == 8 * GIB
    assert available_memory(machine({}), {"SLURM_MEM_PER_NODE": "2048"}) == 2 * GIB
    assert available_memory(machine({}), {"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_PER_TASK": "1"}) == GIB // 2


def test_memory_of_cgroups(machine):
    v2 = {
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/job/memory.max": str(4 * GIB),
        "sys/fs/cgroup/job/memory.current": str(3 * GIB),
        "sys/fs/cgroup/job/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
    }
    assert available_memory(machine(v2), {}) == 3 * GIB
    v1 = {
        "proc/self/cgroup": "3:memory:/host/path\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
    }
    assert available_memory(machine(v1), {}) == GIB


def test_default_memory_is_a_share_of_what_is_free():
    assert 0 < default_memory() < available_memory()
