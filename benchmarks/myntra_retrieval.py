"""Measure Myntra's item space: titles find pictures, and article types are classified.

Run from the repository's root, after ``python -m benchmarks.myntra``:
``python -m benchmarks.myntra_retrieval``. 2,000 groups of the test split are held out, and a bundle
is trained on all other items. Finished stages are not trained again. ``--val`` is for choosing
recipes: it holds out groups of the val split, trains on the train split and records nothing.
"""

import argparse
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.myntra_pictures import MIN_ITEMS, group_items, split_of
from benchmarks.published import imported
from benchmarks.record import record
from recsys import Bundle
from recsys.bundle import Contents, write_bundle
from recsys.catalogue.embedder import ItemEmbedder, Modalities
from recsys.config import TrainConfig, load_config
from recsys.evaluation.bootstrap import Estimate, difference, estimate
from recsys.pipeline import train

COMMAND = "python -m benchmarks.myntra_retrieval"
CONFIG = Path("configs/myntra.toml")
OUT = Path("out/myntra")
WHOLE_SHOP = Path("out/myntra-all")
N_GROUPS = 2_000  # groups held out, with one title of each as a query
KINDS = {"image": ("image",), "title": ("text",), "fused": ("text", "image")}
PENALTIES = (0.01, 0.1, 1.0)  # inverse regularisation of the linear probe, chosen on val

Floats = NDArray[np.float32]


class Shop(NamedTuple):
    """All items of Myntra that have a picture, with their groups and splits."""

    items: pl.DataFrame
    folder: Path
    groups: NDArray[np.str_]  # (N,), items that share a title or a picture file
    splits: NDArray[np.str_]  # (N,), train, val or test


class Probed(NamedTuple):
    """Which items, bool (N,), a probe is trained on, chosen on and scored on."""

    train: NDArray[np.bool_]
    val: NDArray[np.bool_]
    held: NDArray[np.bool_]


def main() -> None:
    """Train unless done before; print and record the figures of the held-out items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--val", action="store_true", help="measure on val instead of test, without recording"
    )
    split = "val" if parser.parse_args().val else "test"
    shop = load_shop()
    rows = held_out(shop, split)
    held = np.isin(shop.groups, shop.groups[rows])
    learned = shop.splits == "train" if split == "val" else ~held
    config = with_table(load_config(CONFIG), shop.items.filter(pl.Series(learned)), split)
    run = train(config, OUT / split, progress=True)
    for stage in run.stages:
        print(f"{stage.name:12} {stage.seconds:7.0f} s")
    bundle = Bundle(run.bundle)
    embedder = bundle.embedder()
    titles = shop.items["title"].to_list()
    pictures = [shop.folder / image for image in shop.items["image"]]
    modalities = embedder.modalities(titles, pictures, precision="auto", progress=True)
    if split == "test":
        seal_whole_shop(shop, bundle, embedder.fuse(modalities), config)
    measure(text_to_image(shop, embedder, modalities, rows), split)
    measure(named_queries(shop, embedder, modalities, held), split)
    measure(article_types(shop, embedder, modalities, held), split)


def measure(values: Mapping[str, tuple[Estimate, str]], split: str) -> None:
    """Print what was measured, and record it if it was measured on test."""
    for name, (value, metric) in values.items():
        print(f"{name:45} {value.mean:.4f}  [{value.low:.4f}, {value.high:.4f}]", flush=True)
        if split == "test":
            record("myntra", f"myntra.{name}", value.mean, metric, COMMAND)


def load_shop() -> Shop:
    """Return the items, split as ``load_myntra`` splits them."""
    folder = imported("myntra", "myntra-small.tar.gz")
    items = pl.read_parquet(folder / "items.parquet", glob=False).filter(
        pl.col("image").is_not_null()
    )
    images = [folder / image for image in items["image"]]
    groups = group_items(items["title"].to_list(), images, items["item_id"].to_list())
    return Shop(items, folder, np.array(groups), split_of(groups))


def with_table(config: TrainConfig, items: pl.DataFrame, split: str) -> TrainConfig:
    """Write the items, and return the configuration with the path of their table."""
    assert config.data.items is not None, "the configuration names the items table"
    path = Path(config.data.items).expanduser()
    path = path if split == "test" else path.with_stem(f"{path.stem}-{split}")
    path.parent.mkdir(parents=True, exist_ok=True)
    items.write_parquet(path)
    return config.model_copy(update={"data": config.data.model_copy(update={"items": str(path)})})


def seal_whole_shop(shop: Shop, bundle: Bundle, embeddings: Floats, config: TrainConfig) -> None:
    """Write the bundle with all items, for the benchmarks of search and embedding."""
    contents = Contents(
        items=shop.items,
        item_embeddings=embeddings,
        fusion=bundle.fusion,
        vision=bundle.vision,
        text=bundle.text,
        left_out=bundle.left_out,
    )
    print(f"all items: {write_bundle(contents, WHOLE_SHOP)}")


def held_out(shop: Shop, split: str) -> NDArray[np.int64]:
    """Return the first item of each held-out group (Q,): those with the smallest hashes."""
    rows = np.flatnonzero(shop.splits == split)
    names, first = np.unique(shop.groups[rows], return_index=True)
    hashes = [hashlib.sha256(f"held out {name}".encode()).hexdigest() for name in names]
    return rows[first[np.argsort(hashes)[:N_GROUPS]]]


def fused(embedder: ItemEmbedder, modalities: Modalities, *names: str) -> Floats:
    """Return embeddings (N, D) of the items, from the named modalities only."""
    present = {
        name: has if name in names else np.zeros_like(has)
        for name, has in modalities.present.items()
    }
    return embedder.fuse(Modalities(modalities.embeddings, present))


def text_to_image(
    shop: Shop, embedder: ItemEmbedder, modalities: Modalities, rows: NDArray[np.int64]
) -> dict[str, tuple[Estimate, str]]:
    """Return how well the titles of these rows find a picture of their group among all."""
    queries = fused(embedder, modalities, "text")[rows]
    pictures = fused(embedder, modalities, "image")
    ranks = np.array(
        [
            best_rank(pictures @ query, shop.groups == shop.groups[row])
            for row, query in zip(rows, queries, strict=True)
        ]
    )
    print(f"{len(rows)} titles, {len(pictures)} pictures", flush=True)
    return {
        "text_to_image.r@1": (estimate((ranks <= 1).astype(float)), "recall"),
        "text_to_image.r@10": (estimate((ranks <= 10).astype(float)), "recall"),
        "text_to_image.mrr": (estimate(1.0 / ranks), "mrr"),
    }


def best_rank(scores: Floats, relevant: NDArray[np.bool_]) -> int:
    """Return the rank, from 1, of the best relevant entry (N,); ties count against it."""
    best = scores[relevant].max()
    return 1 + int((scores[~relevant] >= best).sum())


def named_queries(
    shop: Shop, embedder: ItemEmbedder, modalities: Modalities, held: NDArray[np.bool_]
) -> dict[str, tuple[Estimate, str]]:
    """Return P@1 and P@10 of searching held-out items by names of categories and colours."""
    items = shop.items.filter(pl.Series(held))
    names = {
        "category": items["category"].list.get(0),
        "sub_category": items["category"].list.get(1),
        "article_type": items["category"].list.get(2),
        "colour": attribute(items, "base_colour"),
    }
    galleries = {kind: fused(embedder, modalities, *parts)[held] for kind, parts in KINDS.items()}
    measured = {}
    for topic, column in names.items():
        values = np.array(column.to_list())
        known, counts = np.unique(values, return_counts=True)
        asked = [name for name in known[counts >= 10].tolist() if name]
        queries = embedder.queries(asked, [None] * len(asked))
        for kind, gallery in galleries.items():
            top = np.argsort(-queries @ gallery.T, axis=1, kind="stable")[:, :10]
            right = values[top] == np.array(asked)[:, None]
            for k in (1, 10):
                precision = right[:, :k].mean(axis=1)
                measured[f"search.{topic}.{kind}.p@{k}"] = (estimate(precision), "precision")
    return measured


def article_types(
    shop: Shop, embedder: ItemEmbedder, modalities: Modalities, held: NDArray[np.bool_]
) -> dict[str, tuple[Estimate, str]]:
    """Return accuracies of linear probes on pictures, titles and both, and the gain of both.

    Titles are used as they are, and again without the words that name types and colours.
    """
    labels = np.array(shop.items["category"].list.get(2).to_list())
    kinds, counts = np.unique(labels, return_counts=True)
    frequent = np.isin(labels, kinds[counts >= MIN_ITEMS])
    parts_of = Probed(
        train=frequent & (shop.splits == "train"),
        val=frequent & (shop.splits == "val") & ~held,
        held=frequent & held,
    )
    bare = without_names(shop.items)
    plain = embedder.modalities(bare, None).embeddings["text"]
    present = np.array([bool(title) for title in bare])
    plain_titles = Modalities(
        {**modalities.embeddings, "text": plain}, {**modalities.present, "text": present}
    )
    measured, right = {}, {}
    for prefix, material in (("", modalities), ("unnamed_", plain_titles)):
        for kind, parts in KINDS.items():
            if prefix and kind == "image":
                continue
            embeddings = fused(embedder, material, *parts)
            right[prefix + kind] = probe(embeddings, labels, parts_of)
            name = "image_probe" if kind == "image" else prefix + kind
            value = estimate(right[prefix + kind])
            measured[f"article_type.{name}.accuracy"] = (value, "accuracy")
        for other, of in (("title", right[prefix + "title"]), ("image", right["image"])):
            gain = difference(right[prefix + "fused"], of)
            measured[f"article_type.{prefix}fused.gain_over_{other}"] = (gain, "accuracy")
    return measured


def probe(embeddings: Floats, labels: NDArray[np.str_], probed: Probed) -> NDArray[np.float64]:
    """Return whether a linear classifier predicts the label of each held-out item, 0 or 1."""
    scaled = StandardScaler().fit(embeddings[probed.train]).transform(embeddings)
    classifiers = [
        LogisticRegression(C=penalty, tol=1e-3, max_iter=1_000).fit(
            scaled[probed.train], labels[probed.train]
        )
        for penalty in PENALTIES
    ]
    best = max(classifiers, key=lambda one: one.score(scaled[probed.val], labels[probed.val]))
    right: NDArray[np.bool_] = best.predict(scaled[probed.held]) == labels[probed.held]
    return right.astype(np.float64)


def without_names(items: pl.DataFrame) -> list[str]:
    """Return the titles without words that name a category, an article type or a colour.

    Words are compared without plural, case and hyphens, so "T-shirt" equals "Tshirts".
    """
    paths = items["category"].explode().to_list()
    names = [*paths, *attribute(items, "base_colour").to_list()]
    words = {stem(word) for name in set(names) for word in re.findall(r"[\w-]+", name or "")}
    return [
        " ".join(word for word in title.split() if stem(word) not in words)
        for title in items["title"].to_list()
    ]


def stem(word: str) -> str:
    """Return a word in lower case, without hyphens and without e and s at its end."""
    plain = re.sub(r"[^a-z0-9]", "", word.casefold())
    return plain.rstrip("es") or plain


def attribute(items: pl.DataFrame, key: str) -> pl.Series:
    """Return an attribute's value for each item; empty for items without the attribute."""
    values: Sequence[str] = [
        next((pair["value"] for pair in one if pair["key"] == key), "")
        for one in items["attributes"].to_list()
    ]
    return pl.Series(key, values)


if __name__ == "__main__":
    main()
