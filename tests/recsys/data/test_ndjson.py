from pathlib import Path

import pytest

from recsys.data.ndjson import read_ndjson_by_line, scan_ndjson
from recsys.errors import DataError

NAMES = ("item_id", "category", "price")


def write(folder: Path, *lines: str, name: str = "items.ndjson") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_value_is_text_and_lists_and_objects_are_json(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"item_id": 17850.0, "category": ["Kit\\"chen", "Mügs"], "price": "1,50"}',
        "",
        '{"item_id": "007", "category": "Home > Mugs", "price": 12.5, "more": {"a": [1]}}',
        "   ",
        '{"item_id": true, "category": null}',
    )

    assert scan_ndjson(path, NAMES).collect().rows() == [
        ("17850", '["Kit\\"chen", "Mügs"]', "1,50", None),
        ("007", "Home > Mugs", "12.5", '{"a": [1]}'),
        ("true", None, None, None),
    ]


def test_a_known_column_that_only_a_late_line_has_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, *['{"item_id": 1}'] * 1_500, '{"item_id": 2, "price": 3, "stray": 4}')

    frame = scan_ndjson(path, NAMES).collect()

    assert frame.columns == ["item_id", "price"]
    assert frame.row(-1) == ("2", "3")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("items[1].ndjson", "*.ndjson", "item?1.ndjson"):
        write(tmp_path, '{"item_id": "wrong"}', name=name.translate(str.maketrans("[*?", "x__")))
        write(tmp_path, '{"item_id": "right"}', name=name)

        assert scan_ndjson(tmp_path / name, NAMES).collect()["item_id"].to_list() == ["right"]


def test_by_line_values_that_json_lacks_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '\ufeff{"item_id": "a", "price": NaN}',
        '{"item_id": "b", "price": -Infinity, "category": ["x"]}',
        '{"item_id": "c", "price": 1e400}',
    )

    assert read_ndjson_by_line(path).collect().rows() == [
        ("a", None, None),
        ("b", "-Infinity", '["x"]'),
        ("c", "1e400", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"item_id":', "line 2 is not JSON .*; write one object a line"),
        ('[{"item_id": 1}]', "line 2 must be a JSON object, got list; .*jq -c"),
        ("3", "line 2 must be a JSON object, got int"),
        ("[" * 99_999, "line 2 is not JSON"),
    ],
)
def test_a_line_that_is_not_an_object_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, '{"item_id": 1}', line)

    with pytest.raises(DataError, match=f"items.ndjson cannot be read: {message}"):
        scan_ndjson(path, NAMES)
    with pytest.raises(DataError, match=f"items.ndjson cannot be read: {message}"):
        read_ndjson_by_line(path)
