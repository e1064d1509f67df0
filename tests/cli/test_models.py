"""``completion models FAMILY``, run as its users run it."""

from __future__ import annotations

import subprocess

import pytest

from completion.testing import ProviderServer, Reply
from tests.cli.test_cli import KEY, run

LISTED = Reply.json({"object": "list", "data": [{"id": "m-2", "object": "model"}, {"id": "m-1"}, {"id": "m-2"}]})


def ask(server: ProviderServer, family: str, *more: str, **settings: str) -> subprocess.CompletedProcess[str]:
    settings = {"ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": KEY, "GROQ_API_KEY": KEY, **settings}
    return run(server, "models", family, *more, **settings)


@pytest.mark.parametrize("family", ["openai", "openai-chat", "openai-responses", "groq"])
def test_the_models_of_a_family_are_a_line_each(server: ProviderServer, family: str) -> None:
    server.reply(LISTED)
    done = ask(server, family, "--base-url", server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "m-2\nm-1\n", "")
    [request] = server.requests
    assert (request.method, request.path, request.headers["authorization"]) == ("GET", "/models", f"Bearer {KEY}")


def test_a_list_of_several_pages_is_read_to_its_end(server: ProviderServer) -> None:
    server.reply(
        Reply.json({"data": [{"id": "c-2"}], "has_more": True, "last_id": "c-2"}),
        Reply.json({"data": [{"id": "c-1"}], "has_more": False, "last_id": "c-1"}),
    )
    assert ask(server, "anthropic", "--base-url", server.url).stdout == "c-2\nc-1\n"
    first, second = server.requests
    assert (first.path, second.path) == ("/v1/models?limit=1000", "/v1/models?limit=1000&after_id=c-2")
    assert (first.headers["x-api-key"], first.headers["anthropic-version"]) == (KEY, "2023-06-01")


def test_a_server_that_repeats_a_page_does_not_repeat_it_forever(server: ProviderServer) -> None:
    server.always(Reply.json({"data": [{"id": "c"}], "has_more": True, "last_id": "c"}))
    assert ask(server, "anthropic", "--base-url", server.url).stdout == "c\n"
    assert len(server.requests) == 2


def test_only_models_that_answer_are_listed(server: ProviderServer) -> None:
    embedder = {"name": "models/embedding-1", "supportedGenerationMethods": ["embedContent"]}
    answerer = {"name": "models/gemini-3", "supportedGenerationMethods": ["generateContent", "countTokens"]}
    server.reply(Reply.json({"models": [embedder, answerer], "nextPageToken": "a="}), Reply.json({"models": []}))
    assert ask(server, "gemini", "--base-url", server.url).stdout == "gemini-3\n"
    assert [request.path for request in server.requests] == [
        "/v1beta/models?pageSize=1000",
        "/v1beta/models?pageSize=1000&pageToken=a%3D",
    ]


def test_a_bare_list_is_read_too(server: ProviderServer) -> None:
    server.reply(Reply.json([{"id": "m-1"}, {"name": "m-2"}, "m-3", {"no": "name"}, 7]))
    assert ask(server, "groq", "--base-url", server.url).stdout == "m-1\nm-2\nm-3\n"


def test_azure_lists_models_on_both_routes(server: ProviderServer) -> None:
    server.always(LISTED)
    settings = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": server.url}
    for version in ("", "2024-10-21"):
        assert ask(server, "azure-openai", OPENAI_API_VERSION=version, **settings).stdout == "m-2\nm-1\n"
    assert [request.path for request in server.requests] == [
        "/openai/v1/models",
        "/openai/models?api-version=2024-10-21",
    ]


def test_the_embedded_model_is_listed_without_a_server(server: ProviderServer) -> None:
    assert ask(server, "local").stdout == "SmolLM2-135M-Instruct\n"


def test_names_of_models_cannot_control_the_terminal(server: ProviderServer) -> None:
    server.reply(Reply.json({"data": [{"id": "a\x1b[31m\nb"}]}))
    assert ask(server, "openai").stdout == "a[31m b\n"


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (Reply.json({"error": {"message": f"bad key {KEY}"}}, status=401), 4, "[key]"),
        (Reply.json({"error": {"message": "no such path"}}, status=404), 4, "no such path"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), 3, "which is not followed"),
        (Reply.text("<html>", content_type="text/html"), 6, "the answer is not JSON"),
        (Reply.json({"object": "list"}), 6, "the answer is not a list of models"),
    ],
    ids=["refused", "not found", "redirect", "web page", "another document"],
)
def test_an_error_is_one_line_without_the_key(server: ProviderServer, reply: Reply, code: int, message: str) -> None:
    server.reply(reply)
    done = ask(server, "openai")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert message in done.stderr
    assert KEY not in done.stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("family", "settings", "code", "message"),
    [
        ("nobody", {}, 3, "models nobody: unknown family 'nobody'"),
        ("groq", {"GROQ_API_KEY": ""}, 3, "set GROQ_API_KEY"),
        ("openai", {"OPENAI_BASE_URL": "http://127.0.0.1:9"}, 5, "no connection"),
    ],
    ids=["unknown family", "no key", "no server"],
)
def test_a_family_that_is_not_set_up_is_an_error(
    server: ProviderServer, family: str, settings: dict[str, str], code: int, message: str
) -> None:
    done = ask(server, family, **settings)
    assert (done.returncode, message in done.stderr) == (code, True)


def test_a_base_url_needs_a_family(server: ProviderServer) -> None:
    done = run(server, "models", "--base-url", server.url)
    assert (done.returncode, "--base-url needs a FAMILY" in done.stderr) == (2, True)
