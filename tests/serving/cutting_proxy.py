"""Something between a client and Redis that cuts the connection after a number of bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class CuttingProxy:
    """Forwards everything until ``cut_after`` bytes went to the server, then refuses to.

    Attributes:
        url: Where clients connect.
        forwarded: Number of bytes that went to the server since it was last set.
        cut_after: Number of these bytes at which every connection ends; None forwards all.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.forwarded = 0
        self.cut_after: int | None = None

    def _portion(self, data: bytes) -> bytes:
        """Return the part of some bytes that is still forwarded."""
        if self.cut_after is None:
            return data
        return data[: max(0, self.cut_after - self.forwarded)]

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(2**16):
            portion = self._portion(data)
            self.forwarded += len(portion)
            target.write(portion)
            await target.drain()
            if portion != data:
                break

    async def serve(
        self, server_socket: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Connect one client to the server until either leaves or the connection is cut."""
        answers, requests = await asyncio.open_unix_connection(server_socket)
        both = asyncio.create_task(_copy(answers, writer))
        try:
            await self._forward(reader, requests)
        finally:
            both.cancel()
            for one in (requests, writer):
                one.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(2**16):
        target.write(data)
        await target.drain()


@asynccontextmanager
async def running_proxy(server_url: str, folder: Path) -> AsyncIterator[CuttingProxy]:
    """Yield a proxy to a Redis that listens on a Unix socket."""
    path = folder / "proxy.sock"
    proxy = CuttingProxy(f"unix://{path}")
    server_socket = server_url.removeprefix("unix://")
    listener = await asyncio.start_unix_server(
        lambda reader, writer: proxy.serve(server_socket, reader, writer), path
    )
    async with listener:
        yield proxy
