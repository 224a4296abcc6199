"""Coverage-guided fuzzing of the readers that meet files of strangers; `pip install -e ".[fuzz]"`, Linux.

    python -m tests.fuzz header -max_total_time=600        libFuzzer's options follow the target
    python -m tests.fuzz policy corpus/ crash-…            a folder to keep what was found, or one input to try again

It begins with the hostile corpora of the tests; a finding ends it with the input in a file `crash-…`.
"""

from __future__ import annotations

import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["resurgence_harness.diffusion", "resurgence_harness.gate", "resurgence_harness.strict_yaml", "yaml"]
):
    import yaml  # noqa: F401  (read with its coverage, before a policy asks for it)

    from tests.fuzz.targets import LONGEST, TARGETS, WORDS, seeds


def main() -> None:
    """Fuzz one target until libFuzzer is told to stop."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(TARGETS)} [CORPUS] [-max_total_time=SECONDS …]")
    target, options = sys.argv[1], sys.argv[2:]
    longest = LONGEST.get(target, 4096)
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    with tempfile.TemporaryDirectory() as folder:
        for data in seeds(target, Path(folder)):
            if len(data) <= longest:
                (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    single = any(not option.startswith("-") and Path(option).is_file() for option in options)
    given = [] if single else [str(corpus)]  # libFuzzer writes what it finds into the first folder
    folders = [option for option in options if not option.startswith("-")]
    flags = [option for option in options if option.startswith("-")]
    words = Path(tempfile.mkstemp(suffix=".dict")[1])
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS.get(target, WORDS["header"]))
    words.write_text("".join(f'"{word}"\n' for word in escaped), encoding="utf-8")
    usual = [f"-dict={words}", f"-max_len={longest}", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *usual, *flags, *folders, *given], lambda data: TARGETS[target](data) and None)
    atheris.Fuzz()


main()
