"""Commands that train many towers to choose or to judge a configuration: tune, folds."""

import math
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli.options import Config, Json
from recsys.cli.output import console, print_json, print_rows
from recsys.cli.vision.inputs import Target, finest, load_samples, required
from recsys.data.files import whole_file, writing
from recsys.errors import InvalidArgumentError


def tune(
    config: Config,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the search; name it again to continue where it stopped."),
    ],
    trials: Annotated[int, typer.Option(help="Number of trials, with those of earlier runs.")] = 20,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric to optimise, such as loss; accuracy of the finest category level if unset."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the values that the configuration lists for the best result on val photos."""
    from recsys.config import load_config
    from vision.tuning.hyperparameters import SearchPlan, search_hyperparameters

    settings = load_config(config)
    if settings.search is None:
        raise InvalidArgumentError(
            f"{config} must name the fields to search, such as [search.learning_rate]"
        )
    samples = load_samples(settings, progress=not as_json)
    metric = metric or f"accuracy/{finest(samples.train.classes)}"
    with writing(out):
        found = search_hyperparameters(
            required(samples.train, config, "pictures to train on"),
            required(samples.validation, config, "photos whose split is val"),
            settings.vision,
            SearchPlan(settings.search, n_trials=trials, seed=settings.seed, metric=metric),
            workdir=out,
            progress=not as_json,
            device=settings.device,
        )
    table = out / "trials.parquet"
    with whole_file(table) as scratch:
        found.trials.write_parquet(scratch)
    best: Any = found.best.model_dump()
    chosen = {name: reduce(getitem, name.split("."), best) for name in settings.search.root}
    if as_json:
        print_json({"metric": metric, "value": found.value, "vision": chosen, "trials": table})
        return
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else value)
        for name, value in chosen.items()
    ]
    print_rows("best for [vision]", ("field", "value"), rows)
    console.print(f"{metric} {found.value:.3f} on val photos; all trials in {table}")


def folds(
    config: Config,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the runs; name it again to continue where it stopped."),
    ],
    count: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Cross-validate the configured tower on its training pictures.

    The folds are stratified by the target: each class is spread evenly over them.
    """
    from recsys.config import load_config
    from vision.tuning.folds import cross_validate, split_folds

    settings = load_config(config)
    samples = load_samples(settings, progress=not as_json)
    train = required(samples.train, config, "pictures to train on")
    split = split_folds(train, count, seed=settings.seed, target=target or finest(train.classes))
    with writing(out):
        result = cross_validate(
            train,
            settings.vision,
            split,
            workdir=out,
            seed=settings.seed,
            progress=not as_json,
            device=settings.device,
        )
    if as_json:
        # JSON has no nan, the deviation of a metric that only one fold has.
        std = {name: None if math.isnan(one) else one for name, one in result.std.items()}
        print_json({"mean": result.mean, "std": std})
        return
    rows = [(name, f"{mean:.3f}", f"{result.std[name]:.3f}") for name, mean in result.mean.items()]
    print_rows(f"{count} folds", ("metric", "mean", "std"), rows)
