"""Amazon Bedrock: Converse for the models of all makers.

ChatRequest -> wires.bedrock_converse.lower -> POST {base_url}/model/{id}/converse-stream -> wires.bedrock_converse
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url
from completion.contract.errors import ConfigurationError
from completion.transport.credentials import Key
from completion.transport.sigv4 import BEARER_TOKEN, AwsKey, AwsKeys, region_of_profile
from completion.wires import sizes
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.bedrock_converse.dialect import ConverseDialect

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

URL_VARIABLE = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"

# By the beginning of the region; any other region is in the standard partition.
DOMAINS = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}
DOMAIN = "amazonaws.com"

_REGION_IN_HOST = re.compile(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


class BedrockClient(HttpClient):
    """An account at Amazon Bedrock, in one region.

    Requests are signed with an access key (extra ``bedrock``), or carry a bearer token. Without any option botocore
    looks for an access key: in the environment, in profiles, in the roles of containers and machines.

    Args:
        api_key: a bearer token of Bedrock, or a function that is called before each request; None reads
            ``AWS_BEARER_TOKEN_BEDROCK``.
        base_url: None reads ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME``; without that it is Amazon's of the region.
        region: None reads ``AWS_REGION``, ``AWS_DEFAULT_REGION``, or the profile.
        aws_access_key_id, aws_secret_access_key, aws_session_token: an access key.
        profile: a profile of ``~/.aws/config``; None uses ``AWS_PROFILE``.
        base_model: the model behind the id of an inference profile, such as ``anthropic.claude-sonnet-4-5``. It decides
            which fields are sent.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Raises:
        ConfigurationError: the region is unknown, an access key is incomplete, or it is given beside ``api_key``.
    """

    name = "bedrock"
    key_variable = BEARER_TOKEN
    own_hosts: ClassVar[str] = r"bedrock-runtime(-fips)?\..+\.amazonaws\.com(\.cn)?"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.BEDROCK
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-amzn-requestid",)

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        region: str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        aws_session_token: str | None = None,
        profile: str | None = None,
        base_model: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        keys = aws_keys(aws_access_key_id, aws_secret_access_key, aws_session_token, profile, api_key, self.name)
        base_url = given_base_url(base_url, URL_VARIABLE, self.name)
        region = aws_region(region, base_url, profile, self.name)
        super().__init__(
            base_url=base_url or runtime_url(region, self.name),
            key=AwsKey(api_key, keys, profile, region),
            dialect=ConverseDialect(base_model),
            **options,
        )

    def completion_model(self, model_id: str) -> BedrockModel:
        """A model of this account. All models of a client share its connections."""
        return BedrockModel(model_id, client=self)


def aws_keys(
    key_id: str | None, secret: str | None, token: str | None, profile: str | None, api_key: Key | None, provider: str
) -> AwsKeys | None:
    """The access key that the caller gave; None if there is none.

    Raises:
        ConfigurationError: it is incomplete, or one of several ways to authorize requests.
    """
    ways = {"api_key": api_key, "aws_access_key_id": key_id, "profile": profile}
    found = [name for name, value in ways.items() if value]
    why = None
    if len(found) > 1:
        why = f"got {' and '.join(f'{name}=' for name in found)}: give one of them"
    elif bool(key_id) != bool(secret) or (token and not key_id):
        why = "an access key is incomplete: give both aws_access_key_id= and aws_secret_access_key="
    elif any(value is not None and not isinstance(value, str) for value in (key_id, secret, token)):
        why = "aws_access_key_id, aws_secret_access_key and aws_session_token must be strings"
    elif any(not _fits_header(value) for value in (key_id, secret, token) if value):
        why = "an access key contains white space, a control character or one outside ASCII"
    if why:
        del key_id, secret, token, api_key, ways  # a crash reporter shows the local variables of a traceback
        raise ConfigurationError(why, provider=provider)
    return AwsKeys(key_id, secret, token) if key_id and secret else None


def _fits_header(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value


def aws_region(region: str | None, base_url: str | None, profile: str | None, provider: str) -> str | None:
    """The region: the caller's, or that of the URL, of the environment or of the profile.

    None if none of them says it, or if only the profile can and there is a URL: a bearer token needs no region then.

    Raises:
        ConfigurationError: it is not like the name of a region. The key is sent to a host with this name.
    """
    in_url = _REGION_IN_HOST.search(base_url or "")
    found = region or (in_url and in_url[1]) or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not found and not base_url:
        found = region_of_profile(profile)
    if found and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", found):
        raise ConfigurationError(f"region must be like 'us-east-1', got {found!r}", provider=provider)
    return found or None


def runtime_url(region: str | None, provider: str) -> str:
    """The URL of Bedrock in a region."""
    if not region:
        raise ConfigurationError("no region: give region= or set AWS_REGION", provider=provider)
    domain = next((domain for start, domain in DOMAINS.items() if region.startswith(start)), DOMAIN)
    return f"https://bedrock-runtime.{region}.{domain}"


class BedrockOptions(Options, total=False):
    region: str | None
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    profile: str | None
    base_model: str | None


class BedrockModel(HttpModel):
    """A model behind Bedrock Converse. Give the options of BedrockClient, or a ``client`` to share.

    ``model``: the id or the ARN of a model or of an inference profile.
    """

    name = BedrockClient.name
    key_variable = BedrockClient.key_variable
    client_class = BedrockClient
    wire = CONVERSE

    def __init__(self, model: str, *, client: BedrockClient | None = None, **options: Unpack[BedrockOptions]) -> None:
        super().__init__(model, client=client, **options)

    def request_path(self) -> str:
        return f"/model/{quote(self.model, safe='')}/converse-stream"
