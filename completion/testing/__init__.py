"""For tests of programs that use this library, and of adapters: real servers and scripted models, no mocks.

``ProviderServer`` is a loopback HTTP server that plays scripted replies with faults; ``ScriptedModel`` is a
CompletionModel that answers from a script; ``check_completion_model`` tells which promises of the contract an adapter
breaks.
"""

from completion.testing.conformance import check_completion_model
from completion.testing.replies import Cut, Pause, Reply, Reset, Stall, Trickle, WaitFor, event
from completion.testing.scripted import ScriptedModel
from completion.testing.server import Hangup, ProviderServer, Request

__all__ = [
    "Cut",
    "Hangup",
    "Pause",
    "ProviderServer",
    "Reply",
    "Request",
    "Reset",
    "ScriptedModel",
    "Stall",
    "Trickle",
    "WaitFor",
    "check_completion_model",
    "event",
]
