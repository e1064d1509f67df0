"""One module a provider, and what they share: the client, the model and the endpoint of an adapter that speaks HTTP."""

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.transport.credentials import ApiKey, Key

__all__ = ["ApiKey", "Endpoint", "HttpClient", "HttpModel", "HttpOptions", "Key", "Options", "TimeoutLike"]
