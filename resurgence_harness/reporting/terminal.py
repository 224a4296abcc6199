"""The table at the end of a run: plain text in aligned columns, as narrow as their contents, without colours.

    method  concepts  base              before          after             retained     verdict
    uce            1  96.8 (91.9–99.1)  0.8 (0.0–5.2)   0.8 (0.0–5.2)     92.7 → 92.0  HOLDS
    esd           10  95.3 (90.1–98.2)  3.3 (0.9–8.3)   42.0 (32.8–51.6)  90.0 → 93.3  VIOLATED

Functions return lines of segments: pieces of text, each with a style name ("", "dim", "good", "warn", "bad").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from resurgence_harness.errors import visible
from resurgence_harness.process import MEANINGS

Record = Mapping[str, Any]
"""A cell's object in verdict.json."""


class Segment(NamedTuple):
    """A piece of a line."""

    text: str
    style: str = ""


Line = list[Segment]

STYLES = {"HOLDS": "good", "KNOWN": "warn", "UNDECIDED": "warn", "VIOLATED": "bad"}
"""Style of each verdict."""
VERDICTS = {"HOLDS": "holds", "KNOWN": "known", "VIOLATED": "violated", "UNDECIDED": "undecided"}
"""Each verdict as it is written in the last line."""
_HEADER = (
    "task",
    "method",
    "concepts",
    "fine-tuning",
    "run",
    "base",
    "before",
    "after",
    "as parent",
    "retained",
    "verdict",
)
_RIGHT = {"concepts", "run"}


def plain(lines: Iterable[Line]) -> str:
    """The lines without styles."""
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


def table(records: Sequence[Record]) -> list[Line]:
    """One row per cell; task, fine-tuning and run have a column only if they differ between cells.

    The column "as parent" appears if a candidate's tokenizer, scheduler or VAE differs from its parent's.
    """
    differ = {
        "task": several_tasks(records),
        "fine-tuning": len({record["finetuning"] for record in records}) > 1,
        "run": len({record["run"] for record in records}) > 1,
        "as parent": any(record.get("as_parent") for record in records),
    }
    header = [name for name in _HEADER if differ.get(name, True)]
    rows = [[_column(record, name) for name in header] for record in records]
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]

    def line(row: Sequence[str], style: str, last: str) -> Line:
        cells = [
            text.rjust(width) if name in _RIGHT else text.ljust(width)
            for name, text, width in zip(header, row, widths, strict=True)
        ]
        return [Segment("  ".join(cells[:-1]) + "  ", style), Segment(row[-1], last)]

    return [
        line(header, "dim", "dim"),
        *(line(row, "", STYLES[record["verdict"]]) for row, record in zip(rows, records, strict=True)),
    ]


def several_tasks(records: Sequence[Record]) -> bool:
    """Whether the cells belong to more than one task."""
    return len({record["task"] for record in records}) > 1


LONGEST = 160
"""Maximum characters of a reason in the closing lines; verdict.json and -v have the full text."""


def reasons(records: Sequence[Record]) -> list[Line]:
    """The full reason of every cell whose verdict is not HOLDS, with its task if there are several."""
    named = _names(records, [record for record in records if record["verdict"] != "HOLDS"])
    lines: list[Line] = []
    for name, record in named:
        first, *more = map(visible, str(record["reason"]).splitlines() or [""])
        lines.append([*_head(name, record), Segment(f": {first}")])
        lines += [[Segment(f"{'':<{len(name)}}  {text.strip()}", "dim")] for text in more]
    return lines


def blocked(records: Sequence[Record]) -> list[Line]:
    """One line per VIOLATED or UNDECIDED cell, its reason cut at `LONGEST`, and one that counts the KNOWN cells."""
    lines: list[Line] = []
    for name, record in _names(records, [one for one in records if one["verdict"] in ("VIOLATED", "UNDECIDED")]):
        first = visible(next(iter(str(record["reason"]).splitlines()), ""))
        why = first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"
        lines.append([*_head(name, record), Segment(f": {why}")])
    if known := accepted(records):
        lines.append([Segment(f"{known}; -v lists them", "warn")])
    return lines


def accepted(records: Sequence[Record]) -> str:
    """ "7 known resurgences accepted, up to 100 % of images"; empty if no cell is KNOWN."""
    known = [record for record in records if record["verdict"] == "KNOWN"]
    if not known:
        return ""
    most = max(record["after"]["rate"] for record in known)
    return f"{len(known)} known resurgence{'' if len(known) == 1 else 's'} accepted, up to {100 * most:.0f} % of images"


def along_steps(records: Sequence[Record]) -> list[Line]:
    """Two lines for every cell with intermediate steps: the rate at each step, and the first that passes a limit."""
    lines: list[Line] = []
    for name, record in _names(records, [record for record in records if record.get("along")]):
        along = record["along"]
        rates = ", ".join(
            f"{one['step']}: {100 * one['rate']:.1f} ({100 * one['low']:.1f}–{100 * one['high']:.1f})"
            for one in along["rates"]
        )
        lines.append([Segment(f"{name}  by step: {rates}")])
        style = "warn" if along["first"] is None else "bad"
        lines.append([Segment(f"{'':<{len(name)}}  "), Segment(visible(str(along["sentence"])), style)])
    return lines


def needless(records: Sequence[Record]) -> list[Line]:
    """One line per cell whose acceptance is no longer needed."""
    return [
        [Segment(f"{name}  tighten: its acceptance is no longer needed", "warn")]
        for name, _ in _names(records, [record for record in records if record["tighten"]])
    ]


def staged(records: Sequence[Record]) -> list[Line]:
    """One line per cell of several stages: what came back, and at which of them."""
    from resurgence_harness.reporting import lives

    named = _names(records, [record for record in records if record.get("by_stage")])
    return [[Segment(f"{name}  "), Segment(visible(lives.summary(record)))] for name, record in named]


def _head(name: str, record: Record) -> Line:
    return [Segment(f"{name}  "), Segment(record["verdict"], STYLES[record["verdict"]])]


def _names(records: Sequence[Record], chosen: Sequence[Record]) -> list[tuple[str, Record]]:
    """The chosen cells with their names, padded to one width; names include the task if there are several."""
    several = several_tasks(records)
    names = [visible(f"{one['task']}/{one['id']}" if several else str(one["id"])) for one in chosen]
    width = max(map(len, names), default=0)
    return [(f"{name:<{width}}", record) for name, record in zip(names, chosen, strict=True)]


def missing(entries: Sequence[Mapping[str, Any]]) -> list[Line]:
    """One line for every planned cell that has no verdict."""
    names = [visible(str(entry["id"])) for entry in entries]
    width = max(map(len, names), default=0)
    return [
        [Segment(f"{name:<{width}}  "), Segment("NO VERDICT", "bad"), Segment(f": {_first(entry['why'])}")]
        for name, entry in zip(names, entries, strict=True)
    ]


def headline(run: Mapping[str, Any]) -> str:
    """What the table shows: "celebrity on micro, fine-tuned by lora; rates in % with 98 % intervals"."""
    cells = run["cells"]
    tasks = ", ".join(dict.fromkeys(cell["task"] for cell in cells))
    tunings = {cell["finetuning"] for cell in cells}
    tuning = tunings.pop() if len(tunings) == 1 else ""
    by = (
        ", the candidate after the unlearned model"
        if tuning == "candidate"
        else f", fine-tuned by {tuning}"
        if tuning
        else ""
    )
    alphas = {cell["alpha"] for cell in cells}
    width = f" with {100 * (1 - 2 * alphas.pop()):g} % intervals" if len(alphas) == 1 else " with intervals"
    return visible(f"{tasks} on {run['base']['name']}{by}; rates in %{width}")


def closing(run: Mapping[str, Any]) -> Line:
    """ "4 cells: 3 hold, 1 violated. Exit code 1. reports/out/verdict.json"."""
    counts = {word: sum(cell["verdict"] == verdict for cell in run["cells"]) for verdict, word in VERDICTS.items()}
    if counts["holds"] != 1:
        counts = {"hold" if word == "holds" else word: count for word, count in counts.items()}
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    parts += [f"{len(run['missing'])} without a verdict"] if run["missing"] else []
    total = len(run["cells"]) + len(run["missing"])
    code = run["exit_code"]
    style = "good" if code == 0 else "bad" if code in (1, 12) else "warn"
    noun = "cell" if total == 1 else "cells"
    return [
        Segment(f"{total} {noun}: {', '.join(parts)}. "),
        Segment(f"Exit code {code}: {MEANINGS.get(code, 'see above')}.", style),
    ]


def completeness(run: Mapping[str, Any]) -> str:
    """ "1 of 2 groups judged" where a planned cell has no verdict, "3 of 5 cells selected" where -k chose."""
    parts = []
    if run["missing"]:
        total = len(run["cells"]) + len(run["missing"])
        only_gate = bool(run.get("gate")) and not run.get("selected")
        parts.append(f"{len(run['cells'])} of {total} {'groups' if only_gate else 'cells'} judged")
    selected = run.get("selected")
    if selected and selected["cells"] != selected["of"]:
        parts.append(f"{selected['cells']} of {selected['of']} cells selected")
    return ", ".join(parts)


def incidents(run: Mapping[str, Any]) -> list[Line]:
    """One line per failed test that is not a cell, and one if a process that ran tests died."""
    lines: list[Line] = [[Segment(f"{name}  "), Segment("FAILED", "bad")] for name in run.get("failed_tests", ())]
    return lines + ([[Segment("a process that ran tests died", "bad")]] if run.get("lost_worker") else [])


def _column(record: Record, name: str) -> str:
    if name == "retained":
        before, after = record["retained_before"], record["retained_after"]
        return f"{_percent(before)} → {_percent(after)}"
    if name in ("base", "before", "after", "as parent"):
        rate = record.get(name.replace(" ", "_"))
        return "—" if rate is None else f"{_percent(rate)} ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"
    return visible(str(record[{"fine-tuning": "finetuning"}.get(name, name)]))


def _percent(rate: Mapping[str, Any] | None) -> str:
    return "—" if rate is None else f"{100 * rate['rate']:.1f}"


def _first(text: str) -> str:
    return visible(text.strip().splitlines()[0]) if text.strip() else "unknown"
