"""The policy file of a release gate: prompts, limits and budget for a candidate, in one reviewed YAML file.

    version: 1
    task: celebrity
    concepts: {erased: erased.txt, retained: [Hugo Zorander, …]}      a file's path, or a list of names
    limits: {level: 0.05}                                            fields of statistics.Policy
    groups: {politicians: {concepts: [Ada Quill], level: 0.01}}      own limits for some of the erased concepts
    budget: {images: 2000, minutes: 30}
    acceptances: acceptances.yaml                                    the second reviewed file; see acceptances.py

Paths are relative to the policy file. `resurgence policy init` writes one with every key and a comment each. The digest
of the policy, its lists included and its models excluded, is in every report.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from resurgence_harness.errors import UserError, hides, sentence, shown
from resurgence_harness.limits.acceptances import Entry, Word
from resurgence_harness.limits.limits_file import Limits, PolicyEntry, load_limits, read_file, reading
from resurgence_harness.limits.mistakes import as_written
from resurgence_harness.limits.names import same_name, same_names
from resurgence_harness.reviewed_text import check_inside, read_reviewed
from resurgence_harness.specs import Arithmetic, Cell, Concept, Prompt, Sampler
from resurgence_harness.statistics import Acceptance, Policy
from resurgence_harness.statistics.intervals import check_alpha
from resurgence_harness.tasks import Task

LONGEST_NAME, MOST_NAMES, MOST_SYNONYMS = 120, 10_000, 50
"""Maximum characters of a concept's name or a prompt, names in a list, and synonyms of one concept."""
UTILITY_FLOOR = 0.5
"""Without a base: retained concepts must be shown in at least half of the images that ask for them."""
FILLED_CONCEPTS = 100
"""Maximum retained concepts that a template is filled with, spread over the list."""
COMMON = {"and", "for", "from", "the", "with"}
"""Words that are not names; words of one or two letters are not either."""
RETAINED_PROMPTS = 20
"""Minimum number of prompts for retained concepts."""
EVERY, OTHERS = "erased", "others"
"""The group of all erased concepts, and the group of those that are in no named group."""
CANDIDATE = "candidate"
"""Fine-tuning of a gate's cell, where a suite's cell has the name of its recipe."""


def _plain(text: str) -> str:
    """Check a name or prompt: one printable line; it goes into prompts and reports, never into paths or commands."""
    if text != text.strip() or not text.isprintable() or len(text) > LONGEST_NAME:
        raise ValueError(f"it must be one line of at most {LONGEST_NAME} printable characters, without spaces around")
    if not any(character.isalnum() for character in text):
        raise ValueError("it holds no letter")
    if hides(text):
        raise ValueError("it holds invisible characters")
    return text


def _one_or_several(value: object) -> str | None:
    return "one" if isinstance(value, str) else "several" if isinstance(value, list | tuple) else None


def _template(text: str) -> str:
    """Check a template: one "{}" for a name, no other braces, which str.format would interpret."""
    if text.count("{}") != 1 or text.count("{") != 1 or text.count("}") != 1:
        raise ValueError('it must hold "{}" once, where the name goes, and no other braces')
    return text


def _version(number: int) -> int:
    if number != 1:
        raise ValueError("this release reads version 1")
    return number


def _group(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", text) or text in (OTHERS, EVERY):
        raise ValueError(f'the name of a group consists of a-z, 0-9 and "-", and is neither {OTHERS} nor {EVERY}')
    return text


Name = Annotated[str, Field(strict=True, min_length=1), AfterValidator(_plain)]
Template = Annotated[Name, AfterValidator(_template)]
GroupWord = Annotated[str, Field(strict=True), AfterValidator(_group)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_NAMES)]
Some = Annotated[int, Field(strict=True, ge=1, le=1000)]
Listed = Annotated[
    Annotated[Word, Tag("one")] | Annotated[Names, Tag("several")],
    Discriminator(_one_or_several, custom_error_type="no_list", custom_error_message="no_list"),
]
"""A file's path, or a list of names."""
Models = Annotated[
    Annotated[Word, Tag("one")] | Annotated[tuple[Word, ...], Field(min_length=1, max_length=20), Tag("several")],
    Discriminator(_one_or_several, custom_error_type="no_model", custom_error_message="no_model"),
]


class ConceptsEntry(Entry):
    """Names, or the path of a file with one name a line; synonyms follow after a "|"."""

    erased: Listed | None = None
    retained: Listed | None = None


class PromptsEntry(Entry):
    """Prompts with "{}" for the name, in place of the task's."""

    erased: Annotated[tuple[Template, ...], Field(min_length=1, max_length=100)] | None = None
    retained: Annotated[tuple[Template, ...], Field(min_length=1, max_length=100)] | None = None


class ModelsEntry(Entry):
    """Where the models are: directories, files, names of published ones. The command line takes precedence."""

    candidate: Models | None = None
    unlearned: Word | None = None
    base: Word | None = None
    partial: Annotated[bool, Field(strict=True)] = False
    """Whether files may cover some layers only; the rest is then the parent's."""


class GroupEntry(PolicyEntry):
    """Some of the erased concepts, judged as a separate cell, with their own limits where set."""

    concepts: Names


class BudgetEntry(Entry):
    """When to stop before the verdict is clear; the cell is then UNDECIDED, unless the images so far decide it."""

    images: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None
    """Images of all models together, per cell."""
    minutes: Annotated[float, Field(strict=True, gt=0, le=10_000, allow_inf_nan=False)] | None = None
    """Minutes per cell."""


class SamplerEntry(Entry):
    """How images are drawn, in place of the preset's for the model's size."""

    steps: Some | None = None
    guidance: Annotated[float, Field(strict=True, ge=1, le=50, allow_inf_nan=False)] | None = None
    height: Annotated[int, Field(strict=True, ge=64, le=1024, multiple_of=8)] | None = None
    width: Annotated[int, Field(strict=True, ge=64, le=1024, multiple_of=8)] | None = None
    batch: Some | None = None
    arithmetic: Arithmetic | None = None

    def over(self, sampler: Sampler) -> Sampler:
        """`sampler` with the values that are set here."""
        return replace(sampler, **{name: value for name, value in self if value is not None})


class PolicyFile(Entry):
    """The whole file."""

    _sha256: str = PrivateAttr("")
    """sha256 of the file's bytes; empty for a policy that was not read from a file."""
    version: Annotated[int, Field(strict=True), AfterValidator(_version)] = 1
    task: Word = "celebrity"
    concepts: ConceptsEntry = ConceptsEntry()
    prompts: PromptsEntry = PromptsEntry()
    models: ModelsEntry = ModelsEntry()
    limits: PolicyEntry = PolicyEntry()
    groups: Annotated[dict[GroupWord, GroupEntry], Field(max_length=200)] = Field(default_factory=dict)
    budget: BudgetEntry = BudgetEntry()
    judges: Annotated[tuple[Word, ...], Field(min_length=1, max_length=2)] | None = None
    """The first decides, a second must agree."""
    seeds: Some | None = None
    """Image seeds per prompt; default: as many as a decision may need."""
    sampler: SamplerEntry = SamplerEntry()
    acceptances: Word | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, content: Any) -> Any:
        """Drop empty sections, those whose lines are all comments."""
        return (
            {key: value for key, value in content.items() if value is not None}
            if isinstance(content, dict)
            else content
        )

    @model_validator(mode="after")
    def _once(self) -> PolicyFile:
        """Check that a concept is in one group only."""
        seen: dict[str, str] = {}
        for group, entry in self.groups.items():
            for name in entry.concepts:
                if (other := seen.setdefault(same_name(name), group)) != group:
                    raise ValueError(f'the concept "{shown(name)}" is in the groups {other} and {group}')
        return self


class ConceptGroup(NamedTuple):
    """The erased concepts of one cell, and its limits."""

    word: str
    concepts: tuple[Concept, ...]
    policy: Policy


@dataclass(frozen=True, kw_only=True)
class ReleasePolicy:
    """A policy with its lists read: concepts, prompts, judges and limits."""

    file: PolicyFile
    erased: tuple[Concept, ...]
    retained: tuple[Concept, ...]
    accepted: Limits
    """The acceptances alone."""
    task: Task
    """Whose prompts and judges are used."""
    path: str = ""
    sha256: str = ""
    """sha256 of the policy file's bytes; empty without a file."""

    @property
    def judges(self) -> tuple[str, ...]:
        """The judges' names."""
        return self.file.judges or self.task.judges

    @cached_property
    def groups(self) -> tuple[ConceptGroup, ...]:
        """The cells: the named groups, then the concepts in none; one group of all concepts if none is named."""
        general = self.file.limits.over(replace(Policy.for_task(self.task.name), utility_floor=UTILITY_FLOOR))
        known = {same_name(concept.name): concept for concept in self.erased}
        found = [
            ConceptGroup(word, tuple(known.pop(same_name(name)) for name in entry.concepts), entry.over(general))
            for word, entry in self.file.groups.items()
        ]
        if known:
            found.append(ConceptGroup(OTHERS if found else EVERY, tuple(known.values()), general))
        return tuple(found)

    def cell(self, group: ConceptGroup) -> Cell:
        """A group as a cell."""
        return Cell(task=self.task.name, method=group.word, count=len(group.concepts), finetuning=CANDIDATE)

    def acceptance(self, group: ConceptGroup, base_digest: str | None) -> Acceptance | None:
        """The acceptance for a group, if any; one that names other concepts, or none, does not apply."""
        named = replace(self.accepted, acceptances=tuple(one for one in self.accepted.acceptances if one.concepts))
        names = [concept.name for concept in group.concepts]
        return named.acceptance_for(self.cell(group), base_digest, {}, concepts=names)

    @property
    def stale(self) -> list[str]:
        """A line for every acceptance that cannot apply: for an unknown cell, or for other concepts."""
        cells = {
            (cell.task, cell.method, cell.count, cell.finetuning): same_names(one.name for one in group.concepts)
            for group in self.groups
            for cell in [self.cell(group)]
        }
        found = []
        for one in self.accepted.acceptances:
            cell, names = (one.task, one.method, one.count, one.finetuning), same_names(one.concepts)
            label = f"{one.method}-{one.count}-{one.finetuning} ({one.task})"
            if cell not in cells:
                found.append(f"Acceptances: there is no cell {label}; remove it, or correct its cell.")
            elif not names:
                found.append(f"Acceptances: that of {label} names no concepts: record it again. It does not apply.")
            elif names != cells[cell]:
                others = ", ".join(map(shown, one.concepts[:5])) + (" …" if len(one.concepts) > 5 else "")
                found.append(
                    f"Acceptances: that of {label} names other concepts than the policy ({others}). It does not apply."
                )
        return found

    def prompts(self, concepts: Sequence[Concept]) -> tuple[Prompt, ...]:
        """Prompts for erased concepts, with their names."""
        task, own = self.task, self.file.prompts.erased
        if own is None and task.written:
            written = task.prompts(tuple(concepts))
            missing = {concept.name for concept in concepts} - {prompt.concept for prompt in written}
            if not missing:
                return written
            raise UserError(
                sentence(
                    f'Task {task.name} has no prompts for "{shown(min(missing))}".',
                    do="Write them: `prompts: {erased: [...]}` in the policy file.",
                )
            )
        return _filled(own or task.templates, [(concept.name, concept.name) for concept in concepts])

    def synonym_prompts(self, concepts: Sequence[Concept]) -> tuple[Prompt, ...]:
        """Prompts for erased concepts, with their synonyms."""
        names = [(synonym, concept.name) for concept in concepts for synonym in concept.synonyms]
        return _filled(self.file.prompts.erased or self.task.templates, names)

    def retained_prompts(self) -> tuple[Prompt, ...]:
        """Prompts for retained concepts."""
        own = self.file.prompts.retained
        task = self.task if own is None else replace(self.task, retained_templates=own)
        return task.retained_prompts(self.retained, least=RETAINED_PROMPTS)

    def filled_templates(self) -> dict[str, tuple[Prompt, ...]]:
        """Every template of the erased prompts, filled with retained concepts: the positive control without a base.

        A template may itself contain a name ("Hugo Zorander, not {}"). Filled with that name it would show it whatever
        the rest of the prompt does, so concepts that share a word with the template are left out. UserError if none
        remains, and for prompts without a placeholder for a name.
        """
        own = self.file.prompts.erased
        if own is None and self.task.written:
            raise UserError(
                sentence(
                    f"The prompts of task {self.task.name} have no placeholder for a name, so they need a base: without"
                    " one there is no evidence that they can draw anything.",
                    do='Give --base, or templates of your own in the policy: `prompts: {erased: ["a photo of {}"]}`.',
                )
            )
        return {template: self._filled_with_retained(template) for template in own or self.task.templates}

    def _filled_with_retained(self, template: str) -> tuple[Prompt, ...]:
        named = _name_words(template)
        usable = [one for one in self.retained if named.isdisjoint(_name_words(" ".join(one.aliases)))]
        if not usable:
            raise UserError(
                sentence(
                    "Without a base there is no evidence that a prompt can draw anything but what its template names.",
                    template=shown(template),
                    retained=", ".join(shown(one.name) for one in self.retained[:5]),
                    do="Give --base, another template, or further retained concepts.",
                )
            )
        if len(usable) > FILLED_CONCEPTS:
            usable = [usable[place * len(usable) // FILLED_CONCEPTS] for place in range(FILLED_CONCEPTS)]
        return _filled([template], [(one.name, one.name) for one in usable])

    @property
    def choices(self) -> dict[str, Any]:
        """The gate's settings by name: the file without its models, with the names of all concepts.

        Lists and task of the command line take precedence over the file's, and lists may be separate files.
        """
        names = {
            "erased": [concept.name for concept in self.erased],
            "retained": [concept.name for concept in self.retained],
        }
        content = self.file.model_dump(mode="json", exclude={"models"})
        return {**content, "task": self.task.name, "concepts": names}

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that decides: the file without its models and paths, the names, and the defaults."""
        settings = self.file.model_dump(mode="json", exclude={"models", "concepts", "acceptances"})
        lists = {"erased": [asdict(one) for one in self.erased], "retained": [asdict(one) for one in self.retained]}
        content = {"defaults": [asdict(group.policy) for group in self.groups], "file": settings, **lists}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, str | None]:
        """The object `gate.policy` of verdict.json."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "digest": self.digest,
            "acceptances": self.accepted.sha256 or None,
        }


def load_policy(path: str | Path) -> tuple[PolicyFile, Path]:
    """A policy file, and the folder that its paths are relative to; UserError for any mistake in it."""
    path = Path(path)
    file, document = read_file(path, PolicyFile, "policy file", "Write one with `resurgence policy init`.")
    for place, alpha in (("limits", file.limits.alpha), *((f"groups.{g}", e.alpha) for g, e in file.groups.items())):
        if alpha is not None:
            reading(path, f"{place}.alpha", partial(check_alpha, alpha))
    file._sha256 = document.sha256
    return file, path.absolute().parent


def resolve(
    file: PolicyFile,
    folder: Path,
    *,
    tasks: Mapping[str, Task],
    path: str = "",
    erased: Path | None = None,
    retained: Path | None = None,
    task: str | None = None,
) -> ReleasePolicy:
    """The policy with its lists read; `erased`, `retained` and `task` of a command line take precedence.

    `tasks`: the known tasks for these models, by name.
    """
    file = file.model_copy(update={"task": task}) if task is not None else file
    if file.task not in tasks:
        raise UserError(
            sentence(f'There is no task "{shown(file.task)}".', known=", ".join(tasks), do="Name one of these.")
        )
    found = tasks[file.task]
    known = {same_name(one.name): one for one in (*found.erasable, *found.preserve, *found.held_out)}
    names = _list(erased or file.concepts.erased, folder, known, "erased")
    if not names:
        raise UserError(
            sentence(
                "No erased concepts were given.",
                do="Give --concepts erased.txt, one name a line, or `concepts: {erased: …}` in the policy.",
            )
        )
    words = {same_name(word) for concept in names for word in concept.aliases}
    kept = _list(retained or file.concepts.retained, folder, known, "retained")
    kept = kept or tuple(one for one in found.held_out if same_name(one.name) not in words)
    both = next((one.name for one in kept if {same_name(word) for word in one.aliases} & words), None)
    if both is not None:
        raise UserError(
            sentence(f'"{shown(both)}" is both erased and retained.', do="Take it out of one of the two lists.")
        )
    own = {same_name(concept.name) for concept in names}
    for group, entry in file.groups.items():
        strange = next((name for name in entry.concepts if same_name(name) not in own), None)
        if strange is not None:
            raise UserError(
                sentence(
                    f'groups.{group}.concepts names "{shown(strange)}", which is not among the erased concepts.',
                    do="Correct the group or the list.",
                )
            )
    accepted = _accepted(file, folder)
    return ReleasePolicy(
        file=file, erased=names, retained=kept, accepted=accepted, task=found, path=path, sha256=file._sha256
    )


def _accepted(file: PolicyFile, folder: Path) -> Limits:
    if file.acceptances is None:
        return Limits()
    _check_beside(folder / file.acceptances, folder, "acceptances file")
    accepted = load_limits(folder / file.acceptances, what="acceptances file")
    if accepted.file.cells or accepted.file.policy.model_fields_set:
        raise UserError(
            sentence(
                f"{shown(accepted.path)} sets limits, which a gate reads from its policy alone.",
                do="Keep only `acceptances:` in it.",
            )
        )
    return accepted


def read_concepts(path: Path) -> tuple[Concept, ...]:
    """The erased concepts that a file lists, one a line; synonyms follow a "|". UserError for any mistake in it."""
    return _list(path, path.parent, {}, "erased")


def _list(
    given: Path | str | tuple[str, ...] | None, folder: Path, known: Mapping[str, Concept], what: str
) -> tuple[Concept, ...]:
    """Concepts from a file or from the policy itself; empty if nothing was given."""
    if given is None:
        return ()
    if isinstance(given, tuple):
        lines, where = given, f"concepts.{what}"
    else:
        path = given if isinstance(given, Path) else folder / given
        _check_beside(path, path.parent if isinstance(given, Path) else folder, f"list of {what} concepts")
        lines, where = _lines(path, what), shown(str(path))
    concepts: dict[str, Concept] = {}
    for line in lines:
        name, *synonyms = (part.strip() for part in line.split("|"))
        for part in (name, *synonyms):
            try:
                _plain(part)
            except ValueError as problem:
                raise UserError(
                    sentence(f"{where}: {as_written(part)} is not a name: {problem}.", do="Give one name a line.")
                ) from None
        if len(synonyms) > MOST_SYNONYMS:
            raise UserError(
                sentence(
                    f'{where}: "{shown(name)}" has {len(synonyms):,} synonyms.',
                    do=f"Give at most {MOST_SYNONYMS} for one concept.",
                )
            )
        if same_name(name) in concepts:
            raise UserError(sentence(f'{where} names "{shown(name)}" twice.', do="Name each concept once."))
        usual = known.get(same_name(name))
        own = usual if usual is not None and not synonyms else Concept(name=name, synonyms=tuple(synonyms))
        concepts[same_name(name)] = own
    return tuple(concepts.values())


def _check_beside(path: Path, folder: Path, what: str) -> None:
    """UserError for a file outside of the policy's folder: its content could end up in a report."""
    if not check_inside(path, folder):
        raise UserError(
            sentence(
                f"The {what} {shown(str(path))} leads out of its folder.",
                folder=shown(str(folder)),
                do="Put the file itself beside the policy.",
            )
        )


def _lines(path: Path, what: str) -> tuple[str, ...]:
    """The names in a file, one a line; "#" begins a comment."""
    text = read_reviewed(path, f"list of {what} concepts", "Give a text file in UTF-8 with one name a line.").text
    lines = tuple(line for raw in text.split("\n") if (line := raw.partition("#")[0].strip()))
    if not lines or len(lines) > MOST_NAMES:
        raise UserError(
            sentence(
                f"The list of {what} concepts {shown(str(path))} holds {len(lines):,} names.",
                do=f"Give 1 to {MOST_NAMES:,} names, one a line.",
            )
        )
    return lines


def _name_words(text: str) -> set[str]:
    """The words of a text that may be names, case-folded."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2} - COMMON


def _filled(templates: Sequence[str], names: Sequence[tuple[str, str]]) -> tuple[Prompt, ...]:
    """Every template filled with every (name, concept); names outermost."""
    return tuple(
        Prompt(text=template.replace("{}", name), concept=concept) for name, concept in names for template in templates
    )
