from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.curation.duplicates import SCHEMA, check_format, find_duplicates, write_report
from recsys.errors import FileAccessError


def unit_vectors(n: int, *, dim: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(titles: list[str | None], images: list[str | None] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"item-{row}" for row in range(len(titles))],
            "title": pl.Series(titles, dtype=pl.String),
            "image": pl.Series(images or [None] * len(titles), dtype=pl.String),
        }
    )


def groups(found: pl.DataFrame) -> list[set[int]]:
    return [
        {int(item_id.removeprefix("item-")) for item_id in group["item_id"]}
        for group in found.partition_by("group")
    ]


def test_items_are_linked_for_each_reason() -> None:
    vectors = unit_vectors(7)
    vectors[5] = vectors[4]
    titles = ["Red  LAMP", "red lamp", "Mug", "Chair", "Scarf", "Shawl", None]
    images = [None, None, "a.jpg", "a.jpg", None, None, None]
    found = find_duplicates(table(titles, images), vectors)
    assert found.schema == SCHEMA
    assert groups(found) == [{0, 1}, {2, 3}, {4, 5}]
    reasons = ["title", "title", "picture", "picture", "embedding", "embedding"]
    assert found["reason"].to_list() == reasons
    cosines = [vectors[a] @ vectors[b] for a, b in ((0, 1), (2, 3), (4, 5)) for _ in (0, 1)]
    np.testing.assert_allclose(found["similarity"], cosines, atol=1e-6)


def test_groups_are_what_links_connect_large_ones_first() -> None:
    titles = ["a", "a", "b", "c", "c", "d"]
    images = [None, "x", "x", "y", None, "y"]
    found = find_duplicates(table(titles, images), unit_vectors(6))
    assert groups(found) == [{0, 1, 2}, {3, 4, 5}]
    assert found["reason"].to_list()[:3] == ["title", "title, picture", "picture"]


def test_near_pairs_are_those_of_comparing_each_with_each() -> None:
    vectors = unit_vectors(700, dim=3)
    near = vectors @ vectors.T >= 0.9995
    parents = list(range(700))  # union-find, as loops
    for left, right in zip(*np.nonzero(near), strict=True):
        a, b = left, right
        while parents[a] != a:
            a = parents[a]
        while parents[b] != b:
            b = parents[b]
        parents[max(a, b)] = min(a, b)
    wanted: dict[int, set[int]] = {}
    for row in range(700):
        root = row
        while parents[root] != root:
            root = parents[root]
        wanted.setdefault(root, set()).add(row)
    found = find_duplicates(table([None] * 700), vectors, threshold=0.9995)
    assert sorted(map(sorted, groups(found))) == sorted(
        sorted(group) for group in wanted.values() if len(group) > 1
    )
    assert found["similarity"].min() >= 0.9995


def test_pictures_are_compared_by_their_bytes(tmp_path: Path) -> None:
    for name, data in (("a.jpg", b"one"), ("b.jpg", b"one"), ("c.jpg", b"two")):
        (tmp_path / name).write_bytes(data)
    items = table([None] * 5, ["a.jpg", "b.jpg", "c.jpg", "gone.jpg", "gone.jpg"])
    found = find_duplicates(items, unit_vectors(5), images_root=tmp_path)
    assert groups(found) == [{0, 1}]
    assert groups(find_duplicates(items, unit_vectors(5))) == [{3, 4}]


def test_a_folder_without_any_of_the_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"images_root .* got none of 1, such as .*a.jpg"):
        find_duplicates(table([None], ["a.jpg"]), unit_vectors(1), images_root=tmp_path)


def test_a_thousand_items_with_one_vector_are_one_group() -> None:
    vectors = unit_vectors(1_200)
    vectors[:1_000] = vectors[0]
    found = find_duplicates(table([None] * 1_200), vectors, threshold=0.9999)
    assert groups(found) == [set(range(1_000))]


def test_items_without_an_embedding_are_linked_by_title_alone() -> None:
    found = find_duplicates(table([None, "", "  ", "a", "A"]), np.zeros((5, 8), np.float32))
    assert groups(found) == [{3, 4}]
    assert found["similarity"].to_list() == [None, None]


def test_no_items_have_no_duplicates() -> None:
    assert len(find_duplicates(table([]), np.zeros((0, 8), np.float32))) == 0


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_outside_0_and_1_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1"):
        find_duplicates(table(["a"]), unit_vectors(1), threshold=threshold)


def test_another_number_of_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="one row per item, 1, got 2"):
        find_duplicates(table(["a"]), unit_vectors(2))


def test_reports_hold_what_was_found(tmp_path: Path) -> None:
    items = table(["<b>Lamp</b>", "<B>lamp</B>", "Mug"])
    found = find_duplicates(items, unit_vectors(3))
    for ending in ("parquet", "json", "html"):
        write_report(found, items, tmp_path / "new" / f"report.{ending}")
    assert pl.read_parquet(tmp_path / "new" / "report.parquet").equals(found)
    assert pl.read_json(tmp_path / "new" / "report.json", schema=SCHEMA).equals(found)
    page = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert "1 groups" in page
    assert "&lt;b&gt;Lamp&lt;/b&gt;" in page
    assert "<b>" not in page


def test_an_unknown_report_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.json, \.html, got a\.xlsx"):
        check_format(Path("a.xlsx"))
