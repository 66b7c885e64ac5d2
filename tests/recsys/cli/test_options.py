from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from recsys.cli.options import check_suffix, with_options
from recsys.errors import InvalidArgumentError


@dataclass(frozen=True)
class Prices:
    """Range of prices."""

    price_min: Annotated[float | None, typer.Option(help="Lowest price.")] = None
    price_max: Annotated[float, typer.Option(help="Highest price.")] = 9.0


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @with_options
    def search(
        text: Annotated[str, typer.Argument()],
        prices: Prices,
        k: Annotated[int, typer.Option("-k")] = 3,
    ) -> None:
        """Search."""
        typer.echo(f"{text} {prices} {k}")

    answer = CliRunner().invoke(app, words)
    return answer.exit_code, answer.output


def test_fields_of_a_dataclass_become_options_and_the_command_gets_the_dataclass() -> None:
    assert run("lamp", "--price-min", "2", "-k", "5") == (
        0,
        f"lamp {Prices(price_min=2.0, price_max=9.0)} 5\n",
    )


def test_options_that_are_not_given_have_the_defaults_of_the_fields() -> None:
    assert run("lamp") == (0, f"lamp {Prices()} 3\n")


def test_help_lists_the_fields_beside_the_other_options() -> None:
    _, said = run("--help")

    assert "Lowest price." in said
    assert "--price-max" in said
    assert "--prices" not in said


def test_a_value_of_another_type_is_a_usage_error() -> None:
    code, said = run("lamp", "--price-max", "cheap")

    assert code == 2
    assert "price" in said


def test_a_file_name_must_have_a_known_suffix() -> None:
    check_suffix(Path("table.csv"), ".parquet", ".csv")
    with pytest.raises(InvalidArgumentError, match=r"\.parquet or \.csv, got 'table\.txt'"):
        check_suffix(Path("table.txt"), ".parquet", ".csv")
