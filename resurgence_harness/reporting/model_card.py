"""A model card's section with the verdicts, and `model-index` metadata: to be pasted, or proposed as a pull request.

The hub reads the metadata from the top of a README; the section is for readers. Nothing is uploaded here. In an
existing card the section is appended between two comments, by which a later run finds and replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.reporting.escaping import markdown

LIMITS = (
    "Each verdict applies to the concepts, prompts and seeds listed in the policy, these files and this judge. "
    "It does not show that the concepts cannot be drawn in another way, or brought back by another fine-tuning."
)

KIND = "resurgence-harness"
"""Dataset type that marks this package's results."""
LONGEST_FRONT = 100_000
"""Maximum characters of a card's metadata."""
BEGIN, END = f"<!-- {KIND}: begin -->", f"<!-- {KIND}: end -->"
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*$\r?\n?", re.S | re.M)


def metadata(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The `model-index` of a model card."""
    return {
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "text-to-image", "name": "Concept resurgence"},
                        "dataset": {"type": KIND, "name": f"{cell['task']}/{cell['id']}"},
                        "metrics": [
                            {"type": "verdict", "value": cell["verdict"], "name": "Verdict"},
                            *(
                                {"type": kind, "value": round(100 * cell[arm]["rate"], 2), "name": title}
                                for arm, kind, title in (
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
    return f"---\n{_yaml(metadata(run, run['gate']['candidate']))}---\n\n{body(run)}"


def body(run: Mapping[str, Any]) -> str:
    """The section alone."""
    gate = run["gate"]
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
    lines += _differences(run)
    lines += ["", LIMITS, "", f"Policy `{gate['policy']['digest']}`; {run['tool']}, {run['finished']}. Files:", ""]
    lines += [f"* `{digest}` {markdown(name)}" for name, digest in gate["files"].items()]
    return "\n".join(lines) + "\n"


def _differences(run: Mapping[str, Any]) -> list[str]:
    """How the candidate's settings differ from its parent's, and its erased rate with the parent's settings."""
    found = run["gate"].get("differences") or ()
    if not found:
        return []
    lines = ["", "Apart from its weights, this model differs from its parent in:", ""]
    lines += [f"* {markdown(one)}" for one in found]
    lines += ["", "With its parent's tokenizer, scheduler and VAE the erased concepts are drawn", ""]
    for cell in run["cells"]:
        rate = cell.get("as_parent")
        if rate is not None:
            images = rate["judged"] + rate["abstained"]
            lines.append(
                f"* {markdown(cell['task'] + ', ' + cell['method'])}: in {100 * rate['rate']:.1f} % of {images} images,"
                f" at most {100 * rate['high']:.1f} %"
            )
    return lines


def merged(readme: str, run: Mapping[str, Any], repo: str) -> str:
    """A model's card with the section and its metadata; everything else is unchanged.

    If the card already has a `model-index`, other results in it are kept and the front matter is rewritten.
    """
    front, rest = _parts(readme)
    known = check_readable(readme, repo)
    index = known.get("model-index") or []
    ours = metadata(run, repo.partition("/")[2])
    if index:
        others = [one for one in index[0].get("results") or [] if (one.get("dataset") or {}).get("type") != KIND]
        first = {**index[0], "results": [*others, *ours["model-index"][0]["results"]]}
        front = _yaml({**known, "model-index": [first, *index[1:]]})
    else:
        front = f"{front}\n{_yaml(ours)}" if front.strip() else _yaml(ours)
    section_text = f"{BEGIN}\n{body(run)}{END}\n"
    before, begin, after = rest.partition(BEGIN)
    _, end, after = after.partition(END)
    if begin and end:
        rest = before + section_text + after.removeprefix("\n")
    else:
        rest = f"{rest.rstrip()}\n\n{section_text}" if rest.strip() else f"\n{section_text}"
    return f"---\n{front}---\n{rest}"


def check_readable(readme: str, repo: str) -> dict[str, Any]:
    """The front matter of a card; UserError if nothing can be added to it."""
    front, _ = _parts(readme)
    try:
        if len(front) > LONGEST_FRONT or any(isinstance(token, yaml.AliasToken) for token in yaml.scan(front)):
            raise ValueError("it is too long, or uses YAML aliases")
        found = yaml.safe_load(front) or {}
        index = found.get("model-index") or []
        if not all(isinstance(one, dict) for result in index for one in (result, *(result.get("results") or []))):
            raise ValueError("its model-index is not a list of results")
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            sentence(
                f"The card of {shown(repo)} has metadata that cannot be read, so nothing can be added to it.",
                problem=shown(" ".join(str(error).split()), limit=200),
                do="Correct the lines between --- and --- at the top of its README.md first.",
            )
        ) from None
    return dict(found)


def _parts(readme: str) -> tuple[str, str]:
    """The front matter without its --- lines, and the rest."""
    found = _FRONT.match(readme)
    return (found[1], readme[found.end() :]) if found else ("", readme)


def _yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
