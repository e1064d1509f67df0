"""Keys: where they come from, that they travel, and that nobody sees them."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests

from completion import ConfigurationError
from completion.credentials import ApiKey, Authorization, Key

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", SECRET)


def sent(key: ApiKey) -> dict[str, str]:
    """The headers of a request that was made with the key."""
    prepared = requests.Request("POST", "http://acme.test", auth=key.authorization("acme")).prepare()
    del prepared.headers["Content-Length"]
    return dict(prepared.headers)


def given_key() -> str:
    return "sk-given"


@pytest.mark.parametrize("given", ["sk-given", " sk-given\n", given_key])
def test_a_given_key_goes_before_the_environment(given: Key) -> None:
    assert sent(ApiKey(given, "ACME_API_KEY")) == {"Authorization": "Bearer sk-given"}


def test_the_header_is_the_providers_own() -> None:
    assert sent(ApiKey("k", "ACME_API_KEY", header="x-api-key", prefix="")) == {"x-api-key": "k"}


def test_the_environment_is_read_when_the_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ApiKey(None, "ACME_API_KEY")
    monkeypatch.setenv("ACME_API_KEY", "changed")
    assert sent(key) == {"Authorization": f"Bearer {SECRET}"}


def test_a_function_is_asked_for_each_request() -> None:
    keys = iter(["first", "second"])
    key = ApiKey(lambda: next(keys), "ACME_API_KEY")
    assert [sent(key), sent(key)] == [{"Authorization": "Bearer first"}, {"Authorization": "Bearer second"}]


@pytest.mark.parametrize("given", ["", "  ", lambda: "", lambda: " \n"])
def test_an_empty_key_is_none(given: Key) -> None:
    with pytest.raises(ConfigurationError, match="acme: no API key: set ACME_API_KEY or give api_key="):
        ApiKey(given, "ACME_API_KEY").authorization("acme")


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("ACME_API_KEY")
    if value is not None:
        monkeypatch.setenv("ACME_API_KEY", value)
    with pytest.raises(ConfigurationError, match="acme: no API key: set ACME_API_KEY or give api_key="):
        ApiKey(None, "ACME_API_KEY").authorization("acme")


@pytest.mark.parametrize("given", [5, b"k", lambda: 5])
def test_a_key_of_another_type_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_key must be a str or a function that gives one, got"):
        ApiKey(given, "ACME_API_KEY").authorization("acme")


def whole_trace(error: BaseException) -> str:
    """The traceback with the local variables of our frames, as error reporters send it."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in trace.stack if "completion" in frame.filename and "test" not in frame.filename]
    assert ours
    return f"{error!r} {[frame.locals for frame in ours]}"


@pytest.mark.parametrize("bad", ["\n", " ", "\x00", "\x7f", "ü", "\u200b", "€"])
@pytest.mark.parametrize("give", [lambda key: key, lambda key: lambda: key])
def test_a_character_that_no_header_can_carry_is_refused_without_showing_the_key(
    bad: str, give: Callable[[str], Key]
) -> None:
    with pytest.raises(ConfigurationError, match="holds a character that no HTTP header can carry") as caught:
        ApiKey(give(f"sk-very{bad}secret"), "ACME_API_KEY").authorization("acme")
    assert "ACME_API_KEY" in str(caught.value)
    assert "very" not in whole_trace(caught.value)


@pytest.mark.parametrize("given", [None, SECRET, lambda: SECRET])
def test_nothing_shows_the_key(given: Key | None) -> None:
    key = ApiKey(given, "ACME_API_KEY")
    authorization = key.authorization("acme")
    for shown in (key, authorization, {"key": key, "auth": authorization}):
        assert "secret" not in f"{shown!r} {shown!s}"
    assert not hasattr(key, "__dict__")
    assert not hasattr(authorization, "__dict__")


@pytest.mark.parametrize(
    ("given", "text"),
    [(None, "<ApiKey from ACME_API_KEY>"), (SECRET, "<ApiKey given>"), ("", "<ApiKey given>")],
)
def test_a_repr_tells_where_the_key_comes_from(given: str | None, text: str) -> None:
    assert repr(ApiKey(given, "ACME_API_KEY")) == text


def there(key: ApiKey) -> ApiKey:
    copied: ApiKey = pickle.loads(pickle.dumps(key))
    return copied


@pytest.mark.parametrize("given", ["sk-given", given_key])
def test_a_given_key_travels(monkeypatch: pytest.MonkeyPatch, given: Key) -> None:
    key = ApiKey(given, "ACME_API_KEY", header="x-api-key", prefix="")
    monkeypatch.setenv("ACME_API_KEY", "other")
    assert sent(there(key)) == {"x-api-key": "sk-given"}


def test_a_key_from_the_environment_is_looked_up_again_on_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(ApiKey(None, "ACME_API_KEY"))
    assert SECRET.encode() not in pickled
    monkeypatch.setenv("ACME_API_KEY", "over-there")
    assert sent(pickle.loads(pickled)) == {"Authorization": "Bearer over-there"}


def test_a_key_that_a_server_echoes_is_concealed() -> None:
    authorization = ApiKey(SECRET, "ACME_API_KEY").authorization("acme")
    assert authorization.conceal(f"bad key {SECRET}!") == "bad key [key]!"
    assert Authorization({}, "").conceal("nothing to hide") == "nothing to hide"
