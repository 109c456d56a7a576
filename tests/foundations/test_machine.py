"""What this machine offers: memory that is free, also in a container with a limit of its own, and kept between uses."""

import mmap
import platform
import subprocess
import sys

import psutil
import pytest

from utils.machine import free_memory
from utils.project import REPOSITORY

MEGABYTE = 2**20


def container(folder, limit, used=300, files=100):
    """Write what Linux tells a container, in megabytes; return the folder."""
    (folder / "memory.max").write_text(f"{limit * MEGABYTE if limit else 'max'}\n")
    (folder / "memory.current").write_text(f"{used * MEGABYTE}\n")
    rows = {"anon": used - files, "inactive_file": files // 2, "active_file": files - files // 2}
    (folder / "memory.stat").write_text("".join(f"{name} {size * MEGABYTE}\n" for name, size in rows.items()))
    return folder


def test_the_limit_of_a_container_counts(tmp_path):
    """Of 1000 MB 300 are used, a third of them for files that were read and can be forgotten: 800 are free."""
    assert free_memory(container(tmp_path, 1000)) == min(800 * MEGABYTE, psutil.virtual_memory().available)
    assert free_memory(container(tmp_path, 100)) == 0


def test_without_a_limit_the_machine_counts(tmp_path):
    """A container may have none, and most machines are no container."""
    for folder in (container(tmp_path, None), tmp_path / "none"):
        assert 0 < free_memory(folder) <= psutil.virtual_memory().total


FAULTS = """
import resource
from utils.machine import keep_freed_memory
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * 2**26  # asked for, filled and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keep_freed_memory(True)
pages()
kept = pages()
keep_freed_memory(False)
print(kept, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems keep memory by rules of their own")
def test_freed_memory_is_kept_until_it_is_given_back():
    """While it is kept, what was freed serves the next request; afterwards Linux has to give each page anew."""
    run = subprocess.run([sys.executable, "-c", FAULTS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    kept, given_back = map(int, run.stdout.split())
    each_time = 20 * 2**26 // mmap.PAGESIZE
    assert kept < 100 and given_back > each_time / 2
