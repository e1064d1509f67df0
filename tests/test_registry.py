"""Families by name: ours, and those of other installed packages."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import completion
from completion import (
    AnthropicFoundryModel,
    AnthropicMantleModel,
    AnthropicModel,
    AzureOpenAIModel,
    ChatStream,
    CohereModel,
    CompletionModel,
    ConfigurationError,
    GeminiInteractionsModel,
    GeminiModel,
    LocalModel,
    OllamaModel,
    OpenAIClient,
    OpenAIModel,
    OpenAIResponsesClient,
    OpenAIResponsesModel,
    StreamCancelledError,
    TextDelta,
)
from completion.adapters.account import HttpModel
from completion.registry import families

ACME = """
class AcmeModel:
    name = "acme"

    def __init__(self, model, *, shout=False, pause=0):
        self.model = model
        self.pause = pause
        self.shout = shout

    def chat_stream(self, req):
        from completion import CancelToken, FinishReason, TextDelta, TurnFinished

        token = CancelToken.current()
        yield TextDelta(req.messages[0].text)
        if self.shout:
            yield TextDelta("!")
        token.sleep(self.pause)
        yield TurnFinished(FinishReason.END_TURN)


def no_model(model):
    return model
"""

ENTRY_POINTS = """\
[completion.adapters]
acme = acme_llm:AcmeModel
broken = acme_llm.nowhere:AcmeModel
renamed = acme_llm:NoSuchModel
openai = acme_llm:AcmeModel
no-model = acme_llm:no_model
"""


@pytest.fixture
def _acme_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "acme_llm.py").write_text(ACME)
    info = tmp_path / "acme_llm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-llm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_llm", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("anthropic:claude-sonnet-4-6", AnthropicModel),
        ("anthropic-foundry:claude-sonnet-4-6", AnthropicFoundryModel),
        ("anthropic-mantle:anthropic.claude-sonnet-4-6", AnthropicMantleModel),
        ("azure-openai:my-deployment", AzureOpenAIModel),
        ("cohere:command-a-03-2025", CohereModel),
        ("gemini:gemini-3.8-flash", GeminiModel),
        ("gemini-interactions:gemini-3.8-flash", GeminiInteractionsModel),
        ("local:my-model.gguf", LocalModel),
        ("ollama:qwen3", OllamaModel),
        ("openai:gpt-5", OpenAIModel),
        ("openai-responses:gpt-5", OpenAIResponsesModel),
    ],
)
def test_a_name_consists_of_family_and_model_id(name: str, kind: type[CompletionModel]) -> None:
    options = {} if kind is LocalModel else {"api_key": "k", "base_url": "http://127.0.0.1:9"}
    model = completion.model(name, **options)
    assert type(model) is kind
    assert (model.name, model.model) == (name.partition(":")[0], name.partition(":")[2].removesuffix(".gguf"))


def test_a_model_id_may_contain_colons() -> None:
    assert completion.model("openai:ft:gpt-5:acme", api_key="k").model == "ft:gpt-5:acme"


@pytest.mark.parametrize(
    "family_name", ["anthropic", "azure-openai", "cohere", "gemini", "gemini-interactions", "ollama", "openai"]
)
def test_options_are_passed_to_the_family(family_name: str) -> None:
    model = completion.model(f"{family_name}:m", api_key="k", base_url="http://127.0.0.1:9/proxy/")
    assert isinstance(model, HttpModel)
    assert model.base_url == "http://127.0.0.1:9/proxy"


def test_the_embedded_model_needs_no_model_id() -> None:
    assert isinstance(completion.model("local"), LocalModel)


@pytest.mark.usefixtures("_acme_is_installed")
def test_the_family_of_another_package_is_found() -> None:
    model = completion.model("acme:large", shout=True)
    assert isinstance(model, CompletionModel)
    assert (model.name, model.model, getattr(model, "shout")) == ("acme", "large", True)  # noqa: B009  not in the type


@pytest.mark.usefixtures("_acme_is_installed")
def test_the_generator_of_another_package_becomes_a_chat_stream() -> None:
    with completion.model("acme:large", shout=True).chat_stream("Hello") as stream:
        assert isinstance(stream, ChatStream)
        assert stream.collect().text == "Hello!"


@pytest.mark.usefixtures("_acme_is_installed")
def test_the_generator_of_another_package_can_be_cancelled() -> None:
    with completion.model("acme:large", pause=60).chat_stream("Hello") as stream:
        assert next(stream) == TextDelta("Hello")
        threading.Timer(0.05, stream.cancel).start()
        with pytest.raises(StreamCancelledError):
            next(stream)


@pytest.mark.usefixtures("_acme_is_installed")
def test_the_model_of_another_package_pickles() -> None:
    model = pickle.loads(pickle.dumps(completion.model("acme:large", shout=True)))
    assert model.chat_stream("Hello").collect().text == "Hello!"


@pytest.mark.usefixtures("_acme_is_installed")
def test_a_family_that_makes_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match="a model has name, model and chat_stream"):
        completion.model("no-model:x")


@pytest.mark.usefixtures("_acme_is_installed")
def test_all_families_are_listed() -> None:
    assert {"acme", "local", "openai"} <= set(families())
    assert families() == sorted(set(families()))


@pytest.mark.usefixtures("_acme_is_installed")
def test_another_package_cannot_replace_our_family() -> None:
    assert type(completion.model("openai:m", api_key="k")) is OpenAIResponsesModel


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("openai", {}, OpenAIResponsesModel),
        ("openai", {"base_url": "https://api.openai.com/v1"}, OpenAIResponsesModel),
        ("openai", {"base_url": "https://eu.api.openai.com/v1"}, OpenAIResponsesModel),
        ("openai", {"base_url": "http://127.0.0.1:9/v1"}, OpenAIModel),
        ("openai", {"token_field": "max_tokens"}, OpenAIModel),
        ("openai", {"token_field": None, "project": "p"}, OpenAIResponsesModel),
        ("openai-chat", {}, OpenAIModel),
        ("openai-responses", {"base_url": "http://127.0.0.1:9/v1"}, OpenAIResponsesModel),
    ],
)
def test_openai_is_responses_at_its_own_host_and_chat_completions_elsewhere(
    name: str, options: dict[str, Any], kind: type[HttpModel]
) -> None:
    assert type(completion.model(f"{name}:m", api_key="k", **options)) is kind


def test_a_base_url_of_the_environment_chooses_the_wire_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert type(completion.model("openai:m", api_key="k")) is OpenAIModel


def test_a_shared_client_chooses_the_wire() -> None:
    clients = [OpenAIClient(api_key="k"), OpenAIResponsesClient(api_key="k", base_url="http://127.0.0.1:9")]
    kinds = [type(completion.model("openai:m", client=client)) for client in clients]
    assert kinds == [OpenAIModel, OpenAIResponsesModel]
    with pytest.raises(TypeError, match="give options to the client, not to the model that shares it: timeout"):
        completion.model("openai:m", client=clients[0], timeout=3)


@pytest.mark.usefixtures("_acme_is_installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody:x", "unknown family 'nobody'; a name is 'family:model-id'; families: "),
        ("gpt-5", "unknown family 'gpt-5'; a name is 'family:model-id'; families: "),
        ("", "unknown family ''; a name is 'family:model-id'; families: "),
        (":x", "unknown family ''; a name is 'family:model-id'; families: "),
        ("openai", "openai: the model id is missing; write 'openai:<model id>'"),
        ("openai:", "openai: the model id is missing; write 'openai:<model id>'"),
        ("acme", "acme: the model id is missing; write 'acme:<model id>'"),
        ("broken:x", "family 'broken' cannot be loaded from acme_llm.nowhere:AcmeModel: "),
        ("renamed:x", "family 'renamed' cannot be loaded from acme_llm:NoSuchModel: "),
    ],
)
def test_the_error_for_a_bad_name_says_what_to_write(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        completion.model(name)
    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("_acme_is_installed")
def test_the_error_for_an_unknown_family_lists_the_known_families() -> None:
    with pytest.raises(ConfigurationError, match=r"a name is 'family:model-id'; families: acme, .*local.*, openai"):
        completion.model("nobody:x")
