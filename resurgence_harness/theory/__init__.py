"""The paper's linear score model (section 5, Proposition 5.1) in closed form, and which of its statements hold.

    model = LinearScoreModel(alpha=0.5, second_moment=np.eye(8))
    erased, supervised = at_angle(8, 1, 30.0)
    gradient(model, erased)           exact   ‖P_C ∇L‖_F of an exactly unlearned model
    gradient_bound(model, erased, supervised)         Proposition 5.1, part 1: true, and loose
    update(model, erased)             exact   ‖P_C ΔW‖_F of the minimising update
    sensitivity_bound(model, erased)                  part 2, corrected and proved
    stated_sensitivity_bound(model, erased, supervised)               part 2 as stated: false for dim C ≤ 3

Everything is float64 numpy. Matrices may carry leading axes [..., d, d]: a batch of models or subspaces at once. The
paper's Appendices G and H were not available; every formula is derived in its module. See `docs/theory.md`.
"""

from resurgence_harness.theory.dynamics import Descent, Everywhere, Within, energy
from resurgence_harness.theory.gradients import (
    confined_gradient,
    confined_gradient_of_the_unlearned_optimum,
    gradient,
    gradient_bound,
    gradient_span,
    remaining_signal_bound,
)
from resurgence_harness.theory.model import LinearScoreModel, unlearn
from resurgence_harness.theory.sensitivity import (
    confined_sensitivity_bound,
    confined_sensitivity_bound_of_the_unlearned_optimum,
    largest_update_alpha,
    sensitivity_bound,
    sharp_sensitivity_bound,
    stated_sensitivity_bound,
    update,
    variance_within,
)
from resurgence_harness.theory.subspaces import (
    Subspace,
    at_angle,
    leakage_on_supervised,
    leakage_on_whole_space,
    overlap,
    principal_angles,
)

__all__ = [
    "Descent",
    "Everywhere",
    "LinearScoreModel",
    "Subspace",
    "Within",
    "at_angle",
    "confined_gradient",
    "confined_gradient_of_the_unlearned_optimum",
    "confined_sensitivity_bound",
    "confined_sensitivity_bound_of_the_unlearned_optimum",
    "energy",
    "gradient",
    "gradient_bound",
    "gradient_span",
    "largest_update_alpha",
    "leakage_on_supervised",
    "leakage_on_whole_space",
    "overlap",
    "principal_angles",
    "remaining_signal_bound",
    "sensitivity_bound",
    "sharp_sensitivity_bound",
    "stated_sensitivity_bound",
    "unlearn",
    "update",
    "variance_within",
]
