"""For tests of programs that use this library, and for tests of adapters. No mocks.

``ScriptedModel`` is a CompletionModel that answers from a script. ``ProviderServer`` is a loopback HTTP server that
plays scripted replies, with faults. ``check_completion_model`` lists the promises of the contract that a model breaks.
"""

from completion.testing.conformance import check_completion_model
from completion.testing.connection import Request
from completion.testing.recording import recorded
from completion.testing.replies import Cut, Pause, Reply, Reset, Stall, Trickle, WaitFor, event
from completion.testing.scripted import ScriptedModel
from completion.testing.server import Hangup, ProviderServer

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
    "recorded",
]
