"""The shape of every product type, by name."""

from collections.abc import Callable, Sequence

from recsys.data.synthetic import built, turned
from recsys.data.synthetic.shapes import Part

_DRAWERS: dict[str, Callable[[str, Sequence[float]], list[Part]]] = {
    "table_lamp": turned.table_lamp,
    "pendant": turned.pendant,
    "chair": built.chair,
    "side_table": built.side_table,
    "vase": turned.vase,
    "clock": built.clock,
    "mug": turned.mug,
    "teapot": turned.teapot,
    "handbag": built.handbag,
    "backpack": built.backpack,
    "planter": turned.planter,
    "lantern": turned.lantern,
}


def draw_shape(leaf: str, form: str, proportions: Sequence[float]) -> list[Part]:
    """Return the parts of a product, back to front.

    Args:
        leaf: Key of the vocabulary's ``LEAVES``.
        form: One of the vocabulary's ``FORMS``.
        proportions: Four numbers in [0, 1] that make products of one type and form differ.
    """
    return _DRAWERS[leaf](form, proportions)
