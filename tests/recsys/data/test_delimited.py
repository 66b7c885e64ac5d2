import csv
import gzip
import io
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.delimited import find_dialect, has_regular_quotes, read_csv_by_line, scan_csv
from recsys.errors import DataError

NAMES = ("item_id", "title", "price")
Rows = list[tuple[str | None, ...]]


def write(folder: Path, text: str, name: str = "items.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def read(path: Path) -> Rows:
    return scan_csv(path, NAMES).collect().rows()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_found(tmp_path: Path, separator: str, line_end: str) -> None:
    lines = [("item_id", "title", "price"), ("1", '"a, b; c"', "1,50"), ("2", "", "")]
    if separator == ",":
        lines[1] = ("1", '"a, b; c"', '"1,50"')
    path = write(tmp_path, "".join(separator.join(line) + line_end for line in lines))

    assert read(path) == [("1", "a, b; c", "1,50"), ("2", None, None)]


def test_the_separator_is_the_one_that_finds_the_known_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "Item_ID; title;a,b,c,d,e\n")

    assert find_dialect(path, NAMES).separator == ";"


def test_the_first_line_of_excel_names_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path, 'sep=;\r\nitem_id;title;price\r\n1;24" shelf;5\r\n')

    assert read(path) == [("1", '24" shelf', "5")]
    assert read(write(tmp_path, "sep=|\nitem_id|title\n1|mug\n")) == [("1", "mug")]


@pytest.mark.parametrize("name", ["items.csv", "items.csv.gz"])
def test_inch_marks_stand_for_themselves(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'item_id,title,price\n1,Shelf 24" wide,5\n2,"Mug, ""red""",6\n3,Shelf 30",7\n'
    path = write(tmp_path, text, name)

    with caplog.at_level(logging.WARNING):
        rows = read(path)

    assert rows == [("1", 'Shelf 24" wide', "5"), ("2", 'Mug, "red"', "6"), ("3", 'Shelf 30"', "7")]
    assert f"{name} has quotes inside cells; they are read as they stand" in caplog.text


def test_a_backslash_is_a_character_like_any_other(tmp_path: Path) -> None:
    text = 'item_id,title,price\n1,"C:\\",5\n2,"24\\"" shelf",6\n3,"a\\","7"\n'
    rows = [("1", "C:\\", "5"), ("2", '24\\" shelf', "6"), ("3", "a\\", "7")]

    assert read(write(tmp_path, text)) == rows
    assert read(write(tmp_path, text + '4,24\\" wide,8\n')) == [*rows, ("4", '24\\" wide', "8")]


def test_no_row_is_swallowed_between_two_odd_quotes(tmp_path: Path) -> None:
    text = 'item_id,title,price\n0,"Classic" 24" mug,5\n1,shelf wide 24",5\n2,"red",6\n'

    rows = read(write(tmp_path, text))

    assert rows == [
        ("0", '"Classic" 24" mug', "5"),
        ("1", 'shelf wide 24"', "5"),
        ("2", "red", "6"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('1,"24 shelf,5\n2,b,6\n', "line 3 has a quote that neither opens nor closes a cell"),
        ('1,"24" shelf, wide",5\n2,b,6\n', "line 2 has a quote .*double the quotes"),
        (
            "1,a,5\n2,b, blue,6\n",
            "line 3 has 4 cells, the header has 3; put cells that contain ','",
        ),
        ('1,"a\nb",5\n2,b, blue,6\n', "line 4 has 4 cells"),
        ('1,a,5\n2,"24\\" shelf",6\n', "line 3 has a quote after a backslash .*double the quote"),
        ('1,"24\\", wide"\n', "line 2 has a quote after a backslash"),
    ],
)
def test_a_line_that_could_be_read_in_two_ways_is_named(
    tmp_path: Path, rows: str, message: str
) -> None:
    path = write(tmp_path, "item_id,title,price\n" + rows)

    with pytest.raises(DataError, match=rf"items.csv cannot be read: {message}"):
        read_csv_by_line(path, NAMES)


def test_short_rows_and_blank_lines_are_read_alike_in_both_ways(tmp_path: Path) -> None:
    text = "item_id,title,price\n1,a\n\n2,b,6\n"
    odd = text.replace("b", '24" b')

    plain, by_line = read(write(tmp_path, text)), read(write(tmp_path, odd))

    assert plain == [("1", "a", None), (None, None, None), ("2", "b", "6")]
    assert by_line == [*plain[:2], ("2", '24" b', "6")]


@pytest.mark.parametrize("chunk_bytes", [3, 4, 5, 1 << 20])
def test_regular_quotes_are_those_of_the_rules(
    tmp_path: Path, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.data.delimited._CHUNK_BYTES", chunk_bytes)
    regular = [
        'a,"b",c\n',
        '"","","""x"""\n',
        '"a\n""b"" c"\r\n"d"',
        "plain\n",
        '\ufeff"a",b\n',
        "",
    ]
    odd = ['a,24" b\n', 'a,24"\n', '"a" b\n', '"a"b"\n', '"open\n', 'a, "b"\n', '"a" ,b\n']

    for text, wanted in [*((one, True) for one in regular), *((one, False) for one in odd)]:
        assert has_regular_quotes(write(tmp_path, text), ",") == wanted, text


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_whatever_a_csv_writer_writes_is_regular_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["item_id", "title"], *rows])
    path = write(tmp_path_factory.getbasetemp(), text.getvalue())

    assert has_regular_quotes(path, ",")
    assert len(read(path)) == len(rows)


@given(
    st.lists(
        st.text(st.sampled_from('ab" ')).filter(lambda cell: cell[:1] != '"'),
        min_size=1,
        max_size=5,
    )
)
def test_cells_with_quotes_inside_are_never_joined_or_cut(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str]
) -> None:
    lines = ["item_id,title", *(f"{row},{title}" for row, title in enumerate(titles))]
    path = write(tmp_path_factory.getbasetemp(), "\n".join(lines) + "\n")

    rows = scan_csv(path, NAMES).collect().rows()

    assert [(row, title or "") for row, title in rows] == [
        (str(row), title) for row, title in enumerate(titles)
    ]
