"""The hub's evaluation results, by huggingface_hub's own classes."""

from __future__ import annotations

import pytest
import yaml

from resurgence_harness.reporting import eval_results
from tests.reporting.records import UNRUN, record, run

hub = pytest.importorskip("huggingface_hub", minversion="1.2")


def test_the_file_is_what_the_hub_reads() -> None:
    """Two entries per cell, read and written unchanged; a cell without a verdict has none."""
    cell = record("erased-10-candidate", "HOLDS", task="celebrity")
    gate = {"gate": {"policy": {"digest": "ab" * 32}}}
    text = eval_results.text({**run(cell, missing=(UNRUN,)), **gate})
    data = yaml.safe_load(text)
    entries = hub.parse_eval_result_entries(data)
    assert hub.eval_result_entries_to_yaml(entries) == data
    assert [entry.task_id for entry in entries] == [
        "celebrity-erased-10-candidate-erased",
        "celebrity-erased-10-candidate-retained",
    ]
    erased, retained = entries
    assert (erased.value, retained.value) == (42.0, 93.33)
    assert erased.date == "2026-01-01T00:04:00+00:00"
    assert erased.notes.startswith("HOLDS; % of 150 images that show an erased concept, at most ")
    assert "policy abababababababab" in erased.notes and "at least" in retained.notes
