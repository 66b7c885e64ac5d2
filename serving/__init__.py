"""Serve a bundle over gRPC, and call the service.

The names below are opened on first use, so that ``import serving`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.async_client import AsyncClient
    from serving.client import Client
    from serving.config import ServiceConfig
    from serving.messages import Event, Filters, Item
    from serving.server import Service, serve

_HOMES = {
    "AsyncClient": "serving.async_client",
    "Client": "serving.client",
    "Event": "serving.messages",
    "Filters": "serving.messages",
    "Item": "serving.messages",
    "Service": "serving.server",
    "ServiceConfig": "serving.config",
    "serve": "serving.server",
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
