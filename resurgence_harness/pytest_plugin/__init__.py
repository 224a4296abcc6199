"""The pytest plugin: options, fixtures and hooks, in the order in which pytest calls them.

    addhooks · addoption ─▶ load_initial_conftests ─▶ cmdline_main ─▶ configure ─▶ sessionstart
    ─▶ generate_tests · itemcollected · modifyitems · deselected ─▶ collection_finish
    ─▶ makereport · logreport ─▶ sessionfinish · terminal_summary ─▶ unconfigure ─▶ cmdline_main's end

Every pytest run in the environment loads it, so it imports little (not torch, numpy, pydantic, allure or xdist), reads
no option, makes no file and changes no exit code until a test or an argument on the command line uses it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.errors import NotBuilt, UserError
from resurgence_harness.pytest_plugin import (
    collecting,
    ending,
    gate_groups,
    hookspecs,
    old_results,
    own,
    reruns,
    run_folder,
    scheduling,
    timeouts,
    workers,
)
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
from resurgence_harness.pytest_plugin.options import add_options, sent_images, sent_models
from resurgence_harness.pytest_plugin.properties import (
    HARNESS_PROPERTY,
    KNOWN_PROPERTY,
    MISTAKE_PROPERTY,
    UNBUILT_PROPERTY,
)
from resurgence_harness.pytest_plugin.session import SESSION, Session
from resurgence_harness.pytest_plugin.state import (
    ENGINE,
    GATING,
    OPTIONS,
    SHARE,
    engine_in,
    gating_in,
    options_of,
)

if TYPE_CHECKING:
    from resurgence_harness.storing import Seal
    from resurgence_harness.tasks import Task

_SIGTERM = pytest.StashKey[ending.Terminated]()
_MISTAKEN = pytest.StashKey[bool]()
_IGNORED = "resurgence_ignored"
"""Key in a worker's output of the store entries that it treated as absent."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks for a suite's own methods, tasks and judges."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --resurgence-* and their ini options."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Remove an earlier run's results before a conftest.py or an unknown option can end this one."""
    old_results.forget_early(early_config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Wrap the whole run: find our tests first, determine the exit code last, whatever fails."""
    inputs = getattr(config, "workerinput", None)
    if inputs is not None:
        if inputs["resurgence"]["allure"]:
            config.option.allure_report_dir = inputs["resurgence"]["allure"]
        return (yield)
    session = _session(config)
    try:
        code = yield
    except (pytest.UsageError, GeneratorExit):
        raise
    except BaseException as error:
        if not session.involved:
            raise
        code = ending.after(session, error)
    finally:
        config.stash[_SIGTERM].disarm()
    if session.involved:
        session.print_closing()
        code = ending.code_of(config, session, int(code or 0))
        ending.flushed()
    return code


def _session(config: pytest.Config) -> Session:
    """Set up the session: remove earlier results, read the options, direct Allure's results to our folder."""
    if SESSION in config.stash:
        return config.stash[SESSION]
    sight = old_results.seen(config, *old_results.requested(config))
    config.stash[SESSION] = config.stash[SHARE] = session = Session(config, sight)
    config.stash[_SIGTERM] = ending.Terminated(session)
    if not (sight.uses or sight.gate) or (old_results.shows_only(config.option) and not config.option.collectonly):
        return session
    ending.opened()
    try:
        if sight.claims and not config.option.collectonly:
            old_results.remove_stale_outputs(config, config.option)
        options = options_of(config)
        if sight.claims:
            reruns.refuse(config)
            timeouts.refuse(config)
        sight.tasks(options.tasks, otherwise=options.task)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    if sight.claims and not config.option.collectonly:
        config.stash[_SIGTERM].arm()
        if getattr(config.option, "allure_report_dir", "not installed") is None:
            from resurgence_harness.reporting.old_allure import FOLDER

            session.allure = config.option.allure_report_dir = str(options.out / FOLDER)
    return session


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """In the controller: check all that can be checked before a worker starts. In a worker: set up its resources."""
    config.addinivalue_line(
        "markers",
        "resurgence(task, methods=None, counts=None, finetunings=None, recipes=None): the task that this test's cells "
        "belong to, and which of its methods, concept counts and fine-tunings, or which recipes, it runs.",
    )
    inputs = getattr(config, "workerinput", None)
    if inputs is None:
        _configure_controller(config)
    elif inputs["resurgence"]["involved"]:
        _take_share(config, inputs)


def _configure_controller(config: pytest.Config) -> None:
    session = _session(config)  # made here if a program configures pytest without pytest.main()
    if config.pluginmanager.has_plugin("xdist"):
        config.pluginmanager.register(_WithXdist(), "resurgence-xdist")
    config.pluginmanager.register(_Reports(session), "resurgence-reports")
    if old_results.shows_only(config.option):
        return
    try:
        if session.sight.uses:
            options = options_of(config)
            tasks = [options.tasks[name] for name in session.sight.tasks(options.tasks, otherwise=options.task)]
            session.base, session.notes = _checked(config, tasks, session.sight.folders)
        if session.sight.gate:
            gating_in(config).check()
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


def _take_share(config: pytest.Config, inputs: dict[str, Any]) -> None:
    """Set this worker's GPU, threads and priority, before torch is imported."""
    given = inputs["resurgence"]
    if given["run"] is not None:
        config.stash[OPTIONS] = replace(options_of(config), run=given["run"])
    if given["gpu"] is not None and options_of(config).device in ("auto", "cuda"):
        workers.choose_gpu(given["gpu"])
    workers.share_cores(given["workers"])
    workers.give_way(workers.number(inputs["workerid"]), given["workers"])


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Make a run with cells robust to a terminal that is closed."""
    run = session.config.stash.get(SESSION, None)
    if run is not None and run.sight.claims:
        ending.steady(session.config)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per chosen cell; last, after others that parametrize their own `cell`."""
    collecting.parametrize(metafunc)
    if mistakes := gate_groups.parametrize(metafunc):
        metafunc.config.stash.setdefault(collecting.MISTAKES, []).extend(mistakes)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Record a cell before it can be deselected."""
    collecting.found(item)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Record deselected tests: a suite's cells may be deselected, a gate's groups may not."""
    collecting.deselected(items)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests without a cell that marker and options both choose; end the run if there are mistakes."""
    collecting.drop_not_chosen(config, items)
    mistakes = [*config.stash.get(collecting.MISTAKES, []), *reruns.mistakes(config, items)]
    inputs = getattr(config, "workerinput", None)
    if not mistakes:
        return
    config.stash[_MISTAKEN] = True
    items.clear()  # pytest finishes the collection nevertheless; nothing must be planned
    if inputs is None:
        raise pytest.UsageError(mistakes[0])
    run_folder.write_mistake(Path(inputs["resurgence"]["folder"]), mistakes[0])  # the controller ends the run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan the remaining cells; first, so that the controller can read them in xdist's own hook."""
    config = session.config
    if config.stash.get(_MISTAKEN, False):
        return
    inputs = getattr(config, "workerinput", None)
    collected = collecting.collected(config, session.items)
    if not collected.cells:
        return
    if inputs is not None:
        if not inputs["resurgence"]["involved"]:
            _take_share(config, inputs)
        run_folder.write_collected(Path(inputs["resurgence"]["folder"]), inputs["workerid"], collected)
    else:
        _begin(config, collected)
        try:
            engine_in(config)
        except UserError as error:  # a judge of a conftest.py that --collect-only meets first here
            raise pytest.UsageError(str(error)) from None


def _begin(config: pytest.Config, collected: collecting.Collected) -> None:
    """Check what could not be checked before collection, then start the run."""
    session = config.stash[SESSION]
    if old_results.shows_only(config.option):
        session.gate |= any(entry.get("gate") for entry in collected.cells)
        return
    suites = [entry for entry in collected.cells if not entry.get("gate")]
    try:
        if len(suites) < len(collected.cells) and not session.gate:
            gating_in(config).check()  # the command line did not show that a gate would be collected
        if session.base is None and suites:
            known = options_of(config).tasks
            tasks = [known[name] for name in dict.fromkeys(entry["task"] for entry in suites)]
            folders = [Path(folder) for folder in dict.fromkeys(entry["folder"] for entry in suites)]
            session.base, session.notes = _checked(config, tasks, folders)
        session.begin(collected)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    ending.steady(config)
    config.stash[_SIGTERM].arm()


def _checked(config: pytest.Config, tasks: Sequence[Task], folders: Sequence[Path]) -> Any:
    from resurgence_harness.pytest_plugin.checking import check

    options = options_of(config)
    own.register_own(config)
    return check(options, tasks, folders)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record why a cell has no verdict, show no traceback for a user's mistake, and mark KNOWN results in Allure."""
    error = call.excinfo.value if call.excinfo is not None else None
    mistake = isinstance(error, UserError) and collecting.is_ours(item)
    if mistake:
        item.user_properties.append((MISTAKE_PROPERTY, str(error)))
    elif isinstance(error, NotBuilt):
        item.user_properties.append((UNBUILT_PROPERTY, str(error).splitlines()[0]))
    elif error is not None and collecting.is_cell(item) and not isinstance(error, _NOT_BROKEN):
        from resurgence_harness.pytest_plugin.engine import harness_message

        item.user_properties.append((HARNESS_PROPERTY, harness_message(error)))
    report = yield
    if mistake or isinstance(error, NotBuilt):
        report.longrepr = str(error)
    known = next((value for name, value in item.user_properties if name == KNOWN_PROPERTY), None)
    if report.when == "call" and report.passed and known is not None:
        from resurgence_harness.reporting import allure

        allure.note_known(item.config, str(known))
    return report


_NOT_BROKEN = (AssertionError, pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception)
"""Exceptions of a test that are not errors of the harness."""


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Determine the exit code and write every result, before other plugins, which may fail or exit."""
    config = session.config
    run = config.stash.get(SESSION, None)
    if hasattr(config, "workeroutput"):
        config.workeroutput[_IGNORED] = {key: seal.value for key, seal in _ignored(config).items()}
    if run is None:
        return
    config.stash[_SIGTERM].ignore_further()
    run.ignored |= _ignored(config)
    session.exitstatus = run.finish(int(exitstatus))


def _ignored(config: pytest.Config) -> dict[str, Seal]:
    """Store entries that were treated as absent in this process."""
    of_gate = config.stash[GATING].ignored if GATING in config.stash else {}
    of_engine = config.stash[ENGINE].ignored if ENGINE in config.stash else {}
    return {**of_gate, **of_engine}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table."""
    if SESSION in config.stash:
        config.stash[SESSION].summarize(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Free the models and remove the run's folder."""
    if ENGINE in config.stash:
        config.stash[ENGINE].release()
    if GATING in config.stash:
        config.stash[GATING].release()
    if SESSION in config.stash:
        config.stash[SESSION].close()


class _Reports:
    """Hooks of the controller that pytest calls without a config argument."""

    def __init__(self, session: Session) -> None:
        """Forward the hooks to `session`."""
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
        self._session.stopped(excinfo.value)


class _WithXdist:
    """Hooks that exist only if pytest-xdist is installed."""

    def pytest_configure_node(self, node: Any) -> None:
        """Send a worker its input: base, GPU, number of workers, and the folder for progress."""
        session, config = node.config.stash[SESSION], node.config
        number = workers.number(node.workerinput["workerid"])
        config.stash[_SIGTERM].nodes.append(node)
        node.workerinput["resurgence"] = {
            "involved": session.sight.uses or session.gate,
            "allure": session.allure,
            "base": asdict(session.base) if session.base is not None else None,
            "batch": dict(session.options.selection.changed).get("sampler.batch") if session.sight.uses else None,
            "data": sent_images(session.options.selection) if session.sight.uses else {},
            "folder": str(session.folder),
            "gate": gating_in(config).sent() if session.gate else None,
            "gpu": workers.gpu_for(number, workers.visible_gpus()),
            "unlearned": sent_models(session.options.selection.unlearned) if session.sight.uses else None,
            "run": session.options.run if session.sight.uses or session.gate else None,
            "workers": len(config.getoption("tx", None) or []) or 1,
        }

    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """Plan the cells that a worker has collected; end the run on a mistake that it found."""
        session = node.config.stash[SESSION]
        mistake = run_folder.read_mistake(session.folder)
        if mistake is not None:
            raise pytest.UsageError(mistake)
        collected = run_folder.read_collected(session.folder, node.workerinput["workerid"])
        if collected.cells:
            _begin(node.config, collected)

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Record a dead worker (`error` is set), and the store entries that the worker treated as absent."""
        session = node.config.stash[SESSION]
        if error:
            session.lost_worker()
        if ignored := getattr(node, "workeroutput", {}).get(_IGNORED):
            from resurgence_harness.storing import Seal

            session.ignored |= {key: Seal(seal) for key, seal in ignored.items()}

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """One group per unlearned checkpoint, the longest first, unless another distribution was requested."""
        if not config.stash[SESSION].sight.uses or config.getvalue("dist") not in scheduling.OURS:
            return None
        return scheduling.scheduler(config, log)

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_auto_num_workers(self, config: pytest.Config) -> int | None:
        """-n auto: one worker per GPU if cells run on GPUs."""
        if not config.stash[SESSION].sight.uses:
            return None
        on_gpu = workers.resolved_device(options_of(config).device).startswith("cuda")
        return len(workers.visible_gpus()) if on_gpu else None


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
