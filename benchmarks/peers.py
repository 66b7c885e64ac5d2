"""Run the half of a benchmark that another library does, in an interpreter that has the library.

The other libraries are no dependencies of this one, and some want other versions of what both
need. Install them in an environment of their own, and name its interpreter::

    python -m venv peers && peers/bin/pip install ranx implicit recbole
    python -m benchmarks.evaluation --python peers/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_FIND = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
"""


def add_python_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--python``, the interpreter that has the other libraries."""
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has the other libraries"
    )


def check_installed(python: str, modules: Sequence[str]) -> None:
    """End the program if an interpreter lacks a module, so that no part of a run is left out.

    Args:
        python: Path of the interpreter.
        modules: Names of the modules.
    """
    missing = _run([python, "-c", _FIND, *modules]).split()
    if missing:
        sys.exit(
            f"{python} must have {', '.join(modules)}, but it has no {', '.join(missing)}: "
            f"install them and pass --python (see benchmarks/peers.py)"
        )


def run_peer(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder and return the JSON object in the last line that it prints.

    It runs with as many threads as this process.

    Args:
        python: Path of the interpreter.
        script: File name of the script.
        *arguments: Arguments of the script.

    Raises:
        subprocess.CalledProcessError: If the script fails; what it said is on standard error.
    """
    path = Path(__file__).parent / script
    answer: dict[str, Any] = json.loads(_run([python, str(path), *arguments]).splitlines()[-1])
    return answer


def _run(command: Sequence[str]) -> str:
    threads = str(torch.get_num_threads())
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    # The other interpreter must not find this one's packages by an inherited path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= dict.fromkeys(names, threads)
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout
