"""
How quick and how lean collecting is: the same 500 pictures through fastai and through this project, in one run.

    python benchmarks/collect.py [FOLDER]

Theirs is `download_images`, `verify_images` and `resize_images(max_size=512)`; ours `download_images` and
`verify_images`, which end at the same place: 500 pictures that open, at most 512 pixels a side. Both ask one host on
this machine, a process of its own, over 8 connections. The sides take turns, each time in a fresh process and folder;
a figure is the median of three. Imports are not timed. Then ours again with ten times as many smaller pictures: does
memory grow?

The photos are drawn, 1024×768 and about 140 kB, or the .jpg files of FOLDER; they are served again and again with
another comment inside, so that all contents differ. Prints tables for the README.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _process import measured
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
COUNT, MANY = 500, 5_000  # pictures
CONNECTIONS = 8
REPEATS = 3
DRAWN = 50  # different photos
PHOTO, SMALL = (1024, 768), (320, 240)  # pixels
MEGABYTE = 1_000_000


def main(folder: Path | None) -> None:
    """Measure both sides in turn, then our memory, and print the tables."""
    with tempfile.TemporaryDirectory() as scratch, Host(folder or drawn(Path(scratch) / "photos", PHOTO)) as url:
        runs = {"fastai": [], "ours": []}
        for _ in range(REPEATS):
            for side, found in runs.items():
                found.append(outcome(side, url, COUNT))
    print("\n".join(comparison(*({key: middle(found, key) for key in found[0]} for found in runs.values()))), "\n")
    with tempfile.TemporaryDirectory() as scratch, Host(drawn(Path(scratch) / "photos", SMALL)) as url:
        print("\n".join(growth([(count, outcome("ours", url, count)) for count in (COUNT, MANY)])))


def middle(found: list[dict[str, float]], key: str) -> float:
    """Return the median of one figure over the runs."""
    return statistics.median(run[key] for run in found)


def comparison(theirs: dict[str, float], ours: dict[str, float]) -> list[str]:
    """Return the table of both sides."""
    rows = [
        ("images/s, from address to training copy", "{:.0f}", [COUNT / side["seconds"] for side in (theirs, ours)]),
        ("… fetching, seconds", "{:.2f}", [side["fetch"] for side in (theirs, ours)]),
        ("… verifying and reducing, seconds", "{:.2f}", [side["verify"] for side in (theirs, ours)]),
        ("CPU, seconds", "{:.1f}", [side["cpu"] for side in (theirs, ours)]),
        ("peak memory, MB", "{:.0f}", [side["memory"] / MEGABYTE for side in (theirs, ours)]),
    ]
    lines = [f"| {COUNT} pictures, {CONNECTIONS} connections | fastai | ours | ours / fastai |", "|---|---|---|---|"]
    for name, form, (one, other) in rows:
        lines.append(f"| {name} | {form.format(one)} | {form.format(other)} | {other / one:.2f} |")
    return lines


def growth(found: list[tuple[int, dict[str, float]]]) -> list[str]:
    """Return the table of our memory by number of pictures."""
    lines = ["| ours, pictures | images/s | peak memory, MB |", "|---|---|---|"]
    for count, run in found:
        lines.append(f"| {count:,} | {count / run['seconds']:.0f} | {run['memory'] / MEGABYTE:.0f} |")
    (few, first), (many, last) = found
    share = (last["memory"] - first["memory"]) / (many - few) / 1000
    return [*lines, f"| each picture more | | {share:.1f} kB |"]


# ---------------------------------------------------------------------------------------------------------------
# One side, in a process of its own
# ---------------------------------------------------------------------------------------------------------------


def outcome(side: str, url: str, count: int) -> dict[str, float]:
    """Run one side in a fresh process and folder; return its seconds and the peak memory of it and its children."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with tempfile.TemporaryDirectory() as scratch:
        run = measured([sys.executable, __file__, side, url, str(count), scratch], environment)
    return json.loads(run.output.splitlines()[-1]) | {"memory": run.memory}


def run(side: str, url: str, count: int, folder: Path) -> None:
    """Collect pictures as `side` does, and print the seconds it took as JSON."""
    urls = [f"{url}/{n}.jpg" for n in range(count)]
    fetch, verify = {"fastai": theirs, "ours": ours}[side](urls, folder)
    times, cpu = [time.perf_counter()], cpu_seconds()
    for stage in (fetch, verify):
        stage()
        times.append(time.perf_counter())
    cpu = cpu_seconds() - cpu
    copies = sorted((folder / "images").rglob("*.jpg"))
    if len(copies) != count or max(max(Image.open(path).size) for path in copies) > 512:
        sys.exit(f"{side} made {len(copies)} training copies of {count} pictures.")
    seconds = {"seconds": times[2] - times[0], "fetch": times[1] - times[0], "verify": times[2] - times[1]}
    print(json.dumps(seconds | {"cpu": cpu}))


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that ended."""
    return sum(os.times()[:4])


def theirs(urls: list[str], folder: Path):
    """Return fastai's two stages."""
    from fastai.vision.utils import download_images, get_image_files, resize_images, verify_images

    def verify() -> None:
        verify_images(get_image_files(folder / "raw")).map(Path.unlink)
        resize_images(folder / "raw", max_size=512, dest=folder / "images")

    return lambda: download_images(folder / "raw", urls=urls, n_workers=CONNECTIONS), verify


def ours(urls: list[str], folder: Path):
    """Return our two stages, as 01 and 02 call them."""
    sys.path.insert(0, str(REPOSITORY))
    from utils.download import download_images
    from utils.project import Project
    from utils.verify import verify_images

    labels = {"one": ["a search"], "two": ["another"]}
    project = Project.model_validate({"name": "collect", "labels": labels, "data_dir": str(folder / "data")})
    (folder / "images").symlink_to(project.images)

    def fetch() -> None:
        options = {"allowed_hosts": [urls[0].split("/")[2]], "workers": CONNECTIONS, "per_host": CONNECTIONS}
        for n, label in enumerate(labels):
            download_images(urls[n::2], project.raw / label, wanted=len(urls) // 2, **options)

    return fetch, lambda: verify_images(project)


# ---------------------------------------------------------------------------------------------------------------
# The photos and their host
# ---------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, size: tuple[int, int]) -> Path:
    """Draw photos, the same each time: soft shapes under fine grain, which makes a JPEG as large as the web's are."""
    folder.mkdir()
    for n in range(DRAWN):
        rng = np.random.default_rng(n)
        photo = np.zeros((size[1], size[0], 3), np.float32)
        for cells, height in ((4, 60), (16, 30), (64, 15)):
            soft = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            photo += (np.asarray(soft.resize(size, Image.Resampling.BICUBIC), np.float32) - 128) * height / 64
        photo += 128 + rng.normal(0, 7, (*photo.shape[:2], 1))
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.jpg", quality=80)
    return folder


class Host:
    """
    Serves the photos of a folder from a process of its own, as <url>/<any number>.jpg; as several hosts it has the
    addresses 127.0.0.1, 127.0.0.2, … and one port.
    """

    def __init__(self, folder: Path, hosts: int = 1):
        command = [sys.executable, __file__, "host", str(folder), str(hosts)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


async def serve(photos: list[bytes], hosts: int) -> None:
    """Answer each address with the photo of its number, and print where."""

    class Answer(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.asked = transport, b""

        def data_received(self, data):
            self.asked += data
            while b"\r\n\r\n" in self.asked:
                head, self.asked = self.asked.split(b"\r\n\r\n", 1)
                photo = numbered(photos, int(head.split(b"/", 2)[1].split(b".")[0]))
                keep = b"connection: close" not in head.lower()
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
                    % (len(photo), b"keep-alive" if keep else b"close")
                )
                self.transport.write(photo)
                if not keep:
                    self.transport.close()

    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for n in range(1, hosts):
        await asyncio.get_running_loop().create_server(Answer, f"127.0.0.{n + 1}", port)
    print(f"http://localhost:{port}", flush=True)
    await server.serve_forever()


def numbered(photos: list[bytes], n: int) -> bytes:
    """Return a photo with a number of its own in a comment, right behind the two bytes that begin a JPEG."""
    photo = photos[n % len(photos)]
    return photo[:2] + b"\xff\xfe\x00\x0a%08d" % n + photo[2:]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["host", folder, hosts]:
            asyncio.run(serve([path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))], int(hosts)))
        case [("fastai" | "ours") as side, url, count, folder]:
            run(side, url, int(count), Path(folder))
        case [] | [_]:
            main(Path(sys.argv[1]) if sys.argv[1:] else None)
        case _:
            sys.exit(__doc__)
