"""The four tasks as the paper has them, for Stable Diffusion v1.4 and v2.1: real names, real data sets, given judges.

Each file states for every choice whether it is the paper's (verified), inferred, or ours because nothing was found. No
third-party prompts, weights or images are included; the unsafe task reads its prompts from a file given by the user.
"""

from __future__ import annotations

from resurgence_harness.registry import BUILT_IN, register
from resurgence_harness.tasks.published.celebrity import CELEBRITY
from resurgence_harness.tasks.published.copyright import COPYRIGHT
from resurgence_harness.tasks.published.object import OBJECT
from resurgence_harness.tasks.published.unsafe import UNSAFE
from resurgence_harness.tasks.tables import PUBLISHED

for _task in (CELEBRITY, COPYRIGHT, UNSAFE, OBJECT):
    register("published task", _task, BUILT_IN)

__all__ = ["CELEBRITY", "COPYRIGHT", "OBJECT", "PUBLISHED", "UNSAFE"]
