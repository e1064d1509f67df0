"""Models by name: ``"family:model-id"``.

A family is a class or a function that takes the model id and options. Our families are listed here and, for compatible
providers, in ``adapters.providers``. Other packages add theirs with the entry-point group ``completion.adapters``, one
entry per family:

    entry_points={"completion.adapters": ["acme = acme_llm:AcmeModel"]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from completion.contract.errors import ConfigurationError
from completion.contract.frames import hide_arguments_in_tracebacks
from completion.contract.model import ChatModel, CompletionModel
from completion.wrappers.third_party import ThirdPartyModel

if TYPE_CHECKING:
    from completion.adapters.compatible import Provider

GROUP = "completion.adapters"

OURS = {
    "anthropic": "completion.adapters.anthropic:AnthropicModel",
    "anthropic-foundry": "completion.adapters.anthropic_clouds:AnthropicFoundryModel",
    "anthropic-mantle": "completion.adapters.anthropic_clouds:AnthropicMantleModel",
    "anthropic-vertex": "completion.adapters.anthropic_clouds:AnthropicVertexModel",
    "anthropic-bedrock": "completion.adapters.anthropic_bedrock:AnthropicBedrockModel",
    "azure-openai": "completion.adapters.azure_openai:AzureOpenAIModel",
    "cohere": "completion.adapters.cohere:CohereModel",
    "bedrock": "completion.adapters.bedrock:BedrockModel",
    "gemini": "completion.adapters.gemini:GeminiModel",
    "gemini-interactions": "completion.adapters.gemini_interactions:GeminiInteractionsModel",
    "local": "completion.adapters.local:LocalModel",
    "ollama": "completion.adapters.ollama:OllamaModel",
    "openai": "completion.adapters.openai_responses:OPENAI",
    "openai-chat": "completion.adapters.openai:OpenAIModel",
    "openai-responses": "completion.adapters.openai_responses:OpenAIResponsesModel",
}

Family = Callable[..., CompletionModel]


@hide_arguments_in_tracebacks
def model(name: str, **options: Any) -> ChatModel:
    """The model with this name, ``"family:model-id"``. The options are passed to the family.

    The model id may be omitted for a family with a default model, such as ``local``. A model of another package is
    wrapped, so that its stream is a ChatStream too.

    Raises:
        ConfigurationError: the family is unknown or cannot be imported, or it needs a model id.
        TypeError: the name is not a string, or the family of another package returns an object that is not a model.
    """
    if not isinstance(name, str):
        raise TypeError(f"completion.model takes a str like 'family:model-id', got {type(name).__name__}")
    family_name, _, model_id = name.partition(":")
    make = family(family_name)
    if not model_id and not getattr(make, "has_default_model", False):
        raise ConfigurationError(f"the model id is missing; write '{family_name}:<model id>'", provider=family_name)
    from completion.adapters.account import HttpModel  # not above: it imports the wires, which few imports need

    made = make(model_id, **options) if model_id else make(**options)
    return made if isinstance(made, HttpModel) else ThirdPartyModel(made)


def families() -> list[str]:
    """The names of all families: ours, and those of installed packages."""
    return sorted({*OURS, *_providers(), *(point.name for point in entry_points(group=GROUP))})


def family(name: str) -> Family:
    """The class or function that makes the models of a family.

    Our families cannot be replaced by those of other packages.

    Raises:
        ConfigurationError: the family is unknown, or its package cannot be imported.
    """
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        return cast(Family, getattr(import_module(module), attribute))
    if name in _providers():
        return _providers()[name]
    found = _entry_point(name)
    if found is None:
        raise ConfigurationError(
            f"unknown family {name!r}; a name is 'family:model-id'; families: {', '.join(families())}"
        )
    try:
        return cast(Family, found.load())
    except Exception as exc:  # the import runs another package's code, which may raise anything
        raise ConfigurationError(f"family {name!r} cannot be loaded from {found.value}: {exc}") from exc


def _providers() -> Mapping[str, Provider]:
    """The compatible providers by name. Their table is imported on first use: most programs do not need it."""
    from completion.adapters.providers import PROVIDERS

    return PROVIDERS


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=name)), None)
