"""`python -m resurgence_harness.cli`."""

from __future__ import annotations

from resurgence_harness.cli.entry import main

if __name__ == "__main__":
    main()
