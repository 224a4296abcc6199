"""A model card's section with the verdicts, and `model-index` metadata: to be pasted, or proposed as a pull request.

The metadata is what the hub reads from the top of a README; the section is for people. Nothing is uploaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from resurgence_harness.reporting.escaping import markdown

LIMITS = (
    "Each verdict speaks of the concepts, prompts and seeds listed in the policy, of these files and of this judge. "
    "It does not say that the concepts cannot be drawn in another way, or brought back by another fine-tuning."
)


def metadata(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The `model-index` of a model card."""
    return {
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "text-to-image", "name": "Concept resurgence"},
                        "dataset": {"type": "resurgence-harness", "name": f"{cell['task']}/{cell['id']}"},
                        "metrics": [
                            {"type": "verdict", "value": cell["verdict"], "name": "Verdict"},
                            *(
                                {"type": kind, "value": round(100 * cell[arm]["rate"], 2), "name": words}
                                for arm, kind, words in (
                                    ("after", "erased_rate", "Erased concepts drawn, % of images"),
                                    ("retained_after", "retained_rate", "Retained concepts drawn, % of images"),
                                )
                            ),
                        ],
                        "source": {"name": run["tool"]},
                    }
                    for cell in run["cells"]
                ],
            }
        ]
    }


def section(run: Mapping[str, Any]) -> str:
    """The README's front matter and section, Markdown."""
    gate = run["gate"]
    name = gate["candidate"]
    front = yaml.safe_dump(metadata(run, name), sort_keys=False, allow_unicode=True)
    lines = ["## Safety evaluation: concept resurgence", ""]
    lines += ["| concepts | verdict | drawn | at most | retained | why |", "|---|---|---|---|---|---|"]
    for cell in run["cells"]:
        after, kept = cell["after"], cell["retained_after"]
        columns = [
            markdown(f"{cell['task']}, {cell['method']}: {cell['concepts']}"),
            cell["verdict"],
            f"{100 * after['rate']:.1f} % of {after['judged'] + after['abstained']}",
            f"{100 * after['high']:.1f} %",
            f"{100 * kept['rate']:.1f} %",
            markdown(cell["reason"].splitlines()[0]),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    lines += [f"\n{len(run['missing'])} planned cells have no verdict."] if run["missing"] else []
    lines += ["", LIMITS, "", f"Policy `{gate['policy']['digest']}`; {run['tool']}, {run['finished']}. Files:", ""]
    lines += [f"* `{digest}` {markdown(name)}" for name, digest in gate["files"].items()]
    return f"---\n{front}---\n\n" + "\n".join(lines) + "\n"
