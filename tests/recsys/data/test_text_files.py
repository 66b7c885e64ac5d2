import gzip
import subprocess
from pathlib import Path

import pytest

from recsys.data.text_files import decode_lines, open_bytes, read_head
from recsys.errors import DataError

TEXT = "item_id,title\n1,café\n"


@pytest.mark.parametrize("name", ["items.csv", "items.csv.gz"])
def test_a_file_is_decompressed_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()))

    with open_bytes(path) as file:
        assert file.read().decode() == TEXT


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(TEXT, encoding="utf-8-sig")

    assert read_head(path, 1000) == TEXT
    assert "".join(decode_lines(path)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
    ],
)
def test_wide_text_is_refused_with_a_command_that_converts_it(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path = tmp_path / "my items.csv"
    path.write_bytes(TEXT.encode(encoding))

    with pytest.raises(DataError, match=f"must be UTF-8, got {name}; convert it: iconv") as caught:
        read_head(path, 1000)

    subprocess.run(str(caught.value).partition("convert it: ")[2], shell=True, check=True)
    assert (tmp_path / "my items.utf8.csv").read_text("utf-8") == TEXT


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_text_of_windows_is_refused_with_its_line_and_a_command(
    tmp_path: Path, compress: type[bytes]
) -> None:
    path = tmp_path / ("items.csv" if compress is bytes else "items.csv.gz")
    path.write_bytes(compress(TEXT.encode("cp1252")))

    with pytest.raises(DataError, match=r"got the byte 0xe9 in line 2; .* convert it: ") as caught:
        list(decode_lines(path))

    subprocess.run(str(caught.value).partition("convert it: ")[2], shell=True, check=True)
    assert (tmp_path / "items.utf8.csv").read_text("utf-8") == TEXT
