from pathlib import Path

import pytest

from recsys.data.sources.registry import SOURCES, import_source
from recsys.errors import DataError


def test_an_unknown_source_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    wanted = "of amazon-beauty, folder, grocery-store, myntra, online-retail, got 'netflix'"

    with pytest.raises(ValueError, match=wanted):
        import_source("netflix", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_says_what_is_wrong_with_an_empty_folder_and_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="empty"):
        import_source(name, tmp_path / "empty", tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
