"""From ``"family:model-id"`` to a model.

Families are functions or classes that take the model id and options. Ours are listed here; others come from the
entry-point group ``completion.adapters``, one entry a family:

    entry_points={"completion.adapters": ["acme = acme_llm:AcmeModel"]}
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from completion.contract.errors import ConfigurationError
from completion.contract.frames import secretive
from completion.contract.model import CompletionModel

GROUP = "completion.adapters"

OURS = {
    "anthropic": "completion.adapters.anthropic:AnthropicModel",
    "azure-openai": "completion.adapters.azure_openai:AzureOpenAIModel",
    "local": "completion.adapters.local:LocalModel",
    "openai": "completion.adapters.openai:OpenAIModel",
}

Family = Callable[..., CompletionModel]


@secretive
def model(name: str, **options: Any) -> CompletionModel:
    """The model that ``"family:model-id"`` names; the options go to the family.

    A family with a model of its own, such as ``local``, may stand alone.

    Raises:
        ConfigurationError: no such family, or no model id where the family needs one.
    """
    if not isinstance(name, str):
        raise TypeError(f"completion.model takes a str like 'family:model-id', got {type(name).__name__}")
    family_name, _, model_id = name.partition(":")
    make = family(family_name)
    if model_id:
        return make(model_id, **options)
    if not getattr(make, "has_default_model", False):
        raise ConfigurationError(f"give the model id as well: '{family_name}:<model id>'", provider=family_name)
    return make(**options)


def families() -> list[str]:
    """The names of all families, ours and the installed ones of others."""
    return sorted({*OURS, *(point.name for point in entry_points(group=GROUP))})


def family(name: str) -> Family:
    """What makes the models of a family.

    Raises:
        ConfigurationError: it is unknown, or its package cannot be imported.
    """
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        return cast(Family, getattr(import_module(module), attribute))
    found = _installed(name)
    if found is None:
        raise ConfigurationError(
            f"unknown family {name!r}; known are {', '.join(families())}. Write it as 'family:model-id'"
        )
    try:
        return cast(Family, found.load())
    except Exception as exc:  # whatever its import does
        raise ConfigurationError(f"the family {name!r} cannot be loaded from {found.value}: {exc}") from exc


def _installed(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=name)), None)
