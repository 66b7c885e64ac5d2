import sys

import pytest

from benchmarks.peers import check_installed


def test_a_library_that_is_missing_ends_the_run_and_is_named() -> None:
    with pytest.raises(SystemExit, match="but it has no no_such_library: install them"):
        check_installed(sys.executable, ["numpy", "no_such_library"])


def test_libraries_that_are_there_are_enough() -> None:
    check_installed(sys.executable, ["numpy", "scipy"])
