"""The command that writes the vision tower as ONNX, for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.options import BundlePath, Json
from recsys.cli.output import console, print_json
from recsys.cli.vision.inputs import load_samples, required
from recsys.data.files import make_folder

CALIBRATION_PICTURES = 200  # enough to know the range of every activation


def export(
    bundle: BundlePath,
    out: Annotated[
        Path, typer.Option(help="Folder to write the ONNX files and their config.json to.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration file whose pictures calibrate an int8 version too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the vision tower as ONNX, and with a configuration as int8 ONNX too."""
    from recsys import Bundle
    from recsys.config import load_config
    from vision.deploy.export import INT8_FILE, MODEL_FILE, export_onnx

    tower, pictures = Bundle(bundle).vision, None
    files = [out / MODEL_FILE]
    if config is not None:
        train = load_samples(load_config(config), progress=not as_json).train
        images = required(train, config, "pictures to train on").images
        pictures = images[:: max(1, len(images) // CALIBRATION_PICTURES)]
        files.append(out / INT8_FILE)
    make_folder(out)
    export_onnx(tower, out, int8_calibration=pictures)
    if as_json:
        print_json({"files": files})
        return
    console.print(f"{' and '.join(file.name for file in files)} in {out}")
