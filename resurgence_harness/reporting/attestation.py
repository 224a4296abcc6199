"""An unsigned in-toto statement about the checkpoint's digests: what was tested, by which policy, and the result.

Sign it with a key that you trust, for example by `actions/attest` or sigstore. Predicate: in-toto's test-result v0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
READ = "policy as read, with lists, options and defaults"
"""Name of the digest of everything that decides: the file's sha256 covers neither its lists nor the command line."""
RESULTS = {"HOLDS": "passedTests", "KNOWN": "warnedTests", "VIOLATED": "failedTests", "UNDECIDED": "failedTests"}


def statement(run: Mapping[str, Any]) -> dict[str, Any]:
    """The statement; PASSED only if every group of the policy HOLDS, WARNED if some are KNOWN, else FAILED.

    A group without a verdict is a failed test, whatever the cause: the statement names the policy's digest, which
    covers all of its groups. `configuration` also identifies the run, so that its files can be matched to it.
    """
    gate = run["gate"]
    lists: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    groups = frozenset(gate.get("groups", ()))
    for cell in run["cells"]:
        if groups and f"{cell['task']}/{cell['id']}" not in groups:
            continue  # a suite's cell in the same pytest run is about another model
        lists[RESULTS[cell["verdict"]]].append(f"{cell['task']}/{cell['id']}")
    planned = [*gate.get("groups", ()), *(f"{one['task']}/{one['id']}" for one in run["missing"])]
    named = {name for names in lists.values() for name in names}
    lists["failedTests"] += [name for name in dict.fromkeys(planned) if name not in named]
    complete = run["exit_code"] == 0 and run["status"] == "complete" and bool(run["cells"])
    failed = not complete or bool(lists["failedTests"])
    policy = gate["policy"]
    configuration: list[dict[str, Any]] = []
    if policy.get("sha256"):  # of the file's bytes, as sha256sum prints it
        configuration.append({"name": policy["path"], "digest": {"sha256": policy["sha256"]}})
    configuration.append({"name": READ, "digest": {"sha256": policy["digest"]}})
    if run.get("run_id"):
        annotations = {"started": run["started"], "finished": run["finished"]}
        configuration.append({"name": "run", "uri": f"urn:uuid:{run['run_id']}", "annotations": annotations})
    if policy["acceptances"]:
        configuration.append({"name": "acceptances file", "digest": {"sha256": policy["acceptances"]}})
    for name in ("unlearned", "base"):
        digest = next((cell["models"][name]["digest"] for cell in run["cells"] if name in cell["models"]), None)
        if digest:
            configuration.append({"name": f"{name} model, all files", "digest": {"sha256": digest}})
    if gate.get("differences"):
        digest = next(
            (cell["models"]["as_parent"]["digest"] for cell in run["cells"] if "as_parent" in cell["models"]), ""
        )
        configuration.append(
            {
                "name": "candidate's weights with its parent's tokenizer, scheduler and VAE, all files",
                **({"digest": {"sha256": digest}} if digest else {}),
                "annotations": {"differences": list(gate["differences"])},
            }
        )
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in gate["files"].items()],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "FAILED" if failed else "WARNED" if lists["warnedTests"] else "PASSED",
            "configuration": configuration,
            **lists,
        },
    }
