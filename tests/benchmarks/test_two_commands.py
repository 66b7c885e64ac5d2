import subprocess
import sys

import pytest

from benchmarks.two_commands import measure

ALLOCATE = "import time; held = bytearray(120_000_000); time.sleep(1.0)"


def test_measure_includes_the_memory_of_child_processes() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALLOCATE!r}])"

    cost = measure([sys.executable, "-c", parent], poll_s=0.05)

    assert 0.12 < cost.peak_gb < 0.3
    assert cost.seconds > 1.0


def test_measuring_a_command_that_fails_raises() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        measure([sys.executable, "-c", "raise SystemExit(3)"])
