"""Automatic precision is bfloat16 only on hardware that computes in it."""

import pytest
import torch

from vision.precision import autocast, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_auto_depends_on_the_capabilities_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], wanted: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision("auto", CPU) == wanted


def test_an_explicit_precision_is_kept() -> None:
    assert resolve_precision("32-true", CPU) == "32-true"
    assert resolve_precision("bf16-mixed", CPU) == "bf16-mixed"


def test_autocast_computes_in_the_precision() -> None:
    matrix = torch.ones(4, 4)
    with autocast("bf16-mixed", CPU):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast("32-true", CPU):
        assert (matrix @ matrix).dtype == torch.float32
