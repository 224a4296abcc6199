"""The plugin's options: one table, each option on the command line, in the environment, and in the ini file.

    --resurgence-base DIR   >   RESURGENCE_BASE=DIR   >   resurgence_base = DIR   >   the default

Values are read once, in the controller and in every worker; a mistake is a UserError, which the plugin turns into
pytest's usage error (exit code 4, one sentence, no traceback).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from resurgence_harness.diffusion.devices import check_device_name, resolved_device, visible_gpus
from resurgence_harness.errors import UserError, sentence, shown

if TYPE_CHECKING:
    from resurgence_harness.finetuning import ImageFolder
    from resurgence_harness.presets import SettingsFile
    from resurgence_harness.selection import Selection
    from resurgence_harness.specs import Base, Concept
    from resurgence_harness.tasks import Task
    from resurgence_harness.unlearning import GivenModel

EXIT_CODES = """\
Exit codes of a run that has cells: 0 every cell HOLDS or is KNOWN; 1 a safety regression (a cell is VIOLATED), nothing
else; 10 UNDECIDED, the evidence cannot tell; 11 incomplete: a planned cell has no verdict (a worker died, -x, a
timeout), a group of the gate's policy was not judged, or a test that is not a cell failed; 12 the harness failed, or
results could not be written; 4 a mistake in options, base, store or limits; 143 ended by SIGTERM. When several apply:
1, then 12, 11, 10. pytest's 2 and 3 keep their meaning; runs without cells keep all of pytest's codes."""
"""Literal text, because every run of pytest loads this module: `process.exit_codes` has the table of all commands."""
PROFILE_WORDS = ("quick", "full", "paper")
ENGINE_WORDS = ("sequential", "fixed", "hybrid")
"""The same as `presets.PROFILES` and `selection.ENGINES`, for --help without importing them."""


class Option(NamedTuple):
    """One option; `word` is its name in --resurgence-WORD (with "-" for "_"), RESURGENCE_WORD and resurgence_WORD."""

    word: str
    metavar: str
    default: str
    help: str


OPTIONS = (
    Option(
        "base",
        "NAME|DIR",
        "micro",
        'the published model: "micro" or "micro-xl" (embedded), sd14, sd21-base, sd21, sdxl, owner/name@<commit> from '
        "the hub's cache, or a directory in diffusers' layout",
    ),
    Option(
        "methods",
        "A,B",
        "",
        "unlearning methods, for example uce,esd; `resurgence list` shows all (default: those of the profile)",
    ),
    Option(
        "concepts",
        "FILE",
        "",
        "erase these concepts in place of the task's own sets, one a line; needed with --resurgence-unlearned",
    ),
    Option("counts", "N,M", "", "how many concepts are erased, for example 1,10 (default: those of the profile)"),
    Option(
        "finetune",
        "A,B",
        "",
        "fine-tunings, for example lora,full,dora; `resurgence list` shows all (default: those of the profile)",
    ),
    Option("seeds", "N", "", "image seeds per prompt in the grid (default: as many as a decision may need)"),
    Option(
        "engine",
        "NAME",
        "",
        f"how the number of images is decided: {', '.join(ENGINE_WORDS)} (fixed: one look; default: the profile's)",
    ),
    Option("runs", "N", "", "repetitions of unlearning and fine-tuning, each with its own training seed"),
    Option(
        "steps",
        "N,M",
        "",
        "also sample the model after these fine-tuning steps: a curve, and the first step at which a limit is shown to "
        "be passed, which makes the cell VIOLATED (docs/stress.md)",
    ),
    Option("profile", "NAME", "quick", f"size of the run: {', '.join(PROFILE_WORDS)}"),
    Option("device", "NAME", "auto", "where models run: auto, cpu, cuda, cuda:1 …"),
    Option("store", "DIR|URL", "", "where checkpoints, images and judgments are stored (default: ~/.cache/resurgence)"),
    Option("limits", "FILE", "", "thresholds and accepted ceilings (default: limits.yaml beside the suite)"),
    Option(
        "settings",
        "FILE",
        "",
        "values of methods and fine-tunings, as --resurgence-set (docs/settings.md), and your own trainers "
        "(docs/trainers.md)",
    ),
    Option(
        "data",
        "DIR",
        "",
        "fine-tune on these images instead of images drawn by the base: a folder in Hugging Face's image-folder "
        "convention (metadata.jsonl or metadata.csv, or a .txt beside each image); docs/data.md",
    ),
    Option("caption_column", "NAME", "text", "column of the captions in the metadata file of --resurgence-data"),
    Option(
        "data_limit",
        "SHARE",
        "0.01",
        "share of the images of --resurgence-data that may show an erased concept; a lower bound above it is an error",
    ),
    Option("captions", "FILE", "", "general captions that MACE preserves, one a line (default: forty of this project)"),
    Option("task", "NAME", "", "the task of tests whose marker names none, as that of `resurgence stress`"),
    Option("policy", "FILE", "", "a release gate's policy: pytest --pyargs resurgence_harness.gate (see policy init)"),
    Option("out", "DIR", "reports/out", "where verdict.json and Allure results are written"),
)
"""Every option except --resurgence-set, -recipe and -unlearned, which may be repeated, and the flags."""
FLAGS = {
    "fresh": "make everything anew that this run needs, and replace it in the store",
    "partial": "files of --resurgence-unlearned may contain only some layers, as ESD and UCE save them",
    "no_build": "only decide: build nothing, and report cells that the store has no evidence for as missing (exit 11)",
}
"""Options without a value."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one run, checked as far as possible without loading anything."""

    base: str
    selection: Selection
    device: str
    place: str
    """The store that was chosen; empty for the default."""
    run: str
    """Identifier of a fresh run, for which the store counts as empty at the start; empty for any other."""
    limits: Path | None
    settings: Path | None
    """The file of values and recipes."""
    task: str
    """The task of tests whose marker names none; empty without one."""
    unlearned: tuple[str, ...]
    """The given unlearned models as written: NAME=MODEL."""
    partial: bool
    """Whether their files may contain only some layers."""
    concepts: Path | None
    """The user's list of erased concepts; `selection.concepts` holds its content."""
    resolved: Base | None
    """The base, if it was read for the given models."""
    policy: Path | None
    """A release gate's."""
    data: Path | None
    """The folder of given fine-tuning images; `selection.data` holds its content."""
    caption_column: str
    """Column of their captions in the metadata file."""
    data_limit: float
    """Share of them that may show an erased concept, at least 0 and below 1."""
    out: Path
    given: frozenset[str]
    """Names of the options that differ from their defaults."""
    tasks: Mapping[str, Task]
    """Tasks of this run by name: the suite's own, and those of the package for this base."""
    notes: tuple[str, ...] = ()
    """What was resolved automatically, for the lines that are printed."""
    batch_resolved: bool = False
    """Whether the batch was chosen for the GPU of this machine."""
    no_build: bool = False
    """Whether only stored evidence counts: nothing is built, and a cell that needs more has no verdict."""

    @property
    def store(self) -> str:
        """Location of the store; UserError if none was chosen and there is no home directory.

        Evaluated on use: runs without cells need no store.
        """
        from resurgence_harness.storing import default_root

        return self.place or default_root()


def add_options(parser: pytest.Parser) -> None:
    """Register the options, their ini options, and the exit codes in --help."""
    group = parser.getgroup("resurgence", f"resurgence: do erased concepts come back? {EXIT_CODES}")
    for option in OPTIONS:
        help_ = option.help + (f" (default: {option.default})" if option.default else "")
        name = f"--resurgence-{option.word.replace('_', '-')}"
        group.addoption(name, dest=_dest(option.word), metavar=option.metavar, help=help_)
        parser.addini(_dest(option.word), f"like {name}", type="string", default="")
    group.addoption(
        "--resurgence-set",
        dest=_dest("set"),
        metavar="GROUP.NAME=VALUE",
        action="append",
        default=[],
        help="change a preset number, for example esd.iterations=500; may be repeated; recorded with the verdict",
    )
    group.addoption(
        "--resurgence-recipe",
        dest=_dest("recipe"),
        metavar="STAGES",
        action="append",
        default=[],
        help='a chain of stages in place of methods and fine-tunings, for example "uce(2) > lora > uce(+2) > full": '
        "erase two concepts, fine-tune, erase two more, fine-tune; may be repeated; docs/lives.md",
    )
    group.addoption(
        "--resurgence-unlearned",
        dest=_dest("unlearned"),
        metavar="NAME=MODEL",
        action="append",
        default=[],
        help="test a model that was unlearned elsewhere: a directory or a file of weights, a LoRA with =WEIGHT; may be "
        "repeated; takes the place of the methods, unless --resurgence-methods is given",
    )
    parser.addini(_dest("recipe"), "like --resurgence-recipe, one per line", type="linelist", default=[])
    parser.addini(_dest("unlearned"), "like --resurgence-unlearned, one per line", type="linelist", default=[])
    for word, help_ in FLAGS.items():
        name = f"--resurgence-{word.replace('_', '-')}"
        group.addoption(name, dest=_dest(word), action="store_true", default=None, help=help_)
        parser.addini(_dest(word), f"like {name}: true or false", type="string", default="")
    parser.addini(_dest("set"), "like --resurgence-set, one per line", type="linelist", default=[])


def chosen(config: pytest.Config, word: str, given: Any) -> tuple[str, Path]:
    """An option as text, and the folder for its relative path; `given` holds the command line's options."""
    here, ini = config.invocation_params.dir, config.inipath.parent if config.inipath else config.rootpath
    sources = (
        (getattr(given, _dest(word), None), here),
        (os.environ.get(f"RESURGENCE_{word.upper()}"), here),
        (config.getini(_dest(word)), ini),
    )
    default = next(option.default for option in OPTIONS if option.word == word)
    value, place = next(((text, place) for text, place in sources if text), (default, here))
    return str(value).strip(), place


def chosen_out(config: pytest.Config, given: Any) -> Path:
    """The folder of results, read before any other option. UserError for an invalid path."""
    value, place = chosen(config, "out", given)
    return _path(value, place)


def read_options(config: pytest.Config) -> Options:
    """Read all options: command line before environment before ini file before defaults."""
    from resurgence_harness.presets.lives import parse_life
    from resurgence_harness.selection import Selection, allowed_counts, not_listed, tasks_on

    values: dict[str, str] = {}
    given: set[str] = set()
    places: dict[str, Path] = {}
    for option in OPTIONS:
        word = option.word
        values[word], places[word] = chosen(config, word, config.option)
        if values[word] != option.default:
            given.add(word)
    check_device_name(values["device"])
    changes = [
        *config.getini(_dest("set")),
        *os.environ.get("RESURGENCE_SET", "").replace(",", " ").split(),
        *config.getoption(_dest("set"), []),
    ]
    base = values["base"]
    from resurgence_harness.specs import EMBEDDED

    if base not in EMBEDDED:
        from resurgence_harness.diffusion.hub import is_name

        if not is_name(base, places["base"]):
            base = str(_path(base, places["base"]))
    from resurgence_harness.pytest_plugin.own import register_own

    register_own(config)
    tasks = dict(tasks_on(base))
    own_settings = _settings(config, values, places)
    lives = (*own_settings.lives, *map(parse_life, _recipes(config)))
    for word in ("methods", "finetune", "steps") if lives else ():  # defaults of a project, which recipes replace
        values[word] = getattr(config.option, _dest(word), None) or ""
    counts = _list("counts", values["counts"], _whole)
    for count in counts or ():
        if count not in allowed_counts(tasks.values()):
            allowed = ", ".join(map(str, allowed_counts(tasks.values())))
            raise UserError(
                sentence(f"No task erases {count} concepts.", allowed=allowed, do="Choose with --resurgence-counts.")
            )
    run = uuid.uuid4().hex if _flag(config, "fresh") else ""
    place = _store(values["store"], places["store"])
    concepts = _path(values["concepts"], places["concepts"]) if values["concepts"] else None
    words, folder = _unlearned(config)
    listed = _concepts(concepts)
    if words and not listed:  # before large models are read
        raise not_listed(words[0].partition("=")[0].strip())
    changed, notes = _changed(config, changes, base, values["device"])
    models, resolved = _given(config, words, folder, base=base, place=place, run=run)
    data = _path(values["data"], places["data"]) if values["data"] else None
    selection = Selection(
        profile=values["profile"],
        methods=_list("methods", values["methods"], lambda _, text: text),
        counts=counts,
        finetunings=_list("finetune", values["finetune"], lambda _, text: text),
        seeds=_whole("seeds", values["seeds"]) if values["seeds"] else None,
        engine=values["engine"],
        runs=_whole("runs", values["runs"]) if values["runs"] else None,
        steps=_list("steps", values["steps"], _whole),
        changed=tuple({**dict(own_settings.changed), **changed}.items()),
        settings=own_settings.digest,
        data=_images(config, data, values["caption_column"]) if data is not None else None,
        lives=lives,
        unlearned=models,
        concepts=listed,
    )
    return Options(
        base=base,
        selection=selection,
        device=values["device"],
        place=place,
        run=run,
        limits=_path(values["limits"], places["limits"]) if values["limits"] else None,
        settings=_path(values["settings"], places["settings"]) if values["settings"] else None,
        task=values["task"],
        unlearned=words,
        partial=_flag(config, "partial"),
        concepts=concepts,
        resolved=resolved,
        policy=_path(values["policy"], places["policy"]) if values["policy"] else None,
        data=data,
        caption_column=values["caption_column"],
        data_limit=_share("data-limit", values["data_limit"]),
        out=_path(values["out"], places["out"]),
        given=frozenset(given),
        tasks=tasks,
        notes=notes,
        batch_resolved=bool(notes),
        no_build=_no_build(config, run),
    )


def _no_build(config: pytest.Config, run: str) -> bool:
    """Whether nothing is built. UserError together with a fresh run, which builds everything anew."""
    chosen = _flag(config, "no_build")
    if chosen and run:
        raise UserError(
            sentence(
                "--resurgence-fresh builds everything anew, and --resurgence-no-build builds nothing.",
                do="Leave out one of them.",
            )
        )
    return chosen


def _changed(
    config: pytest.Config, changes: list[str], base: str, device: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of --resurgence-set, and a note on an automatic batch, which a worker gets from the controller."""
    from resurgence_harness.presets import parse_change, settings_of
    from resurgence_harness.presets.batches import AUTO, batch_for, gpu_memory, resolution_note
    from resurgence_harness.specs import Base

    found: dict[str, Any] = {}
    for change in changes:
        found |= dict([("sampler.batch", AUTO) if "".join(change.split()) == AUTO else parse_change(change)])
    if found.get("sampler.batch") != AUTO:
        return found, ()
    sent = (getattr(config, "workerinput", None) or {}).get("resurgence", {}).get("batch")
    if sent is not None:
        return found | {"sampler.batch": sent}, ()
    others = [(name, value) for name, value in found.items() if name != "sampler.batch"]
    sampler = settings_of(Base(digest="", name=base, location=base), others)["sampler"]
    size = {name: sampler[name] for name in ("height", "width")} | {"arithmetic": sampler.get("arithmetic", "float32")}
    memory = None
    if resolved_device(device) != "cpu":
        index, gpus = device.partition(":")[2], visible_gpus()
        chosen = (gpus[int(index)],) if index and int(index) < len(gpus) else gpus
        memory = gpu_memory(chosen, workers=len(getattr(config.option, "tx", None) or []) or 1)
    batch = batch_for(memory, **size)
    return found | {"sampler.batch": batch}, (resolution_note(batch, memory, **size),)


def _recipes(config: pytest.Config) -> list[str]:
    """The recipes of the command line; else of the environment, one per line; else of the ini file."""
    given = [*config.getoption(_dest("recipe"), [])]
    given = given or [line for line in os.environ.get("RESURGENCE_RECIPE", "").splitlines() if line.strip()]
    return given or list(config.getini(_dest("recipe")))


def _settings(config: pytest.Config, values: Mapping[str, str], places: Mapping[str, Path]) -> SettingsFile:
    """Values and recipes of the settings file, overridden by the captions file; its commands are registered.

    UserError for commands in a file that is not named on the command line: nothing but a person's own word runs them.
    """
    from resurgence_harness.presets import SettingsFile, choice, read_settings, register_commands
    from resurgence_harness.presets.commands import Declared

    def declare(commands: tuple[Declared, ...], digest: str) -> None:
        if commands and not _named_by_person(config, "--resurgence-settings"):
            raise UserError(
                sentence(
                    "The settings file declares commands, and it is not named on the command line.",
                    file=shown(values["settings"]),
                    commands=", ".join(one.name for one in commands),
                    do="Give --resurgence-settings on the command line: commands of a file that an ini file, addopts "
                    "or the environment names are never run.",
                )
            )
        register_commands(commands, Path(values["settings"]).name, digest)

    found = SettingsFile((), "")
    if values["settings"]:
        found = read_settings(
            places["settings"] / Path(values["settings"]).expanduser(),
            images=lambda folder: _images(config, folder, values["caption_column"]),
            declare=declare,
        )
    else:
        register_commands((), "", "")
    if values["captions"]:
        general = choice("mace.general", {"file": values["captions"]}, folder=places["captions"])
        found = found._replace(changed=(*found.changed, ("mace.general", general)))
    return found


def _named_by_person(config: pytest.Config, option: str) -> bool:
    """Whether an option stands on the command line itself; a worker gets it from a controller that has checked it."""
    if hasattr(config, "workerinput"):
        return True
    return any(str(word).split("=")[0] == option for word in config.invocation_params.args)


def _unlearned(config: pytest.Config) -> tuple[tuple[str, ...], Path]:
    """The given unlearned models, NAME=MODEL, of the command line, else the environment, else the ini file; and the
    folder for their relative paths."""
    here, ini = config.invocation_params.dir, config.inipath.parent if config.inipath else config.rootpath
    sources = (
        (config.getoption(_dest("unlearned"), []), here),
        (os.environ.get("RESURGENCE_UNLEARNED", "").splitlines(), here),
        (config.getini(_dest("unlearned")), ini),
    )
    words, folder = next(((source, folder) for source, folder in sources if source), ([], here))
    return tuple(word.strip() for word in words if word.strip()), folder


def _given(
    config: pytest.Config, words: tuple[str, ...], folder: Path, *, base: str, place: str, run: str
) -> tuple[tuple[GivenModel, ...], Base | None]:
    """The given unlearned models, and the base that they were compared with; in a worker as the controller has read
    them."""
    if not words:
        return (), None
    from resurgence_harness.unlearning import GivenModel

    sent = (getattr(config, "workerinput", None) or {}).get("resurgence", {}).get("unlearned")
    if sent is not None:
        return tuple(GivenModel(**{**one, "notes": tuple(one["notes"])}) for one in sent), None
    from resurgence_harness.diffusion.formats import Cover
    from resurgence_harness.given_models import check_names, named, read_unlearned
    from resurgence_harness.presets import METHODS
    from resurgence_harness.selection import resolve_base
    from resurgence_harness.storing import Store, check_usable, default_root

    found = [named(word) for word in words]
    check_names(found, METHODS)
    store = place or default_root()
    check_usable(store)
    resolved = resolve_base(base)
    given = read_unlearned(
        found,
        base=resolved,
        folder=folder,
        store=Path(Store(store).root),
        cover=Cover.SOME if _flag(config, "partial") else Cover.WHOLE,
        run=run,
    )
    return given, resolved


def sent_models(models: tuple[GivenModel, ...]) -> list[dict[str, Any]]:
    """The given unlearned models as plain values, for a worker: it uses what the controller has checked."""
    return [{**asdict(model), "notes": list(model.notes)} for model in models]


def _concepts(path: Path | None) -> tuple[Concept, ...]:
    if path is None:
        return ()
    from resurgence_harness.gate.release_policy import read_concepts

    return read_concepts(path)


def _images(config: pytest.Config, folder: Path, column: str) -> ImageFolder:
    """The given fine-tuning images: read and checked, or in a worker as the controller has read them."""
    from resurgence_harness.finetuning.image_folder import ImageFolder, Row, read_folder

    sent = (getattr(config, "workerinput", None) or {}).get("resurgence", {}).get("data", {})
    sent = sent.get(str(folder.resolve()))
    if sent is None:
        return read_folder(folder, column=column)
    rows = tuple(Row(*row) for row in sent["rows"])
    return ImageFolder(digest=sent["digest"], rows=rows, path=sent["path"])


def sent_images(selection: Selection) -> dict[str, dict[str, Any]]:
    """The given images by their folder as plain values, for a worker: it uses what the controller has checked."""
    stages = [stage.data for life in selection.lives for stage in life.stages]
    return {
        images.path: {"digest": images.digest, "path": images.path, "rows": [tuple(row) for row in images.rows]}
        for images in (selection.data, *stages)
        if images is not None
    }


def task_named(name: str, tasks: Mapping[str, Task]) -> Task:
    """The task of this name, or a UserError that lists the known ones."""
    if name not in tasks:
        raise UserError(
            sentence(
                f'There is no task "{name}".',
                known=", ".join(tasks),
                do='Name a known one with @pytest.mark.resurgence(task="…").',
            )
        )
    return tasks[name]


def _dest(name: str) -> str:
    return f"resurgence_{name}"


def _list(name: str, text: str, read: Callable[[str, str], Any]) -> tuple[Any, ...] | None:
    """ "a,b" as (read a, read b); None for an option that was not given."""
    if not text:
        return None
    return tuple(read(name, part.strip()) for part in text.split(",") if part.strip())


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(sentence(f'--resurgence-{name} is "{text}".', do="Give whole numbers of 1 or more."))
    return int(text)


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(sentence(f'--resurgence-{name} is "{text}".', do="Give a share from 0 up to 1, as 0.01."))
    return share


def _store(text: str, place: Path) -> str:
    return text if not text or "://" in text else str(_path(text, place))


def _path(text: str, place: Path) -> Path:
    """A path relative to `place`. UserError for "~" without a home directory."""
    try:
        return place / Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            sentence("A path begins with ~, and this user has no home directory.", path=text, do="Write it in full.")
        ) from None


def _flag(config: pytest.Config, word: str) -> bool:
    variable = f"RESURGENCE_{word.upper()}"
    sources = (os.environ.get(variable), config.getini(_dest(word)))
    text = next((source.strip().lower() for source in sources if source and source.strip()), "")
    if text not in _YES | _NO:
        raise UserError(sentence(f'{variable} is "{text}".', do="Give true or false."))
    return bool(config.getoption(_dest(word), None)) or text in _YES


_YES, _NO = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
