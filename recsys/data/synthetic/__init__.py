"""A generated shop with planted tastes: tables, product pictures and customers' photos."""

from recsys.data.synthetic.shop import Progress, Shop, generate_shop

__all__ = ["Progress", "Shop", "generate_shop"]
