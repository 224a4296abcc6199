"""The command line: what would be made, make it, and look after the store.

    resurgence plan suites/celebrity [--resurgence-counts 10 …]
    resurgence build suites/celebrity
    resurgence store ls | verify | gc | path
    resurgence theory [--figures DIR]
    resurgence validate [--full] [--outcomes FILE]
    resurgence report [--single-file] [--open] [--figures DIR]
    resurgence paper --table 1 [--base micro]

What follows `plan` and `build` is given to pytest, which collects the suite: they see the cells that pytest sees.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import resurgence_harness
from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.gate import command as gate_commands
from resurgence_harness.storing import Artifact, Store, check_usable, default_root

if TYPE_CHECKING:
    import pytest

    from resurgence_harness.planning import Action, Plan, Wanted
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.selection import CellPlan
    from resurgence_harness.specs import Cell, Grid, Recipe

USER_ERROR, HARNESS_ERROR = 4, 12
EXIT_CODES = (
    "Exit codes: 0 done · 2 the command line cannot be read · 4 something asked for cannot be had, told in a sentence "
    "· 12 the harness or the store failed, `store verify` finding damage included."
)

app = typer.Typer(
    name="resurgence",
    help=f"Safety regression tests for concept resurgence in Stable Diffusion models.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
store_app = typer.Typer(help=f"Look after the store of everything that was made.\n\n{EXIT_CODES}", no_args_is_help=True)
app.add_typer(store_app, name="store")
gate_commands.register(app)

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Arguments = Annotated[
    list[str], typer.Argument(metavar="SUITE_DIR [--resurgence-* …]", help="A suite, and options as pytest takes them.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "--resurgence-store", metavar="DIR|URL", help="Default: $RESURGENCE_STORE, else ~/.cache/resurgence."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What the cells of a suite ask for, and with what."""

    wanted: list[Wanted]
    """Until each answer is clear: what was needed, or what usually is."""
    engine: Engine
    plans: list[tuple[CellPlan, Path]]
    """Every cell, and the folder of its suite."""
    beyond: int
    """Images that are drawn in addition if no answer ever becomes clear."""

    @property
    def store(self) -> Store:
        """Where everything made is kept."""
        return self.engine.store


def main() -> None:
    """The `resurgence` command: a person's mistake is one message without a traceback."""
    try:
        app()
    except UserError as error:
        _fail(error, USER_ERROR)
    except HarnessError as error:
        _fail(error, HARNESS_ERROR)


def _version(asked: bool) -> None:
    if asked:
        print(f"resurgence-harness {resurgence_harness.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command("plan", context_settings=_PASSED_ON)
def plan_command(
    arguments: Arguments,
    every: Annotated[
        bool, typer.Option("--all", help="List what is there already, and every artifact by itself.")
    ] = False,
) -> None:
    """Print what a suite would make, why, and about how long it takes. Makes nothing and loads no model."""
    from resurgence_harness.planning import plan

    cells = collected(arguments)
    planned = plan(cells.store, cells.wanted)
    if planned.needed:
        show_costs(cells)
    show_plan(planned, cells=len(cells.plans), store=cells.store, every=every, beyond=cells.beyond)


@app.command("build", context_settings=_PASSED_ON)
def build_command(arguments: Arguments) -> None:
    """Make everything that a suite needs, so that pytest only has to decide."""
    from resurgence_harness.planning import plan

    cells = collected(arguments)
    check_usable(cells.store.name)
    planned = plan(cells.store, cells.wanted)
    if planned.needed:
        print(summary(planned))
    make_everything(cells)
    number = len(cells.plans)
    print(f"Everything that {_count(number, 'cell')} {'asks' if number == 1 else 'ask'} for is in {cells.store.name}.")


@app.command("theory")
def theory_command(
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw the page's three figures (SVG) into this directory.")
    ] = None,
) -> None:
    """Print the paper's linear score model (section 5) beside its bounds, and what does not hold. Needs no model."""
    from resurgence_harness.theory.account import account

    if figures is not None and figures.exists() and not figures.is_dir():
        raise UserError(sentence(f"{figures} is not a directory.", do="Give a directory with --figures."))
    for told in account():
        table = Table(
            *told.header, title=told.title, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for row in told.rows:
            table.add_row(*row)
        _console().print(table)
        print()
    if figures is None:
        return
    from resurgence_harness.theory.figures import draw

    try:
        written = draw(figures)
    except OSError as error:
        raise UserError(
            sentence(
                f"Figures cannot be written into {figures}.", reason=error, do="Give a directory that can be written."
            )
        ) from error
    print(f"{_count(len(written), 'figure')} in {figures}: {', '.join(path.name for path in written)}")


@app.command("validate")
def validate_command(
    full: Annotated[bool, typer.Option("--full", help="Ten thousand replicates instead of five hundred.")] = False,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Also replay these (CSV: concept,prompt,seed,before,after); may be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random numbers.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes.")] = 1,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write validate.txt and validate.csv there.")
    ] = None,
) -> None:
    """Measure whether the verdict's statistics are what they claim: errors, power, cost. Needs no model.

    Leaves with 1 if a number is not as it must be, or an engine that is wrong on purpose is not caught.
    """
    from resurgence_harness import validation

    stored = {path.name.partition(".")[0]: validation.read(path) for path in outcomes or ()}
    into = None if to is None else validation.folder(to)
    asked = validation.every_check(validation.FULL if full else validation.FAST, seed=seed, stored=stored)

    def told(name: str, seconds: float, done: int) -> None:
        print(f"{done}/{len(asked)} {name}, {time_words(seconds)}", file=sys.stderr)

    rows = validation.run(asked, jobs=jobs, told=told)
    print(validation.as_text(rows), end="")
    if into is not None:
        head = f"$ {shlex.join(['resurgence', *sys.argv[1:]])}\nresurgence-harness {resurgence_harness.__version__}"
        print(f"Written: {', '.join(str(path) for path in validation.write(rows, into, head=head))}")
    if not validation.passed(rows):
        raise typer.Exit(1)


@app.command("report")
def report_command(
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="What a run has left: verdict.json and allure-results.")
    ] = Path("reports/out"),
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the report is put. Default: beside the results.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Allure results, where the run was started with --alluredir.")
    ] = None,
    single: Annotated[bool, typer.Option("--single-file", help="One HTML file, to attach to a ticket.")] = False,
    serve: Annotated[bool, typer.Option("--open", help="Then serve it on this machine's own address.")] = False,
    port: Annotated[int, typer.Option(metavar="N", help="Where it is served; 0 for any free port.")] = 8765,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only draw the figures there, as PNG and SVG.")
    ] = None,
) -> None:
    """Make the report of the last run: what blocks the candidate, and the images that prove it.

    Needs Node (pip install "resurgence-harness[report]" brings it); Allure is fetched once. The report asks no other
    host for anything.
    """
    from resurgence_harness.reporting import report
    from resurgence_harness.reporting.generator import generator

    if figures is not None:
        drawn = report.draw_figures(source, figures)
        print(f"{_count(len(drawn), 'file')} in {figures}: {', '.join(path.name for path in drawn)}")
        return
    found = report.read(source, results)
    built = report.build(found, to or source, generator(told=True), single=single)
    print(built.title)
    print(f"{built.page} ({size_words(built.size)}, {_count(len(found.tests), 'test')})")
    if built.left_out:
        print(f"{_count(built.left_out, 'result')} of other runs in {found.folder} left out.")
    if serve:
        from resurgence_harness.reporting.serving import serve_until_stopped

        serve_until_stopped(built.page, port)
    elif not single:
        print("Its pages need a web server: `resurgence report --open`, or --single-file for one that opens by itself.")


@app.command("paper")
def paper_command(
    table: Annotated[str | None, typer.Option(metavar="1|3|4", help="A table of the paper.")] = None,
    figure: Annotated[str | None, typer.Option(metavar="9|16", help="A figure of the paper.")] = None,
    appendix: Annotated[str | None, typer.Option(metavar="J", help="An appendix of the paper.")] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="domains|controls", help="What the paper says in words alone.")
    ] = None,
    base: Annotated[str, typer.Option(metavar="micro|DIR", help="The published model.")] = "micro",
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="Training seeds; the paper has 3.")] = 3,
    only: Annotated[
        str, typer.Option(metavar="WORDS", help="Only tasks and methods of these names, separated by commas.")
    ] = "",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where it is computed.")] = "auto",
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where table and figure are kept.")] = Path("reports/paper"),
    store: StoreOption = None,
) -> None:
    """Run a table, figure or appendix of the paper on a base, and compare it with what was published.

    Rows are written as they come; a run that was cut goes on where it stopped. Leaves NAME.csv, NAME.png and NAME.svg.
    """
    from resurgence_harness.experiments import comparing, figures, measuring
    from resurgence_harness.experiments.conditions import experiment_named
    from resurgence_harness.pytest_plugin.workers import resolved_device
    from resurgence_harness.selection import base_model
    from resurgence_harness.statistics import Policy

    asked = {"table": table, "figure": figure, "appendix": appendix, "": experiment}
    words = [f"{kind}-{value}".strip("-").casefold() for kind, value in asked.items() if value]
    if len(words) != 1:
        raise UserError(sentence("Name one table, figure, appendix or experiment.", do="For example --table 1."))
    found, model = experiment_named(words[0]), base_model(base)
    wanted = {word.strip() for word in only.split(",") if word.strip()}
    conditions = [
        one
        for one in found.conditions(model, runs)
        if not wanted or {one.plan.cell.task, one.plan.cell.method} & wanted
    ]
    if not conditions:
        raise UserError(sentence(f"{found.word} has nothing called {only}.", do="Name its tasks or methods."))
    place = measuring.Place(_opened(store).name, model, resolved_device(device))

    def told(done: int, total: int, row: measuring.Row) -> None:
        words = f"{row['task']} {row['method']} {row['concepts']} {row['finetuning']} {row['steps']}"
        print(f"{done}/{total} {words}, run {row['run']}", file=sys.stderr)

    rows = measuring.run(found.word, conditions, place, to / f"{found.word}.csv", jobs=jobs, told=told)
    header, lines = comparing.table(rows)
    shown = Table(*header, title=found.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for line in lines:
        shown.add_row(*line)
    _console().print(shown)
    if found.word == "table-1":
        print(comparing.told(comparing.against_table_1(rows)))
    if found.word == "appendix-j":
        delta = Policy().delta
        reached = Table("method", "concepts", "benign images", "steps", box=None, pad_edge=False, header_style="bold")
        reached.title, reached.title_justify = f"Steps to a rise of more than {100 * delta:g} points", "left"
        for reaching in comparing.steps_to_resurgence(rows, delta=delta):
            reached.add_row(*reaching)
        _console().print(reached)
    drawn = figures.draw(found.word, found.title, rows, to)
    print(f"Written: {', '.join(str(path) for path in (to / f'{found.word}.csv', *drawn))}")


@store_app.command("ls")
def ls_command(
    store: StoreOption = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: checkpoint, images, judgments …")] = None,
) -> None:
    """List what is there, oldest first."""
    opened = _opened(store)
    artifacts = [artifact for artifact in opened.ls() if kind is None or artifact.kind == kind]
    table = Table("key", "kind", "what", "size", "made", "used", "took", box=None, pad_edge=False, header_style="bold")
    for column in (3, 4, 5, 6):
        table.columns[column].justify = "right"
    now = datetime.now(UTC)
    for artifact in artifacts:
        table.add_row(
            artifact.key[:12],
            artifact.kind,
            artifact.words,
            size_words(artifact.size),
            age_words(now - artifact.made),
            age_words(now - artifact.used),
            time_words(artifact.seconds),
        )
    if artifacts:
        _console().print(table)
    print(f"{_count(len(artifacts), 'artifact')}, {size_words(_total(artifacts))} in {opened.name}{_kinds(artifacts)}")


@store_app.command("verify")
def verify_command(store: StoreOption = None) -> None:
    """Read every byte and compare it with what was written. Damage is named; the next build repairs it."""
    opened = _opened(store)
    whole = broken = 0
    for checked in opened.verify():
        if checked.problem:
            broken += 1
            print(f"{checked.key}  {checked.problem}")
        else:
            whole += 1
    print(f"{_count(whole, 'artifact')} whole, {broken} broken in {opened.name}")
    if broken:
        raise typer.Exit(HARNESS_ERROR)


@store_app.command("gc")
def gc_command(
    store: StoreOption = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="Remove what was last used longer ago.")] = 30.0,
    keep: Annotated[list[str] | None, typer.Option(metavar="KIND", help="A kind to keep; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what was not used for long, and what killed builders left. All of it can be made again."""
    opened = _opened(store)
    removed = opened.gc(older_than_days=older_than, keep_kinds=keep or [], dry_run=dry_run)
    for one in removed:
        print(f"{size_words(one.size):>9}  {one.words}  ({one.reason})")
    verb = "would be removed from" if dry_run else "removed from"
    print(f"{_count(len(removed), 'thing')}, {size_words(sum(one.size for one in removed))}, {verb} {opened.name}")


@store_app.command("path")
def path_command(store: StoreOption = None) -> None:
    """Print where the store is."""
    opened = Store(store or default_root())
    print(opened.name if opened.remote is not None else opened.root)


# Plans


def collected(arguments: Sequence[str]) -> Cells:
    """What pytest collects for these arguments, as recipes, probes and judges."""
    from resurgence_harness.inquiry import Inquiry
    from resurgence_harness.planning import Wanted

    engine, cells = _collect(list(arguments))
    wanted: list[Wanted] = []
    beyond: dict[tuple[Recipe, Grid], int] = {}
    for plan, suite in cells:
        inquiry, judges = Inquiry(plan), [engine.judge(name) for name in plan.judges]
        clear = False
        while engine.recall(inquiry) and not clear:
            clear = not inquiry.widen(engine.decide(plan, suite)(engine.evidence(inquiry)).wants)
        questions = list(inquiry.expected(clear=clear))
        wanted += [
            Wanted(plan.arms[question.arm].recipe, inquiry.block(question), judge)
            for question in questions
            for judge in judges
        ]
        wanted += [
            Wanted(recipe, inquiry.block(question), engine.judge(plan.judges[0]))
            for recipe in plan.along.values()
            for question in questions
            if question.arm == "after"
        ]
        for name, arm in plan.arms.items():
            if arm.group is not None and not clear:
                asked = sum(question.arm == name for question in questions)
                for recipe in (arm.recipe, *(plan.along.values() if name == "after" else ())):
                    beyond[recipe, arm.grid] = max(len(arm.grid) - asked * arm.grid.block, 0)
    return Cells(wanted=wanted, engine=engine, plans=cells, beyond=sum(beyond.values()))


class _Collector:
    """A pytest plugin for one collection: which cells are planned, and the engine that knows their options."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.cells: dict[Cell, tuple[CellPlan, Path]] = {}
        self.error: UserError | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        from resurgence_harness.pytest_plugin.collecting import cell_of, is_cell, task_of
        from resurgence_harness.pytest_plugin.state import ENGINE, OPTIONS

        engine = session.config.stash.get(ENGINE, None)
        if engine is None:
            return
        self.engine = engine
        try:
            for item in session.items:
                cell = cell_of(item, session.config.stash[OPTIONS]) if is_cell(item) else None
                if cell is not None and cell not in self.cells:
                    self.cells[cell] = engine.plan(cell, task_of(item)), item.path.parent
        except UserError as error:  # told after pytest has left, which would show a traceback
            self.error = error


def _collect(arguments: list[str]) -> tuple[Engine, list[tuple[CellPlan, Path]]]:
    """Let pytest collect in this process, without a word of its own unless it fails."""
    import pytest

    found, said, complained = _Collector(), io.StringIO(), io.StringIO()
    alone = ["-n0"] if find_spec("xdist") is not None else []
    with redirect_stdout(said), redirect_stderr(complained):
        code = pytest.main([*arguments, "--collect-only", "-q", *alone, "-p", "no:cacheprovider"], plugins=[found])
    if found.error is not None:
        raise found.error
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        complaint = complained.getvalue().strip().removeprefix("ERROR: ")
        if complaint.startswith("usage:"):
            complaint = complaint.partition("error: ")[2]
        raise UserError(complaint or f"pytest could not collect {' '.join(arguments)}.\n{said.getvalue().strip()}")
    if found.engine is None or not found.cells:
        raise UserError(
            sentence(
                "Nothing that was collected here is a cell.",
                arguments=" ".join(arguments),
                do="Give a folder with a suite, for example suites/celebrity.",
            )
        )
    return found.engine, list(found.cells.values())


def show_plan(planned: Plan, *, cells: int, store: Store, every: bool = False, beyond: int = 0) -> None:
    """Print a plan: by default what is needed, the sets of one model together."""
    table = Table("make", "what", "why", "about", box=None, pad_edge=False, header_style="bold")
    table.columns[3].justify = "right"
    rows = _each(planned.actions) if every else _together(planned.needed)
    for row in rows:
        table.add_row(*row)
    if rows:
        _console().print(table)
    print(f"{_count(cells, 'cell')}; store {store.name}")
    print(summary(planned))
    if beyond:
        print(f"Drawing ends when an answer is clear; if none were, {beyond:,} images more would be drawn.")


def show_costs(cells: Cells) -> None:
    """How many pairs a claim needs, for every limit, confidence and size of grid that is judged look by look."""
    from resurgence_harness.validation.power import costs_of_a_claim

    asked = {
        (policy.delta, policy.alpha, len(plan.erased))
        for plan, suite in cells.plans
        if plan.engine != "fixed"
        for policy in [cells.engine.limits(suite).policy_for(plan.cell)]
    }
    for delta, alpha, grid in sorted(asked):
        print(
            f"Pairs until a rise is told from {100 * delta:g} points with {100 * (1 - alpha):g} % confidence,"
            f" on grids of {grid}, simulated:"
        )
        table = Table(
            "if this is true", "half need", "95 of 100 need", "told", box=None, pad_edge=False, header_style="bold"
        )
        for words, cost in costs_of_a_claim(delta, alpha, grid):
            told = ", ".join(
                f"{word} {share:.0%}"
                for word, share in (("HOLDS", cost.holds), ("VIOLATED", cost.broken), ("neither", cost.undecided))
                if share >= 0.005
            )
            table.add_row(words, f"{cost.median:.0f}", f"{cost.p95:.0f}", told)
        _console().print(table)
        print()


def summary(planned: Plan) -> str:
    """One line: how much is to be made, and how long that takes."""
    needed = planned.needed
    there = len(planned.actions) - len(needed)
    if not needed:
        return f"Nothing has to be made: {_count(there, 'artifact')} there already."
    counts = ", ".join(
        part
        for part in (
            _kind_count(needed, "checkpoint"),
            f"{planned.images:,} images" if planned.images else "",
            f"{_images(needed, 'judgments'):,} judgments",
        )
        if part
    )
    learned = sum(action.learned for action in needed)
    source = "as builds in this store took" if learned == len(needed) else "partly a guess" if learned else "a guess"
    return f"To make: {counts}; about {time_words(planned.seconds)} for one worker, {source}. {there} there already."


def make_everything(cells: Cells) -> None:
    """Ask for every cell until its answer is clear, with a bar for the whole and one for what is being done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    engine = cells.engine
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("cells", total=len(cells.plans))
        part = bars.add_task("starting", total=None)
        stage = ""

        def progress(words: str, done: int, total: int, loss: float | None) -> None:
            nonlocal stage
            if words != stage:
                stage = words
                bars.reset(part)
            told = words if loss is None else f"{words}, loss {loss:.4f}"
            bars.update(part, description=told, completed=done, total=total)

        engine.bench.tell(progress)
        try:
            for plan, suite in cells.plans:
                engine.along(engine.inquire(plan, engine.decide(plan, suite)))
                bars.advance(whole)
        finally:
            engine.release()


def _each(actions: Iterable[Action]) -> list[tuple[str, str, str, str]]:
    return [
        (action.kind, action.words, action.reason.value, time_words(action.seconds) if action.needed else "")
        for action in actions
    ]


def _together(actions: Iterable[Action]) -> list[tuple[str, str, str, str]]:
    groups: dict[tuple[str, str, str], list[Action]] = {}
    for action in actions:
        groups.setdefault((action.kind, action.model, action.reason.value), []).append(action)
    return [
        (
            kind,
            f"{sum(action.images for action in group):,} of {model}" if kind != "checkpoint" else model,
            reason,
            time_words(sum(action.seconds for action in group)),
        )
        for (kind, model, reason), group in groups.items()
    ]


def _kind_count(actions: Iterable[Action], kind: str) -> str:
    count = sum(action.kind == kind for action in actions)
    return _count(count, kind) if count else ""


def _images(actions: Iterable[Action], kind: str) -> int:
    return sum(action.images for action in actions if action.kind == kind)


# Words


def size_words(size: int) -> str:
    """ "3.4 MB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def time_words(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min", "2.5 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def age_words(age: Any) -> str:
    """ "just now", "5 min ago", "3 h ago", "12 d ago"."""
    seconds = age.total_seconds()
    if seconds < 60:
        return "just now"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _total(artifacts: Iterable[Artifact]) -> int:
    return sum(artifact.size for artifact in artifacts)


def _kinds(artifacts: Sequence[Artifact]) -> str:
    kinds = sorted({artifact.kind for artifact in artifacts})
    parts = [
        f"{kind} {size_words(_total([artifact for artifact in artifacts if artifact.kind == kind]))}" for kind in kinds
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""


def _opened(given: str | None) -> Store:
    """The store to look at; a path that is something else than a directory is a mistake, a missing one is empty."""
    store = Store(given or default_root())
    if store.remote is None and Path(store.root).exists() and not store.root.is_dir():
        raise UserError(sentence(f"The store at {store.name} is not a directory.", do="Give a directory with --store."))
    return store


def _console() -> Console:
    """A terminal's own width; a pipe gets lines that are not cut."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _fail(error: Exception, code: int) -> None:
    print(f"resurgence: {error}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
