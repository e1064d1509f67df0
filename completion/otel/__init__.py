"""Spans and metrics by OpenTelemetry's GenAI conventions: the only door to opentelemetry (extra ``otel``)."""

from completion.otel.middleware import CAPTURE_CONTENT, OpenTelemetry, TracedModel, traced

__all__ = ["CAPTURE_CONTENT", "OpenTelemetry", "TracedModel", "traced"]
