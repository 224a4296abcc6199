"""Runs a command that a user declared: no shell, a time limit, no secrets in its environment, nothing left running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.process import supervisor

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TMP", "TEMP"),
    *("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Variables that a command gets."""
PASSED_FAMILIES = (
    *("LC_", "CONDA_", "CUDA_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_", "HSA_", "OMP_", "MKL_", "KMP_", "OPENBLAS_"),
    *("NUMEXPR_", "TORCH", "PYTORCH_", "TRITON_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "ACCELERATE_"),
    *("XDG_",),
)
"""Beginnings of names of variables that it gets as well."""
_SECRET = re.compile(
    r"TOKEN|SECRET|KEY|PASS|CREDENTIAL|AUTH|COOKIE|SESSION|SIGNATURE|PRIVATE|DSN|CONNECTION_STRING", re.IGNORECASE
)
_LOGIN = re.compile(r"://[^/@\s]+@")
_KNOWN_SECRETS = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}|glpat-[\w-]{20,})"
)
MOST_OUTPUT = 200_000_000
"""Bytes of output after which a command is ended."""
WAIT = 15.0
"""Seconds in which a stopped command must have ended."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    """Its exit code, negative for a signal; None if it was ended by us or never began."""
    why: str
    """Why there is no exit code, as the end of a sentence; empty if there is one."""
    seconds: float


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable of the environment counts as a secret: by its name, or by a login in its value."""
    return bool(_SECRET.search(name)) or name.startswith("RESURGENCE_") or bool(_LOGIN.search(value))


def holds_secret(text: str) -> bool:
    """Whether a text has the form of an access token, or contains the value of a secret of this process."""
    secrets = [value for name, value in os.environ.items() if len(value) >= 8 and _SECRET.search(name)]
    return bool(_KNOWN_SECRETS.search(text) or _LOGIN.search(text)) or any(value in text for value in secrets)


def environment(declared: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a command: the variables above and the declared ones, without secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name in PASSED or name in declared or name.startswith(PASSED_FAMILIES)) and not is_secret(name, value)
    }


def run_command(
    command: Sequence[str], *, folder: Path, variables: Mapping[str, str], log: Path, limit: float
) -> Ended:
    """Run a command in a folder, stdout and stderr together in the file `log`; ends it after `limit` seconds.

    Its whole process group is ended with it, also if this process is interrupted or killed.
    """
    start = time.monotonic()
    lifeline, ours = os.pipe()
    answer, status = os.pipe()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(_python(), "-I", "-S", supervisor.__file__),
                    *(str(lifeline), str(status), f"{limit:f}", str(MOST_OUTPUT)),
                    *command,
                ],
                cwd=folder,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process, which then ends the command
                pass_fds=(lifeline, status),
            )
        os.close(status)
        status = -1
        try:
            process.wait()
        finally:
            os.close(ours)
            ours = -1
            with suppress(subprocess.TimeoutExpired):
                process.wait(WAIT)
        with os.fdopen(answer, "rb") as file:
            answer = -1
            said = file.read().decode(errors="replace")
    finally:
        for descriptor in (lifeline, ours, answer, status):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
    return _ended(said, time.monotonic() - start, limit)


def _ended(said: str, seconds: float, limit: float) -> Ended:
    word, _, rest = said.partition(" ")
    if word == "ended":
        return Ended(int(rest), "", seconds)
    reasons = {
        "limit": f"was ended after its time limit of {limit:g} seconds",
        "output": f"was ended after {MOST_OUTPUT:,} bytes of output",
        "not": f"could not be started: {said.partition(': ')[2]}",
        "stopped": "was stopped by a signal",
    }
    return Ended(None, reasons.get(word, "was killed, with the process that watched it"), seconds)


def _python() -> str:
    """A Python for a program that needs the standard library alone: that of the environment's installation."""
    return getattr(sys, "_base_executable", None) or sys.executable
