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
    photo: Annotated[Path, typer.Argument(help="Image file to classify.")],
    out: Annotated[
        Path, typer.Option(help="PNG file to write: the image with a heat map over it.")
    ],
    target: Target = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the predicted one if unset.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="Method of explanation: grad_cam, lime or shap.")
    ] = "grad_cam",
    as_json: Json = False,
) -> None:
    """Show in red which parts of an image speak for a class, and in blue which against it."""
    from recsys import Bundle
    from vision.explain import explain as run
    from vision.explain import overlay

    check_suffix(out, ".png")
    tower = Bundle(bundle).vision
    target = target or finest(tower.classes)
    known = cast("Method", method)  # the function lists the known methods in its error
    found = run(tower, photo, target=target, class_name=class_name, method=known)
    write_picture(overlay(found), out)
    if as_json:
        answer = {"target": target, "class": found.class_name, "probability": found.probability}
        print_json({**answer, "file": out})
        return
    console.print(
        f"{target}: {found.class_name}, probability {found.probability:.3f}; heat map in {out}"
    )
