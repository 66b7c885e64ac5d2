"""The command that explains a prediction of the vision tower."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recsys.cli.options import BundlePath, Json, check_suffix
from recsys.cli.output import console, print_json, write_picture
from recsys.cli.vision.inputs import Target, finest

if TYPE_CHECKING:
    from vision.explain import Method


def explain(
    bundle: BundlePath,
    photo: Annotated[Path, typer.Argument(help="Image file.")],
    out: Annotated[Path, typer.Option(help="PNG file to write, the image under a heat map.")],
    target: Target = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the predicted class if unset.")
    ] = None,
    method: Annotated[str, typer.Option(help="Method: grad_cam, lime or shap.")] = "grad_cam",
    as_json: Json = False,
) -> None:
    """Show which parts of an image raise the score of a class (red) or lower it (blue)."""
    from recsys import Bundle
    from vision.explain import explain as run
    from vision.explain import overlay

    check_suffix(out, ".png")
    tower = Bundle(bundle).vision
    target = target or finest(tower.classes)
    # vision.explain refuses an unknown method.
    known = cast("Method", method)
    found = run(tower, photo, target=target, class_name=class_name, method=known)
    write_picture(overlay(found), out)
    if as_json:
        answer = {"target": target, "class": found.class_name, "probability": found.probability}
        print_json({**answer, "file": out})
        return
    console.print(
        f"{target}: {found.class_name}, probability {found.probability:.3f}; heat map in {out}"
    )
