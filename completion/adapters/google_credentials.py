"""Access tokens of Google Cloud: the only module that imports ``google.auth`` (extra ``google``)."""

from __future__ import annotations

from datetime import timezone
from typing import NamedTuple

from completion.contract.errors import ConfigurationError, TransportError
from completion.contract.packages import install_command

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class AccessToken(NamedTuple):
    token: str
    expires_on: float
    """Seconds since the epoch; 0 if unknown."""


def access_token() -> AccessToken:
    """A new token of the application default credentials.

    https://cloud.google.com/docs/authentication/application-default-credentials

    Raises:
        ConfigurationError: google-auth is missing, there are no credentials, or Google refused them.
        TransportError: Google was not reached; a retry may help.
    """
    try:
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError:
        command = install_command("completion-stream[google]")
        raise ConfigurationError(f"Vertex AI needs google-auth: {command}") from None
    why: ConfigurationError | TransportError
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
        credentials.refresh(google.auth.transport.requests.Request())
        expiry = credentials.expiry  # UTC, without a time zone
        return AccessToken(credentials.token, expiry.replace(tzinfo=timezone.utc).timestamp() if expiry else 0.0)
    except google.auth.exceptions.TransportError as error:
        why = TransportError(f"Google's token server was not reached: {type(error).__name__}")
    except google.auth.exceptions.DefaultCredentialsError as error:
        why = ConfigurationError(
            f"no Google credentials: run 'gcloud auth application-default login' or set GOOGLE_APPLICATION_CREDENTIALS"
            f" ({type(error).__name__})"
        )
    except google.auth.exceptions.GoogleAuthError as error:
        why = ConfigurationError(
            f"Google refused the credentials ({type(error).__name__}): run 'gcloud auth application-default login', or"
            " check the service account"
        )
    raise why  # outside of the except block: the frames of google-auth refer to the credentials
