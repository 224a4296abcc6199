"""`python -m resurgence_harness.judging convert model.bin model.safetensors`: weights as the judges read them."""

from __future__ import annotations

import sys

from resurgence_harness.errors import ResurgenceError
from resurgence_harness.judging.weights import convert, digest_of

USAGE = "usage: python -m resurgence_harness.judging convert SOURCE TARGET.safetensors"


def main(arguments: list[str]) -> int:
    """Convert one file; 0 if that went well, else 4 and one sentence."""
    if len(arguments) != 3 or arguments[0] != "convert" or not arguments[2].endswith(".safetensors"):
        print(USAGE, file=sys.stderr)
        return 4
    source, target = arguments[1:]
    try:
        left_out = convert(source, target)
    except ResurgenceError as problem:
        print(problem, file=sys.stderr)
        return 4
    print(f"{target}  sha256 {digest_of(target)}")
    if left_out:
        print(f"left out, as they are no tensors: {', '.join(left_out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
