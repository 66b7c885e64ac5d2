"""Pooling against its definition as loops."""

import math

import pytest
import torch

from text.networks.pooling import POOLINGS, pool

LENGTHS = (3, 1, 5)


def _by_hand(token_vectors: list[list[float]], mode: str) -> list[float]:
    columns = list(zip(*token_vectors, strict=True))
    count = len(token_vectors)
    if mode == "mean":
        return [sum(column) / count for column in columns]
    if mode == "mean_sqrt_len_tokens":
        return [sum(column) / math.sqrt(count) for column in columns]
    if mode == "max":
        return [max(column) for column in columns]
    return token_vectors[0] if mode == "cls" else token_vectors[-1]


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_equals_its_definition_and_ignores_padding(mode: str) -> None:
    tokens = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in LENGTHS])
    tokens[mask == 0] = 1e6  # what padding holds must not matter
    wanted = [_by_hand(tokens[row, :length].tolist(), mode) for row, length in enumerate(LENGTHS)]
    torch.testing.assert_close(pool(tokens, mask, mode), torch.tensor(wanted))


def test_an_unknown_pooling_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"pooling must be one of mean, .*, got 'average'"):
        pool(torch.zeros(1, 2, 3), torch.ones(1, 2), "average")


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must have shape \(1, 2\).* got \(1, 3\)"):
        pool(torch.zeros(1, 2, 3), torch.ones(1, 3), "mean")
