"""Spans and metrics that follow OpenTelemetry's GenAI conventions: the only door to opentelemetry (extra ``otel``)."""

from completion.otel.attributes import CAPTURE_CONTENT
from completion.otel.middleware import OpenTelemetry
from completion.otel.traced import TracedModel, traced

__all__ = ["CAPTURE_CONTENT", "OpenTelemetry", "TracedModel", "traced"]
