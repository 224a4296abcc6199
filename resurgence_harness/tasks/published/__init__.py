"""The paper's four tasks, and nudity, for Stable Diffusion v1.4 and v2.1: real names, real data sets, given judges.

Each file states for every choice whether it is the paper's (verified), inferred, or ours because nothing was found. No
third-party prompts, weights or images are included; unsafe and nudity read their prompts from a file of the user's.
"""

from __future__ import annotations

from resurgence_harness.registry import BUILT_IN, register
from resurgence_harness.tasks.published.celebrity import CELEBRITY
from resurgence_harness.tasks.published.copyright import COPYRIGHT
from resurgence_harness.tasks.published.nudity import NUDITY
from resurgence_harness.tasks.published.object import OBJECT
from resurgence_harness.tasks.published.unsafe import UNSAFE
from resurgence_harness.tasks.tables import PUBLISHED

for _task in (CELEBRITY, COPYRIGHT, UNSAFE, OBJECT, NUDITY):
    register("published task", _task, BUILT_IN)

__all__ = ["CELEBRITY", "COPYRIGHT", "NUDITY", "OBJECT", "PUBLISHED", "UNSAFE"]
