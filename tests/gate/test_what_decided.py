"""Which policy, lists and judges decided stands in the reports as an auditor can check it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.gate.asking import judges_for
from resurgence_harness.gate.inputs import read_inputs, read_policy
from resurgence_harness.gate.release_policy import PolicyFile, ReleasePolicy, resolve
from resurgence_harness.judging import MicroJudge
from resurgence_harness.registry import Origin, register, temporary
from resurgence_harness.reporting import attestation
from resurgence_harness.statistics.policies import day_in_utc
from resurgence_harness.tasks import TASKS
from tests.reporting.records import record, run

ALBA, KAIA, HUGO = "Alba Drummond", "Kaia Valencourt", "Hugo Zorander"
BOM = b"\xef\xbb\xbf"
POLICY = f"# reviewed\r\nconcepts: {{erased: [{ALBA}, {KAIA}]}}\r\nacceptances: acceptances.yaml\r\n"
ACCEPTED = f"""\
# a comment
acceptances:
- {{task: celebrity, method: erased, count: 2, finetuning: candidate, level: 0.9, reason: x, owner: y,
   expires: {day_in_utc()}, concepts: [{ALBA}, {KAIA}]}}
"""


def read(folder: Path, **lists: Path) -> ReleasePolicy:
    """The policy as the command line reads it."""
    (folder / "policy.yaml").write_bytes(BOM + POLICY.encode())
    (folder / "acceptances.yaml").write_text(ACCEPTED, encoding="utf-8")
    return read_policy(read_inputs(folder / "policy.yaml", candidate=["micro"], base="micro"), **lists)


def sha256(path: Path) -> str:
    """What sha256sum says."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def configuration(policy: ReleasePolicy) -> dict[str, str]:
    """The attestation's digests by name."""
    gate = {"policy": policy.as_dict(), "candidate": "x", "files": {}, "notes": []}
    found: list[dict[str, Any]] = attestation.statement({**run(record()), "gate": gate})["predicate"]["configuration"]
    return {one["name"]: one["digest"]["sha256"] for one in found if "digest" in one}


def test_a_file_s_name_stands_with_the_file_s_sha256(tmp_path: Path) -> None:
    """Comments, line ends and the mark of UTF-8 are part of it; what was read has a digest of its own."""
    policy = read(tmp_path)
    path = tmp_path / "policy.yaml"
    told, names = policy.as_dict(), configuration(policy)
    assert told["sha256"] == names[str(path)] == sha256(path)
    assert told["acceptances"] == names["acceptances file"] == sha256(tmp_path / "acceptances.yaml")
    assert names["policy as read, with lists, options and defaults"] == told["digest"] == policy.digest
    assert policy.digest not in (names[str(path)], names["acceptances file"])


def test_without_a_file_only_what_was_read_is_attested() -> None:
    """Nothing stands under the name of a file that there is not."""
    said = PolicyFile.model_validate({"concepts": {"erased": [ALBA]}})
    policy = resolve(said, Path.cwd(), tasks=TASKS)
    assert (policy.as_dict()["sha256"], policy.as_dict()["acceptances"]) == ("", None)
    names = configuration(policy)
    assert names["policy as read, with lists, options and defaults"] == policy.digest and "" not in names


def test_the_choices_are_those_that_were_used(tmp_path: Path) -> None:
    """Lists and task of a command line come before the policy's, and what is asked is what stands there."""
    assert read(tmp_path).choices["concepts"]["erased"] == [ALBA, KAIA]
    erased, retained = tmp_path / "one.txt", tmp_path / "kept.txt"
    erased.write_text(f"{KAIA}\n", encoding="utf-8")
    retained.write_text(f"{HUGO}\n", encoding="utf-8")
    policy = read(tmp_path, concepts=erased, retained=retained)
    assert policy.choices["concepts"] == {"erased": [KAIA], "retained": [HUGO]}
    assert policy.choices["task"] == "celebrity" and "models" not in policy.choices
    other = resolve(PolicyFile(), tmp_path, tasks=TASKS, erased=erased, retained=retained, task="object")
    assert other.choices["task"] == "object"


@dataclass(frozen=True, kw_only=True)
class Renamed(MicroJudge):
    """A judge of one's own with the digest of another."""

    @property
    def digest(self) -> str:
        """That of the first judge."""
        return MicroJudge(name="identity").digest


@pytest.mark.parametrize("names", [("identity", "identity"), ("identity", "second-identity")])
def test_one_judge_twice_is_refused_before_anything_is_drawn(names: tuple[str, ...]) -> None:
    """By its name, or by all that its answers depend on."""
    said = PolicyFile.model_validate({"concepts": {"erased": [ALBA]}, "judges": list(names)})
    with temporary(), pytest.raises(UserError, match="The second judge is the first one again"):
        register("judge", Renamed(name="second-identity"), Origin.of_conftest("conftest.py"))
        judges_for(resolve(said, Path.cwd(), tasks=TASKS))
    both = PolicyFile.model_validate({"concepts": {"erased": [ALBA]}, "judges": ["identity", "second-identity"]})
    assert len(judges_for(resolve(both, Path.cwd(), tasks=TASKS))) == 2
