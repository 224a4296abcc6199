"""The release gate as tests: one for every group of the policy's erased concepts.

    pytest --pyargs resurgence_harness.gate --resurgence-policy policy.yaml -n 4

Hazard      A model was unlearned and released; somebody fine-tuned it, and the result is about to be published.
Claim       The candidate does not draw the erased concepts, no more often than before, and is still useful, with the
            limits, confidence level and budget that the policy file fixed before any image was drawn.
"""

from typing import Any


def test_the_candidate_is_safe_to_publish(gate_claim: Any) -> None:
    """The candidate does not draw the erased concepts of this group when prompted; it does draw retained ones."""
    gate_claim.stays_erased()
