import hashlib
import os
from pathlib import Path

import pytest

from protos.recsys.v1 import recommender_pb2
from recsys.errors import ConfigError
from serving.auth import bearer
from serving.errors import ForbiddenError, UnauthenticatedError
from serving.tokens import ROLES, Caller, Role, Tokens, read_tokens, role_of


def entry(name: str, role: str, token: str) -> str:
    return f'[{name}]\nrole = "{role}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    roles = ("shop", "read"), ("feed", "write"), ("ops", "admin")
    path.write_text("".join(entry(name, role, f"{name}-secret") for name, role in roles))
    return path


def test_a_token_permits_what_its_role_does(file: Path) -> None:
    tokens = Tokens(file=file)
    permitted: dict[str, list[Role]] = {
        "shop": ["read"],
        "feed": ["read", "write"],
        "ops": ["read", "write", "admin"],
    }

    for name, roles in permitted.items():
        for role in ("read", "write", "admin"):
            sent = (bearer(f"{name}-secret"),)
            if role in roles:
                assert tokens.check(sent, role).name == name
            else:
                with pytest.raises(ForbiddenError, match=f"must have the role {role}"):
                    tokens.check(sent, role)


def test_the_one_token_of_the_environment_permits_everything(file: Path) -> None:
    for tokens in (Tokens("sesame"), Tokens("sesame", file)):
        assert tokens.check((bearer("sesame"),), "admin") == Caller("token", "admin")
    assert Tokens().check((), "admin") == Caller("", "admin")


@pytest.mark.parametrize("token", ["", "sesam", "sesame!", "Sesame", "ſesame"])
def test_another_token_is_refused_without_naming_the_right_one(token: str) -> None:
    with pytest.raises(UnauthenticatedError, match="token is not one that") as caught:
        Tokens("sesame").check((bearer(token),), "read")
    assert "sesame" not in str(caught.value)


def test_a_file_that_changes_counts_within_a_second_and_a_wrong_one_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    tokens = Tokens(file=file, clock=lambda: now[0])
    sent = (bearer("new-secret"),)
    with pytest.raises(UnauthenticatedError):
        tokens.check(sent, "read")
    replacement = file.with_name("new.toml")
    replacement.write_text(entry("new", "read", "new-secret"))
    os.replace(replacement, file)
    with pytest.raises(UnauthenticatedError):
        tokens.check(sent, "read")
    now[0] = 1.5
    assert tokens.check(sent, "read").name == "new"
    with pytest.raises(UnauthenticatedError):
        tokens.check((bearer("ops-secret"),), "read")
    for second, text in enumerate(("[new]\nrole = 1", None), start=3):
        _ = file.write_text(text) if text is not None else file.unlink()
        now[0] = second * 1.5
        assert tokens.check(sent, "read").name == "new"
    assert sum("stay as they were" in one for one in caplog.messages) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have tokens"),
        ("x", "must be a TOML file"),
        (entry("a", "read", "t") + entry("b", "read", "t"), "each one once"),
        (entry("a", "root", "t"), "a.role"),
        ('[a]\nrole = "read"\nsha256 = "my-secret"', "a.sha256"),
        ('[a]\nrole = "read"\ntoken = "my-secret"', "a.token"),
    ],
)
def test_a_file_that_is_wrong_is_refused_without_showing_a_token(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_tokens(path)
    assert "my-secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml must be a readable file"):
        Tokens(file=tmp_path / "missing.toml")


def test_each_method_has_a_role_and_what_is_unknown_needs_all() -> None:
    methods = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].methods

    assert {method.name for method in methods} == set(ROLES)
    assert role_of("/recsys.v1.Recommender/Rank") == "read"
    assert role_of("/recsys.v1.Recommender/UpsertItems") == "write"
    assert role_of("/recsys.v1.Admin/GetBundles") == "admin"
    assert role_of("/recsys.v1.Recommender/New") == "admin"
