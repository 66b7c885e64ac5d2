from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster

from recsys.errors import ConfigError
from serving.state.redis_url import build_client, without_password


def settings_of(url: str) -> dict[str, Any]:
    """Return what the connections of a client for the URL are made with."""
    settings: dict[str, Any] = build_client(url, 1).connection_pool.connection_kwargs
    return settings


@pytest.mark.parametrize(
    "url",
    [
        "embeded",
        "",
        "http://host",
        "redis://host:port",
        "redis://host:99999",
        "redis://host:0",
        "rediss+cluster://host:0",
        "redis://",
        "redis://:6379/0",
        "unix://",
        "redis://host/shop",
        "redis://host/0/1",
        "redis://host#fragment",
        "redis+cluster://host/1",
        "rediss://host?ssl_cert_reqs=maybe",
    ],
)
def test_the_error_for_a_bad_url_shows_a_good_one(url: str) -> None:
    with pytest.raises(ConfigError, match="a URL such as redis://host:6379/0, got"):
        build_client(url, 1)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se/same@host:6379",
        "redis://user:sesame@host:port",
        "redis//user:sesame@host",
        "user:sesame@host",
        "sesame://sesame@host",
        "Redis://:sesame@host:port",
        "redis+cluster://:sesame@ses@host:port",
        "redis://:[sesame@host",
        "redis://host:port/0?password=sesame",
        "redis://host:port/0?password=se@same",
        "redis://:sesame?sesame@host:port",
        "redis://user:sesame?sesame@host",
        "redis://host/0?sesame=sesame@host",
        "redis://:12?db=sesame@host",
        "redis://user:0?sesame@host",
    ],
)
def test_the_password_of_a_url_that_cannot_be_read_is_never_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"got '.*'.*check scheme, host, port") as caught:
        build_client(url, 1)

    shown = str(caught.value)
    assert not any(part in shown for part in ("ses", "same", "user:"))
    assert caught.value.__suppress_context__  # a traceback would show the cause


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:sesame@host:6379/0", "redis://host:6379/0"),
        ("redis+cluster://:sesame@host:6379", "redis+cluster://host:6379"),
        ("unix:///run/redis.sock?db=0&password=sesame", "unix:///run/redis.sock"),
        ("rediss://host/1", "rediss://host/1"),
        ("redis:/user:sesame@host", "host"),
        ("embeded", "embeded"),
    ],
)
def test_a_url_is_shown_without_password_and_options(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "option",
    [
        "decode_responses=True",
        "protocol=3",
        "encoding=latin-1",
        "single_connection_client=True",
        "socket_timeout=60",
        "retry_on_timeout=True",
        "legacy_responses=False",
        "ssl_ca_certs=ca.pem",
    ],
)
def test_an_option_that_would_change_replies_or_waits_is_refused_by_name(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(ConfigError, match=f"without the option '{name}', which is unknown for"):
        build_client(f"redis://host/0?{option}", 1)


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("db=-1", "a whole number from 0 as the option db of its URL, got '-1'"),
        ("db=first", "a whole number from 0 as the option db of its URL, got 'first'"),
        ("db=", "a whole number from 0 as the option db of its URL, got ''"),
        ("health_check_interval=-1", "a whole number from 0 as the option health_check_interval"),
        ("max_connections=0", "a whole number from 1 as the option max_connections"),
        ("client_name=my%20shop", "without blanks as the option client_name .*, got 'my shop'"),
        ("client_name=shop%0A", "without blanks as the option client_name"),
        ("socket_keepalive=maybe", "true or false as the option socket_keepalive"),
        ("ssl_check_hostname=off", "true or false as the option ssl_check_hostname"),
        ("ssl_min_version=3", "771 .* as the option ssl_min_version"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_with_what_it_can(
    option: str, wanted: str
) -> None:
    with pytest.raises(ConfigError, match=f"redis must have .*{wanted}"):
        build_client(f"rediss://host/0?{option}", 1)


def test_a_certificate_that_cannot_be_read_is_named_by_its_option() -> None:
    with pytest.raises(ConfigError, match="must name a readable file in the option ssl_ca_certs"):
        build_client("rediss://host?ssl_ca_certs=/nowhere/ca.pem", 1)


def test_a_misspelt_option_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"'max_connection', .*did you mean max_connections\?"):
        build_client("redis://host?max_connection=3", 1)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://host/3", {"host": "host", "db": 3}),
        ("redis://[::1]:7/?db=2", {"host": "::1", "port": 7, "db": 2}),
        ("redis://user:p%40s%2Fs%23%3F@host", {"username": "user", "password": "p@s/s#?"}),
        ("unix:///run/my%20redis.sock?db=2", {"path": "/run/my redis.sock", "db": 2}),
        (
            "redis://host?health_check_interval=30&client_name=shop@eu&socket_keepalive=Yes",
            {"health_check_interval": 30, "client_name": "shop@eu", "socket_keepalive": True},
        ),
        (
            "rediss://host?ssl_min_version=771&ssl_check_hostname=false",
            {"ssl_min_version": 771, "ssl_check_hostname": False},
        ),
    ],
)
def test_options_that_say_how_to_reach_redis_are_kept_beside_ours(
    url: str, wanted: dict[str, Any]
) -> None:
    found = settings_of(url)

    assert found | wanted == found
    assert (found["protocol"], found["socket_timeout"]) == (2, 1)


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster"])
async def test_a_cluster_may_be_called_with_tls(scheme: str) -> None:
    client = build_client(f"{scheme}://host:7/0?client_name=shop", 1)

    assert isinstance(client, RedisCluster)
    assert ("ssl_ca_certs" in client.connection_kwargs) == (scheme == "rediss+cluster")
