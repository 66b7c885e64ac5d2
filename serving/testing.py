"""Run a service in the same process, to test programs that call it."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serving.config import build_config
from serving.rpc.server import Service


@asynccontextmanager
async def running_service(bundle_path: str | Path, **settings: Any) -> AsyncIterator[Service]:
    """Yield a service on a free loopback port, with its own Redis unless ``redis`` names one.

    Args:
        bundle_path: Bundle, or folder of bundles.
        **settings: Fields of ``ServiceConfig``; the environment is not read.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-") as folder:
        state = {"port": 0, "state": Path(folder) / "state"}
        service = await Service.start(bundle_path, build_config({}, **(state | settings)))
        try:
            yield service
        finally:
            await service.stop()
