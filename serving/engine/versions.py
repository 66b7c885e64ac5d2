"""The bundles of a service: the served one, one beside it, and their exchange under load."""

import asyncio
import ctypes
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from recsys.bundle.finding import find_bundle
from recsys.bundle.manifest import VERSION_LENGTH, bundle_version
from recsys.errors import BundleError, InvalidArgumentError, RecsysError
from recsys.recommender import Recommender
from serving.engine.engine import Engine
from serving.engine.split import Split
from serving.errors import StateError, UnavailableError

logger = logging.getLogger(__name__)

_VERSION = re.compile(rf"[0-9a-f]{{{VERSION_LENGTH}}}")
_LOOK_S = 1.0  # between two looks for a newer bundle
_RETRY_S = 30.0  # after one that cannot be served; it may still be on its way here


class Opened:
    """A bundle that is open, and the calls that it answers now.

    Args:
        engine: Engine over the bundle.
        resources: What the engine needs; closed by ``close``.
    """

    def __init__(self, engine: Engine, resources: AsyncExitStack) -> None:
        self.engine = engine
        self._resources = resources
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def in_use(self) -> Iterator[Engine]:
        """Yield the engine, which stays open until the end of the block."""
        self._calls += 1
        self._idle.clear()
        try:
            yield self.engine
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self) -> None:
        """Wait until no call uses the bundle, and close it."""
        await self._idle.wait()
        await self._resources.aclose()


class Status(NamedTuple):
    """What a service serves.

    Args:
        served: Version of the bundle that is served.
        previous: Version that a roll-back serves; None before the first swap.
        loaded: Version of the bundle beside it; None if there is no such bundle.
        closing: Number of bundles that still end the calls that they have.
        split: How users are divided between the two; None if there is one bundle.
    """

    served: str
    previous: str | None
    loaded: str | None
    closing: int
    split: Split | None


class _Found(NamedTuple):
    version: str
    path: Path


class Versions:
    """Opens bundles of one folder and exchanges the one that is served.

    A call takes the engine of one bundle and keeps it, so each answer is of one version. A bundle
    that was exchanged ends its calls and is closed, which frees its memory.

    Args:
        folder: Folder of the bundles, each under its version.
        read: Function that opens a bundle; it runs in a thread, for it takes seconds.
        running: Function that returns a running engine over an open bundle.
        on_served: Function that gets each version that is served from now on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        read: Callable[[Path], Recommender],
        running: Callable[[Recommender], AbstractAsyncContextManager[Engine]],
        on_served: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._read = read
        self._running = running
        self._on_served = on_served
        self._served: Opened
        self._loaded: Opened | None = None
        self._split: Split | None = None
        self._previous: str | None = None
        self._changing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self, first: Recommender) -> Self:
        """Serve a first bundle; errors as ``running_engine``."""
        self._served = await self._run(first)
        self._on_served(first.version)
        return self

    async def close(self) -> None:
        """Close all bundles, once the calls that use them have ended."""
        async with self._changing:
            self._close_loaded()
            self._retire(self._served)
            await asyncio.gather(*self._closing)

    @contextmanager
    def answering(self, user_id: str | None) -> Iterator[Engine]:
        """Yield the engine of the bundle that answers a call, until the call ends.

        Args:
            user_id: User whom the call is for; None for a call that is for no user.
        """
        opened = self._served
        if user_id is not None and self._split is not None and self._loaded is not None:
            version = self._split.choose(user_id)
            opened = self._loaded if version == self._loaded.engine.version else self._served
        with opened.in_use() as engine:
            yield engine

    def status(self) -> Status:
        """Return what is served, and what stands by."""
        loaded = self._loaded.engine.version if self._loaded is not None else None
        served = self._served.engine.version
        return Status(served, self._previous, loaded, len(self._closing), self._split)

    async def load(self, version: str, *, share: float) -> None:
        """Open a bundle beside the served one, for a share of the users.

        Args:
            version: Version of the bundle; empty for the latest.
            share: Share of the users that it answers, 0 to 1. A bundle that is already loaded gets
                the new share.

        Raises:
            InvalidArgumentError: If the version is malformed or is served, or the share is out of
                range.
            BundleError: If the bundle is missing, damaged, or lacks a part.
            UnavailableError: If Redis is away.
        """
        if not 0 <= share <= 1:  # false for NaN
            raise InvalidArgumentError(f"share must be between 0 and 1, got {share}")
        async with self._changing:
            found = await self._find(version)
            served = self._served.engine.version
            if found.version == served:
                raise InvalidArgumentError(
                    f"bundle {served} must be another than the served one; swap to another first"
                )
            opened = self._loaded
            if opened is None or opened.engine.version != found.version:
                opened = await self._open(found.path)
                self._close_loaded()
            self._loaded = opened
            self._split = Split(served, found.version, share) if share else None
        logger.info("bundle %s is loaded for a share of %g of the users", found.version, share)

    async def unload(self) -> None:
        """Close the bundle beside the served one, if there is one."""
        async with self._changing:
            self._close_loaded()

    async def swap(self, version: str = "") -> None:
        """Serve a bundle in place of the served one; if it is that one, nothing happens.

        Args:
            version: Version of the bundle; empty for the latest.

        Raises:
            InvalidArgumentError: If the version is malformed.
            BundleError: If the bundle is missing, damaged, or lacks a part that the served one has.
            UnavailableError: If Redis is away.
        """
        async with self._changing:
            await self._swap(await self._find(version))

    async def roll_back(self) -> None:
        """Serve the bundle again that was served before.

        Raises:
            BundleError: If there was none, or it cannot be opened any more.
            UnavailableError: If Redis is away.
        """
        async with self._changing:
            if self._previous is None:
                raise BundleError(
                    f"bundle {self._served.engine.version} is the first that this service serves; "
                    "to serve another one, swap to it by its version"
                )
            await self._swap(await self._find(self._previous))

    async def watch(self, *, look_s: float = _LOOK_S, retry_s: float = _RETRY_S) -> None:
        """Serve each bundle that becomes the latest of the folder, until cancelled.

        After a roll-back, the bundle that was left is not taken again.

        Args:
            look_s: Seconds between two looks.
            retry_s: Seconds after which a bundle that cannot be served is tried again.
        """
        taken, said = self._served.engine.version, ""
        while True:
            await asyncio.sleep(look_s)
            try:
                found = await self._find("")
                if found.version != taken:
                    await self.swap()
                    taken = found.version
            except (RecsysError, OSError) as error:
                if str(error) != said:
                    logger.error("the latest bundle cannot be served: %s", error)
                said = str(error)
                await asyncio.sleep(retry_s)

    async def _find(self, version: str) -> _Found:
        """Return the folder of a bundle."""
        if not version:
            path = await asyncio.to_thread(find_bundle, self._folder)
            return _Found(bundle_version(path), path)
        if not _VERSION.fullmatch(version):
            raise InvalidArgumentError(
                f"bundle_version must have {VERSION_LENGTH} digits of 0-9 and a-f, got {version!r}"
            )
        return _Found(version, self._folder / version)

    async def _swap(self, found: _Found) -> None:
        left = self._served
        if found.version == left.engine.version:
            return
        if self._loaded is not None and self._loaded.engine.version == found.version:
            opened, self._loaded, self._split = self._loaded, None, None
        else:
            opened = await self._open(found.path)
            self._close_loaded()  # its share was meant beside the bundle that is left
        self._served, self._previous = opened, left.engine.version
        self._on_served(opened.engine.version)
        self._retire(left)
        logger.info("serving bundle %s in place of %s", found.version, left.engine.version)

    async def _open(self, path: Path) -> Opened:
        recommender = await asyncio.to_thread(self._read, path)
        missing = self._served.engine.parts - recommender.parts
        if missing:
            raise BundleError(
                f"bundle {recommender.version} must have all parts of the served one, but lacks "
                f"{sorted(missing)}; start the service with it if that is meant"
            )
        try:
            return await self._run(recommender)
        except StateError as error:
            raise UnavailableError(f"bundle {path.name} cannot be served now: {error}") from error

    async def _run(self, recommender: Recommender) -> Opened:
        resources = AsyncExitStack()
        engine = await resources.enter_async_context(self._running(recommender))
        return Opened(engine, resources)

    def _close_loaded(self) -> None:
        if self._loaded is not None:
            self._retire(self._loaded)
        self._loaded = self._split = None

    def _retire(self, opened: Opened) -> None:
        """Close a bundle once its calls have ended."""
        task = asyncio.create_task(_close(opened))
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a bundle was not closed as it should be", exc_info=error)


async def _close(opened: Opened) -> None:
    await opened.close()
    del opened  # the last reference, so its memory is free by now
    await asyncio.to_thread(_return_memory)


def _return_memory() -> None:
    """Give memory that is free back to the system, where the C library (glibc) would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
