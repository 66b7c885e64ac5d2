import numpy as np
import pytest

from recsys.errors import InvalidArgumentError
from recsys.evaluation.sample_ratio import sample_ratio_p


def test_the_p_value_is_that_of_the_tables() -> None:
    # 60 and 40 of 100 at equal shares: chi-square 4 with one degree of freedom.
    assert sample_ratio_p((60, 40), (0.5, 0.5)) == pytest.approx(0.0455, abs=1e-4)
    # 50, 30 and 20 of 100 at 40, 40 and 20 %: chi-square 5 with two, so exp(-2.5).
    assert sample_ratio_p((50, 30, 20), (0.4, 0.4, 0.2)) == pytest.approx(np.exp(-2.5))
    assert sample_ratio_p((50, 50), (0.5, 0.5)) == 1.0


def test_the_p_value_is_how_often_chance_does_as_badly() -> None:
    shares = (0.9, 0.1)
    drawn = np.random.default_rng(0).multinomial(400, shares, size=20_000)
    observed = (372, 28)
    expected = 400 * np.array(shares)
    badness = ((drawn - expected) ** 2 / expected).sum(axis=1)
    reached = ((np.array(observed) - expected) ** 2 / expected).sum()

    assert sample_ratio_p(observed, shares) == pytest.approx(np.mean(badness >= reached), abs=0.03)


def test_few_users_prove_nothing() -> None:
    assert sample_ratio_p((9, 0), (0.5, 0.5)) is None
    assert sample_ratio_p((10, 0), (0.5, 0.5)) is not None


@pytest.mark.parametrize(
    ("observed", "shares", "words"),
    [
        ((1,), (1.0,), "two or more arms"),
        ((1, 2), (0.5, 0.25, 0.25), "one number for each"),
        ((1, -1), (0.5, 0.5), "numbers of users"),
        ((1, 1), (0.5, 0.6), "add up to 1"),
        ((1, 1), (1.0, 0.0), "above 0"),
    ],
)
def test_what_is_no_division_is_refused(
    observed: tuple[int, ...], shares: tuple[float, ...], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        sample_ratio_p(observed, shares)
