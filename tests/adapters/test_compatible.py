"""Compatible providers: each row's request, where its key and its URL come from, and rows of other packages."""

from __future__ import annotations

import pickle
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import completion
from completion import (
    ChatRequest,
    CompletionClient,
    CompletionModel,
    ConfigurationError,
    Message,
    OpenAIModel,
    ProviderBlock,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    UnsupportedContentError,
)
from completion.adapters.account import HttpModel
from completion.adapters.compatible import CompatibleModel, Provider
from completion.adapters.providers import PROVIDERS
from completion.registry import OURS, families
from completion.testing import ProviderServer, Reply, Request, event
from completion.wires.openai_chat.dialect import ChatDialect
from completion.wires.openai_responses.dialect import ResponsesDialect
from tests.loopback import END, HI, KEY, text

RESPONSE_ENDED: Final = event({"type": "response.completed", "response": {"status": "completed", "output": []}})
ANSWER: Final = Reply(text("Hi"), RESPONSE_ENDED, END)  # each wire skips the events of the other
TOOL: Final = ToolDefinition("f", "", {"type": "object", "properties": {}})

# Row -> base URL, variables of the key, and how the dialect differs from that of most servers. Literals, on purpose not
# read from the table: a changed row has to be changed here too.
ROWS: Final[dict[str, tuple[str | None, tuple[str, ...], dict[str, Any]]]] = {
    "groq": (
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        {
            "supports_top_k": False,
            "supports_stream_options": False,
            "reasoning_back": "reasoning",
            "supports_provider_blocks": False,
        },
    ),
    "deepseek": (
        "https://api.deepseek.com",
        ("DEEPSEEK_API_KEY",),
        {"supports_top_k": False, "reasoning_back": "reasoning_content"},
    ),
    "xai": ("https://api.x.ai/v1", ("XAI_API_KEY",), {"wire": "responses", "runs_custom_tools": True}),
    "openrouter": (
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        {"reasoning_back": "reasoning_details"},
    ),
    "together": ("https://api.together.ai/v1", ("TOGETHER_API_KEY",), {}),
    "fireworks": ("https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",), {}),
    "cerebras": (
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        {"supports_top_k": False, "reasoning_back": "reasoning", "supports_provider_blocks": False},
    ),
    "mistral": (
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        {
            "supports_top_k": False,
            "supports_stream_options": False,
            "seed_field": "random_seed",
            "needs_answer_after_results": True,
            "needs_prefix": True,
            "call_id_style": "nine",
            "supports_provider_blocks": False,
        },
    ),
    "perplexity": ("https://api.perplexity.ai", ("PERPLEXITY_API_KEY",), {}),
    "moonshot": (
        "https://api.moonshot.ai/v1",
        ("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
        {
            "token_field": "max_completion_tokens",
            "supports_top_k": False,
            "reasoning_back": "reasoning_content",
            "supports_forced_choice": False,
        },
    ),
    "zai": (
        "https://api.z.ai/api/paas/v4",
        ("ZAI_API_KEY",),
        {"supports_top_k": False, "reasoning_back": "reasoning_content"},
    ),
    "alibaba": (
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
        {},
    ),
    "nvidia": ("https://integrate.api.nvidia.com/v1", ("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"), {}),
    "huggingface": ("https://router.huggingface.co/v1", ("HF_TOKEN", "HUGGINGFACE_API_KEY"), {}),
    "sambanova": ("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",), {}),
    "meta": ("https://api.meta.ai/v1", ("META_API_KEY", "MODEL_API_KEY"), {}),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY",), {}),
    "snowflake": (
        "https://my-account.snowflakecomputing.com/api/v2/cortex/v1",
        ("SNOWFLAKE_TOKEN",),
        {"token_field": "max_completion_tokens", "supports_top_k": False},
    ),
    "databricks": (
        "https://my-host.example/serving-endpoints",
        ("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        {},
    ),
    "cloudflare": (
        "https://api.cloudflare.com/client/v4/accounts/my-id/ai/v1",
        ("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN"),
        {},
    ),
    "vercel": (
        "https://ai-gateway.vercel.sh/v1",
        ("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
        {},
    ),
    "portkey": ("https://api.portkey.ai/v1", ("PORTKEY_API_KEY",), {}),
    "litellm": (None, ("LITELLM_PROXY_API_KEY",), {}),
    "compatible": (None, ("COMPATIBLE_API_KEY",), {}),
    "ollama-openai": ("http://localhost:11434/v1", ("OLLAMA_API_KEY",), {"reasoning_back": "reasoning"}),
    "lmstudio": ("http://localhost:1234/v1", ("LM_STUDIO_API_KEY",), {}),
    "llamacpp": ("http://localhost:8080/v1", ("LLAMACPP_API_KEY",), {}),
    "vllm": ("http://localhost:8000/v1", ("VLLM_API_KEY",), {}),
    "sglang": ("http://localhost:30000/v1", ("SGLANG_API_KEY",), {}),
}
WITHOUT_KEY: Final = ("litellm", "compatible", "ollama-openai", "lmstudio", "llamacpp", "vllm", "sglang")
PARTS: Final = {
    "SNOWFLAKE_ACCOUNT": "my-account",
    "DATABRICKS_HOST": "https://my-host.example/",
    "CLOUDFLARE_ACCOUNT_ID": "my-id",
}

# A test with this decorator runs for each row.
rows = pytest.mark.parametrize("row", ROWS)


@pytest.fixture(autouse=True)
def _variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        for name in (*provider.key_variables, *provider.url_variables, *provider.placeholders.values()):
            monkeypatch.delenv(name, raising=False)


def sent_to(server: ProviderServer, model: CompletionModel, request: ChatRequest = HI) -> Request:
    """The one request that the model sends."""
    server.reply(ANSWER)
    list(model.chat_stream(request))
    return server.requests[-1]


def loopback(row: str, server: ProviderServer, model_id: str = "m", **options: Any) -> HttpModel:
    model = completion.model(f"{row}:{model_id}", base_url=server.url, **options)
    assert isinstance(model, HttpModel)
    return model


def test_every_row_is_tested_here() -> None:
    assert set(PROVIDERS) == set(ROWS)
    assert not set(PROVIDERS) & set(OURS)
    assert set(PROVIDERS) <= set(families())


def test_the_docs_have_a_table_with_every_row() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert ".. table of providers\n" in (docs / "adapters" / "compatible.rst").read_text(encoding="utf-8")
    lines = list(runpy.run_path(str(docs / "conf.py"))["table_of_providers"]())
    assert {f"   * - ``{row}``" for row in ROWS} <= set(lines)


# The request


@rows
def test_each_row_sends_its_key_and_its_fields(
    row: str, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, variables, differs = ROWS[row]
    monkeypatch.setenv(variables[0], KEY)
    request = sent_to(server, loopback(row, server), ChatRequest("Hi", max_tokens=9, top_k=3))
    header, prefix = ("x-portkey-api-key", "") if row == "portkey" else ("authorization", "Bearer ")
    path = "/responses" if differs.get("wire") == "responses" else "/chat/completions"
    assert (request.method, request.path, request.header(header)) == ("POST", path, prefix + KEY)
    body = request.json()
    if "wire" in differs:
        assert set(body) == {"model", "input", "stream", "store", "include", "max_output_tokens"}
        return
    fields = {"model", "messages", "stream", differs.get("token_field", "max_tokens")}
    fields |= {"stream_options"} if differs.get("supports_stream_options", True) else set()
    fields |= {"top_k"} if differs.get("supports_top_k", True) else set()
    assert set(body) == fields
    assert body[differs.get("token_field", "max_tokens")] == 9


@rows
def test_each_row_has_its_dialect(row: str, server: ProviderServer) -> None:
    differs = {name: value for name, value in ROWS[row][2].items() if name != "wire"}
    kind: Any = ResponsesDialect if "wire" in ROWS[row][2] else ChatDialect
    assert loopback(row, server).client.dialect == kind(**differs)


@pytest.mark.parametrize(("row", "wire", "path"), [
    ("openrouter", "responses", "/responses"), ("openrouter", None, "/chat/completions"),
    ("xai", "chat", "/chat/completions"), ("xai", "responses", "/responses"),
])  # fmt: skip
def test_a_row_has_a_wire_and_the_option_replaces_it(row: str, wire: Any, path: str, server: ProviderServer) -> None:
    assert sent_to(server, loopback(row, server, wire=wire, api_key=KEY)).path == path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wire": "smoke"}, "wire must be 'chat' or 'responses', got 'smoke'"),
        ({"wire": "responses", "token_field": "max_tokens"}, "token_field= is for Chat Completions"),
        ({"wire": "responses", "reasoning_back": "never"}, "reasoning_back= is for Chat Completions"),
    ],
)
def test_a_wrong_wire_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PROVIDERS["openrouter"].client(**options)


@rows
def test_each_row_has_its_base_url(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PARTS.items():
        monkeypatch.setenv(name, value)
    expected = ROWS[row][0]
    if expected is None:
        with pytest.raises(ConfigurationError, match=rf"^{row}: no base URL: give base_url= or set [A-Z_]+"):
            completion.model(f"{row}:m")
    else:
        model = completion.model(f"{row}:m")
        assert isinstance(model, HttpModel)
        assert model.base_url == expected


@rows
def test_models_and_clients_have_the_name_of_the_row(row: str, server: ProviderServer) -> None:
    client = PROVIDERS[row].client(base_url=server.url)
    model = client.completion_model("vendor/m:1")
    assert (client.name, model.name, model.model) == (row, row, "vendor/m:1")
    assert isinstance(client, CompletionClient)
    assert isinstance(model, CompletionModel)


@rows
def test_openais_variables_do_not_reach_a_row(
    row: str, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-123456")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-openai")
    monkeypatch.setenv(ROWS[row][1][0], KEY)
    assert not [value for value in sent_to(server, loopback(row, server)).headers.values() if "openai" in value]


@pytest.mark.parametrize("row", WITHOUT_KEY)
def test_a_row_with_an_optional_key_sends_a_request_without_one(row: str, server: ProviderServer) -> None:
    assert sent_to(server, loopback(row, server)).header("authorization") is None


@pytest.mark.parametrize("row", [row for row in ROWS if row not in WITHOUT_KEY])
def test_the_error_for_a_missing_key_names_all_variables(row: str, server: ProviderServer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loopback(row, server).chat_stream(HI)
    assert str(caught.value) == f"{row}: no API key: set {', '.join(ROWS[row][1])} or give api_key="
    assert server.connections == 0


@pytest.mark.parametrize(("row", "variable"), [(row, name) for row in ROWS for name in ROWS[row][1][1:]])
def test_the_other_variables_of_a_key_count_too(
    row: str, variable: str, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROWS[row][1][0], "")
    monkeypatch.setenv(variable, KEY)
    assert sent_to(server, loopback(row, server)).header("authorization") == f"Bearer {KEY}"


def test_the_first_variable_that_is_set_counts(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("HUGGINGFACE_API_KEY", "another-key")
    assert sent_to(server, loopback("huggingface", server)).header("authorization") == f"Bearer {KEY}"


def test_the_error_for_a_bad_key_names_the_variable_that_is_set(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUGGINGFACE_API_KEY", "two words")
    with pytest.raises(ConfigurationError, match="the API key of HUGGINGFACE_API_KEY contains a character"):
        loopback("huggingface", server).chat_stream(HI)


def test_a_pickled_model_reads_its_key_again(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(loopback("huggingface", server))
    monkeypatch.setenv("HUGGINGFACE_API_KEY", KEY)
    model = pickle.loads(pickled)
    assert model.client.provider == PROVIDERS["huggingface"]
    assert sent_to(server, model).header("authorization") == f"Bearer {KEY}"


def test_portkey_gets_the_key_of_the_provider_behind_it_as_a_header(server: ProviderServer) -> None:
    headers = {"x-portkey-provider": "openai", "Authorization": "Bearer theirs"}
    request = sent_to(server, loopback("portkey", server, api_key=KEY, headers=headers))
    sent = {name: request.header(name) for name in ("x-portkey-api-key", *headers)}
    assert sent == {"x-portkey-api-key": KEY, **headers}


# The base URL


@pytest.mark.parametrize(
    ("row", "option", "variable", "base_url"),
    [
        ("snowflake", "account", "SNOWFLAKE_ACCOUNT", "https://x.snowflakecomputing.com/api/v2/cortex/v1"),
        ("databricks", "host", "DATABRICKS_HOST", "https://x/serving-endpoints"),
        (
            "cloudflare",
            "account_id",
            "CLOUDFLARE_ACCOUNT_ID",
            "https://api.cloudflare.com/client/v4/accounts/x/ai/v1",
        ),
    ],
)
def test_a_placeholder_comes_from_an_option_or_a_variable(
    row: str, option: str, variable: str, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^{row}: no {option} for the base URL: give {option}= or set {variable}"
    ):
        completion.model(f"{row}:m")
    monkeypatch.setenv(variable, "y")
    assert PROVIDERS[row].client(**{option: "x"}).base_url == base_url
    monkeypatch.setenv(variable, "x")
    assert PROVIDERS[row].client().base_url == base_url


@pytest.mark.parametrize("account", ["evil.example/x", "a/b", "a?b", "a#b", "a@b", "a b", "http://a", "a:b", "\u0430"])
def test_a_placeholder_cannot_change_the_rest_of_the_url(account: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^snowflake: account= must contain only letters, digits"):
        completion.model("snowflake:m", account=account)


def test_an_option_of_another_row_is_refused() -> None:
    with pytest.raises(TypeError, match="account"):
        completion.model("groq:m", account="x")


@pytest.mark.parametrize(
    ("row", "variable", "value", "base_url"),
    [
        ("ollama-openai", "OLLAMA_HOST", "10.0.0.7", "http://10.0.0.7:11434/v1"),
        ("ollama-openai", "OLLAMA_HOST", "0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("ollama-openai", "OLLAMA_HOST", "http://0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
        ("ollama-openai", "OLLAMA_HOST", "[::]", "http://[::1]:11434/v1"),
        ("ollama-openai", "OLLAMA_HOST", ":8000", "http://localhost:8000/v1"),
        ("ollama-openai", "OLLAMA_HOST", "box.example:8000", "http://box.example:8000/v1"),
        ("ollama-openai", "OLLAMA_HOST", "[::1]:8000", "http://[::1]:8000/v1"),
        ("ollama-openai", "OLLAMA_HOST", "https://box.example/", "https://box.example/v1"),
        ("ollama-openai", "OLLAMA_BASE_URL", "http://box:11434/v1", "http://box:11434/v1"),
        ("lmstudio", "LM_STUDIO_API_BASE", "http://box:1234/v1", "http://box:1234/v1"),
        ("llamacpp", "LLAMACPP_BASE_URL", "box", "http://box:8080/v1"),
        ("vllm", "VLLM_BASE_URL", "http://box:8000", "http://box:8000/v1"),
        ("sglang", "SGLANG_BASE_URL", "box:1/v2", "http://box:1/v2"),
        ("databricks", "DATABRICKS_API_BASE", "https://x/serving-endpoints", "https://x/serving-endpoints"),
        ("databricks", "DATABRICKS_API_BASE", "https://x", "https://x/serving-endpoints"),
        ("litellm", "LITELLM_PROXY_API_BASE", "http://box:4000", "http://box:4000"),
        ("compatible", "COMPATIBLE_BASE_URL", "http://box/v1", "http://box/v1"),
    ],
)
def test_a_variable_replaces_the_base_url(
    row: str, variable: str, value: str, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert PROVIDERS[row].client().base_url == base_url
    assert PROVIDERS[row].client(base_url="http://mine/v1").base_url == "http://mine/v1"


@pytest.mark.parametrize("value", ["box:port", "a b", "user:secret@box", "box:99999999", "[::1"])
def test_a_variable_that_is_not_a_url_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    with pytest.raises(ConfigurationError, match="OLLAMA_HOST must") as caught:
        completion.model("ollama-openai:m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda **given: completion.model("snowflake:m", **given), PROVIDERS["snowflake"].client]
)
def test_an_error_about_the_url_keeps_no_key(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(api_key=KEY)
    ours = [frame.f_locals for frame, _ in traceback.walk_tb(caught.tb) if "/completion/" in frame.f_code.co_filename]
    assert ours
    assert KEY not in repr(ours)


# The dialect


@pytest.mark.parametrize(
    ("model_id", "field"),
    [
        ("gpt-5", "max_completion_tokens"),
        ("openai/gpt-5.4", "max_completion_tokens"),
        ("openrouter/openai/gpt-5-mini:free", "max_completion_tokens"),
        ("us.openai.gpt-5.6-terra", "max_completion_tokens"),
        ("o1", "max_completion_tokens"),
        ("openai/o3-mini", "max_completion_tokens"),
        ("o4-mini-high", "max_completion_tokens"),
        ("gpt-4o", "max_tokens"),
        ("openai/gpt-oss-120b", "max_tokens"),
        ("azure/gpt-35-turbo", "max_tokens"),
        ("solo1", "max_tokens"),
        ("o1labs/llama", "max_tokens"),
        ("llama-4", "max_tokens"),
    ],
)
def test_the_model_id_decides_the_token_field(model_id: str, field: str, server: ProviderServer) -> None:
    body = sent_to(server, loopback("openrouter", server, model_id, api_key=KEY)).json()
    assert [name for name in body if name.startswith("max_")] == [field]
    body = sent_to(server, OpenAIModel(model_id, api_key=KEY, base_url=server.url)).json()
    assert [name for name in body if name.startswith("max_")] == [field]


def test_options_replace_what_the_row_says(server: ProviderServer) -> None:
    options: dict[str, Any] = {"token_field": "max_completion_tokens", "reasoning_back": "reasoning_content"}
    for model in (
        loopback("compatible", server, **options),
        OpenAIModel("m", api_key=KEY, base_url=server.url, **options),
    ):
        assert model.client.dialect.reasoning_back == "reasoning_content"
        assert "max_completion_tokens" in sent_to(server, model).json()


@pytest.mark.parametrize("family", ["openai", "groq"])
def test_an_unknown_way_to_send_reasoning_is_refused(family: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"^{family}: reasoning_back must be one of never, as_received, .*'yes'"
    ):
        completion.model(f"{family}:m", api_key=KEY, reasoning_back="yes")


def test_mistral_gets_its_own_seed_and_an_answer_behind_results(server: ProviderServer) -> None:
    server.reply(Reply(END))
    history = [
        Message.user("q"),
        Message.assistant([ToolCallBlock("c", "f", {})]),
        Message.user([ToolResultBlock("c", "1"), "And now?"]),
    ]
    model = completion.model("mistral:m", api_key=KEY, base_url=server.url)
    model.chat_stream(ChatRequest(history, seed=7)).collect()
    sent = server.requests[0].json()
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
    assert sent["messages"][3]["content"] == "OK."
    assert (sent["random_seed"], "seed" in sent) == (7, False)


@pytest.mark.parametrize("family", ["groq", "cerebras", "mistral"])
def test_blocks_of_another_server_do_not_reach_one_that_refuses_them(family: str, server: ProviderServer) -> None:
    server.reply(Reply(END))
    citation = {"type": "url_citation", "url_citation": {"url": "https://sky.example/"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    history = [
        Message.user("q"),
        Message.assistant(["A", ProviderBlock("openai-chat", citation), ProviderBlock("openai-chat", image)]),
        Message.user("r"),
        Message.assistant([ProviderBlock("openai-chat", custom)]),
        Message.tool_result("c", "1"),
        Message.user("s"),
    ]
    completion.model(f"{family}:m", api_key=KEY, base_url=server.url).chat_stream(ChatRequest(history)).collect()
    sent = server.requests[0].json()["messages"]
    assert [message["content"] for message in sent] == ["q", "A", "r\n\ns"]
    assert sent[1].keys() == {"role", "content"}


def test_a_context_that_is_full_is_max_tokens_at_mistral(server: ProviderServer) -> None:
    server.reply(Reply(event({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "model_length"}]})))
    turn = completion.model("mistral:m", api_key=KEY, base_url=server.url).chat_stream("q").collect()
    assert (turn.reason, turn.provider_reason) == (completion.FinishReason.MAX_TOKENS, "model_length")


def test_moonshot_cannot_force_a_tool_call(server: ProviderServer) -> None:
    model = loopback("moonshot", server, api_key=KEY)
    with pytest.raises(UnsupportedContentError, match=r"^moonshot: tool_choice='any' cannot be sent: .*'auto'"):
        model.chat_stream(ChatRequest("Hi", tools=[TOOL], tool_choice=ToolChoice.any()))
    assert server.connections == 0
    assert sent_to(server, model, ChatRequest("Hi", tools=[TOOL], tool_choice=ToolChoice.auto())).json()["tools"]


# Rows of other packages

ACME: Final = """
from completion.adapters.compatible import Provider
from completion.wires.openai_chat.dialect import ChatDialect
from completion.wires.openai_responses.dialect import ResponsesDialect

ACME = Provider("acme", "https://{region}.acme.example/v1", "ACME_API_KEY", ChatDialect(supports_top_k=False),
                placeholders={"region": "ACME_REGION"})
"""


@pytest.fixture
def _acme_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "acme_row.py").write_text(ACME)
    info = tmp_path / "acme_row-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-row\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[completion.adapters]\nacme = acme_row:ACME\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_row", None)


@pytest.mark.usefixtures("_acme_is_installed")
def test_a_row_of_another_package_is_a_family(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "acme" in families()
    monkeypatch.setenv("ACME_API_KEY", KEY)
    model = completion.model("acme:large", region="eu")
    assert isinstance(model, CompatibleModel)
    assert (model.name, model.model, model.base_url) == ("acme", "large", "https://eu.acme.example/v1")
    request = sent_to(server, loopback("acme", server), ChatRequest("Hi", top_k=3))
    assert request.header("authorization") == f"Bearer {KEY}"
    assert "top_k" not in request.json()


def test_a_row_is_a_factory(server: ProviderServer) -> None:
    assert Provider("acme", "https://{region}.acme.example").client(region="eu").base_url == "https://eu.acme.example"
    acme = Provider("acme", server.url)
    client = acme.client()
    assert sent_to(server, acme("m", client=client)).header("authorization") is None
    with pytest.raises(TypeError, match="give options to the client, not to the model that shares it: timeout"):
        acme("m", client=client, timeout=3)
    with pytest.raises(ConfigurationError, match="acme: the model id is empty"):
        acme("")


def test_the_table_is_imported_when_it_is_needed() -> None:
    code = "import completion, sys; completion.model('openai:m'); print('completion.adapters.providers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_mistral_continues_a_last_message_of_the_assistant(server: ProviderServer) -> None:
    history = [Message.user("q"), Message.assistant("The answer is")]
    messages = sent_to(server, loopback("mistral", server, api_key=KEY), ChatRequest(history)).json()["messages"]
    assert messages[-1] == {"role": "assistant", "content": "The answer is", "prefix": True}
    messages = sent_to(server, loopback("groq", server, api_key=KEY), ChatRequest(history)).json()["messages"]
    assert "prefix" not in messages[-1]
