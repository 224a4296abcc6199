"""The pytest plugin: options, fixtures and hooks, in the order in which pytest calls them.

    addhooks · addoption ─▶ cmdline_main ─▶ configure ─▶ sessionstart ─▶ generate_tests · modifyitems
    ─▶ collection_finish ─▶ makereport · logreport ─▶ sessionfinish · terminal_summary ─▶ unconfigure

It is loaded by every pytest run of the environment that it is installed in, so it imports neither torch nor allure nor
xdist, and it stays out of the way of runs that have no cells.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.pytest_plugin import collecting, gating, hookspecs, reruns, scheduling, workers
from resurgence_harness.pytest_plugin.engine import Checked, Engine, check, harness_message
from resurgence_harness.pytest_plugin.fixtures import (
    base_model,
    benign_images,
    cell,
    claim,
    evidence,
    fine_tuned_model,
    gate_claim,
    judge,
    unlearned_model,
)
from resurgence_harness.pytest_plugin.options import add_options, read_options
from resurgence_harness.pytest_plugin.progress import Teller
from resurgence_harness.pytest_plugin.properties import KNOWN_PROPERTY
from resurgence_harness.pytest_plugin.session import (
    ALLURE_FOLDER,
    HARNESS_PROPERTY,
    MISTAKE_PROPERTY,
    Session,
    read_mistake,
    read_planned,
    write_mistake,
    write_planned,
)
from resurgence_harness.pytest_plugin.state import ENGINE, OPTIONS, SESSION
from resurgence_harness.specs import Base
from resurgence_harness.storing import Seal
from resurgence_harness.tasks import Task

_IN_SIGHT = pytest.StashKey[collecting.Sight]()
_OWN_ALLURE = pytest.StashKey[bool]()
_IGNORED = "resurgence_ignored"
"""What a worker's output calls the store's entries that it counted as absent."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Tasks and judges of a suite's own."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--resurgence-*, with ini twins."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Read the choices; send Allure's results to our folder where cells may run and nobody chose another."""
    _read(config)


def _read(config: pytest.Config) -> None:
    try:
        config.stash[OPTIONS] = options = read_options(config)
        sight = collecting.look(config, options.tasks)
        sight = sight._replace(claims=sight.claims or options.policy is not None)
        config.stash[_IN_SIGHT] = sight
        if sight.claims:
            reruns.refuse(config)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    unset = getattr(config.option, "allure_report_dir", "not installed") is None
    config.stash[_OWN_ALLURE] = own = unset and sight.claims and not config.option.collectonly
    if own:
        config.option.allure_report_dir = str(options.out / ALLURE_FOLDER)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check everything that can be checked before a worker starts; make the engine; take this worker's share."""
    config.addinivalue_line(
        "markers",
        "resurgence(task, methods=None, counts=None, finetunings=None): the task that this test's cells belong to, "
        "and which of its methods, concept counts and fine-tunings it is about.",
    )
    if config.pluginmanager.has_plugin("xdist"):
        config.pluginmanager.register(_WithXdist(), "resurgence-xdist")
    inputs = getattr(config, "workerinput", None)
    if inputs is None:
        _configure_controller(config)
    else:
        _configure_worker(config, inputs)


def _configure_controller(config: pytest.Config) -> None:
    if OPTIONS not in config.stash:  # configured by a program that does not go through pytest.main()
        _read(config)
    options, sight = config.stash[OPTIONS], config.stash[_IN_SIGHT]
    base: Base | None = None
    notes: tuple[str, ...] = ()
    if sight.uses and not config.option.collectonly:
        base, notes = _checked(config, [options.tasks[name] for name in sight.tasks], sight.folders)
    session = Session(config, options, device=workers.resolved_device(options.device), base=base)
    session.notes = notes
    session.own_allure = config.stash[_OWN_ALLURE]
    config.stash[gating.GATING] = session.gating = gating.Gating(options, own=_tasks(config), judges=_judges(config))
    if options.policy is not None and not config.option.collectonly:
        try:
            session.gating.check()
        except UserError as error:
            raise pytest.UsageError(str(error)) from None
    config.stash[SESSION] = session
    config.stash[ENGINE] = Engine(options, base=base, judges=_judges(config), teller=Teller(None))
    config.pluginmanager.register(_Reports(session), "resurgence-reports")


def _configure_worker(config: pytest.Config, inputs: dict[str, Any]) -> None:
    given = inputs["resurgence"]
    config.stash[OPTIONS] = options = replace(read_options(config), run=given["run"])
    if given["gpu"] is not None and options.device in ("auto", "cuda"):
        workers.choose_gpu(given["gpu"])
    workers.share_cores(given["workers"])
    workers.give_way(workers.number(inputs["workerid"]), given["workers"])
    base = Base(**given["base"]) if given["base"] else None
    config.stash[gating.GATING] = gating.Gating(
        options, own=_tasks(config), judges=_judges(config), found=given["gate"]
    )
    teller = Teller(Path(given["folder"]) / f"progress-{inputs['workerid']}.json")
    config.stash[ENGINE] = Engine(options, base=base, judges=_judges(config), teller=teller)


def _tasks(config: pytest.Config) -> list[Any]:
    return [task for tasks in config.hook.pytest_resurgence_tasks() for task in tasks]


def _judges(config: pytest.Config) -> list[Any]:
    return [judge for judges in config.hook.pytest_resurgence_judges() for judge in judges]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove an earlier run's verdict, whatever becomes of this one."""
    config = session.config
    if SESSION in config.stash and config.stash[_IN_SIGHT].claims and not config.option.collectonly:
        config.stash[SESSION].forget_old()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per chosen cell."""
    collecting.parametrize(metafunc, metafunc.config.stash[OPTIONS])
    metafunc.config.stash.setdefault(collecting.MISTAKES, []).extend(gating.parametrize(metafunc))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests whose marker and options have no cell in common are deselected; mistakes end the run."""
    collecting.drop_not_chosen(config, items)
    mistakes = [*config.stash.get(collecting.MISTAKES, []), *reruns.mistakes(config, items)]
    inputs = getattr(config, "workerinput", None)
    if not mistakes:
        return
    items.clear()  # pytest finishes the collection even so, and nothing is planned
    if inputs is None:
        raise pytest.UsageError(mistakes[0])
    write_mistake(Path(inputs["resurgence"]["folder"]), mistakes[0])  # the controller ends the run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """The cells that are left owe a verdict. First, so that the controller finds them when xdist says it is over."""
    config = session.config
    inputs = getattr(config, "workerinput", None)
    planned = collecting.planned(session.items, config.stash[OPTIONS])
    if inputs is not None:
        write_planned(Path(inputs["resurgence"]["folder"]), inputs["workerid"], planned)
    elif planned:
        _begin(config, planned)
        config.stash[ENGINE].teller = Teller(config.stash[SESSION].folder / "progress-main.json")


def _begin(config: pytest.Config, planned: list[dict[str, Any]]) -> None:
    """Check what was not in sight before collection, then start the run."""
    session = config.stash[SESSION]
    if config.option.collectonly or session.planned:
        return
    suites = [entry for entry in planned if not entry.get("gate")]
    if session.base is None and not suites and session.gating is not None:
        published = session.gating.models.base
        session.base = published.base if published is not None else Base(digest="", name="no base")
    if session.base is None:
        known = config.stash[OPTIONS].tasks
        tasks = [known[name] for name in dict.fromkeys(entry["task"] for entry in suites)]
        folders = [Path(folder) for folder in dict.fromkeys(entry["folder"] for entry in suites)]
        session.base, session.notes = _checked(config, tasks, folders)
        config.stash[ENGINE].base = session.base
    session.begin(planned)


def _checked(config: pytest.Config, tasks: Sequence[Task], folders: Sequence[Path]) -> Checked:
    try:
        return check(config.stash[OPTIONS], tasks, folders, _judges(config))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say beside the report why a cell has no verdict; show no traceback for a user's mistake; note KNOWN in Allure."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, UserError) and OPTIONS in item.config.stash:
        item.user_properties.append((MISTAKE_PROPERTY, str(error)))
    elif error is not None and collecting.is_cell(item) and not isinstance(error, _NOT_BROKEN):
        item.user_properties.append((HARNESS_PROPERTY, harness_message(error)))
    report = yield
    if isinstance(error, UserError):
        report.longrepr = str(error)
    known = next((value for name, value in item.user_properties if name == KNOWN_PROPERTY), None)
    if report.when == "call" and report.passed and known is not None:
        from resurgence_harness.reporting import allure

        allure.note_known(item.config, str(known))
    return report


_NOT_BROKEN = (AssertionError, pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception)
"""What a test may raise without the instrument being broken."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Settle the exit code; write verdict.json and what Allure needs of the whole run."""
    config = session.config
    own = config.stash.get(SESSION, None)
    ignored = {**config.stash[gating.GATING].ignored, **config.stash[ENGINE].ignored} if ENGINE in config.stash else {}
    if hasattr(config, "workeroutput"):
        config.workeroutput[_IGNORED] = {key: seal.value for key, seal in ignored.items()}
    if own is not None:
        own.ignored |= ignored
        session.exitstatus = own.finish(int(exitstatus))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table."""
    if SESSION in config.stash:
        config.stash[SESSION].summarize(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of models and of the run's folder."""
    if ENGINE in config.stash:
        config.stash[ENGINE].release()
    if gating.GATING in config.stash:
        config.stash[gating.GATING].release()
    if SESSION in config.stash:
        config.stash[SESSION].close()


class _Reports:
    """Hooks of the controller that pytest calls without a config."""

    def __init__(self, session: Session) -> None:
        """Tell this session."""
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        self._session.erase_progress()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._session.erase_progress()
        self._session.reported(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._session.collected(report)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # -x and collection errors come this way too, as pytest's or xdist's own kind of KeyboardInterrupt.
        if type(excinfo.value) is KeyboardInterrupt or isinstance(excinfo.value, pytest.exit.Exception):
            self._session.stopped_by_hand()


class _WithXdist:
    """Hooks that exist only where pytest-xdist is installed."""

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker its share: base, GPU, number of workers, and the folder for progress."""
        session, config = node.config.stash[SESSION], node.config
        number = workers.number(node.workerinput["workerid"])
        node.workerinput["resurgence"] = {
            "base": asdict(session.base) if session.base is not None else None,
            "folder": str(session.folder),
            "gate": session.gating.sent() if session.gating is not None else None,
            "gpu": workers.gpu_for(number, workers.visible_gpus()),
            "run": session.options.run,
            "workers": len(config.getoption("tx", None) or []) or 1,
        }

    def pytest_testnodedown(self, node: Any) -> None:
        """A worker is done: which entries of the store it counted as absent."""
        for key, seal in getattr(node, "workeroutput", {}).get(_IGNORED, {}).items():
            node.config.stash[SESSION].ignored[key] = Seal(seal)

    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """A worker has collected: its cells are the run's cells, and its mistakes end the run."""
        session = node.config.stash[SESSION]
        mistake = read_mistake(session.folder)
        if mistake is not None:
            raise pytest.UsageError(mistake)
        planned = read_planned(session.folder, node.workerinput["workerid"])
        if planned:
            _begin(node.config, planned)

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """One group per unlearned checkpoint, the longest first, unless another distribution was asked for."""
        if not config.stash[_IN_SIGHT].uses or config.getvalue("dist") not in scheduling.OURS:
            return None
        return scheduling.scheduler(config, log)

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_auto_num_workers(self, config: pytest.Config) -> int | None:
        """-n auto: one worker per GPU, where cells run on GPUs."""
        options = config.stash[OPTIONS]
        on_gpu = workers.resolved_device(options.device).startswith("cuda")
        return len(workers.visible_gpus()) if on_gpu and config.stash[_IN_SIGHT].uses else None


__all__ = [
    "base_model",
    "benign_images",
    "cell",
    "claim",
    "evidence",
    "fine_tuned_model",
    "gate_claim",
    "judge",
    "unlearned_model",
]
