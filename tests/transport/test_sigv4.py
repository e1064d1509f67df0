"""Signatures, compared with botocore's, and where credentials come from."""

from __future__ import annotations

import os
import pickle
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from completion import BedrockModel, ConfigurationError
from completion.testing import ProviderServer, Reply
from completion.transport.sigv4 import AwsKey, AwsKeys, signature_headers
from tests import aws
from tests.loopback import HI, KEY, failure_of

TURN = Reply(aws.delta(0, text="a"), aws.ended(), headers=aws.CONTENT_TYPE)


@pytest.mark.parametrize("token", [None, "TOKEN/+="])
@pytest.mark.parametrize("body", [b"", '{"text": "größer"}'.encode()])
@pytest.mark.parametrize(
    "url",
    [
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-v1%3A0/converse-stream",
        "https://bedrock-runtime.us-east-1.amazonaws.com:443/model/m/converse-stream",
        "http://127.0.0.1:8080/a%2Fb/~x_y-z.0?b=2&a=1",
        "http://[::1]:8080",
    ],
)
def test_the_signature_is_that_of_botocore(url: str, body: bytes, token: str | None) -> None:
    request = AWSRequest("POST", url, headers={"Content-Type": "application/json"}, data=body)
    credentials = ReadOnlyCredentials("AKIAEXAMPLE", "secret/+=", token)
    SigV4Auth(credentials, "bedrock", "eu-west-1").add_auth(request)
    now = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    keys = AwsKeys("AKIAEXAMPLE", "secret/+=", token)
    headers = {"content-type": "application/json"}
    signed = signature_headers("POST", url, headers, body, keys, "bedrock", "eu-west-1", now)
    assert signed == {name: request.headers[name] for name in signed}
    assert ("X-Amz-Security-Token" in signed) == bool(token)


def sent_with(server: ProviderServer, **options: Any) -> str:
    """The Authorization header of a request."""
    server.reply(TURN)
    BedrockModel("m", base_url=server.url, region="us-east-1", **options).chat_stream(HI).collect()
    return server.requests[-1].header("authorization") or ""


def test_an_access_key_signs_the_request_that_is_sent(server: ProviderServer) -> None:
    options = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": KEY, "aws_session_token": "TOKEN"}
    found = sent_with(server, **options)
    (request,) = server.requests
    now = datetime.strptime(request.header("x-amz-date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    expected = signature_headers(
        "POST", server.url + request.path, {"content-type": "application/json"}, request.body,
        AwsKeys("AKIAEXAMPLE", KEY, "TOKEN"), "bedrock", "us-east-1", now,
    )  # fmt: skip
    assert found == expected["Authorization"]
    assert request.header("x-amz-security-token") == "TOKEN"
    assert server.url == f"http://{request.header('host')}"


def test_an_access_key_of_the_environment_signs(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    assert "Credential=AKIAENV/" in sent_with(server)


def test_a_bearer_token_of_the_environment_comes_before_its_access_key(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    assert sent_with(server) == f"Bearer {KEY}"
    assert "Credential=AKIAGIVEN/" in sent_with(server, aws_access_key_id="AKIAGIVEN", aws_secret_access_key="s")


def test_a_profile_has_credentials_and_a_region(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile work]\nregion = eu-west-3\naws_access_key_id = AKIAWORK\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    server.always(TURN)
    model = BedrockModel("m", base_url=server.url, profile="work")
    for one in (model, pickle.loads(pickle.dumps(model))):
        one.chat_stream(HI).collect()
        found = server.requests[-1].header("authorization") or ""
        assert "Credential=AKIAWORK/" in found
        assert "/eu-west-3/bedrock/" in found
    assert BedrockModel("m", profile="work").base_url == "https://bedrock-runtime.eu-west-3.amazonaws.com"


def test_an_unknown_profile_is_an_error_that_names_it(server: ProviderServer) -> None:
    model = BedrockModel("m", base_url=server.url, region="us-east-1", profile="nobody")
    error = failure_of(lambda: model.chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "nobody" in str(error)


def test_no_credentials_are_an_error_that_names_all_ways(server: ProviderServer) -> None:
    error = failure_of(lambda: BedrockModel("m", base_url=server.url, region="us-east-1").chat_stream(HI))
    for way in ("AWS_BEARER_TOKEN_BEDROCK", "api_key=", "aws_access_key_id=", "profile=", "AWS_ACCESS_KEY_ID"):
        assert way in str(error)


def test_a_signature_needs_a_region(server: ProviderServer) -> None:
    model = BedrockModel("m", base_url=server.url, aws_access_key_id="AKIA", aws_secret_access_key="s")
    assert "no region: give region= or set AWS_REGION" in str(failure_of(lambda: model.chat_stream(HI)))


def test_without_botocore_an_access_key_and_a_bearer_token_work(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    assert sent_with(server, api_key=KEY) == f"Bearer {KEY}"
    assert "Signature=" in sent_with(server, aws_access_key_id="AKIA", aws_secret_access_key="s")
    assert "no API key" in str(failure_of(lambda: sent_with(server)))
    with pytest.raises(ConfigurationError, match=r"AWS profiles need botocore; run: .*bedrock"):
        sent_with(server, profile="work")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert "Credential=AKIAENV/" in sent_with(server)


def test_new_credentials_of_the_environment_are_read_where_a_model_is_unpickled(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    server.always(TURN)
    model = BedrockModel("m", base_url=server.url, region="us-east-1")
    model.chat_stream(HI).collect()
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATWO")
    pickle.loads(pickled).chat_stream(HI).collect()
    assert "Credential=AKIATWO/" in (server.requests[-1].header("authorization") or "")


def test_no_repr_shows_an_access_key() -> None:
    keys = AwsKeys("AKIAEXAMPLE", KEY, KEY)
    key = AwsKey(None, keys, None, "us-east-1")
    assert f"{keys!r} {key!r} {key.authorization('bedrock')!r}" == "<AwsKeys> <AwsKey given> <Authorization>"
    assert os.environ.get("AWS_PROFILE") is None
