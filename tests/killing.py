"""
A process that runs deeds of the ledger in child processes, and kills each child at a chosen step.

A child is forked from a process that has imported everything, so it takes milliseconds. Python's audit events tell what
it does. A step is a file opened for writing, a rename, a removal or a new folder in the data folder; the kill comes
before it. An fsync counts twice: the kill comes before it or after it. Before an fsync, the last bytes may be lost too.
"""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from utils.errors import FieldguideError
from utils.ledger.flags import save_flags
from utils.ledger.moves import Ledger
from utils.project import Project

NAMES = {"os.rename", "os.remove", "os.mkdir"}
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killer:
    """The process, as a context manager: it ends with the block."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *args):
        self.process.communicate()

    def start(self, project: Project, deed: str, *args, step: int = 0, lost: int = 0) -> None:
        """Begin a deed: flag, apply, undo or restore. It is killed at its `step`th step, from 1; 0: never."""
        request = {"project": project.model_dump_json(), "deed": deed, "args": args, "step": step, "lost": lost}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict:
        """Return how the deed ended: whether it was killed; if not, its error (None or a message) and what was done."""
        answer = json.loads(self.process.stdout.readline())
        assert answer["killed"] or "done" in answer, answer
        return answer

    def do(self, project: Project, deed: str, *args, **when) -> dict:
        self.start(project, deed, *args, **when)
        return self.end()


def do(project: Project, deed: str, *args) -> int:
    """Do a deed, and return how many decisions it carried out."""
    if deed == "flag":
        return len(save_flags(project, *args))
    return sum(outcome.done for outcome in getattr(Ledger(project), deed)(*args))


def kill_at(step: int, lost: int, folder: Path) -> None:
    """Count the steps of this process in `folder` from now on, and kill the process at the given one."""
    logs = {path.stat().st_ino: path.stat().st_size for path in folder.glob("*.csv")}
    sync, left, dying = os.fsync, step, False

    def count(handle: int | None = None) -> None:
        nonlocal left, dying
        left -= 1
        if left == 0:
            dying = True
            if handle is not None and stat.S_ISREG((status := os.fstat(handle)).st_mode):
                os.ftruncate(handle, max(logs.get(status.st_ino, 0), status.st_size - lost))
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, args: tuple) -> None:
        changes = event in NAMES or (event == "open" and args[2] & CHANGES)
        if changes and not dying and str(args[0]).startswith(str(folder)):
            count()

    def synced(handle: int) -> None:
        count(handle)
        sync(handle)
        count()

    os.fsync = synced
    sys.addaudithook(heard)


def answer(request: dict) -> dict:
    """Do a deed in this process and return how it ended. If it is killed, the parent says so."""
    project = Project.model_validate_json(request["project"])
    if request["step"]:
        kill_at(request["step"], request["lost"], project.data)
    try:
        return {"error": None, "done": do(project, request["deed"], *request["args"])}
    except FieldguideError as error:
        return {"error": str(error), "done": 0}
    except Exception as error:
        return {"crash": repr(error)}


def serve() -> None:
    """Do what each line of the input asks for in a child, and print how it ended."""
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.write(write, json.dumps(answer(json.loads(line))).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"killed": os.WIFSIGNALED(status), **json.loads(said or "{}")}), flush=True)


if __name__ == "__main__":
    serve()
