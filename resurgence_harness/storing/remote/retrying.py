"""Trying again after transient failures, with growing random pauses.

Exponential backoff with jitter, so that the workers of a cluster do not come back at the same moment (M. Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015). The libraries retry single requests themselves; this
repeats a whole operation, such as the transfer of a part, for as long as a server takes to restart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from resurgence_harness.storing.remote.failures import transient

PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Longest pauses in seconds between attempts; each is shortened at random by up to a half."""

T = TypeVar("T")


def persistent(act: Callable[[], T]) -> T:
    """What `act` returns; it is called again after a transient failure, and other exceptions pass through."""
    for pause in PAUSES:
        try:
            return act()
        except Exception as error:
            if not transient(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
    return act()
