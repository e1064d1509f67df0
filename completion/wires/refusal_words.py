"""The status codes, error codes and phrases of providers, and our error for each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from completion.contract.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
)

Kind = type[ProviderError]

# Not listed: other 4xx are InvalidRequestError, other 5xx are ServerError.
KIND_BY_STATUS: dict[int, Kind] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    413: RequestTooLargeError,
    429: RateLimitError,
    498: OverloadedError,  # Groq: the flex tier has no capacity
    503: OverloadedError,
    529: OverloadedError,
}


# Codes and types that are more specific than a status. Letter case, "_", and "Error" or "Exception" at the end are
# ignored.
WORDS: dict[Kind, tuple[str, ...]] = {
    ContextOverflowError: (
        "context_length_exceeded",  # OpenAI
        "context_window_exceeded",
        "model_context_window_exceeded",
        "exceed_context_size_error",  # llama.cpp
    ),
    QuotaExceededError: (
        "insufficient_quota",  # OpenAI
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",  # Anthropic
        "ServiceQuotaExceededException",  # Bedrock
        "quota_exceeded",
        "insufficient_credits",
        "exceeded_current_quota_error",  # Moonshot
        "budget_exceeded",  # LiteLLM
        "Arrearage",  # Alibaba
    ),
    AuthenticationError: (
        "invalid_api_key",  # OpenAI
        "authentication_error",  # Anthropic
        "API_KEY_INVALID",  # Gemini, with status 400
        # AWS. It usually sends them with status 403; then the error is PermissionDeniedError.
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    ),
    PermissionDeniedError: (
        "permission_error",  # Anthropic
        "PERMISSION_DENIED",  # Gemini
        "AccessDeniedException",  # Bedrock
    ),
    NotFoundError: (
        "model_not_found",  # OpenAI
        "DeploymentNotFound",  # Azure
        "not_found_error",  # Anthropic; Gemini's NOT_FOUND
        "ResourceNotFoundException",  # Bedrock
        "invalid_model",  # Mistral
    ),
    RequestTooLargeError: ("request_too_large",),  # Anthropic
    ContentFilterError: (
        "content_filter",  # OpenAI, Azure
        "content_policy_violation",
        "invalid_prompt",  # OpenAI: flagged by its usage policy
        "ResponsibleAIPolicyViolation",  # Azure
        "data_inspection_failed",  # Alibaba
    ),
    OverloadedError: (
        "overloaded_error",  # Anthropic
        "slow_down",  # OpenAI
        "server_overloaded",
        "engine_overloaded_error",  # Moonshot
        "service_unavailable",  # Bedrock's ServiceUnavailableException
        "UNAVAILABLE",  # Gemini
        "ModelNotReadyException",  # Bedrock
        "NoCapacity",  # Azure
        "service_tier_capacity_exceeded",  # Mistral
        "capacity_exceeded",
        "over_capacity",  # Groq
    ),
}


# Codes and types that are not more specific than a status, or contradict it. They count only if there is no status.
WORDS_WITHOUT_STATUS: dict[Kind, tuple[str, ...]] = {
    RateLimitError: (
        "rate_limit_exceeded",  # OpenAI, with the types "tokens" and "requests"
        "tokens",
        "requests",
        "limit_requests",
        "rate_limit_error",  # Anthropic
        "RESOURCE_EXHAUSTED",  # Gemini
        "ThrottlingException",  # Bedrock
        "rate_limited",
        "too_many_requests",
        "rate_limit_reached_error",  # Moonshot; Azure's RateLimitReached
        "Throttling.RateQuota",  # Alibaba
        "token_quota_exceeded",
        "too_many_tokens_error",
    ),
    AuthenticationError: ("unauthorized", "UNAUTHENTICATED"),
    ServerError: (
        "server_error",  # OpenAI
        "api_error",  # Anthropic
        "timeout_error",
        "INTERNAL",  # Gemini
        "DEADLINE_EXCEEDED",
        "ModelStreamErrorException",  # Bedrock
        "ModelTimeoutException",
        "internal_server_error",  # Bedrock's InternalServerException
    ),
    InvalidRequestError: (
        "invalid_request_error",  # OpenAI, Anthropic
        "invalid_value",
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
        "INVALID_ARGUMENT",  # Gemini
        "FAILED_PRECONDITION",
        "ValidationException",  # Bedrock
        "bad_request",
        "tool_use_failed",  # Groq
    ),
}


# For providers that send a message and no code. A row: our error, the statuses that it may replace, and the phrases, in
# lower case.
PHRASES: tuple[tuple[Kind, tuple[int | None, ...], tuple[str, ...]], ...] = (
    (
        ContextOverflowError,
        (None, 400, 413, 422),
        (
            "prompt is too long",  # Anthropic
            "exceed context limit",  # Anthropic: input length and `max_tokens` exceed context limit
            "context length",
            "context window",
            "context size",
            "maximum context",
            "context_length_exceeded",
            "exceeds the maximum number of tokens",  # Gemini
            "input is too long for requested model",  # Bedrock
            "number of input tokens exceeds",
            "maximum prompt length",  # xAI
            "exceeded model token limit",  # Moonshot
            "tokens in request more than max tokens",
            "current length is",  # Cerebras
            "上下文长度",  # Chinese providers: length of the context
            "prompt 超长",  # Zhipu: too long
            "`inputs` must have less than",  # Text Generation Inference
            "`inputs` tokens + `max_new_tokens` must be",
            "expected maxlength:",  # Bedrock: Malformed input request: expected maxLength: 50000, actual: 52611
        ),
    ),
    (
        QuotaExceededError,
        (None, 400, 403, 429),
        (
            "credit balance is too low",  # Anthropic
            "insufficient balance",  # MiniMax, Zhipu
            "余额不足",  # Zhipu, Alibaba: the balance is not enough
            "欠费",  # Zhipu, Alibaba: the account is in arrears
            "out of call volume quota",  # Azure's gateway
            "requires more credits",  # OpenRouter
            "make sure your account is in good standing",  # Alibaba
            "arrearage",
            "overdue-payment",
        ),
    ),
    (
        ContentFilterError,
        (None, 400, 403),
        (
            "input was flagged",  # OpenRouter
            "content management policy",  # Azure, without its code behind LiteLLM
            "contentpolicyviolation",  # LiteLLM
        ),
    ),
    (AuthenticationError, (None, 400), ("incorrect api key", "api key not valid")),  # xAI; Gemini
    (
        NotFoundError,
        (None, 400),
        (
            "model identifier is invalid",  # Bedrock
            "invalid model name",  # LiteLLM
            "is not a valid model",  # OpenRouter
            "model not exist",  # DeepSeek
            "model does not exist",
        ),
    ),
)


# The only errors that a code or a phrase can turn a 403 into. Gateways pass on types that contradict the status.
KINDS_OF_403 = (PermissionDeniedError, QuotaExceededError, ContentFilterError)


# For messages without a phrase of the table. _OVERFLOW: the input is too long. _USED_UP: the money or quota is used up.
_OVERFLOW = re.compile(
    r"\b(?:prompt|inputs?|context|conversation|messages?|sequence|history|chat)\b[^.\n]{0,80}"
    r"\b(?:too (?:long|large|big|many)|exceed(?:s|ed|ing)?|longer than|larger than|greater than|overflow(?:s|ed)?)\b"
    r"|\b(?:exceed(?:s|ed|ing)?|over|beyond|longer than|larger than|overflow(?:s|ed)?)\b[^.\n]{0,60}"
    r"\b(?:context|input|prompt|sequence|model'?s?)\b[^.\n]{0,20}\b(?:length|limit|window|size|tokens?|maximum)\b"
    r"|\btoo many (?:input |prompt )?tokens\b|\brange of input length\b|\bcontext overflow\b"
    r"|\breduce the (?:length|size) of (?:the |your )?(?:messages?|prompt|input|context)\b"
    r"|\b(?:context|tokens?|prompt)(?: length| window| size)? limit (?:is |was |has been )?(?:reached|exceeded)\b"
    r"|\binput token count is \d+ but\b|\bmax(?:imum)? input tokens\b|\bat most \d+ tokens\b"
    r"|\bmore than max(?:imum)? tokens\b|(?:\bnot|n't) fit (?:in|into|within) [^.\n]{0,20}\b(?:context|model)\b",
    re.IGNORECASE,
)
_ABOUT_LENGTH = re.compile(r"\b(?:tokens?|context|length|long|window|characters)\b", re.IGNORECASE)
_MONEY = (
    r"(?:credits?|balance|funds?|quota|billing|budget|spend(?:ing)?|(?:monthly|usage|free tier) limits?|prepaid"
    r"|subscription|free allocation|allowance)"
)
_USED_UP = re.compile(
    rf"\b{_MONEY}\b[^.\n]{{0,60}}\b(?:insufficient|exhausted|depleted|ra?un out|used up|too low|negative|reached|"
    r"exceeded|not enough|overdue|inactive|not active|expired|is (?:zero|0))\b"
    r"|\b(?:insufficient|exhausted|depleted|out of|used (?:up )?(?:all|your)|not enough|exceeded|reached|"
    rf"no (?:more|remaining|available)|does(?:n't| not) have any|purchase|buy|recharge|top up|add)\b"
    rf"[^.\n]{{0,60}}\b{_MONEY}\b|\b(?:over|crossed) budget\b|\bpayment (?:is )?required\b"
    r"|\b(?:account|invoice)\b[^.\n]{0,40}\b(?:in arrears|overdue|unpaid)\b"
    # OpenAI; Alibaba; Cloudflare; LiteLLM
    r"|\bcheck your (?:plan|billing)\b|\bfree tier\b[^.\n]{0,60}\bexhausted\b"
    r"|\b(?:used up|run out of)\b[^.\n]{0,40}\b(?:free|allocation)\b|\bexceededbudget\b",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"\brate[ _-]?limit|(?:\b|_)per[ _-]?(?:second|min(?:ute)?|hour|day)(?![a-z])|per(?:minute|day)|\b[RT]P[MD]\b"
    r"|\bretry in\b|\btry again in\b|\bquota exceeded for \S*googleapis\.com/",  # Vertex: a quota per minute
    re.IGNORECASE,
)


def kind_by_unknown_phrase(status: int | None, message: str) -> Kind | None:
    """The error for a message without a phrase of the table: the context is full, or the account has no money.

    Only these two, because compaction and fallback depend on them. None for any other message, and for a rate limit.
    """
    if _RATE.search(message):
        return None
    if status in (None, 400, 402, 403, 412, 429) and _USED_UP.search(message):
        return QuotaExceededError
    if status in (None, 400, 413, 422) and _OVERFLOW.search(message) and _ABOUT_LENGTH.search(message):
        return ContextOverflowError
    return None


# The only errors that a code or a phrase can turn a 5xx into. Any other error would contradict the status.
KINDS_OF_5XX = (OverloadedError, QuotaExceededError, ContextOverflowError)


# What the caller can do about an error that a retry does not fix.
ADVICE: dict[Kind, str] = {
    AuthenticationError: "check the API key or token",
    PermissionDeniedError: "check what this key may do, and whether it may use this model",
    NotFoundError: "check the model id or deployment name, and base_url",
    QuotaExceededError: "check the plan and the billing of the account",
    ContextOverflowError: "shorten the messages or lower max_tokens",
    RequestTooLargeError: "make the request smaller",
    ContentFilterError: "change the prompt",
}


# Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead. (OpenAI)
# property 'max_completion_tokens' is unsupported (Groq); body.max_completion_tokens: Extra inputs are not permitted
REFUSED_TOKEN_FIELD = re.compile(
    r"\b(?:unsupported|unknown|unrecognized|unexpected|extra)\b[^.]{0,40}\b(max_(?:completion_)?tokens)\b"
    r"|\b(max_(?:completion_)?tokens)\b\W{0,3}(?:is |are )?(?:not supported|unsupported|not permitted|extra )",
    re.IGNORECASE,
)
TOKEN_FIELD_AS_PARAM = re.compile(r'"param":\s*"(max_(?:completion_)?tokens)"')


# Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function tools, use
# /v1/responses or set reasoning_effort to 'none'.
# This model is only supported in v1/responses and not in v1/chat/completions.
ONLY_IN_RESPONSES = re.compile(
    r"\bv1/responses\b|\bresponses api\b|\btools\b.*\bnot supported\b.*\bchat[ /]completions\b", re.IGNORECASE
)


def normalized(code: str) -> str:
    """The code as it is compared: providers spell the same code in several ways."""
    return code.lower().replace("_", "").removesuffix("error").removesuffix("exception")


def _kind_by_code(table: Mapping[Kind, tuple[str, ...]]) -> dict[str, Kind]:
    return {normalized(word): kind for kind, words in table.items() for word in words}


KIND_BY_CODE = _kind_by_code(WORDS)


KIND_BY_CODE_WITHOUT_STATUS = _kind_by_code(WORDS_WITHOUT_STATUS)
