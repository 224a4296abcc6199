"""JUnit XML: one test case per cell and one property per number, for CI systems that read nothing else.

VIOLATED and UNDECIDED are failures with different `type`; a cell without a verdict is an error. None is ever skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as tree

from resurgence_harness.reporting.arms import ARMS
from resurgence_harness.reporting.escaping import xml


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every number of a cell by name: "after.rate", "rise.high" …; arms that were not sampled are left out."""
    yield "verdict", record["verdict"]
    yield "limits", record["limits"]
    for arm in ARMS:
        for name, value in (record.get(arm) or {}).items():
            yield f"{arm}.{name}", str(value)
    for place, shown in enumerate(record.get("templates") or (), start=1):
        for name, value in shown.items():
            yield f"template_{place}.{name}", str(value)
    for finding in record["findings"]:
        for name in ("estimate", "low", "high", "limit"):
            yield f"{finding['name'].replace(' ', '_')}.{name}", str(finding[name])
    for control in record["controls"]:
        yield f"control.{control['name'].replace(' ', '_')}", control["state"]
    for name in ("outcome", "images", "looks", "images_to_settle", "e_value", "alpha"):
        if record[name] is not None:
            yield name, str(record[name])


def junit(run: Mapping[str, Any]) -> str:
    """The whole file."""
    cells, missing = run["cells"], run["missing"]
    failed = [cell for cell in cells if cell["verdict"] not in ("HOLDS", "KNOWN")]
    root = tree.Element("testsuites")
    suite = tree.SubElement(
        root,
        "testsuite",
        name="resurgence",
        tests=str(len(cells) + len(missing)),
        failures=str(len(failed)),
        errors=str(len(missing)),
        skipped="0",
        time=f"{sum(cell['seconds'] for cell in cells):.3f}",
        timestamp=run["started"],
    )
    gate = run.get("gate") or {}
    about = {
        "tool": run["tool"],
        "run_id": run.get("run_id", ""),
        "exit_code": run["exit_code"],
        "base": run["base"]["digest"],
    }
    about |= {f"candidate {name}": digest for name, digest in (gate.get("files") or {}).items()}
    if gate:
        about["policy"] = gate["policy"]["digest"]
        about |= {f"differs {place}": one for place, one in enumerate(gate.get("differences") or (), start=1)}
    _properties(suite, about.items())
    for cell in cells:
        naming = {"classname": f"resurgence.{cell['task']}", "name": cell["id"], "time": f"{cell['seconds']:.3f}"}
        case = tree.SubElement(suite, "testcase", {name: xml(value) for name, value in naming.items()})
        _properties(case, numbers(cell))
        if cell in failed:
            first = cell["reason"].splitlines()[0]
            attributes = {"type": cell["verdict"], "message": xml(f"{cell['verdict']}: {first}")}
            tree.SubElement(case, "failure", attributes).text = xml(f"{cell['reason']}\n{cell['arithmetic']}")
    for entry in missing:
        naming = {"classname": f"resurgence.{entry['task']}", "name": entry["id"]}
        case = tree.SubElement(suite, "testcase", {name: xml(value) for name, value in naming.items()})
        tree.SubElement(case, "error", {"type": entry["kind"], "message": xml(entry["why"])})
    tree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tree.tostring(root, encoding="unicode") + "\n"


def _properties(parent: tree.Element, pairs: Any) -> None:
    box = tree.SubElement(parent, "properties")
    for name, value in pairs:
        tree.SubElement(box, "property", {"name": xml(name), "value": xml(value)})
