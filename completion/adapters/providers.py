"""The compatible providers that we know, one row each.

A new provider is one more row; most fit the defaults. Base URLs, names of variables and differences are from the
providers' documentation (read November 2026).
"""

from __future__ import annotations

from completion.adapters.compatible import Provider
from completion.wires.openai_chat.dialect import COMPATIBLE, ChatDialect

# Many providers refuse a request with an unknown field, so ``top_k`` is not sent to those that do not document it.
_NO_TOP_K = ChatDialect(supports_top_k=False)
# Some refuse unknown fields of messages as well: a history may have blocks of another server, such as OpenRouter's.
_GROQ = ChatDialect(
    supports_top_k=False,
    supports_stream_options=False,
    reasoning_back="reasoning",
    supports_provider_blocks=False,  # "property 'annotations' is unsupported"
)
_REASONING_CONTENT = ChatDialect(supports_top_k=False, reasoning_back="reasoning_content")
_OPENROUTER = ChatDialect(reasoning_back="reasoning_details")
_CEREBRAS = ChatDialect(supports_top_k=False, reasoning_back="reasoning", supports_provider_blocks=False)
_MISTRAL = ChatDialect(
    supports_top_k=False,
    supports_stream_options=False,
    seed_field="random_seed",
    needs_answer_after_results=True,  # error 3230
    needs_prefix=True,  # error 3230 too
    supports_provider_blocks=False,  # "extra_forbidden"
    call_id_style="nine",
)
_MOONSHOT = ChatDialect(
    token_field="max_completion_tokens",
    supports_top_k=False,
    reasoning_back="reasoning_content",
    supports_forced_choice=False,
)
_SNOWFLAKE = ChatDialect(token_field="max_completion_tokens", supports_top_k=False)
_OLLAMA = ChatDialect(reasoning_back="reasoning")


def _local(name: str, base_url: str, key: str, *url_variables: str, dialect: ChatDialect = COMPATIBLE) -> Provider:
    """A server on this machine, or on another one if an environment variable says so."""
    return Provider(name, base_url, key, dialect, url_variables=url_variables, key_is_optional=True)


_ROWS = (
    Provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", _GROQ),
    Provider("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", _REASONING_CONTENT),
    # xAI calls its Chat Completions deprecated: there is no reasoning in it.
    Provider("xai", "https://api.x.ai/v1", "XAI_API_KEY", _NO_TOP_K, wire="responses", runs_custom_tools=True),
    Provider("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", _OPENROUTER),
    Provider("together", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
    Provider("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    Provider("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", _CEREBRAS),
    Provider("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", _MISTRAL),
    Provider("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    Provider("moonshot", "https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"), _MOONSHOT),
    Provider("zai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", _REASONING_CONTENT),
    Provider(
        "alibaba",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
    ),
    Provider("nvidia", "https://integrate.api.nvidia.com/v1", ("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY")),
    Provider("huggingface", "https://router.huggingface.co/v1", ("HF_TOKEN", "HUGGINGFACE_API_KEY")),
    Provider("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    Provider("meta", "https://api.meta.ai/v1", ("META_API_KEY", "MODEL_API_KEY")),
    Provider("deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    Provider(
        "snowflake",
        "https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
        "SNOWFLAKE_TOKEN",
        _SNOWFLAKE,
        placeholders={"account": "SNOWFLAKE_ACCOUNT"},
    ),
    Provider(
        "databricks",
        "https://{host}/serving-endpoints",
        ("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        placeholders={"host": "DATABRICKS_HOST"},
        url_variables=("DATABRICKS_API_BASE",),
    ),
    Provider(
        "cloudflare",
        "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai/v1",
        ("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN"),
        placeholders={"account_id": "CLOUDFLARE_ACCOUNT_ID"},
    ),
    Provider(
        "vercel",
        "https://ai-gateway.vercel.sh/v1",
        ("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
    ),
    # Authorization is for the key of the provider behind Portkey; headers= can add it, and other x-portkey-* headers.
    Provider("portkey", "https://api.portkey.ai/v1", "PORTKEY_API_KEY", key_header="x-portkey-api-key"),
    Provider("litellm", None, "LITELLM_PROXY_API_KEY", url_variables=("LITELLM_PROXY_API_BASE",), key_is_optional=True),
    Provider("compatible", None, "COMPATIBLE_API_KEY", url_variables=("COMPATIBLE_BASE_URL",), key_is_optional=True),
    _local(
        "ollama-openai",
        "http://localhost:11434/v1",
        "OLLAMA_API_KEY",
        "OLLAMA_BASE_URL",
        "OLLAMA_HOST",
        dialect=_OLLAMA,
    ),
    _local("lmstudio", "http://localhost:1234/v1", "LM_STUDIO_API_KEY", "LM_STUDIO_API_BASE"),
    _local("llamacpp", "http://localhost:8080/v1", "LLAMACPP_API_KEY", "LLAMACPP_BASE_URL"),
    _local("vllm", "http://localhost:8000/v1", "VLLM_API_KEY", "VLLM_BASE_URL"),
    _local("sglang", "http://localhost:30000/v1", "SGLANG_API_KEY", "SGLANG_BASE_URL"),
)

PROVIDERS = {provider.name: provider for provider in _ROWS}
"""The compatible providers by name."""
