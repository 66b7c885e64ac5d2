"""Pictures of the generated shop show what the products are, and only that."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.data.synthetic.camera import PICTURE_PX, Shot, customer_shot, studio_shot
from recsys.data.synthetic.pictures import Renderer
from recsys.data.synthetic.products import N_PROPORTIONS, Products, draw_products
from recsys.data.synthetic.shapes import box, lathe, stroke
from recsys.data.synthetic.silhouettes import draw_shape
from recsys.data.synthetic.vocabulary import COLOURS, FORMS, LEAVES, MATERIALS, PATTERNS


@pytest.fixture
def products() -> Products:
    return draw_products(60, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(rng=np.random.default_rng(0))


def _plain_shot(level: float = 128.0) -> Shot:
    shot = studio_shot(rng=np.random.default_rng(0))
    grey = np.full((PICTURE_PX, PICTURE_PX, 3), level, dtype=np.float32)
    return shot._replace(backdrop=grey, turn=0.0, scale=0.85, shift=(0.0, 0.0), noise=0.0)


def _render(renderer: Renderer, products: Products, row: int, shot: Shot) -> np.ndarray:
    return np.asarray(renderer.render(products, row, shot), dtype=np.float64)


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leaf", LEAVES)
def test_every_shape_fits_its_space_whatever_its_proportions(leaf: str, form: str) -> None:
    for corner in np.ndindex(*(2,) * N_PROPORTIONS):
        parts = draw_shape(leaf, form, [float(share) for share in corner])
        points = np.concatenate([outline for part in parts for outline in part.outlines])
        assert np.isfinite(points).all()
        # A pendant's cord may leave the picture; nothing else may by more than a hair.
        assert np.abs(points).max() <= (1.35 if leaf == "pendant" else 1.2)
        assert sum(_area(part.outlines[0]) for part in parts if part.role == "body") > 0.15


def test_forms_of_one_type_differ() -> None:
    for leaf in LEAVES:
        shapes = [draw_shape(leaf, form, [0.5] * N_PROPORTIONS) for form in FORMS]
        outlines = [
            np.concatenate([o for part in shape for o in part.outlines]).round(6).tobytes()
            for shape in shapes
        ]
        assert len(set(outlines)) == len(FORMS), leaf


def test_a_box_and_a_turned_body_have_the_area_that_geometry_says() -> None:
    assert _area(box(0.3, -0.2, 0.8, 0.5)) == pytest.approx(0.4)
    rounded = _area(box(0.0, 0.0, 0.8, 0.5, corner=0.1))
    assert rounded == pytest.approx(0.4 - (4 - np.pi) * 0.01, abs=2e-3)
    # A cylinder seen from slightly above: a rectangle and the two halves of an ellipse.
    cylinder = _area(lathe([-0.5, 0.5], [0.4, 0.4], smooth=False))
    assert cylinder == pytest.approx(0.8 + np.pi * 0.4 * 0.4 * 0.16, rel=0.02)
    line = _area(stroke(np.array([(0.0, 0.0), (0.3, 0.4)]), 0.1))
    assert line == pytest.approx(0.05)


def test_the_body_has_the_colour_that_the_product_is_of(
    renderer: Renderer, products: Products
) -> None:
    palette = np.array(list(COLOURS.values()), dtype=np.float64)
    ceramic = list(MATERIALS).index("ceramic")
    mugs = replace(
        products.take(np.arange(len(COLOURS))),
        leaf=np.full(len(COLOURS), list(LEAVES).index("mug")),
        material=np.full(len(COLOURS), ceramic),
        pattern=np.zeros(len(COLOURS), dtype=np.int64),
        colour=np.arange(len(COLOURS)),
        rgb=palette,
    )
    for row in range(len(COLOURS)):
        cup = _render(renderer, mugs, row, _plain_shot())[50:62, 40:48]
        seen = np.median(cup.reshape(-1, 3), axis=0)
        assert np.abs(palette - seen).sum(axis=1).argmin() == row, list(COLOURS)[row]


@pytest.mark.parametrize("fact", ["leaf", "colour", "material", "form", "pattern", "accent"])
def test_each_fact_of_the_look_changes_the_picture(
    renderer: Renderer, products: Products, fact: str
) -> None:
    palette = np.array(list(COLOURS.values()), dtype=np.float64)
    striped = np.array([PATTERNS.index("stripes")])
    one = replace(products.take(np.array([0])), rgb=palette[[0]], pattern=striped)
    start = replace(one, **{fact: np.array([0])})
    sizes = {"leaf": LEAVES, "material": MATERIALS, "form": FORMS, "pattern": PATTERNS}
    for code in range(1, len(sizes.get(fact, COLOURS))):
        other = replace(start, **{fact: np.array([code])})
        if fact == "colour":
            other = replace(other, rgb=palette[[code]])
        change = np.abs(
            _render(renderer, start, 0, _plain_shot()) - _render(renderer, other, 0, _plain_shot())
        )
        assert change.mean() > 0.5, code


@pytest.mark.parametrize("fact", ["brand", "theme", "price"])
def test_words_and_price_do_not_show_in_the_picture(
    renderer: Renderer, products: Products, fact: str
) -> None:
    changed = replace(products, **{fact: np.roll(getattr(products, fact), 1)})
    for row in range(12):
        before, after = (
            _render(renderer, them, row, _plain_shot()) for them in (products, changed)
        )
        np.testing.assert_array_equal(before, after)


def test_products_that_shoppers_cannot_tell_apart_differ_in_their_decoration() -> None:
    products = draw_products(1_350, rng=np.random.default_rng(0))
    chosen_by = np.stack([products.leaf, products.colour, products.material, products.form])
    decorated = np.concatenate([chosen_by, [products.pattern, products.accent]])
    alike, twins = (
        1 - len(np.unique(facts, axis=1).T) / len(products) for facts in (chosen_by, decorated)
    )
    assert alike > 0.25
    assert twins < 0.02
    assert (products.accent != products.colour).all()


def test_only_glass_lets_the_background_through(renderer: Renderer, products: Products) -> None:
    centre = PICTURE_PX // 2
    vase = replace(products, leaf=np.full(len(products), list(LEAVES).index("vase")))
    for name in ("glass", "ceramic"):
        made = replace(vase, material=np.full(len(vase), list(MATERIALS).index(name)))
        dark, bright = (_render(renderer, made, 0, _plain_shot(level)) for level in (40.0, 220.0))
        change = np.abs(bright - dark)[centre + 20, centre].max()
        assert (change > 30.0) == (name == "glass")


def test_a_customers_photo_is_of_the_same_product_taken_otherwise(
    renderer: Renderer, products: Products
) -> None:
    rng = np.random.default_rng(1)
    photos = [renderer.render(products, 0, customer_shot(rng=rng)) for _ in range(3)]
    arrays = [np.asarray(photo, dtype=np.float64) for photo in photos]
    assert all(photo.size == (PICTURE_PX, PICTURE_PX) for photo in photos)
    assert np.abs(arrays[0] - arrays[1]).mean() > 10.0
    assert np.abs(arrays[1] - arrays[2]).mean() > 10.0


def test_turning_the_camera_round_turns_the_picture() -> None:
    shot = _plain_shot()._replace(turn=np.pi, shift=(0.0, 0.0))
    upright = box(0.2, -0.4, 0.3, 0.1)
    placed = shot.place(upright)
    np.testing.assert_allclose(placed, -0.85 * upright, atol=1e-12)
