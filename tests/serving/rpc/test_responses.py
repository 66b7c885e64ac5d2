import math

import pytest

from recsys.answers import Result
from serving.errors import InternalError
from serving.rpc.responses import write_results


def test_results_carry_reason_and_features() -> None:
    (message,) = write_results([Result("mug", 0.5, "taste", (("age", 0.25),))])

    assert (message.item_id, message.score, message.source) == ("mug", 0.5, "taste")
    assert [(one.name, one.value) for one in message.features] == [("age", 0.25)]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_never_leaves_the_service(score: float) -> None:
    with pytest.raises(InternalError, match="score of item 'mug' must be finite, got"):
        write_results([Result("cup", 0.5, "taste"), Result("mug", score, "taste")])
