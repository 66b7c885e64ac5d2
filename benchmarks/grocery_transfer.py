"""Fine-tune published weights on Grocery Store, and record test accuracies of three seeds.

Run from the repository's root: ``python -m benchmarks.grocery_transfer``. It needs the extra
``weights``. Towers of an earlier run are used again. ``--seed N`` trains one seed and measures on
val only.
"""

from pathlib import Path

from benchmarks.grocery_scratch import measure_recipe

COMMAND = "python -m benchmarks.grocery_transfer"
CONFIG = Path("configs/grocery_transfer.toml")
OUT = Path("out/grocery-transfer")


def main() -> None:
    """Measure the recipe that starts from ImageNet weights."""
    measure_recipe("transfer", CONFIG, OUT, COMMAND, views="flip")


if __name__ == "__main__":
    main()
