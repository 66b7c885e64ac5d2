"""Measure each step of the Grocery Store recipe on val, for the table in docs/vision.md.

Run from the repository's root, after ``python -m benchmarks.myntra``:
``python -m benchmarks.grocery_steps``. Towers of an earlier run are used again. Val has 296 photos,
so a difference below .03 may be chance.
"""

from pathlib import Path

from benchmarks.grocery_scratch import CONFIG, LEVELS, OUT, accuracies, load_grocery, train
from benchmarks.record import record
from vision import Samples, VisionTower

COMMAND = "python -m benchmarks.grocery_steps"
BASELINE = Path("configs/grocery_store.toml")
STEPS = Path("out/grocery-steps")


def main() -> None:
    """Train each step and record its accuracies on val."""
    samples, plain = load_grocery(BASELINE)
    recipe = load_grocery(CONFIG)[1]
    myntra = plain.model_copy(update={"pretrained": recipe.pretrained, "epochs": 40})
    assert samples.validation is not None
    for name, config in {"baseline": plain, "myntra": myntra}.items():
        show(name, one_view(train(samples, config, STEPS / name, 0), samples.validation))
    tower = train(samples, recipe, OUT / "seed-0", 0)
    show("larger", one_view(tower, samples.validation))
    show("views", accuracies(tower, samples.validation))


def one_view(tower: VisionTower, samples: Samples) -> dict[str, float]:
    """Return the accuracy of each level, predicted by its own head from the whole picture."""
    root = samples.root or Path()
    predicted = tower.predict_proba([root / image for image in samples.images], precision="auto")
    return {
        name: float((predicted[target].argmax(axis=1) == samples.targets[target]).mean())
        for name, target in LEVELS.items()
    }


def show(name: str, measured: dict[str, float]) -> None:
    """Print and record the accuracies of one step."""
    print(name, measured, flush=True)
    for level, value in measured.items():
        record("grocery", f"grocery.steps.{name}.{level}", value, "accuracy", COMMAND)


if __name__ == "__main__":
    main()
