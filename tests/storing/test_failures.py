"""What a library raised about a remote store: whether it is tried again, and what the message shows."""

from __future__ import annotations

import errno

import aiohttp
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, NoCredentialsError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from resurgence_harness.storing.remote import failures, retrying
from resurgence_harness.storing.remote.addresses import concealed


def answered(code: str, status: int) -> BaseException:
    """What s3fs raises for a server's answer."""
    response = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "PutObject"))  # type: ignore[arg-type,no-any-return]


@pytest.mark.parametrize(
    "error",
    [
        answered("SlowDown", 503),
        answered("InternalError", 500),
        answered("RequestTimeout", 400),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ConnectionClosedError(endpoint_url="http://127.0.0.1:1"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("Response payload is not completed"),
        FSTimeoutError(),
        ConnectionResetError(errno.ECONNRESET, "peer"),
        failures.Damaged("a has sha256 …"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as there are pauses, and no longer: then the library's exception is what is told."""
    monkeypatch.setattr(retrying, "PAUSES", (0.0, 0.0, 0.0))
    calls = []

    def act() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise error
        return "done"

    assert retrying.persistent(act) == "done" and len(calls) == 3
    calls.clear()

    def always() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retrying.persistent(always)
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error",
    [
        answered("AccessDenied", 403),
        answered("RequestTimeTooSkewed", 403),
        answered("QuotaExceeded", 403),
        answered("NoSuchBucket", 404),
        answered("PreconditionFailed", 412),
        NoCredentialsError(),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "full"),
        KeyError("endpoint"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_final_is_tried_once(error: Exception) -> None:
    """A refusal will be one the next time, too."""
    calls = []

    def act() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retrying.persistent(act)
    assert calls == [1]


def test_a_refusal_to_write_is_none_of_the_key_the_clock_or_the_space() -> None:
    """Only the first leaves a store that can be read."""
    assert failures.refused(answered("AccessDenied", 403))
    for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "QuotaExceeded"):
        assert not failures.refused(answered(code, 403))


@pytest.mark.parametrize(
    "message",
    [
        "ftp://somebody:hidden-word@host/x is no address",
        "GET https://host/a?X-Amz-Credential=hidden-word%2F2026&X-Amz-Signature=hidden-word HTTP/1.1",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hidden-word==;EndpointSuffix=x",
        "https://a.blob.core.windows.net/c?sv=2026&sig=hidden-word%3D",
        "Authorization: hidden-word-of-a-token refused",
        "refused: Bearer hidden-word.of.a.token",
        "the key hidden-word is wrong",
    ],
)
def test_no_secret_is_shown(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of addresses, of signed requests, and of this process's environment; the rest of the message stays."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-word")
    monkeypatch.setenv("LANG_TOKEN", "is")  # too short to be one
    shown = concealed(message)
    assert "hidden-word" not in shown and "***" in shown
    assert failures.reason(OSError(message)).startswith("OSError: ") and "hidden" not in failures.reason(
        OSError(message)
    )
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert message.startswith("the key") or "hidden-word" not in concealed(message)
