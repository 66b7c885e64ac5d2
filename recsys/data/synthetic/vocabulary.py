"""What the generated shop sells, and the words and colours that it uses."""

from typing import NamedTuple


class Leaf(NamedTuple):
    """One product type: where it stands in the shop, how it is called, what it is made of."""

    path: tuple[str, str, str]
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    price: float
    peak_month: int | None  # 1-12, the month in which it sells best


class Theme(NamedTuple):
    """One style, the words a title may use for it, and the month in which it sells best."""

    words: tuple[str, ...]
    mood: str
    peak_month: int | None


LEAVES: dict[str, Leaf] = {
    "table_lamp": Leaf(
        ("Home", "Lighting", "Table lamp"),
        ("table lamp", "desk lamp", "bedside lamp"),
        ("wood", "metal", "glass", "ceramic", "rattan"),
        69.0,
        11,
    ),
    "pendant": Leaf(
        ("Home", "Lighting", "Pendant lamp"),
        ("pendant lamp", "pendant light", "ceiling lamp"),
        ("wood", "metal", "glass", "fabric", "rattan"),
        89.0,
        None,
    ),
    "chair": Leaf(
        ("Home", "Furniture", "Chair"),
        ("chair", "dining chair", "side chair"),
        ("wood", "metal", "fabric", "leather", "rattan"),
        129.0,
        None,
    ),
    "side_table": Leaf(
        ("Home", "Furniture", "Side table"),
        ("side table", "coffee table", "end table"),
        ("wood", "metal", "glass", "ceramic", "rattan"),
        139.0,
        None,
    ),
    "vase": Leaf(
        ("Home", "Decor", "Vase"),
        ("vase", "flower vase", "bud vase"),
        ("wood", "metal", "glass", "ceramic", "rattan"),
        34.0,
        None,
    ),
    "clock": Leaf(
        ("Home", "Decor", "Wall clock"),
        ("wall clock", "clock", "kitchen clock"),
        ("wood", "metal", "glass", "ceramic", "leather"),
        45.0,
        None,
    ),
    "mug": Leaf(
        ("Kitchen", "Drinkware", "Mug"),
        ("mug", "coffee mug", "cup"),
        ("wood", "metal", "glass", "ceramic"),
        16.0,
        12,
    ),
    "teapot": Leaf(
        ("Kitchen", "Drinkware", "Teapot"),
        ("teapot", "tea pot", "infuser teapot"),
        ("metal", "glass", "ceramic", "wood"),
        39.0,
        12,
    ),
    "handbag": Leaf(
        ("Fashion", "Bags", "Handbag"),
        ("handbag", "tote", "shoulder bag"),
        ("fabric", "leather", "rattan", "metal"),
        95.0,
        None,
    ),
    "backpack": Leaf(
        ("Fashion", "Bags", "Backpack"),
        ("backpack", "rucksack", "daypack"),
        ("fabric", "leather", "rattan", "metal"),
        85.0,
        9,
    ),
    "planter": Leaf(
        ("Garden", "Pots", "Plant pot"),
        ("plant pot", "planter", "flower pot"),
        ("wood", "metal", "ceramic", "rattan", "fabric"),
        28.0,
        4,
    ),
    "lantern": Leaf(
        ("Garden", "Lights", "Lantern"),
        ("lantern", "garden lantern", "candle lantern"),
        ("wood", "metal", "ceramic", "rattan", "fabric"),
        42.0,
        7,
    ),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "ivory": (236, 226, 200),
    "charcoal": (62, 64, 72),
    "red": (200, 42, 48),
    "orange": (236, 128, 44),
    "mustard": (222, 184, 50),
    "green": (78, 142, 62),
    "teal": (42, 150, 150),
    "blue": (48, 88, 184),
    "purple": (124, 70, 160),
    "pink": (236, 138, 168),
}

# What a material does to the price of a product.
MATERIALS: dict[str, float] = {
    "wood": 1.0,
    "metal": 1.15,
    "glass": 0.95,
    "ceramic": 0.9,
    "fabric": 0.85,
    "leather": 1.5,
    "rattan": 0.8,
}

FORMS = ("round", "straight", "flared")

PATTERNS = (
    "plain",
    "bands",
    "dots",
    "panel",
    "stripes",
    "checks",
    "zigzag",
    "sash",
    "medallion",
)

THEMES: dict[str, Theme] = {
    "nordic": Theme(("Nordic", "Scandi", "Fjord"), "calm northern evenings", None),
    "retro": Theme(("Retro", "Vintage", "Seventies"), "a room with a record player", None),
    "botanical": Theme(("Botanical", "Fern", "Herbarium"), "people who talk to plants", 4),
    "nautical": Theme(("Nautical", "Harbour", "Seaside"), "a house near the sea", 7),
    "industrial": Theme(("Industrial", "Loft", "Factory"), "high ceilings and bare brick", None),
    "boho": Theme(("Boho", "Bohemian", "Caravan"), "long Sundays and many cushions", None),
    "minimal": Theme(("Minimal", "Pure", "Essential"), "those who choose well", None),
    "rustic": Theme(("Rustic", "Farmhouse", "Country"), "a kitchen that smells of bread", 10),
    "deco": Theme(("Art Deco", "Gatsby", "Jazz Age"), "cocktails at eight", None),
    "zen": Theme(("Zen", "Wabi Sabi", "Kyoto"), "a quiet corner", None),
    "tropical": Theme(("Tropical", "Palm", "Jungle"), "summer all year", 6),
    "festive": Theme(("Festive", "Winter", "Yuletide"), "the darkest month", 12),
    "alpine": Theme(("Alpine", "Chalet", "Mountain"), "snow outside and fire inside", 1),
    "pop": Theme(("Pop", "Playful", "Memphis"), "anyone bored of beige", None),
    "royal": Theme(("Royal", "Baroque", "Palace"), "a grand entrance", None),
}

# What a brand does to the price of a product.
BRANDS: dict[str, float] = {
    "Aldero": 0.8,
    "Brenna": 1.2,
    "Casa Lume": 1.4,
    "Dorvik": 0.9,
    "Elmstead": 1.0,
    "Fablewood": 1.1,
    "Granby": 0.7,
    "Hollis & Finch": 1.5,
    "Ivorna": 0.9,
    "Juniper Lane": 1.0,
    "Kestrel": 1.2,
    "Lindqvist": 1.3,
    "Marlowe": 1.0,
    "Norrhem": 0.8,
    "Oakhurst": 1.1,
    "Pellini": 1.6,
    "Quillon": 0.9,
    "Rosewick": 1.0,
    "Solbakken": 1.2,
    "Tamarin": 0.7,
    "Ulverton": 1.0,
    "Velloso": 1.4,
    "Wrenfield": 0.9,
    "Yarrow": 0.8,
    "Zephyrine": 1.3,
}
