"""OpenAI Responses, at OpenAI and at every compatible server through ``base_url``.

ChatRequest -> wires.openai_responses.lower -> POST {base_url}/responses -> wires.openai_responses.assemble

The family ``openai`` is here too. It chooses between this wire and Chat Completions.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import headers_of
from completion.adapters.openai import OpenAIClient, OpenAIModel, account_headers, base_url_or_default, is_openai
from completion.contract.errors import ConfigurationError
from completion.contract.frames import hide_arguments_in_tracebacks
from completion.transport.credentials import ApiKey, Key
from completion.wires import sizes
from completion.wires.openai_responses import RESPONSES
from completion.wires.openai_responses.dialect import DEFAULT
from completion.wires.openai_responses.names import COUNTED
from completion.wires.wire import Wire

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

PATH = "/responses"

WireName = Literal["chat", "responses"]
"""OpenAI's two wires: Chat Completions and Responses. Other providers have both too."""


class OpenAIResponsesClient(HttpClient):
    """An account at OpenAI, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``OPENAI_API_KEY``.
        base_url: None reads ``OPENAI_BASE_URL``; without that it is OpenAI's.
        organization, project: None reads ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "openai-responses"
    key_variable = "OPENAI_API_KEY"
    own_hosts: ClassVar[str] = r"(.+\.)?api\.openai\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.OPENAI

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        options["headers"] = {**account_headers(organization, project), **headers_of(options)}
        super().__init__(
            base_url=base_url_or_default(base_url, self.name),
            key=ApiKey(api_key, self.key_variable),
            dialect=DEFAULT,
            **options,
        )

    def models_path(self) -> str:
        return "/models"

    def completion_model(self, model_id: str) -> OpenAIResponsesModel:
        """A model of this account. All models of a client share its connections."""
        return OpenAIResponsesModel(model_id, client=self)


class OpenAIResponsesOptions(Options, total=False):
    organization: str | None
    project: str | None


class OpenAIResponsesModel(HttpModel):
    """A model behind OpenAI Responses. Give the options of OpenAIResponsesClient, or a ``client`` to share."""

    name = OpenAIResponsesClient.name
    key_variable = OpenAIResponsesClient.key_variable
    client_class = OpenAIResponsesClient
    wire = RESPONSES
    path = PATH
    count_path = f"{PATH}/input_tokens"
    counted_fields = COUNTED

    def __init__(
        self, model: str, *, client: OpenAIResponsesClient | None = None, **options: Unpack[OpenAIResponsesOptions]
    ) -> None:
        super().__init__(model, client=client, **options)


_CHAT_OPTIONS = ("compatible", "token_field", "reasoning_back")


class OpenAIFamily:
    """The family ``openai``: Responses at OpenAI's own host, Chat Completions at any other ``base_url``.

    From gpt-5.6 on, OpenAI's models call tools on Responses only. Most other servers have only Chat Completions. An
    option that only Chat Completions has, such as ``token_field``, chooses that.
    """

    key_variable = OpenAIClient.key_variable

    @hide_arguments_in_tracebacks
    def __call__(
        self, model: str, *, client: OpenAIClient | OpenAIResponsesClient | None = None, **options: Any
    ) -> OpenAIModel | OpenAIResponsesModel:
        """A model. Give the options of one of the clients, or a ``client`` to share."""
        if isinstance(client, OpenAIClient):
            return OpenAIModel(model, client=client, **options)
        is_for_chat = any(options.get(name) is not None for name in _CHAT_OPTIONS)
        base_url = base_url_or_default(options.get("base_url"), OpenAIClient.name)
        if client is None and (is_for_chat or not is_openai(base_url)):
            return OpenAIModel(model, **options)
        options = {name: value for name, value in options.items() if name not in _CHAT_OPTIONS}
        return OpenAIResponsesModel(model, client=client, **options)


OPENAI = OpenAIFamily()


# --- for providers with both wires -----------------------------------------------------------------------------------


def wire_and_path(name: WireName) -> tuple[Wire, str]:
    """One of OpenAI's wires, and the path of its requests."""
    model_class = OpenAIResponsesModel if name == "responses" else OpenAIModel
    return model_class.wire, model_class.path


def check_wire(name: WireName, token_field: str | None, reasoning_back: str | None, provider: str) -> None:
    """Raise ConfigurationError if there is no such wire, or the options are for the other one."""
    if name not in get_args(WireName):
        raise ConfigurationError(f"wire must be 'chat' or 'responses', got {name!r}", provider=provider)
    for option, value in (("token_field", token_field), ("reasoning_back", reasoning_back)):
        if name == "responses" and value is not None:
            raise ConfigurationError(f"{option}= is for Chat Completions: give wire='chat'", provider=provider)
