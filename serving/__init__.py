"""Serve a bundle over gRPC, and call the service.

The names below are opened on first use, so that ``import serving`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client import AsyncClient, Client, Event, Filters, Item
    from serving.config import ServiceConfig
    from serving.rpc.server import Service, serve

_HOMES = {
    "AsyncClient": "serving.client",
    "Client": "serving.client",
    "Event": "serving.client",
    "Filters": "serving.client",
    "Item": "serving.client",
    "Service": "serving.rpc.server",
    "ServiceConfig": "serving.config",
    "serve": "serving.rpc.server",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Event",
    "Filters",
    "Item",
    "Service",
    "ServiceConfig",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
