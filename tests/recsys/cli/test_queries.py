import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.answers import (
    MAX_K,
    Annotation,
    Colour,
    Group,
    Guess,
    Identification,
    Result,
    Verdict,
)
from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.cli.app import main
from recsys.cli.queries import describe, describe_annotation
from recsys.data.synthetic import Shop
from recsys.data.timestamps import from_us
from recsys.identifier import ProductIdentifier
from recsys.pipeline import Run
from recsys.recommender import Recommender
from recsys.rules import Pin, Rules

Ask = Callable[..., Any]
Say = Callable[..., str]
AT = "2025-12-15T12:00:00"
AT_MOMENT = datetime(2025, 12, 15, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def recommender(tiny_bundle: Path) -> Recommender:
    return Recommender(Bundle(tiny_bundle))


@pytest.fixture(scope="module")
def user(recommender: Recommender) -> str:
    """The user with the most events."""
    interactions = recommender.bundle.interactions
    return interactions.user_ids[int(np.bincount(interactions.user_rows).argmax())]


@pytest.fixture(scope="module")
def photo(tiny_shop: Shop) -> Path:
    return tiny_shop.images / str(pl.read_parquet(tiny_shop.photos)["image"][0])


def printed(results: Sequence[Result], version: str) -> dict[str, Any]:
    """Return the JSON value that a command must print for these results."""
    rows = [
        {
            "item_id": one.item_id,
            "score": pytest.approx(one.score, abs=1e-6),
            "source": one.source,
            "features": pytest.approx(dict(one.features), abs=1e-6),
            "reason": None if one.reason is None else asdict(one.reason),
            "propensity": one.propensity,
            "probability": pytest.approx(one.probability),
        }
        for one in results
    ]
    return {"bundle_version": version, "degraded": [], "results": rows}


def test_recommend_prints_the_answer_of_the_recommender(
    tiny_bundle: Path, recommender: Recommender, user: str, ask: Ask
) -> None:
    wanted = recommender.recommend(user, k=7, now=AT_MOMENT, explain=True)
    answer = ask("recommend", tiny_bundle, user, "--k", 7, "--at", AT)
    assert answer == printed(wanted, tiny_bundle.name)
    assert all(1 <= len(one["features"]) <= 3 for one in answer["results"])


def test_the_time_of_the_request_changes_the_answer(tiny_bundle: Path, user: str, ask: Ask) -> None:
    before, after = (
        ask("recommend", tiny_bundle, user, "--at", at) for at in ("2025-07-01", "2026-01-01")
    )
    assert before["results"] != after["results"]


def test_recommend_can_leave_out_items_that_the_user_has_events_with(
    tiny_bundle: Path, recommender: Recommender, user: str, ask: Ask
) -> None:
    history = recommender.history(user)
    met = {recommender.catalogue.item_ids[row] for row in history.item_rows}
    everything, unseen = (
        [
            one["item_id"]
            for one in ask("recommend", tiny_bundle, user, "--k", MAX_K, *options)["results"]
        ]
        for options in ((), ("--exclude-seen",))
    )
    assert met & set(everything)
    assert unseen == [item for item in everything if item not in met]


def test_an_unknown_user_gets_ten_popular_or_new_items(tiny_bundle: Path, ask: Ask) -> None:
    results = ask("recommend", tiny_bundle, "nobody")["results"]
    assert len(results) == 10
    assert {one["source"] for one in results} <= {"popular", "new"}


def test_recommend_makes_the_list_by_the_rules_of_a_file(
    tiny_bundle: Path, recommender: Recommender, user: str, ask: Ask, tmp_path: Path
) -> None:
    item = recommender.catalogue.item_ids[5]
    file = tmp_path / "rules.toml"
    file.write_text(f'explore = 0.5\nseed = 2\n[[pin]]\nitem_id = "{item}"\nposition = 2\n')
    rules = Rules(explore=0.5, seed=2, pin=[Pin(item, 2)])
    wanted = recommender.recommend(user, k=7, now=AT_MOMENT, explain=True, rules=rules)
    answer = ask("recommend", tiny_bundle, user, "-k", 7, "--at", AT, "--rules", file)
    assert answer == printed(wanted, tiny_bundle.name)
    assert answer["results"][1]["item_id"] == item


def test_similar_prints_the_answer_of_the_recommender(
    tiny_bundle: Path, recommender: Recommender, ask: Ask
) -> None:
    item = recommender.catalogue.item_ids[5]
    wanted = printed(recommender.similar(item, k=4), tiny_bundle.name)
    assert ask("similar", tiny_bundle, item, "-k", 4) == wanted


def test_search_prints_the_answer_of_the_recommender_to_words_an_image_and_both(
    tiny_bundle: Path, recommender: Recommender, photo: Path, ask: Ask
) -> None:
    picture = photo.read_bytes()
    for words, image in (("nordic lamp", None), (None, picture), ("nordic lamp", picture)):
        options = [*([words] if words else []), *(["--image", photo] if image else [])]
        wanted = printed(recommender.search(words, image, k=3), tiny_bundle.name)
        assert ask("search", tiny_bundle, *options, "--k", 3) == wanted


def test_search_passes_modes_and_filters_to_the_recommender(
    tiny_bundle: Path, recommender: Recommender, ask: Ask
) -> None:
    catalogue = recommender.catalogue
    item = next(
        one
        for one in catalogue.records(catalogue.item_ids).iter_rows(named=True)
        if one["category"] and one["attributes"]
    )
    pair = item["attributes"][0]
    filters = Filters(
        category=tuple(item["category"][:2]),
        price_min=0,
        price_max=item["price"],
        attributes={pair["key"]: pair["value"]},
        available_only=False,
    )
    levels = [word for level in item["category"][:2] for word in ("--category", level)]
    options = [*levels, "--attribute", f"{pair['key']}={pair['value']}", "--unavailable"]
    prices = ["--price-min", 0, "--price-max", item["price"]]
    for mode in ("hybrid", "vector", "lexical"):
        wanted = recommender.search(item["title"], k=9, filters=filters, mode=mode)
        answer = ask(
            "search", tiny_bundle, item["title"], *options, *prices, "--mode", mode, "-k", 9
        )
        assert item["item_id"] in [one.item_id for one in wanted]
        assert answer == printed(wanted, tiny_bundle.name)


def test_an_attribute_without_a_value_is_refused(tiny_bundle: Path, refusal: Say) -> None:
    message = refusal("search", tiny_bundle, "lamp", "--attribute", "blue")
    assert message == "--attribute must be name=value, such as colour=blue, got 'blue'"


def test_a_category_may_be_given_as_in_tables(tiny_bundle: Path, ask: Ask) -> None:
    path = next(one for one in Bundle(tiny_bundle).items["category"] if len(one) > 1)
    levels = [word for level in path[:2] for word in ("--category", level)]
    answer = ask("search", tiny_bundle, "lamp", "--category", " > ".join(path[:2]))
    assert answer["results"]
    assert answer == ask("search", tiny_bundle, "lamp", *levels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--price-min", "5", "--price-max", "1"],
            "price_min must be at most price_max 1.0, got 5.0",
        ),
        (["--price-min", "nan"], "price_min must be a finite number from 0 on, got nan"),
        (["--price-max", "inf"], "price_max must be a finite number from 0 on, got inf"),
        (
            ["--attribute", "=red"],
            "--attribute must be name=value, such as colour=blue, got '=red'",
        ),
    ],
)
def test_options_that_no_item_can_satisfy_are_refused(
    tiny_bundle: Path, refusal: Say, options: list[str], message: str
) -> None:
    assert refusal("search", tiny_bundle, "lamp", *options) == message


def test_a_category_or_attribute_that_no_item_has_is_refused_with_the_nearest(
    tiny_bundle: Path, refusal: Say
) -> None:
    items = Bundle(tiny_bundle).items
    path = next(one for one in items["category"] if len(one) > 1)
    pair = next(pairs[0] for pairs in items["attributes"] if len(pairs))
    value, name = f"{pair['key']}={pair['value']}", path[0]

    def said(*options: str) -> str:
        return refusal("search", tiny_bundle, "lamp", *options)

    mistyped = said("--category", name.lower() + "x")
    assert mistyped == f"no item has category {name.lower() + 'x'!r}; did you mean {name!r}?"
    assert said("--category", path[1]).endswith(f"> {path[1]}'?")
    assert said("--category", "zzzz") == "no item has category 'zzzz'"
    assert said("--attribute", value + "x").endswith(f"did you mean {value!r}?")


def test_an_empty_user_id_is_refused(tiny_bundle: Path, refusal: Say) -> None:
    assert refusal("recommend", tiny_bundle, "") == "a user id must not be empty, got ''"


def test_identify_prints_the_answer_of_the_identifier(
    tiny_bundle: Path, recommender: Recommender, photo: Path, ask: Ask
) -> None:
    wanted = ProductIdentifier(recommender).identify(photo.read_bytes(), k=4)
    answer = ask("identify", tiny_bundle, photo, "--k", 4)
    assert answer["known"] is wanted.known
    assert answer["verdict"] == wanted.verdict
    named = wanted.product_group
    assert answer["product_group"] == (json.loads(json.dumps(asdict(named))) if named else None)
    assert answer["probability"] == pytest.approx(wanted.probability)
    assert answer["bundle_version"] == recommender.version
    for got, one in zip(answer["candidates"], wanted.candidates, strict=True):
        assert got["item_id"] == one.item_id
        assert got["score"] == pytest.approx(one.score)


def test_titles_and_candidates_are_printed_for_people(
    tiny_bundle: Path, recommender: Recommender, photo: Path, ask: Ask, say: Say
) -> None:
    first = ask("search", tiny_bundle, "nordic lamp", "--k", 1)["results"][0]["item_id"]
    shown = say("search", tiny_bundle, "nordic lamp", "--k", 1)
    assert "search nordic lamp" in shown
    assert first in shown
    title = recommender.catalogue.records([first])["title"][0]
    assert set(title.split()) <= set(shown.split())
    answer = ask("identify", tiny_bundle, photo)
    shown = say("identify", tiny_bundle, photo)
    assert answer["candidates"][0]["item_id"] in shown
    for name, guess in answer["annotation"]["attributes"].items():
        if guess["value"] is not None:
            assert f"{name} {guess['value']} {guess['probability']:.2f}" in shown
    assert answer["annotation"]["colours"][0]["name"] in shown


def test_every_verdict_is_described_in_words() -> None:
    def answer(verdict: Verdict, probability: float, group: Group | None = None) -> Identification:
        return Identification(
            known=probability > 0.9,
            probability=probability,
            candidates=(Result("gala", 0.5, "photo"),),
            verdict=verdict,
            product_group=group,
            bundle_version="",
        )

    one = answer("product", 0.99, Group(("gala",), ("fruit", "apple"), 0.97))
    few = answer("group", 0.99, Group(("gala", "pink"), ("fruit", "apple"), 0.96))
    unsure, unknown = answer("unsure", 0.7), answer("unknown", 0.2)
    assert describe(one) == "gala (probability 0.97)"
    assert describe(few) == "some fruit > apple: gala or pink (probability 0.96)"
    assert describe(unsure) == "not sure (probability of being in the catalogue 0.70)"
    assert describe(unknown) == (
        "probably not in the catalogue (probability of being in the catalogue 0.20)"
    )


def test_what_a_photo_shows_is_said_in_one_line_without_what_is_unsure() -> None:
    shown = Annotation(
        category=("fruit", "apple"),
        category_probability=0.914,
        attributes={"skin": Guess("smooth", 0.8), "use": Guess(None, 0.3)},
        colours=(Colour("red", 0.61),),
        bundle_version="",
    )
    assert describe_annotation(shown) == "shows fruit > apple 0.91, skin smooth 0.80, red on 61 %"
    unsure = replace(shown, category=(), attributes={})
    assert describe_annotation(unsure) == "shows category unsure 0.91, red on 61 %"


@pytest.mark.parametrize("k", [0, MAX_K + 1])
def test_k_out_of_range_is_refused_by_every_query_command(
    tiny_bundle: Path, recommender: Recommender, photo: Path, refusal: Say, k: int
) -> None:
    item = recommender.catalogue.item_ids[0]
    for command, asked in (
        ("recommend", "nobody"),
        ("similar", item),
        ("search", "lamp"),
        ("identify", photo),
    ):
        message = refusal(command, tiny_bundle, asked, "--k", k)
        assert message == f"k must be a whole number between 1 and {MAX_K}, got {k}"


def test_an_unknown_item_is_refused_by_name(tiny_bundle: Path, refusal: Say) -> None:
    message = refusal("similar", tiny_bundle, "nothing")
    assert message.startswith("item_id must be in the catalogue of")
    assert "got unknown ['nothing']" in message


@pytest.mark.parametrize("words", [[], [""], ["   "]])
def test_an_empty_search_is_refused(tiny_bundle: Path, refusal: Say, words: list[str]) -> None:
    message = refusal("search", tiny_bundle, *words)
    assert message == "query must have text or image bytes, got neither"


def test_a_photo_that_is_not_an_image_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"not a picture")
    for command in (["identify", tiny_bundle, photo], ["search", tiny_bundle, "--image", photo]):
        assert "image cannot be decoded: got 13 bytes" in refusal(*command)


def test_a_missing_photo_is_a_usage_error(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["recsys", "identify", str(tiny_bundle), "gone.jpg"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["recommend", "similar", "search", "evaluate"])
def test_a_tampered_bundle_is_refused_by_every_command(
    tiny_bundle: Path, tmp_path: Path, refusal: Say, command: str
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))
    weights = folder / "ranker_trees.txt"
    weights.write_bytes(weights.read_bytes()[:-1])
    asked = [] if command == "evaluate" else ["anything"]
    message = refusal(command, folder, *asked)
    assert message.startswith("file ranker_trees.txt was changed in bundle")
    assert message.endswith("copy the original bundle again")


def test_a_bundle_with_a_damaged_manifest_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "must be named by its manifest's hash" in refusal("search", folder, "lamp")


def test_searching_by_words_without_a_text_encoder_is_refused(tiny_run: Run, refusal: Say) -> None:
    message = refusal("search", tiny_run.ablations["text-only"], "lamp")
    assert message == "this bundle has no text encoder: query it with an image"


def test_a_time_with_an_offset_is_converted_to_utc(tiny_bundle: Path, user: str, ask: Ask) -> None:
    events = Bundle(tiny_bundle).interactions
    last = events.histories()[events.user_ids.index(user)].timestamps_us[-1]
    before = from_us(int(last) - 3_600_000_000).replace(microsecond=0, tzinfo=None)
    local = (before + timedelta(hours=5)).isoformat()  # after the event, if the offset is ignored
    utc, offset, other = (
        ask("recommend", tiny_bundle, user, "--at", at)
        for at in (before.isoformat(), f"{local}+05:00", local)
    )
    assert utc == offset
    assert utc != other


def test_square_brackets_in_a_query_are_printed_as_they_are(tiny_bundle: Path, say: Say) -> None:
    assert "search lamp [/blue] [red]" in say("search", tiny_bundle, "lamp [/blue] [red]")


@pytest.mark.parametrize("option", ["--image", "--texts"])
def test_a_missing_file_is_refused_by_name(
    option: str, tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    absent = tmp_path / "absent"
    command = (
        ("search", tiny_bundle, "lamp")
        if option == "--image"
        else ("embed", tiny_bundle, "--out", tmp_path / "out.parquet")
    )
    assert str(absent) in refusal(*command, option, absent)
