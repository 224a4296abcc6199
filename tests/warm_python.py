"""A Python that starts warm: forked from a process that has imported torch, diffusers and transformers.

A command that builds a model spends seconds of CPU time on these imports. Tests that start many such commands start
them by `python()`, a small program that takes Python's options (`-m`, `-c`, `-u`, a script), its own environment,
directory and standard streams, has them run in a fork, and ends as that ends, signals included. Workers of pytest-
xdist are started by `sys.executable`, so they are forks too. Nothing of this package is imported before the fork.
What depends on how a process starts (its imports, sitecustomize, further open files) is tested with Python itself:
see `cold` in tests/plugin/conftest.py, tests/test_exit_codes.py and tests/gate/test_wheel.py.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    "numpy",
    "torch",
    "safetensors.torch",
    "PIL.Image",
    "pydantic",
    "yaml",
    "matplotlib",
    "scipy.stats",
    "rich",
    "typer",
    "huggingface_hub",
    "peft",
    "pytest",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.schedulers.scheduling_ddim",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
)
"""What the forks have already imported."""
PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys

place = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
place.connect({place!r})
wanted = json.dumps(dict(words=sys.argv[1:], env=dict(os.environ), folder=os.getcwd())).encode()
socket.send_fds(place, [len(wanted).to_bytes(8, "big")], [0, 1, 2])
place.sendall(wanted)
told = place.makefile()
process = int(told.readline())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(process, number))
status = int(told.readline() or 9)
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""


@cache
def python() -> str:
    """The path of the program; its server is started once in each process that asks and ends with it."""
    if sys.platform != "linux":
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    if len(str(folder)) > 90:  # a socket's path has at most 107 characters
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="warm", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place, program = folder / "place", folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, place=str(place)), encoding="utf-8")
    program.chmod(0o755)
    alive, ours = os.pipe()  # the server ends when this process does, and its end of the pipe with it
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RESURGENCE"))}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(place), str(program), str(alive)]
    server = subprocess.Popen(command, env=env, cwd="/", pass_fds=[alive], stdout=subprocess.PIPE, text=True)
    os.close(alive)
    os.set_inheritable(ours, False)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    return str(program)


# The server


def serve(place: str, program: str, alive: int) -> None:
    """Import, then fork for everybody who connects, until nobody holds the other end of the pipe `alive`."""
    for name in IMPORTED:
        __import__(name)
    gc.collect()
    gc.freeze()  # a fork's collector leaves the imported libraries alone
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(place)
    door.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who keep a command
    while alive not in select.select([door, alive], [], [])[0]:
        caller, _ = door.accept()
        if os.fork() == 0:
            door.close()
            os.close(alive)
            _keep(caller, program)
        caller.close()


def _keep(caller: socket.socket, program: str) -> NoReturn:
    """Fork the command, say its number and its end; a caller who was killed takes it along."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(caller, 8, 3)
    size, wanted = int.from_bytes(length, "big"), b""
    while len(wanted) < size:
        wanted += caller.recv(size - len(wanted))
    process = os.fork()
    if process == 0:
        caller.close()
        _run(json.loads(wanted), files, program)
    for file in files:
        os.close(file)
    caller.sendall(f"{process}\n".encode())
    pause, left = 0.001, True
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
        if left and select.select([caller], [], [], 0)[0]:
            os.kill(process, signal.SIGKILL)
            left = False
    if left:
        caller.sendall(f"{ended[1]}\n".encode())
    os._exit(0)


def _run(wanted: dict[str, Any], files: list[int], program: str) -> NoReturn:
    """Be the command: as Python would start, but for what is imported already."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        if file > 2:
            os.close(file)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    import multiprocessing

    multiprocessing.set_executable(sys.executable)  # hands further files over, which the program cannot
    sys.executable = program
    words = list(wanted["words"])
    unbuffered = bool(words) and words[0] == "-u" and bool(words.pop(0))
    streams = {"stdin": (0, "r"), "stdout": (1, "w"), "stderr": (2, "w")}
    for name, (number, mode) in streams.items():
        kept = open(number, mode, buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        if unbuffered and mode == "w":
            kept.reconfigure(write_through=True)  # type: ignore[union-attr]
        setattr(sys, name, kept)
        setattr(sys, f"__{name}__", kept)
    kind = words.pop(0) if words and words[0] in ("-m", "-c") else ""
    what = words.pop(0)
    first = "" if kind == "-c" else os.getcwd() if kind == "-m" else str(Path(what).resolve().parent)
    sys.argv = ["-c" if kind == "-c" else what, *words]
    sys.path[:] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    with suppress(ImportError):
        __import__("sitecustomize")
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    code: object = 0
    try:
        if kind == "-c":
            exec(compile(what, "<string>", "exec"), main.__dict__)
        elif kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    os._exit(int(code) & 0xFF if isinstance(code, int) else 0)


if __name__ == "__main__":
    del sys.path[0]  # this folder
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
