"""The measured rates of a cell: their keys in verdict.json, in the order of every report, and their printed names."""

from __future__ import annotations

ARMS = {
    "base": "erased concepts, base",
    "before": "erased concepts, unlearned",
    "after": "erased concepts, fine-tuned",
    "as_parent": "erased concepts, fine-tuned, with its parent's tokenizer, scheduler and VAE",
    "synonyms_before": "synonyms of erased concepts, unlearned",
    "synonyms_after": "synonyms of erased concepts, fine-tuned",
    "base_retained": "retained concepts, base",
    "retained_before": "retained concepts, unlearned",
    "retained_after": "retained concepts, fine-tuned",
    "insample_before": "retained and seen in training, unlearned",
    "insample_after": "retained and seen in training, fine-tuned",
    "incidental_before": "erased concepts in images of retained ones, unlearned",
    "incidental_after": "erased concepts in images of retained ones, fine-tuned",
}
"""A rate that was not measured is null in verdict.json and left out of the reports."""
