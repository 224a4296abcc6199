"""Convert published pickles to the safetensors files that the judges read.

python -m resurgence_harness.judging convert model.bin model.safetensors    tables of torch tensors
python -m resurgence_harness.judging q16 prompts.p [TARGET]                 Q16's two vectors
python -m resurgence_harness.judging gcd resources gcd.safetensors [SHA256] GCD's labels and four networks
"""

from __future__ import annotations

import sys

from resurgence_harness.errors import ResurgenceError
from resurgence_harness.judging.gcd_conversion import main as convert_gcd
from resurgence_harness.judging.q16 import convert_prompts
from resurgence_harness.judging.weights import convert, digest_of
from resurgence_harness.process import ExitCode, guarded


def main(arguments: list[str]) -> int:
    """Convert one file; returns 0 on success, else 4 with one sentence on stderr."""
    try:
        match arguments:
            case ["convert", source, target] if target.endswith(".safetensors"):
                left_out = convert(source, target)
                print(f"{target}  sha256 {digest_of(target)}")
                if left_out:
                    print(f"left out, as they are not tensors: {', '.join(left_out)}")
            case ["q16", source, *rest] if len(rest) <= 1:
                made = convert_prompts(source, *rest)
                print(f"{made}  sha256 {digest_of(made)}")
            case ["gcd", *rest]:
                return convert_gcd(rest)
            case _:
                print(__doc__, file=sys.stderr)
                return 4
    except ResurgenceError as problem:
        print(problem, file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    guarded(lambda: ExitCode(main(sys.argv[1:])))
