"""A Redis that the service did not start, and one whose data is damaged."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from serving.state.embedded_redis import find_redis_server


@contextlib.contextmanager
def running_redis(folder: Path, *arguments: str) -> Iterator[str]:
    """Yield the URL of a redis-server on a Unix socket in a folder, once it answers.

    Args:
        folder: Folder of its socket and files.
        *arguments: Further arguments of redis-server.
    """
    socket = folder / "plain.sock"
    command = [find_redis_server(), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--dir", str(folder), *arguments], **silent) as process:
        deadline = time.monotonic() + 30
        while not _answers(socket):
            assert process.poll() is None, f"redis-server ended with {process.returncode}"
            assert time.monotonic() < deadline, "redis-server must answer within 30 s"
            time.sleep(0.02)
        try:
            yield f"unix://{socket}"
        finally:
            process.terminate()


def damage(folder: Path) -> None:
    """Overwrite the beginning of the append-only file in a state folder."""
    file = next(path for path in folder.rglob("appendonly*") if path.is_file())
    file.write_bytes(b"no append-only file" + file.read_bytes()[30:])


def _answers(socket: Path) -> bool:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        try:
            client.ping()
        except redis.AuthenticationError:  # a refusal is an answer
            return True
        except redis.ConnectionError:
            return False
    return True
