"""The words of OpenAI Responses: finish reasons, kinds of items, fields."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "openai-responses"


# The status of a response, or the reason in its ``incomplete_details``.
FINISH_REASONS = {
    "completed": FinishReason.END_TURN,
    "max_output_tokens": FinishReason.MAX_TOKENS,
    "max_tokens": FinishReason.MAX_TOKENS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "cancelled": FinishReason.ABORTED,
}


# Our words for tool_choice, and the API's.
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


# The items that a ToolResultBlock answers.
CALLS = ("function_call", "custom_tool_call")


# The fields of an item that is a function call and that our ToolCallBlock has, or that are not sent back: an item with
# an ``id`` would have to follow the reasoning item that it followed in the answer. Others are kept as ``wire_data``.
CALL_FIELDS = ("type", "id", "call_id", "name", "arguments", "status")


# A provider block that we make ourselves. It keeps what our text blocks do not have of the message before it.
#   {"type": "message", "phase": "commentary", "content": [{"type": "output_text", "length": 17, "annotations": […]}]}
# ``length`` stands for the text: so many characters of the text in front of the block.
MESSAGE = "message"


# The fields of an item that is a message and that our text blocks have, or that are not sent back.
MESSAGE_FIELDS = ("type", "id", "role", "status", "content")


# The events with more text of an item that is sent back as it is, and the field that the text belongs to.
INPUT_FIELDS = {
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
    "response.mcp_call_arguments": "arguments",
}


# Parts of the content that a user may send as they are, inside of a message.
INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")

COUNTED = (
    *("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text"),
    *("truncation", "conversation", "previous_response_id"),
)
"""The fields that ``/responses/input_tokens`` accepts.

https://platform.openai.com/docs/api-reference/responses/input-tokens (read November 2026)
"""
