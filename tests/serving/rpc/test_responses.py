import math

import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Reason, Result
from serving.client.protobuf import read_answer
from serving.errors import InternalError
from serving.rpc.responses import write_results


def test_results_carry_source_and_features() -> None:
    (message,) = write_results([Result("mug", 0.5, "taste", (("age", 0.25),))])

    assert (message.item_id, message.score, message.source) == ("mug", 0.5, "taste")
    assert [(one.name, one.value) for one in message.features] == [("age", 0.25)]
    assert not message.HasField("reason")


@pytest.mark.parametrize("item_id", ["cup", None])
def test_reasons_are_the_same_on_the_other_side(item_id: str | None) -> None:
    result = Result("mug", 0.5, "taste", reason=Reason("taste", item_id, "Because you bought Cup"))

    answer = read_answer(pb.RecommendResponse(results=write_results([result])))

    assert answer.results == (result,)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_never_leaves_the_service(score: float) -> None:
    with pytest.raises(InternalError, match="score of item 'mug' must be finite, got"):
        write_results([Result("cup", 0.5, "taste"), Result("mug", score, "taste")])
