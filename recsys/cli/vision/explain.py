"""The command that shows why a tower answers as it does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recsys.cli.output import console, print_json, write_picture
from recsys.cli.vision.inputs import BundleFolder, Json, Target, check_suffix, finest

if TYPE_CHECKING:
    from vision.explain import Method


def explain(
    bundle: BundleFolder,
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    out: Annotated[Path, typer.Option(help="PNG to write: the picture under a map of heat.")],
    target: Target = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the predicted if unset.")
    ] = None,
    method: Annotated[str, typer.Option(help="grad_cam, lime or shap.")] = "grad_cam",
    as_json: Json = False,
) -> None:
    """Show which parts of a picture speak for a class, in red, and which against it, in blue."""
    from recsys import Bundle
    from vision.explain import explain as run
    from vision.explain import overlay

    check_suffix(out, ".png")
    tower = Bundle(bundle).vision
    target = target or finest(tower.classes)
    # An unknown method is refused where methods are known.
    known = cast("Method", method)
    found = run(tower, photo, target=target, class_name=class_name, method=known)
    write_picture(overlay(found), out)
    if as_json:
        answer = {"target": target, "class": found.class_name, "probability": found.probability}
        print_json({**answer, "file": out})
        return
    console.print(
        f"{target}: {found.class_name}, probability {found.probability:.3f}; heat in {out}"
    )
