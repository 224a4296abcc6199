"""Addresses and messages without passwords, keys, tokens and signatures."""

from __future__ import annotations

import os
import re

_ACCOUNT = re.compile(r"(://)[^/\s@]+@")
_SIGNED = re.compile(
    r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|AccountKey|SharedAccessKey|"
    r"SharedAccessSignature|access_token|Credential)=[^&\s;,'\"]+"
)
_BEARER = re.compile(r"(?i)\b(Bearer|Authorization:?)\s+[A-Za-z0-9._~+/=-]{8,}")
_SECRET_NAME = re.compile(
    r"(?i)(SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|STORAGE_KEY|STORE_KEY|CONNECTION_STRING|CREDENTIALS)"
)
_SHORTEST = 6
"""Shorter values of such variables are not searched for: they would hide ordinary text."""


def discreet(address: str) -> str:
    """An address without user name and password, for messages."""
    return _ACCOUNT.sub(r"\1***@", address)


def concealed(message: str) -> str:
    """A library's message without credentials: of addresses, of signed requests, and of this process's environment."""
    message = _SIGNED.sub(r"\1=***", discreet(message))
    message = _BEARER.sub(r"\1 ***", message)
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    for value in sorted(secrets, key=len, reverse=True):
        message = message.replace(value, "***")
    return message
