"""Record measured numbers, one JSON object a line, in ``benchmarks/results/<topic>.jsonl``."""

import fcntl
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.data.files import whole_file

RESULTS = Path(__file__).parent / "results"

_TOPIC = re.compile(r"[a-z0-9_]+")
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_@]+)+")
_DISTRIBUTIONS = ("torch", "lightning", "polars", "numpy", "transformers", "timm", "grpcio")


class Result(BaseModel):
    """One measured number, with what is needed to measure it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name of what was measured, as topic.thing.metric.")
    value: float = Field(allow_inf_nan=False, description="Measured number.")
    unit: str = Field(min_length=1, description="Unit of the number, or the name of its metric.")
    command: str = Field(min_length=1, description="Command that measures it again.")
    hardware: str = Field(description="Processor, number of cores, and accelerator if present.")
    versions: dict[str, str] = Field(description="Versions of Python and of the main libraries.")
    at: datetime = Field(description="Time of the measurement in UTC.")


def record(
    topic: str, name: str, value: float, unit: str, command: str, *, folder: Path = RESULTS
) -> Result:
    """Write one measured number, replacing an earlier one of the same name, and return it.

    Args:
        topic: Name of the result file, without its extension.
        name: Dotted name that starts with the topic, such as ``shop.cold.recall@20``.
        value: Measured number.
        unit: Unit of the number, such as ``s`` or ``GB``, or the name of its metric.
        command: Command line that measures it again.
        folder: Folder of the result files.

    Raises:
        ValueError: If the name does not fit the topic, the value is not finite, or a text is empty.
    """
    if not _NAME.fullmatch(name) or name.split(".")[0] != topic:
        raise ValueError(
            f"name must be {topic!r} and one or more parts of a-z, 0-9, _ and @ joined by dots, "
            f"such as '{topic}.seconds', got {name!r}"
        )
    if not math.isfinite(value):
        raise ValueError(f"value of {name} must be a finite number, got {value!r}")
    result = Result(
        name=name,
        value=float(value),
        unit=unit,
        command=command,
        hardware=_hardware(),
        versions=_versions(),
        at=datetime.now(UTC).replace(microsecond=0),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        kept = [old for old in _read(folder / f"{topic}.jsonl") if old.name != name]
        _replace(folder / f"{topic}.jsonl", [*kept, result])
    return result


def latest(topic: str | None = None, *, folder: Path = RESULTS) -> dict[str, Result]:
    """Return the newest result of every name, by name; empty for a topic without results.

    Args:
        topic: Topic to read; None reads all topics.
        folder: Folder of the result files.

    Raises:
        ValueError: If the topic is not a plain word, or a line is not a result.
    """
    if topic is not None and not _TOPIC.fullmatch(topic):
        raise ValueError(f"topic must be a word of a-z, 0-9 and _, got {topic!r}")
    paths = sorted(folder.glob("*.jsonl")) if topic is None else [folder / f"{topic}.jsonl"]
    return {result.name: result for path in paths for result in _read(path)}


def _read(path: Path) -> Iterator[Result]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            yield Result.model_validate_json(line)
        except ValidationError as error:
            raise ValueError(f"line {number} of {path} must be one result, got {line!r}") from error


def _replace(path: Path, results: list[Result]) -> None:
    lines = [
        json.dumps(result.model_dump(mode="json"), ensure_ascii=False) + "\n" for result in results
    ]
    with whole_file(path) as scratch:
        scratch.write_text("".join(lines), encoding="utf-8")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The folder is locked, because the file itself is replaced and its lock would go with it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _hardware() -> str:
    """Return processor, usable cores and accelerator, such as ``AMD EPYC 9R14, 2 cores``."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    processor = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0))
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{processor}, {cores} core{'s' * (cores != 1)}{gpu}"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _DISTRIBUTIONS}
