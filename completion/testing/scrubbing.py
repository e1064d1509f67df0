"""Finds the keys, cookies and account headers of requests, and replaces them with text of the same length."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final
from urllib.parse import quote, unquote

FILLER: Final = "REDACTED"

# A shorter value is a placeholder for a server without keys ("test", "none"), and may be part of an ordinary word.
_MIN_SEARCHED: Final = 8

# A key is searched for if it is shorter but not a word: "sk-test".
_SHORT_KEY = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z\s]).{6,}")
_KEY_HEADER = re.compile(r"auth|key", re.IGNORECASE)

# The names of headers whose values are replaced. If a request has such a value, it is replaced everywhere else too.
_SECRET_HEADER = re.compile(
    r"auth(?!enticate)|cookie|secret|password|credential|signature|key|token(?!s)|session"
    r"|organi[sz]ation|\borg\b|account|project|tenant|subscription|workspace|user-id",
    re.IGNORECASE,
)
_PUBLIC_HEADER = re.compile(r"access-control-|sec-websocket-|.*ratelimit", re.IGNORECASE)

_SECRET_PARAMETER = re.compile(
    r"([?&](?:[\w.-]*key|[\w.-]*token|sig|[\w.-]*signature|[\w.-]*credential|[\w.-]*secret|password|pwd|code)=)([^&#]*)",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<=://)[^/?#@]*(?=@)")
_AWS_KEY_ID = re.compile(r"Credential=([^/,\s]+)")

_HEADER_LINE = re.compile(rb"^([^\s:]+)(:[ \t]*)([^\r\n]*)", re.MULTILINE)
_FILLED = re.compile(f"(?:{FILLER})+(?:{'|'.join(FILLER[:n] for n in range(len(FILLER) - 1, 0, -1))})?")


def filler(length: int) -> str:
    return (FILLER * (length // len(FILLER) + 1))[:length]


def collapsed(text: str) -> str:
    """The text with ``[secret]`` for each replaced value, whatever its length: another key may have another length."""
    text = _SECRET_PARAMETER.sub(r"\1[secret]", text)
    return _FILLED.sub("[secret]", text)


class Scrubber:
    """Replaces the secrets that it has learned from requests.

    A secret is found as plain text, escaped as in JSON or a URL, and in base64 at each of the three alignments.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._plain: re.Pattern[bytes] | None = None
        self._encoded: list[tuple[re.Pattern[bytes], int, int, bool]] = []

    def learn(self, headers: Mapping[str, str], url: str) -> None:
        """Remember the secrets in the headers and the URL of a request."""
        found: set[str] = set()
        for name, value in headers.items():
            if is_secret_header(name):
                inside = _secrets_in(value.decode("latin-1") if isinstance(value, bytes) else str(value))
                found |= inside
                if _KEY_HEADER.search(name):
                    self._secrets |= {secret for secret in inside if _SHORT_KEY.fullmatch(secret)}
        for match in _SECRET_PARAMETER.finditer(url):
            found |= {match[2], unquote(match[2])}
        for match in _USER.finditer(url):
            found |= {match[0], *match[0].split(":")}
        self._secrets |= {secret for secret in found if len(secret) >= _MIN_SEARCHED}
        self._compile()

    def _compile(self) -> None:
        secrets = sorted(self._secrets, key=lambda secret: (-len(secret), secret))
        forms = {form.encode(errors="replace") for secret in secrets for form in _forms(secret)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._plain = re.compile(b"|".join(map(re.escape, ordered))) if ordered else None
        self._encoded = [
            (_base64_core(secret.encode(errors="replace"), before, is_url_safe), before, len(secret), is_url_safe)
            for secret in secrets
            for before in range(3)
            for is_url_safe in (False, True)
        ]

    def scrub(self, data: bytes) -> bytes:
        """The data with each secret replaced. Its length stays the same."""
        if self._plain is None:
            return data
        data = self._plain.sub(lambda match: filler(len(match[0])).encode(), data)
        for core, before, length, is_url_safe in self._encoded:
            if core.search(data):
                data = _without_base64(data, core, before, length, is_url_safe)
        return data

    def scrub_head(self, head: bytes) -> bytes:
        """A status line and headers without secrets."""

        def line(match: re.Match[bytes]) -> bytes:
            if not is_secret_header(match[1].decode("latin-1")):
                return match[0]
            return match[1] + match[2] + filler(len(match[3])).encode()

        return self.scrub(_HEADER_LINE.sub(line, head))

    def scrub_url(self, url: str) -> str:
        url = _SECRET_PARAMETER.sub(lambda match: match[1] + filler(len(match[2])), url)
        url = _USER.sub(lambda match: filler(len(match[0])), url)
        return self.scrub_text(url)

    def scrub_text(self, text: str) -> str:
        return self.scrub(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def scrub_pieces(self, pieces: Sequence[bytes], mend: Callable[[bytes, bytes], bytes] | None = None) -> list[bytes]:
        """The pieces without secrets. A secret may begin in one piece and end in another.

        ``mend`` gets the whole body as it was and as it is now, and returns what is written.
        """
        body = b"".join(pieces)
        scrubbed = self.scrub(body)
        if mend is not None and scrubbed != body:
            scrubbed = mend(body, scrubbed)
        ends = list(accumulate(map(len, pieces)))
        return [scrubbed[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)]


def is_secret_header(name: str) -> bool:
    return bool(_SECRET_HEADER.search(name)) and not _PUBLIC_HEADER.match(name)


def _secrets_in(value: str) -> set[str]:
    """The texts to search for: the value, the value without its scheme, and parts of a cookie, login or signature."""
    found = {value, value.partition(" ")[2].strip(), *_AWS_KEY_ID.findall(value)}
    if value[:6].lower() == "basic ":
        try:
            login = base64.b64decode(value[6:], validate=True).decode("utf-8", "replace")
        except binascii.Error:
            pass
        else:
            found |= {login, login.partition(":")[2]}
    for part in value.split(";"):
        if "=" in part:
            found.add(part.partition("=")[2].strip())
    return found


def _forms(secret: str) -> set[str]:
    in_json = json.dumps(secret)[1:-1]
    in_url = quote(secret, safe="")
    lower = re.sub("%..", lambda match: match[0].lower(), in_url)
    return {secret, in_json, in_json.replace("/", "\\/"), in_url, quote(secret), lower}


def _base64_core(secret: bytes, before: int, is_url_safe: bool) -> re.Pattern[bytes]:
    """A pattern of the base64 characters that depend only on the secret.

    ``before``: how many bytes (0 to 2) precede the secret in its group of three bytes.
    """
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    first, last = (before * 8 + 5) // 6, (before + len(secret)) * 8 // 6
    return re.compile(re.escape(encode(b"\0" * before + secret)[first:last]))


def _without_base64(data: bytes, core: re.Pattern[bytes], before: int, length: int, is_url_safe: bool) -> bytes:
    """Decode the base64, replace the secret, encode again: its first and last characters contain a part of it too."""
    lead = (before * 8 + 5) // 6
    size = -(-(before + length) * 8 // 6)  # rounded up
    result = bytearray(data)
    for match in core.finditer(data):
        start = match.start() - lead
        window = data[max(start, 0) : max(start, 0) + size]
        try:
            if start < 0:
                raise ValueError
            result[start : start + len(window)] = _refilled(window, before, length, is_url_safe)
        except ValueError:  # the characters around it are not base64
            result[match.start() : match.end()] = filler(len(match[0])).encode()
    return bytes(result)


def _refilled(window: bytes, before: int, length: int, is_url_safe: bool) -> bytes:
    characters = window.rstrip(b"=")
    standard = characters.translate(bytes.maketrans(b"-_", b"+/")) if is_url_safe else characters
    decoded = bytearray(base64.b64decode(standard + b"A" * (-len(standard) % 4), validate=True))
    decoded[before : before + length] = filler(length).encode()
    encoded = (base64.urlsafe_b64encode if is_url_safe else base64.b64encode)(decoded)
    return encoded[: len(characters)] + b"=" * (len(window) - len(characters))
