import pytest
import torch

from vision.device import resolve_device
from vision.errors import InvalidArgumentError


def test_the_processor_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["nonsense", "mps", "cuda:99", "", "cpu:x"])
def test_a_device_that_this_machine_lacks_is_refused(device: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"device must be auto, cpu .* got '{device}'"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_without_a_driver_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got 'cuda' \(.+\)$"):
        resolve_device("cuda")
