"""Commands for the vision tower alone: report, explain, select, tune, folds, export."""

import typer

from recsys.cli.vision import explain, export, report, select, tuning


def build_app() -> typer.Typer:
    """Return the commands under ``recsys vision``."""
    app = typer.Typer(
        help="Measure, explain, tune and export the vision tower.", no_args_is_help=True
    )
    app.command("report")(report.report)
    app.command("explain")(explain.explain)
    app.command("select")(select.select)
    app.command("tune")(tuning.tune)
    app.command("folds")(tuning.folds)
    app.command("export")(export.export)
    return app
