import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from recsys.answers import Answer, Event, Item, Result, check_k, list_ids
from recsys.errors import InvalidArgumentError

RESULTS = tuple(Result(item_id, score, "taste") for item_id, score in (("mug", 0.9), ("lamp", 0.1)))


def test_an_answer_is_a_sequence_of_its_results() -> None:
    answer = Answer(results=RESULTS, bundle_version="abc")

    assert list(answer) == list(RESULTS)
    assert answer[0] is RESULTS[0]
    assert answer[1:] == RESULTS[1:]
    assert len(answer) == 2
    assert RESULTS[1] in answer
    with pytest.raises(IndexError):
        answer[2]


def test_answers_are_equal_when_everything_they_carry_is() -> None:
    answer = Answer(results=RESULTS, bundle_version="abc")

    assert answer == Answer(results=RESULTS, bundle_version="abc")
    assert answer != Answer(results=RESULTS, bundle_version="abc", degraded=("no_history",))


@pytest.mark.parametrize("module", ["recsys.answers", "recsys.catalogue.filters", "serving.client"])
def test_the_light_modules_import_no_numbers_and_no_networks(module: str) -> None:
    heavy = "{'torch', 'numpy', 'polars', 'pydantic'}"
    code = f"import sys, {module}; print(*({heavy} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (result.returncode, result.stdout.split()) == (0, []), result.stderr


def test_an_event_kind_is_one_word_however_it_is_written() -> None:
    assert Event("u", "a", " Purchase ") == Event("u", "a", "purchase")


def test_ids_are_listed_from_any_iterable() -> None:
    assert list_ids("item_ids", ("a", "b")) == ["a", "b"]
    assert list_ids("item_ids", {"a": 1}) == ["a"]
    assert list_ids("item_ids", iter([])) == []


@pytest.mark.parametrize("ids", ["item-7", b"item-7", ""])
def test_one_text_is_not_taken_for_ids_of_one_letter(ids: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"exclude must be a list of ids, got the text .*; pass"
    ):
        list_ids("exclude", ids)


@pytest.mark.parametrize("ids", [None, 7])
def test_what_is_no_list_of_ids_is_refused(ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"exclude must be a list of ids .*, got {ids}"):
        list_ids("exclude", ids)


@pytest.mark.parametrize("category", [None, 7, ["Kitchen", None], b"Kitchen"])
def test_a_category_is_text(category: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"category must be text such as .*, got "):
        Item("mug", category=category)


def test_an_event_kind_is_text() -> None:
    kind: Any = None
    with pytest.raises(InvalidArgumentError, match="kind must be text, such as 'view', got None"):
        Event("ann", "mug", kind)


def test_an_id_that_is_no_text_is_refused() -> None:
    ids: Any = ["a", 7]
    with pytest.raises(InvalidArgumentError, match=r"list of ids \(text\), got one of type int"):
        list_ids("exclude", ids)


@pytest.mark.parametrize("k", [0, -1, 501, True, 3.0, "3", None, np.float32(3), np.bool_(True)])
def test_a_number_of_results_is_a_whole_number(k: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"k must be a whole number between 1 and 500"):
        check_k(k)


@pytest.mark.parametrize("k", [1, 500, np.int64(3), np.uint8(3)])
def test_whole_numbers_of_numpy_are_whole_numbers(k: Any) -> None:
    check_k(k)
