"""The words and limits of Gemini's generateContent."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "gemini"


# Words that are not here, such as MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL and LANGUAGE, are FinishReason.OTHER.
FINISH_REASONS = {
    "STOP": FinishReason.END_TURN,  # also after tool calls
    "MAX_TOKENS": FinishReason.MAX_TOKENS,
    "FUNCTION_CALL": FinishReason.TOOL_USE,  # some gateways
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
}

NO_REASON = "FINISH_REASON_UNSPECIFIED"
"""The default of the enumeration. It does not end the turn."""


# The types of provider blocks that we make ourselves. All others are parts, and go back as they came.
#   {"type": "signature", "thoughtSignature": "…", "length": 17}     signature of the last 17 characters of the text
#       before it; with length 0, of an empty text part
#   {"type": "candidate", "groundingMetadata": {…}, …}     other fields of the answer; they do not go back
SIGNATURE, CANDIDATE = "signature", "candidate"


# The fields of an answer that are kept in a block of type CANDIDATE.
CANDIDATE_EXTRAS = ("groundingMetadata", "urlContextMetadata", "citationMetadata", "finishMessage")

# A candidate with these fields only has nothing to keep.
PLAIN_CANDIDATE = frozenset({"content", "index", "finishReason", "safetyRatings", "avgLogprobs"})


# A usage without any of these is not a usage: Vertex AI sends {"trafficType": "ON_DEMAND"} in every chunk.
USAGE_COUNTERS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")


TOOL_MODES = {"auto": "AUTO", "any": "ANY", "tool": "ANY", "none": "NONE"}


ANY_SIGNATURE = "skip_thought_signature_validator"
"""Stands for the signature of a call that another model made. Gemini 3 refuses a call without a signature.

https://ai.google.dev/gemini-api/docs/thought-signatures
"""

COUNTED_ON_VERTEX = ("contents", "systemInstruction", "tools", "generationConfig")
"""The fields of a request that ``countTokens`` of Vertex AI accepts.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/count-tokens (read November 2026)
"""

RESULT_FILES_SINCE = (3, 0)
"""The first version that accepts files in the result of a function.

https://ai.google.dev/gemini-api/docs/function-calling#multimodal (read November 2026)
"""

RESULT_FILE_TYPES = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")
"""The media types of these files."""
