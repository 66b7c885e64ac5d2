from recsys.answers import Result
from serving.rpc.responses import write_results


def test_results_carry_reason_and_features() -> None:
    (message,) = write_results([Result("mug", 0.5, "taste", (("age", 0.25),))])

    assert (message.item_id, message.score, message.source) == ("mug", 0.5, "taste")
    assert [(one.name, one.value) for one in message.features] == [("age", 0.25)]
