"""Time searches of a bundle's catalogue, and compare the approximate index with the exact one.

Run from the repository's root, after ``python -m benchmarks.myntra_retrieval``:
``python -m benchmarks.search``.

A query is timed from words, or from the bytes of an image file, to ten results. Queries run one
after the other on one core, in this process and through a service on this machine. All queries are
different, so no cache helps. Words are taken from titles, and images are the items' pictures.
``recall@10`` is the share of the ten exact neighbours that the approximate index finds.

``find.*`` measures how well each mode finds what a query names. ``type_colour.p@10`` is the share
of the first ten results that have the named colour and finest category. ``title.mrr`` is the mean
reciprocal rank of an item whose title four words were taken from, and ``typo.mrr`` the same with
one of the words misspelt. ``find.changed.type_colour.p@10`` is for a picture and "in" another
colour: the share of results with the picture's category and that colour.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

import numpy as np
import polars as pl
import torch

from benchmarks.published import imported
from benchmarks.record import record
from recsys import Bundle, Recommender
from recsys.answers import Answer, SearchMode
from recsys.catalogue.filters import Filters
from recsys.catalogue.vectors import ApproximateIndex, ExactIndex, VectorIndex
from serving.client import AsyncClient
from serving.testing import running_service

TOPIC = "search"
COMMAND = "python -m benchmarks.search"
K = 10
MIN_ITEMS = 10  # smallest number of items with a colour and category that is searched for

Figures = dict[str, tuple[float, str]]
Query = TypeVar("Query", str, bytes)


class Queries(NamedTuple):
    """Queries by words, and by pictures as the bytes of their files."""

    texts: list[str]
    pictures: list[bytes]


def main() -> None:
    """Measure, print and record."""
    options = _parse()
    torch.set_num_threads(1)
    recommender = Recommender(Bundle(options.bundle))
    recommender.prepare_search()
    images = options.images_root or imported("myntra", "myntra-small.tar.gz")
    queries = _queries(recommender, images, options.queries)
    figures = _in_process(recommender, queries) | _index(recommender, queries.texts)
    figures |= asyncio.run(_through_grpc(recommender.bundle.path, queries))
    for mode in get_args(SearchMode):
        figures |= _find(recommender, options.queries, mode)
    if queries.pictures:
        figures["find.changed.type_colour.p@10"] = _find_changed(
            recommender, images, options.queries
        )
    for name, (value, unit) in figures.items():
        print(f"{TOPIC}.{name} = {value:.4g} {unit}")
        if options.record:
            record(TOPIC, f"{TOPIC}.{name}", value, unit, " ".join([COMMAND, *sys.argv[1:]]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bundle", type=Path, default=Path("out/myntra-all"), help="folder of the bundle"
    )
    parser.add_argument(
        "--images-root", type=Path, help="folder of the pictures; Myntra's if unset"
    )
    parser.add_argument("--queries", type=int, default=500, help="number of queries of each kind")
    parser.add_argument(
        "--no-record", dest="record", action="store_false", help="print without recording"
    )
    return parser.parse_args()


def _queries(recommender: Recommender, images: Path, count: int) -> Queries:
    generator = np.random.default_rng(0)
    titles = recommender.bundle.items["title"].drop_nulls().unique(maintain_order=True)
    texts = [_some_words(titles[int(row)], generator) for row in generator.permutation(len(titles))]
    texts = list(dict.fromkeys(filter(None, texts)))[:count]
    if "vision" not in recommender.parts:
        return Queries(texts, [])
    pictured = recommender.bundle.items["image"].drop_nulls()
    chosen = generator.permutation(len(pictured))[:count].tolist()
    return Queries(texts, [(images / pictured[row]).read_bytes() for row in chosen])


def _some_words(title: str, generator: np.random.Generator) -> str:
    """Return four words of a title in their order; empty for a title of fewer words."""
    words = title.split()
    if len(words) < 4:
        return ""
    return " ".join(words[row] for row in sorted(generator.permutation(len(words))[:4]))


def _in_process(recommender: Recommender, queries: Queries) -> Figures:
    figures: Figures = {}
    for mode in get_args(SearchMode):
        name = "text" if mode == "hybrid" else f"text.{mode}"
        seconds = _time(queries.texts, partial(recommender.search, k=K, mode=mode))
        figures[f"{name}.qps"] = (len(queries.texts) / seconds, "queries/s")
    if queries.pictures:
        seconds = _time(queries.pictures, lambda data: recommender.search(image=data, k=K))
        figures["image.qps"] = (len(queries.pictures) / seconds, "queries/s")
    return figures


def _time(queries: Sequence[Query], ask: Callable[[Query], Answer]) -> float:
    """Return the seconds that all queries take together, after one query to warm up."""
    ask(queries[0])
    start = time.perf_counter()
    for query in queries:
        ask(query)
    return time.perf_counter() - start


async def _through_grpc(bundle: Path, queries: Queries) -> Figures:
    figures: Figures = {}
    async with running_service(bundle) as service, AsyncClient(service.address) as client:
        await client.search("warm up", k=K)
        start = time.perf_counter()
        for text in queries.texts:
            await client.search(text, k=K)
        seconds = time.perf_counter() - start
        figures["text.grpc.qps"] = (len(queries.texts) / seconds, "queries/s")
        start = time.perf_counter()
        for data in queries.pictures:
            await client.search(image=data, k=K)
        if queries.pictures:
            seconds = time.perf_counter() - start
            figures["image.grpc.qps"] = (len(queries.pictures) / seconds, "queries/s")
    return figures


def _index(recommender: Recommender, texts: Sequence[str]) -> Figures:
    """Return the approximate index's recall, and the queries per second of both."""
    catalogue = recommender.catalogue
    vectors = torch.from_numpy(recommender.embedder.queries(texts, [None] * len(texts)))
    mask = catalogue.mask(Filters()) & catalogue.embedded
    start = time.perf_counter()
    indexes: dict[str, VectorIndex] = {
        "exact": ExactIndex(catalogue),
        "index": ApproximateIndex(catalogue, exact_up_to=0),
    }
    figures: Figures = {"index.build_s": (time.perf_counter() - start, "s")}
    found = {}
    for name, index in indexes.items():
        start = time.perf_counter()
        found[name] = [index.nearest(vector, mask, K) for vector in vectors]
        seconds = time.perf_counter() - start
        figures[f"{name}.qps"] = (len(vectors) / seconds, "queries/s")
    # Compared by score, because items with equal vectors are equally good answers.
    reached = [
        (near.scores >= exact.scores[-1] - 1e-6).sum().item() / len(exact.scores)
        for near, exact in zip(found["index"], found["exact"], strict=True)
    ]
    figures["index.recall@10"] = (float(np.mean(reached)), "recall@10")
    return figures


def _find(recommender: Recommender, count: int, mode: SearchMode) -> Figures:
    """Return how well a search mode finds what words name."""
    generator = np.random.default_rng(1)
    items = recommender.bundle.items
    titles = [(title or "").casefold() for title in items["title"]]
    kinds = _kinds(items)
    asked = [kind for kind, n in Counter(kinds).items() if n >= MIN_ITEMS and all(kind)]

    def rows(text: str) -> list[int]:
        results = recommender.search(text, k=K, mode=mode)
        return [recommender.catalogue.row_of[one.item_id] for one in results]

    hits = [
        sum(kinds[row] == kind for row in rows(f"{kind[0]} {kind[1]}".lower())) / K
        for kind in (asked[int(n)] for n in generator.permutation(len(asked))[:count])
    ]
    ranks: dict[str, list[float]] = {"title": [], "typo": []}
    for row in generator.permutation(len(items))[:count].tolist():
        text = _some_words(items["title"][row] or "", generator)
        if not text:
            continue
        for name, query in (("title", text), ("typo", _with_typo(text, generator))):
            places = [n for n, found in enumerate(rows(query), 1) if titles[found] == titles[row]]
            ranks[name].append(1 / places[0] if places else 0.0)
    figures = {"type_colour.p@10": (float(np.mean(hits)), "p@10")}
    figures |= {f"{name}.mrr": (float(np.mean(values)), "mrr") for name, values in ranks.items()}
    return {f"find.{mode}.{name}": figure for name, figure in figures.items()}


def _find_changed(recommender: Recommender, images: Path, count: int) -> tuple[float, str]:
    """Return how well a picture and words such as "in blue" find similar items in that colour."""
    generator = np.random.default_rng(2)
    items = recommender.bundle.items
    kinds = _kinds(items)
    common = [kind for kind, n in Counter(kinds).items() if n >= MIN_ITEMS and all(kind)]
    hits = []
    for row in generator.permutation(len(items)).tolist():
        picture, (colour, category) = items["image"][row], kinds[row]
        others = [one for one, kind in common if kind == category and one != colour]
        if picture is None or not others:
            continue
        wanted = others[int(generator.integers(len(others)))]
        data = (images / picture).read_bytes()
        results = recommender.search(f"in {wanted.lower()}", data, k=K)
        found = [kinds[recommender.catalogue.row_of[one.item_id]] for one in results]
        hits.append(sum(kind == (wanted, category) for kind in found) / K)
        if len(hits) == count:
            break
    return float(np.mean(hits)), "p@10"


def _kinds(items: pl.DataFrame) -> list[tuple[str, str]]:
    """Return the colour and the finest category of each item; empty if unknown."""
    colours = [
        next((pair["value"] for pair in pairs if "colour" in pair["key"]), "")
        for pairs in items["attributes"]
    ]
    return [
        (colour, path[-1] if len(path) else "")
        for colour, path in zip(colours, items["category"].to_list(), strict=True)
    ]


def _with_typo(text: str, generator: np.random.Generator) -> str:
    """Return the words with a letter of the longest one removed, doubled or swapped."""
    words = text.split()
    longest = max(range(len(words)), key=lambda n: len(words[n]))
    word = words[longest]
    place = int(generator.integers(1, max(len(word) - 1, 2)))
    start, middle, end = word[:place], word[place : place + 2], word[place + 2 :]
    wrong = [middle[1:], middle[:1] + middle, middle[::-1]][int(generator.integers(3))]
    words[longest] = start + wrong + end
    return " ".join(words)


if __name__ == "__main__":
    main()
