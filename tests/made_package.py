"""Packages of weights that tests make: installed in a folder, or as a wheel."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

MADE = b"weights"
FILES = {"model.bin": MADE, "sub/config.json": b"{}"}
HASHES = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
# Fields of a ``WeightPackage`` whose files these are.
PACKAGE: dict[str, Any] = {
    "network": "made",
    "package": "made-weights",
    "version": "1.0",
    "folder": "made_weights/files",
    "files": HASHES,
    "licence": "MIT",
    "megabytes": 1,
    "about": "nothing",
}


def package_files(version: str = "1.0", files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    """Return the files of an installed package, whose code cannot be run, by path."""
    info = f"made_weights-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: made-weights\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {
        **{f"made_weights/files/{name}": data for name, data in files.items()},
        "made_weights/__init__.py": b"raise SystemExit('the code of a package was run')\n",
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
    }


def write_package(folder: Path, **options: Any) -> None:
    """Write a package into a folder as it lies there when it is installed."""
    for name, data in package_files(**options).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_wheel(folder: Path) -> None:
    """Write the wheel that pip installs."""
    files = package_files()
    record = "made_weights-1.0.dist-info/RECORD"
    with zipfile.ZipFile(folder / "made_weights-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr(record, "".join(f"{name},,\n" for name in [*files, record]))
