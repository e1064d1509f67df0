"""Finds AWS credentials and signs requests. The only module that imports botocore.

botocore (extra ``bedrock``) finds credentials in profiles and roles. Its import takes 180 ms, so it is imported only
when it is needed. We sign requests ourselves, because botocore logs the session token when it signs.

Signature: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html (November 2026)
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from completion.contract.errors import ConfigurationError, TransportError
from completion.contract.frames import is_from_signal_handler
from completion.contract.packages import install_command
from completion.transport.credentials import ApiKey, Authorization, Key

BEARER_TOKEN = "AWS_BEARER_TOKEN_BEDROCK"

_MIN_CONCEALED_LENGTH = 8  # a shorter secret is a placeholder

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AwsKeys(NamedTuple):
    """An access key that the caller passed. Its fields have the same names as those of botocore's credentials."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "<AwsKeys>"


class SignedAuthorization(Authorization):
    """Signs a request when requests prepares it, and again for each resend."""

    __slots__ = ("_credentials", "_region", "_service")

    def __init__(self, credentials: Any, service: str, region: str) -> None:
        super().__init__({}, credentials.secret_key)
        self._credentials = credentials
        self._service = service
        self._region = region

    def __call__(self, prepared: Any) -> Any:
        # No other header is signed, because proxies may change them.
        headers = {"content-type": prepared.headers["Content-Type"]}
        now = datetime.now(timezone.utc)
        signed = signature_headers(
            prepared.method,
            prepared.url,
            headers,
            prepared.body or b"",
            self._credentials,
            self._service,
            self._region,
            now,
        )
        prepared.headers.update(signed)
        return prepared

    def conceal(self, text: str) -> str:
        for secret in (self._credentials.secret_key, self._credentials.token, self._credentials.access_key):
            if secret and len(secret) >= _MIN_CONCEALED_LENGTH:
                text = text.replace(secret, "[key]")
        return text


def signature_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Any,
    service: str,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """The headers that sign a request. ``headers``: others to sign besides ``Host``, with names in lower case."""
    parts = urlsplit(url)
    is_default_port = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    time = now.strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": time, **({"X-Amz-Security-Token": credentials.token} if credentials.token else {})}
    signed = {**headers, "host": host if is_default_port else f"{host}:{parts.port}"}
    signed |= {name.lower(): value for name, value in added.items()}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/~"),  # encoded a second time: every service except S3 requires that
            "&".join(sorted(parts.query.split("&"))),
            *(f"{name}:{' '.join(signed[name].split())}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join([_ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{credentials.access_key}/{scope}"
    added["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return added


class AwsKey(ApiKey):
    """A bearer token, or AWS credentials that sign each request.

    A bearer token is passed, or comes from the environment. AWS credentials are passed, or botocore finds them in the
    environment, in a profile, or in the role of a container or machine.

    Args:
        bearer: the bearer token, or a function that returns it.
        keys: an access key. It is used even if the environment has a bearer token.
        profile: a profile of ``~/.aws``. It is used even if the environment has a bearer token.
        region: the AWS region. None reads the region of the profile; without one, signing raises ConfigurationError.
    """

    __slots__ = ("_bearer", "_keys", "_profile", "_region", "_session_by_process")

    def __init__(
        self,
        bearer: Key | None = None,
        keys: AwsKeys | None = None,
        profile: str | None = None,
        region: str | None = None,
    ) -> None:
        ways = "give api_key=, or AWS credentials: aws_access_key_id= and aws_secret_access_key=, profile=, or"
        super().__init__(
            bearer,
            BEARER_TOKEN,
            ways=f"{ways} AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
        self._bearer = bearer
        self._keys = keys
        self._profile = profile
        self._region = region
        self._session_by_process: dict[int, Any] = {}

    def authorization(self, provider: str) -> Authorization:
        """The headers of a bearer token, or the signature of a request.

        Raises:
            ConfigurationError: there are no credentials, no region, or botocore is missing.
            TransportError: the server that issues the credentials could not be reached.
        """
        has_bearer = self._bearer is not None or bool(self._found)
        if has_bearer and self._keys is None and self._profile is None:
            return super().authorization(provider)
        credentials = self._credentials(provider)
        if credentials is None:
            return super().authorization(provider)  # raises: the message lists all ways to give credentials
        region = self._region or region_of_profile(self._profile)
        if not region:
            raise ConfigurationError("no region: give region= or set AWS_REGION", provider=provider)
        return SignedAuthorization(credentials, "bedrock", region)

    def forget_token(self) -> None:
        """Look the credentials up again: they may have been replaced."""
        super().forget_token()
        self._session_by_process.clear()

    def _credentials(self, provider: str) -> Any:
        """The credentials for one request; None if there are none."""
        if self._keys is not None:
            return self._keys
        try:
            from botocore.exceptions import BotoCoreError, HTTPClientError
        except ImportError:
            return self._without_botocore(provider)
        kind: type[ConfigurationError | TransportError]
        try:
            found = self._session().get_credentials()
            return found and found.get_frozen_credentials()
        except HTTPClientError as exc:
            kind, why = TransportError, type(exc).__name__
        except BotoCoreError as exc:
            kind, why = ConfigurationError, str(exc)
        except Exception as exc:
            if is_from_signal_handler(exc):
                raise
            kind, why = ConfigurationError, type(exc).__name__
        # Raised outside of the except block, because the frames of botocore contain the credentials.
        raise kind(f"botocore found no AWS credentials: {why}", provider=provider)

    def _without_botocore(self, provider: str) -> AwsKeys | None:
        """The access key in the environment; None if there is none."""
        if self._profile is not None or os.environ.get("AWS_PROFILE"):
            command = install_command("completion-stream[bedrock]")
            raise ConfigurationError(f"AWS profiles need botocore; run: {command}", provider=provider)
        key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        return AwsKeys(key_id, secret, os.environ.get("AWS_SESSION_TOKEN")) if key_id and secret else None

    def _session(self) -> Any:
        # One session for each process: in a forked child, a lock of the inherited session may be held forever.
        session = self._session_by_process.get(os.getpid())
        if session is None:
            from botocore.session import Session

            session = self._session_by_process.setdefault(os.getpid(), Session(profile=self._profile))
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {"bearer": self._bearer, "keys": self._keys, "profile": self._profile, "region": self._region}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        given = self._keys is not None or self._profile is not None or self._bearer is not None
        return f"<AwsKey {'given' if given else 'from the environment'}>"


def region_of_profile(profile: str | None) -> str | None:
    """The region in the AWS configuration; None if there is none, or if botocore is not installed."""
    with suppress(ImportError):
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        with suppress(BotoCoreError):
            region = Session(profile=profile).get_config_variable("region")
            return region if isinstance(region, str) and region else None
    return None
