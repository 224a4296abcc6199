"""What went wrong with a remote store: whether trying again can help, whether writing is refused, and what to do.

Each fsspec backend raises its own exceptions (botocore's, aiohttp's, Azure's, OSError, timeouts, missing packages), and
s3fs keeps the server's answer as the cause of an OSError. So the whole chain of causes is read, by names and numbers,
without importing any backend.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from resurgence_harness.errors import shown
from resurgence_harness.storing.remote.addresses import concealed


class Damaged(Exception):
    """The bytes that arrived are not those of the manifest; downloading them again may help."""


_AGAIN = {408, 429, 500, 502, 503, 504}
_AGAIN_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "ServerBusy",
    "OperationTimedOut",
    "IncompleteBody",
    "OperationAborted",
}
_AGAIN_NAMES = re.compile(
    r"Timeout|Connection(Closed)?Error$|Disconnected|IncompleteRead|Payload|ResponseStreaming|HTTPClientError|"
    r"ServiceRequestError|ServiceResponseError|ClientOSError"
)
_AGAIN_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,  # s3fs for 503
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
    getattr(errno, "EREMOTEIO", errno.EPIPE),  # s3fs for InternalError
}
_REFUSED_ERRNO = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthenticationFailed"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "ServiceQuotaExceeded", "InsufficientCapacity"}


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: the server is busy, or the connection broke.

    An answer of the server decides; without one, the kind of exception. Refusals and missing objects are final.
    """
    if isinstance(error, Damaged):
        return True
    code, status = answer(error)
    if code or status:
        return code in _AGAIN_CODES or status in _AGAIN
    return any(_broken(one) for one in _chain(error))


def answer(error: BaseException) -> tuple[str, int]:
    """(error code, HTTP status) of the server's answer; empty and 0 if there was none."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return code, status if isinstance(status, int) else 0
        if type(one).__module__ == "aiohttp.http_exceptions":
            continue  # a broken answer, for which aiohttp invents the status 400
        code = getattr(one, "error_code", "")
        for name in ("status_code", "status", "code"):
            status = getattr(one, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return str(code or ""), status
    return "", 0


def exists_already(error: BaseException) -> bool:
    """Whether a conditional write was refused because the object is there, or is being written by another client."""
    code, status = answer(error)
    return isinstance(error, FileExistsError) or status in (409, 412) or code == "PreconditionFailed"


def refused(error: BaseException) -> bool:
    """Whether the credentials are known but may not write here."""
    code, _ = answer(error)
    if code in _WRONG_KEYS | _CLOCK | _FULL:
        return False
    return isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED_ERRNO


def advice(error: BaseException, *, otherwise: str) -> str:
    """What to do, by the server's answer."""
    code, _ = answer(error)
    names = {type(one).__name__ for one in _chain(error)}
    if code in _CLOCK:
        return "Set this machine's clock: the store refuses requests that are signed for another time."
    if code in _FULL:
        return "Free space (`resurgence store gc --store URL`), or raise the quota of the bucket."
    if code in _WRONG_KEYS or "NoCredentialsError" in names:
        return "Check the credentials that this machine gives the library: its variables, profile or instance role."
    return otherwise


def reason(error: BaseException) -> str:
    """The server's error code or the exception's type, and its message, in one line without credentials."""
    code, status = answer(error)
    name = code or type(error).__name__
    message = " ".join(str(error).split())
    if code and (code in message or message.endswith("None")):
        message = f"HTTP status {status}" if status else ""
    return shown(concealed(f"{name}: {message}" if message else name), limit=300)


def _broken(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return True
    if isinstance(error, OSError) and error.errno in _AGAIN_ERRNO:
        return True
    return _AGAIN_NAMES.search(type(error).__name__) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and its causes, the first ten."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
