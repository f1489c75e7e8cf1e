"""The `perturbation` suite: `suite` is its definition.

Then read `study` (one measurement), `phase_comb`, `comb_responses` and `agreement`; `directional`
(gradients, and the attack by them); `position_response`; `shift_consistency`.
"""
