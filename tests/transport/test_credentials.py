"""Keys: where they come from, that they can be pickled, and that nothing shows them."""

from __future__ import annotations

import base64
import json
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import requests

from completion import ConfigurationError, Transient, TransportError
from completion.transport.credentials import ApiKey, Authorization, CachedToken, Key

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
def test_a_given_key_wins_over_the_environment(given: Key) -> None:
    assert sent(ApiKey(given, "ACME_API_KEY")) == {"Authorization": "Bearer sk-given"}


def test_header_and_prefix_can_be_set() -> None:
    assert sent(ApiKey("k", "ACME_API_KEY", header="x-api-key", prefix="")) == {"x-api-key": "k"}


def test_the_environment_is_read_when_the_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ApiKey(None, "ACME_API_KEY")
    monkeypatch.setenv("ACME_API_KEY", "changed")
    assert sent(key) == {"Authorization": f"Bearer {SECRET}"}


def test_a_function_is_called_for_each_request() -> None:
    keys = iter(["first", "second"])
    key = ApiKey(lambda: next(keys), "ACME_API_KEY")
    assert [sent(key), sent(key)] == [{"Authorization": "Bearer first"}, {"Authorization": "Bearer second"}]


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_key_is_a_missing_key(given: Key) -> None:
    with pytest.raises(ConfigurationError, match="acme: no API key: set ACME_API_KEY or give api_key="):
        ApiKey(given, "ACME_API_KEY").authorization("acme")


@pytest.mark.parametrize("given", ["", " \n", None])
def test_the_error_names_a_function_that_returns_no_key(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"acme: api_key\(\) returned no API key"):
        ApiKey(lambda: given, "ACME_API_KEY").authorization("acme")


def test_a_key_that_starts_with_the_prefix_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"the API key of api_key starts with 'Bearer': remove that"):
        ApiKey("Bearer secret", "ACME_API_KEY").authorization("acme")


def test_an_os_error_of_a_function_is_a_transient_error() -> None:
    def given() -> str:
        raise ConnectionError("secret-host is unreachable")

    with pytest.raises(TransportError, match=r"acme: api_key\(\) failed: ConnectionError") as caught:
        ApiKey(given, "ACME_API_KEY").authorization("acme")
    assert isinstance(caught.value.retry_classification(), Transient)


@pytest.mark.parametrize("value", [None, "", " "])
def test_the_error_about_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("ACME_API_KEY")
    if value is not None:
        monkeypatch.setenv("ACME_API_KEY", value)
    with pytest.raises(ConfigurationError, match="acme: no API key: set ACME_API_KEY or give api_key="):
        ApiKey(None, "ACME_API_KEY").authorization("acme")


@pytest.mark.parametrize("given", [5, b"k", lambda: 5])
def test_a_key_of_another_type_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"api_key.* must be a str, got"):
        ApiKey(given, "ACME_API_KEY").authorization("acme")


def whole_trace(error: BaseException) -> str:
    """The traceback with the local variables of our frames, as a crash reporter sends it."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in trace.stack if "completion" in frame.filename and "test" not in frame.filename]
    assert ours
    return f"{error!r} {[frame.locals for frame in ours]}"


@pytest.mark.parametrize("bad", ["\n", " ", "\x00", "\x7f", "ü", "\u200b", "€"])
@pytest.mark.parametrize("give", [lambda key: key, lambda key: lambda: key])
def test_a_character_that_is_invalid_in_headers_is_refused_without_showing_the_key(
    bad: str, give: Callable[[str], Key]
) -> None:
    with pytest.raises(ConfigurationError, match="contains a character that an HTTP header cannot contain") as caught:
        ApiKey(give(f"sk-very{bad}secret"), "ACME_API_KEY").authorization("acme")
    assert "the API key of api_key" in str(caught.value)
    assert "very" not in whole_trace(caught.value)


@pytest.mark.parametrize("given", [None, SECRET, lambda: SECRET])
def test_no_repr_shows_the_key(given: Key | None) -> None:
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
def test_the_repr_says_where_the_key_comes_from(given: str | None, text: str) -> None:
    assert repr(ApiKey(given, "ACME_API_KEY")) == text


def unpickled(key: ApiKey) -> ApiKey:
    copied: ApiKey = pickle.loads(pickle.dumps(key))
    return copied


@pytest.mark.parametrize("given", ["sk-given", given_key])
def test_a_pickle_contains_a_given_key(monkeypatch: pytest.MonkeyPatch, given: Key) -> None:
    key = ApiKey(given, "ACME_API_KEY", header="x-api-key", prefix="")
    monkeypatch.setenv("ACME_API_KEY", "other")
    assert sent(unpickled(key)) == {"x-api-key": "sk-given"}


def test_a_key_from_the_environment_is_read_again_where_it_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(ApiKey(None, "ACME_API_KEY"))
    assert SECRET.encode() not in pickled
    monkeypatch.setenv("ACME_API_KEY", "over-there")
    assert sent(pickle.loads(pickled)) == {"Authorization": "Bearer over-there"}


def test_a_key_that_a_server_echoes_is_concealed() -> None:
    authorization = ApiKey(SECRET, "ACME_API_KEY").authorization("acme")
    assert authorization.conceal(f"bad key {SECRET}!") == "bad key [key]!"
    assert Authorization({}, "").conceal("nothing to hide") == "nothing to hide"


# --- cached tokens ---------------------------------------------------------------------------------------------------

PATIENCE_S = 10
HOUR = 3600.0


class AccessToken(NamedTuple):
    """A token like those of azure-identity."""

    token: str
    expires_on: float


def web_token(lives: Any, name: str = "t") -> str:
    """A JSON web token. ``lives``: a float is seconds from now, anything else is the value of ``exp``."""
    exp = time.time() + lives if isinstance(lives, float) else lives
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp, "name": name}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2lnbmF0dXJl"


def access_token(lives: Any, name: str = "t") -> AccessToken:
    return AccessToken(f"secret-{name}", time.time() + lives if isinstance(lives, float) else lives)


def text_of(given: Any) -> str:
    text: str = given.token if isinstance(given, AccessToken) else given
    return text


class Provider:
    """A token provider: returns or raises its answers in turn, then the last one again and again. Counts the calls."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.calls = 0

    def __call__(self) -> Any:
        answer = self._answers[min(self.calls, len(self._answers) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture(params=[web_token, access_token], ids=["JSON web token", "AccessToken"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    made: Callable[..., Any] = request.param
    return made


def test_a_valid_token_is_cached(make: Callable[..., Any]) -> None:
    given = make(HOUR)
    provider = Provider(given)
    token = CachedToken(provider)
    assert [token() for _ in range(3)] == [text_of(given)] * 3
    assert provider.calls == 1


@pytest.mark.parametrize("lives", [299.0, 1.0, -1.0, 0], ids=["299 s", "1 s", "over", "1970"])
def test_the_function_is_called_again_five_minutes_before_the_token_expires(
    make: Callable[..., Any], lives: float
) -> None:
    old, new = make(lives, "old"), make(HOUR, "new")
    provider = Provider(old, new)
    token = CachedToken(provider)
    assert [token(), token(), token()] == [text_of(old), text_of(new), text_of(new)]
    assert provider.calls == 2


@pytest.mark.parametrize(
    "opaque",
    [
        "opaque",
        "a.b.c",
        "a.!!.c",
        f"e30.{base64.urlsafe_b64encode(b'[]').decode()}.c",
        web_token("soon"),
        web_token(None),
        web_token([]),
        AccessToken("t", None),  # type: ignore[arg-type]
        AccessToken("t", float("nan")),
        AccessToken("t", float("inf")),
    ],
    ids=[
        "opaque",
        "no claims",
        "no base64",
        "a list",
        "a string as exp",
        "null as exp",
        "a list as exp",
        "None",
        "NaN",
        "endless",
    ],
)
def test_a_token_without_a_time_of_expiry_is_not_cached(opaque: Any) -> None:
    provider = Provider(opaque)
    token = CachedToken(provider)
    assert [token(), token()] == [text_of(opaque)] * 2
    assert provider.calls == 2


def test_the_time_of_expiry_may_be_a_string() -> None:
    provider = Provider(AccessToken("t", str(int(time.time() + HOUR))))  # type: ignore[arg-type]
    token = CachedToken(provider)
    assert [token(), token()] == ["t", "t"]
    assert provider.calls == 1


def test_after_forget_the_function_is_called_again(make: Callable[..., Any]) -> None:
    old, new = make(HOUR, "old"), make(HOUR, "new")
    token = CachedToken(Provider(old, new))
    token()
    token.forget()
    assert token() == text_of(new)


def test_forget_token_forgets_the_cached_token_of_a_key() -> None:
    key = ApiKey(CachedToken(Provider(access_token(HOUR, "old"), access_token(HOUR, "new"))), "ACME_API_KEY")
    assert sent(key) == sent(key) == {"Authorization": "Bearer secret-old"}
    key.forget_token()
    assert sent(key) == {"Authorization": "Bearer secret-new"}


@pytest.mark.parametrize("given", [None, SECRET, given_key])
def test_forget_token_does_not_change_a_key_that_is_not_cached(given: Key | None) -> None:
    key = ApiKey(given, "ACME_API_KEY")
    before = sent(key)
    key.forget_token()
    assert sent(key) == before


@pytest.mark.parametrize("failure", [RuntimeError("secret-cause"), "", None], ids=["an error", "nothing", "None"])
def test_the_old_token_is_used_while_it_is_valid(
    make: Callable[..., Any], failure: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make(200.0, "old"), make(HOUR, "new")
    provider = Provider(old, failure, new)
    token = CachedToken(provider)
    assert [token() for _ in range(4)] == [text_of(old)] * 4
    assert provider.calls == 2, "after a failure it is not called for a while"
    monkeypatch.setattr(token, "_retry_refresh_at", 0.0)
    assert token() == text_of(new)
    assert len(caplog.records) == 1
    assert "the old token is valid for" in caplog.text
    assert "secret" not in caplog.text


def test_a_failed_refresh_is_raised_if_the_old_token_has_expired() -> None:
    expires_at = time.time() + 0.3

    def provider() -> AccessToken:
        if not token._cached[0]:
            return AccessToken("secret-old", expires_at)
        while time.time() < expires_at:
            time.sleep(0.01)
        raise RuntimeError("no")

    token = CachedToken(provider)
    key = ApiKey(token, "ACME_API_KEY")
    key.authorization("acme")
    with pytest.raises(ConfigurationError) as caught:
        key.authorization("acme")
    assert "secret" not in f"{caught.value} {chained_trace(caught.value)}"


def chained_trace(error: BaseException) -> str:
    """The local variables of our frames, in the error and in its causes."""
    shown: list[str] = []
    one: BaseException | None = error
    while one is not None:
        shown.append(repr(one) if one is error else type(one).__name__)
        trace = one.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == ApiKey.authorization.__code__.co_filename:
                shown.append(repr({name: value for name, value in trace.tb_frame.f_locals.items() if name != "exc"}))
            trace = trace.tb_next
        one = one.__cause__
    return " ".join(shown)


@pytest.mark.parametrize("lived", [False, True], ids=["never had one", "the old one is over"])
def test_a_failed_token_provider_is_a_configuration_error_that_shows_no_token(lived: bool) -> None:
    failure = RuntimeError("no network")
    answers = [access_token(-1.0, "old"), failure] if lived else [failure]
    key = ApiKey(CachedToken(Provider(*answers)), "ACME_API_KEY")
    if lived:
        key.authorization("acme")
    with pytest.raises(ConfigurationError, match=r"acme: api_key\(\) failed: RuntimeError") as caught:
        key.authorization("acme")
    assert caught.value.__cause__ is failure
    assert "secret" not in f"{caught.value} {chained_trace(caught.value)}"


def test_an_error_of_ours_is_raised_unchanged() -> None:
    error = ConfigurationError("log in first", provider="acme")
    with pytest.raises(ConfigurationError) as caught:
        ApiKey(CachedToken(Provider(error)), "ACME_API_KEY").authorization("acme")
    assert caught.value is error


@pytest.mark.parametrize("given", [5, b"secret-bytes", AccessToken(b"secret-bytes", 0), {"access_token": "secret"}])  # type: ignore[arg-type]
def test_a_token_of_another_type_is_refused_without_showing_it(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"api_key\(\) must be a str, got") as caught:
        ApiKey(CachedToken(Provider(given)), "ACME_API_KEY").authorization("acme")
    assert "secret" not in f"{caught.value} {chained_trace(caught.value)}"


def test_one_thread_refreshes_early_and_the_others_do_not_wait(make: Callable[..., Any]) -> None:
    old, new = make(200.0, "old"), make(HOUR, "new")
    is_refreshing, goes_on, calls = threading.Event(), threading.Event(), list[int]()

    def provider() -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            return old
        is_refreshing.set()
        assert goes_on.wait(PATIENCE_S)
        return new

    token = CachedToken(provider)
    token()
    with ThreadPoolExecutor(9) as pool:
        early = pool.submit(token)
        assert is_refreshing.wait(PATIENCE_S)
        others = [pool.submit(token) for _ in range(32)]
        assert [other.result(PATIENCE_S) for other in others] == [text_of(old)] * 32
        goes_on.set()
        assert early.result(PATIENCE_S) == text_of(new)
    assert (token(), len(calls)) == (text_of(new), 2)


def test_forget_in_another_thread_never_yields_half_a_token(make: Callable[..., Any]) -> None:
    given = make(HOUR)
    token = CachedToken(lambda: given)
    ends_at = time.monotonic() + 0.3

    def use(forgets: bool) -> set[str]:
        found = set[str]()
        while time.monotonic() < ends_at:
            found.add(token())
            if forgets:
                token.forget()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(use, [True, False, False, False])) == {text_of(given)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_during_a_refresh_refreshes_itself() -> None:
    old, new = access_token(200.0, "old"), access_token(HOUR, "new")
    is_refreshing, goes_on, parent = threading.Event(), threading.Event(), os.getpid()

    def provider() -> AccessToken:
        if token._cached[0] and os.getpid() == parent:
            is_refreshing.set()
            assert goes_on.wait(PATIENCE_S)
        return new if token._cached[0] else old

    token = CachedToken(provider)
    token()
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(token)
        assert is_refreshing.wait(PATIENCE_S)
        child = os.fork()
        if not child:
            with suppress(BaseException):
                os._exit(0 if token() == "secret-new" else 1)
            os._exit(2)
        goes_on.set()
        assert early.result(PATIENCE_S) == "secret-new"
    assert os.waitpid(child, 0)[1] == 0


def provided() -> AccessToken:
    return access_token(HOUR, "travelled")


def test_a_pickle_contains_the_token_provider_but_no_token() -> None:
    token = CachedToken(provided)
    token()
    pickled = pickle.dumps(token)
    assert b"secret" not in pickled
    assert pickle.loads(pickled)() == "secret-travelled"


def test_no_repr_shows_a_cached_token() -> None:
    token = CachedToken(provided)
    key = ApiKey(token, "ACME_API_KEY")
    key.authorization("acme")
    assert f"{token!r} {token!s} {key!r}" == "<CachedToken> <CachedToken> <ApiKey given>"
    assert not hasattr(token, "__dict__")
