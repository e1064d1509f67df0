"""Signatures of AWS requests, and where the credentials come from: the only module that imports botocore.

botocore (extra ``bedrock``) is imported when the first request is signed: that takes 180 ms. A bearer token needs none.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NamedTuple

from completion.contract.errors import ConfigurationError, TransportError
from completion.contract.frames import is_from_signal_handler
from completion.contract.packages import install_command
from completion.transport.credentials import ApiKey, Authorization, Key

BEARER_TOKEN = "AWS_BEARER_TOKEN_BEDROCK"

_HIDDEN_SINCE = 8  # characters: a shorter secret is a placeholder

_SIGNED_HEADERS = ("Content-Type",)
"""Besides ``Host`` and those of the signature. Proxies change the others."""


class AwsKeys(NamedTuple):
    """An access key that the caller passed."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "<AwsKeys>"


class SignedAuthorization(Authorization):
    """Signs a request when requests prepares it, and again if it has to be sent again."""

    __slots__ = ("_credentials", "_region", "_service")

    def __init__(self, credentials: Any, service: str, region: str) -> None:
        super().__init__({}, credentials.secret_key)
        self._credentials = credentials
        self._service = service
        self._region = region

    def __call__(self, prepared: Any) -> Any:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        headers = {name: prepared.headers[name] for name in _SIGNED_HEADERS if name in prepared.headers}
        request = AWSRequest(prepared.method, prepared.url, headers=headers, data=prepared.body)
        SigV4Auth(self._credentials, self._service, self._region).add_auth(request)
        prepared.headers.update(dict(request.headers.items()))
        return prepared

    def conceal(self, text: str) -> str:
        for secret in (self._credentials.secret_key, self._credentials.token, self._credentials.access_key):
            if secret and len(secret) >= _HIDDEN_SINCE:
                text = text.replace(secret, "[key]")
        return text


class AwsKey(ApiKey):
    """A bearer token, or else credentials of AWS that sign each request.

    A bearer token is passed, or in the environment. Credentials are passed too, or botocore finds them: in the
    environment, in a profile, in the roles of containers and machines.

    Args:
        bearer: the bearer token, or a function that returns it.
        keys: an access key. It is used even if the environment has a bearer token.
        profile: a profile of ``~/.aws``. It is used even if the environment has a bearer token.
        region: where the requests go; None is an error when a request is signed.
    """

    __slots__ = ("_bearer", "_keys", "_profile", "_region", "_session_by_process")

    def __init__(
        self,
        bearer: Key | None = None,
        keys: AwsKeys | None = None,
        profile: str | None = None,
        region: str | None = None,
    ) -> None:
        ways = "give api_key=, or credentials of AWS: aws_access_key_id= and aws_secret_access_key=, profile=, or"
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
            TransportError: the server that gives credentials was not reached.
        """
        has_bearer = self._bearer is not None or bool(self._found)
        if has_bearer and self._keys is None and self._profile is None:
            return super().authorization(provider)
        credentials = self._credentials(provider)
        if credentials is None:
            return super().authorization(provider)  # raises the error that names all ways
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
        try:
            from botocore.credentials import ReadOnlyCredentials
            from botocore.exceptions import BotoCoreError, HTTPClientError
        except ImportError:
            if self._keys is None and self._profile is None and not os.environ.get("AWS_ACCESS_KEY_ID"):
                return None
            raise missing_botocore(provider) from None
        if self._keys is not None:
            return ReadOnlyCredentials(*self._keys)
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
        # Raised outside of the except block: the frames of botocore refer to the credentials.
        raise kind(f"botocore found no credentials of AWS: {why}", provider=provider)

    def _session(self) -> Any:
        # A session that a forked child inherits may have a lock that no thread releases.
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
    """The region in the configuration of AWS, if botocore is installed."""
    with suppress(ImportError):
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        with suppress(BotoCoreError):
            region = Session(profile=profile).get_config_variable("region")
            return region if isinstance(region, str) and region else None
    return None


def missing_botocore(provider: str) -> ConfigurationError:
    command = install_command("completion-stream[bedrock]")
    why = f"requests are signed with botocore: {command}; or use a bearer token: set {BEARER_TOKEN}"
    return ConfigurationError(why, provider=provider)
