"""A generated shop with planted tastes: tables, product pictures and customers' photos."""

from recsys.data.synthetic.shop import Shop, generate_shop

__all__ = ["Shop", "generate_shop"]
