"""utils.scale copies without Ray: the groups of one machine, going on after a kill, what is refused."""

import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs requirements-cluster.txt")
pa = pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from conftest import draw_picture, tree  # noqa: E402
from PIL import ImageEnhance, ImageOps  # noqa: E402
from pyarrow import parquet  # noqa: E402

from utils.copies import find_copies, same_picture, search_pieces, seen_picture  # noqa: E402
from utils.dataset import read_dataset  # noqa: E402
from utils.download import read_folder, save_pictures, source_pictures  # noqa: E402
from utils.project import Project  # noqa: E402
from utils.scale import commands, few, grouping, pairing, parts, scale_out  # noqa: E402
from utils.scale.parts import FINISHED, written_rows  # noqa: E402
from utils.scale.running import Halted  # noqa: E402
from utils.scale.work import Worker  # noqa: E402
from utils.verify import verify_images  # noqa: E402

SIZE = (300, 220)
VERSIONS = {
    "small": lambda image: image.resize((150, 110)),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
}


@pytest.fixture
def handed(monkeypatch):
    """Let this process do what workers would; return the blocks of places that it was handed, and who may stop it."""
    blocks, stops = [], []

    def answers(job, positions, places, *, seen, cores, block):
        worker = Worker(job, cores, seen)
        for start in range(0, len(positions), block):
            some = slice(start, start + block)
            for stop in stops:
                stop()
            blocks.append(places[some].to_pylist())
            yield worker(pa.table({"row": positions[some], "place": places[some]}))

    @contextmanager
    def alone(address):
        yield

    monkeypatch.setattr(commands, "answers_to", answers)
    monkeypatch.setattr(commands, "connected", alone)
    monkeypatch.setattr(commands, "machine_sizes", lambda: [2])
    monkeypatch.setattr(commands.ray, "put", lambda job: job)
    monkeypatch.setattr(commands, "PAUSE_AFTER_HALT", 0)
    return blocks, stops


def photos_in(folder: Path, count: int = 12) -> Path:
    """Draw pictures of two labels, a third of them in four versions, and write the table of all."""
    rows = ["id,path"]
    for n in range(count):
        place = folder / "photos" / ("cat", "dog")[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        image = draw_picture(900 + n, size=SIZE)
        images = {"orig": image} | ({way: change(image) for way, change in VERSIONS.items()} if n % 3 == 0 else {})
        for way, each in images.items():
            name = f"{'abcdefghijklmnop'[n]} {way}"
            each.save(place / f"{name}.png")
            rows.append(f"{name},{place / name}.png")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def run(table: Path, task: str = "copies") -> int:
    """Run verify or copies as the command line does."""
    folder = table.parent
    more = ["--checked", str(folder / "checked")] if task == "copies" else []
    return scale_out([task, str(table), "--out", str(folder / ("checked" if more == [] else "groups")), *more])


def groups_in(folder: Path) -> set[frozenset[str]]:
    """Return the ids of each group that was written."""
    rows = written_rows(folder / "groups").to_pylist()
    return {frozenset(row["id"] for row in rows if row["group"] == group) for group in {row["group"] for row in rows}}


def test_the_groups_are_those_of_one_machine(tmp_path, handed):
    """Smaller, darker and grey versions share a group with their photo, as 03 says of the same files."""
    table = photos_in(tmp_path)
    assert run(table, "verify") == run(table) == commands.ALL
    (tmp_path / "project.toml").write_text(
        'name = "pets"\nsource = "photos"\ndata_dir = "data"\nmodels_dir = "models"\n'
    )
    project = Project.load(tmp_path / "project.toml")
    save_pictures(project, source_pictures(read_folder(project.places[0], project.labels)))
    verify_images(project)
    dataset = read_dataset(project)
    photos, names = find_copies(dataset).photos, dict(zip(dataset.ids, dataset.names, strict=True))
    expected = {
        frozenset(names[id].removesuffix(".png") for id in photos if photos[id] == photo) for photo in photos.values()
    }
    assert groups_in(tmp_path) == expected
    assert sorted(map(len, expected)) == [1] * 8 + [4] * 4


def test_what_only_features_and_points_bring_together_stays_apart(tmp_path, handed):
    """A mirrored photo has another hash: 03 finds it, this search does not. README says so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = draw_picture(900, size=SIZE)
    image.save(folder / "a.png")
    ImageOps.mirror(image).save(folder / "b.png")
    (tmp_path / "table.csv").write_text("id,path\na,photos/a.png\nb,photos/b.png\n")
    assert run(tmp_path / "table.csv", "verify") == run(tmp_path / "table.csv") == commands.ALL
    assert groups_in(tmp_path) == {frozenset("a"), frozenset("b")}
    assert same_picture(seen_picture(folder / "a.png"), seen_picture(folder / "b.png"))


def test_the_columns_tell_what_to_keep(tmp_path, handed, capsys):
    """An exact copy, a smaller version, a broken file: the largest of each group is kept, the first of equal ones."""
    table = photos_in(tmp_path, 3)
    photo = tmp_path / "photos" / "cat" / "c orig.png"
    shutil.copy(photo, tmp_path / "again.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with table.open("a") as file:
        file.write(f"again,{tmp_path}/again.png\nbroken,{tmp_path}/broken.png\n")
    assert run(table, "verify") == run(table) == commands.SOME
    rows = {row.pop("id"): tuple(row.values()) for row in written_rows(tmp_path / "groups").to_pylist()}
    assert rows == {
        "a dark": ("a dark", 4, True, None),
        "a grey": ("a dark", 4, False, None),
        "a orig": ("a dark", 4, False, None),
        "a small": ("a dark", 4, False, None),
        "again": ("again", 2, True, None),
        "c orig": ("again", 2, False, None),
        "b orig": ("b orig", 1, True, None),
        "broken": ("broken", 1, False, "not a picture but text"),
    }
    told = "8 pictures in {}: 2 groups of near-duplicates, of 6 pictures; 3 pictures to keep, 1 with an error."
    assert told.format(tmp_path / "groups") in capsys.readouterr().err


def test_what_was_answered_is_not_asked_again(tmp_path, handed, monkeypatch):
    """Stopped at each block in turn and begun again, the run ends with the same groups, and asks for each row once."""
    blocks, stops = handed
    table = photos_in(tmp_path)
    assert run(table, "verify") == run(table) == commands.ALL
    expected = groups_in(tmp_path)
    shutil.rmtree(tmp_path / "groups")
    monkeypatch.setattr(grouping, "FEW_HASHES", 0)
    monkeypatch.setattr(grouping, "FEW_PAIRS", 0)
    monkeypatch.setattr(commands, "MOST_IN_BLOCK", 2)
    blocks.clear()
    left = [0]

    def stop_at_times():
        left[0] += 1
        if left[0] % 7 == 0:
            raise KeyboardInterrupt

    stops.append(stop_at_times)
    codes = []
    while not codes or codes[-1] == commands.INTERRUPTED:
        codes.append(run(table))
        assert (tmp_path / "groups" / FINISHED).exists() == (codes[-1] == commands.ALL)
    assert len(codes) > 9 and groups_in(tmp_path) == expected
    asked = [place for block in blocks for place in block if grouping.BETWEEN in place]
    assert len(asked) == len(set(asked)) > 0
    blocks.clear()
    assert run(table) == commands.ALL and blocks == []


def test_pieces_are_read_part_by_part(tmp_path, handed, monkeypatch):
    """Of millions of pairs those of one part are in memory: the second part is read once the first was used."""
    read, codes = [], np.arange(4, dtype=np.uint64)
    read_table = parquet.read_table
    monkeypatch.setattr(grouping, "FEW_HASHES", 0)
    monkeypatch.setattr(parts, "MOST_BYTES", 0)
    monkeypatch.setattr(commands, "MOST_IN_BLOCK", 100)

    def noted(path, columns=None):
        if columns is None:
            read.append(path)
        return read_table(path, columns=columns)

    monkeypatch.setattr(parts.parquet, "read_table", noted)
    answering = commands.Answering(SimpleNamespace(address=None, cores=1), (), ExitStack())
    found = grouping.Grouping(SimpleNamespace(digest=""), tmp_path, answering.rows).found(codes)
    assert next(found).shape[1] == 2 and len(read) == 1
    assert len(list(found)) == len(search_pieces(4)) - 1 and len(read) == len(list(tmp_path.glob("*/part-*"))) > 1


def test_few_pairs_are_kept_too(tmp_path, handed, monkeypatch):
    """Killed at each third pair and begun again, pairs that are compared here are compared once."""
    table = photos_in(tmp_path, 4)
    run(table, "verify")
    assert run(table) == commands.ALL
    expected, compared = groups_in(tmp_path), []
    shutil.rmtree(tmp_path / "groups")
    monkeypatch.setattr(few, "SECONDS", 0)
    answers = few.FewPairs.answers

    def one_by_one(self, ids, places):
        for n, id in enumerate(ids):
            answers(self, [id], places.slice(n, 1))
        return answers(self, ids, places)

    def killed(first, second):
        compared.append(1)
        if len(compared) % 3 == 0:
            raise KeyboardInterrupt
        return same_picture(first, second)

    monkeypatch.setattr(few.FewPairs, "answers", one_by_one)
    monkeypatch.setattr(pairing, "same_picture", killed)
    codes = [run(table)]
    while codes[-1] == commands.INTERRUPTED and len(codes) < 20:
        codes.append(run(table))
    assert codes[-1] == commands.ALL and len(codes) > 2 and groups_in(tmp_path) == expected
    asked = written_rows(tmp_path / "groups" / "_work" / "few")["id"].to_pylist()
    assert len(compared) == len(asked) + len(codes) - 1


def test_a_cluster_that_halts_loses_nothing(tmp_path, handed, monkeypatch):
    """Twice it stops in the middle; the pairs that are missing are handed out again."""
    _, stops = handed
    table = photos_in(tmp_path)
    run(table, "verify")
    monkeypatch.setattr(grouping, "FEW_PAIRS", 0)
    monkeypatch.setattr(commands, "MOST_IN_BLOCK", 5)
    left = [2]

    def halt():
        left[0] -= 1
        if left[0] in (0, -2):
            raise Halted("a node is gone")

    stops.append(halt)
    assert run(table) == commands.ALL and left[0] < -2
    assert sorted(map(len, groups_in(tmp_path))) == [1] * 8 + [4] * 4


def test_a_picture_that_is_gone_is_told(tmp_path, handed):
    """Verified and then removed, it is in no group, and its row says why; the others are grouped."""
    table = photos_in(tmp_path)
    run(table, "verify")
    (tmp_path / "photos" / "cat" / "a small.png").unlink()
    assert run(table) == commands.SOME
    errors = {row["id"]: row["error"] for row in written_rows(tmp_path / "groups").to_pylist() if row["error"]}
    assert list(errors) == ["a small"] and errors["a small"].startswith("not compared: ")
    assert frozenset({"a orig", "a dark", "a grey"}) in groups_in(tmp_path)


@pytest.mark.parametrize("most", [64, 0])
def test_a_pair_that_fails_is_tried_again(tmp_path, handed, monkeypatch, capsys, most):
    """Memory that is short once changes nothing. If it stays short there is no _DONE, and the next run is whole."""
    table, left = photos_in(tmp_path, 1), [1]
    run(table, "verify")
    monkeypatch.setattr(grouping, "FEW_PAIRS", most)

    def short_of_memory(first, second):
        left[0] -= 1
        if left[0] >= 0:
            raise MemoryError("no memory")
        return same_picture(first, second)

    monkeypatch.setattr(pairing, "same_picture", short_of_memory)
    assert run(table) == commands.ALL and left[0] < 0
    expected = groups_in(tmp_path)
    shutil.rmtree(tmp_path / "groups")
    left[0] = 1000
    assert run(table) == commands.STOPPED_SHORT and not (tmp_path / "groups" / FINISHED).exists()
    assert "no memory. Put that right, and run this again" in capsys.readouterr().err
    left[0] = 0
    assert run(table) == commands.ALL and groups_in(tmp_path) == expected and list(map(len, expected)) == [4]


def test_a_pair_of_which_each_worker_dies_is_told(tmp_path, handed, monkeypatch):
    """Its two rows say so, in each run; the others are grouped."""
    table = photos_in(tmp_path, 1)
    run(table, "verify")
    monkeypatch.setattr(grouping, "FEW_PAIRS", 0)
    answers_to = commands.answers_to

    def dying(job, positions, places, **options):
        alive = [n for n, place in enumerate(places.to_pylist()) if not ("a small" in place and "a orig" in place)]
        yield from answers_to(job, positions[alive], places.take(pa.array(alive)), **options) if alive else ()

    monkeypatch.setattr(commands, "answers_to", dying)
    assert run(table) == run(table) == commands.SOME
    errors = {row["id"]: row["error"] for row in written_rows(tmp_path / "groups").to_pylist() if row["error"]}
    died = "its worker died each time it was judged"
    assert errors == {
        "a orig": f"not compared with a small: {died}",
        "a small": f"not compared with a orig: {died}",
    }
    assert groups_in(tmp_path) == {frozenset({"a orig", "a dark", "a grey"}), frozenset({"a small"})}


def test_what_is_refused(tmp_path, handed, capsys):
    """A sentence for each, and nothing is written: not finished, another task, another table, a hash that is none."""
    table, checked = photos_in(tmp_path, 3), tmp_path / "checked"
    run(table, "verify")
    before = tree(checked)

    def refused(told: str) -> None:
        capsys.readouterr()
        assert run(table) == commands.STOPPED_SHORT
        assert told in capsys.readouterr().err
        assert not (tmp_path / "groups").exists()

    done = (checked / FINISHED).read_bytes()
    (checked / FINISHED).unlink()
    refused("has no _DONE: verify has not finished there")
    (checked / FINISHED).write_bytes(done.replace(b"verify", b"features"))
    refused("holds what features wrote")
    (checked / FINISHED).write_bytes(b"[]")
    refused("cannot be read")
    (checked / FINISHED).write_bytes(done)
    text = table.read_text()
    table.write_text(text + f"more,{tmp_path}/more.png\n")
    refused("The table names 7 pictures, and")
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    refused("holds 1 picture that the table does not name: “c orig”")
    table.write_text(text)
    assert tree(checked) == before
    (part,) = checked.glob("part-*")
    rows = parquet.read_table(part)
    spoilt = rows.set_column(rows.column_names.index("hash"), "hash", pa.array(["<script>"] * len(rows)))
    parquet.write_table(spoilt.replace_schema_metadata(rows.schema.metadata), part)
    refused("'<script>' is not a hash of 16 hex digits")
    parquet.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), part)
    refused("holds 1 row too many")
    for name, cells in (("width", ["300"] * len(rows)), ("content", [5] * len(rows))):
        parquet.write_table(rows.set_column(rows.column_names.index(name), name, pa.array(cells)), part)
        refused(f"holds other columns than verify writes: {name} is ")
    with pytest.raises(SystemExit):
        scale_out(["copies", str(table), "--out", str(tmp_path / "groups")])
    with pytest.raises(SystemExit):
        scale_out(["verify", str(table), "--out", str(tmp_path / "groups"), "--checked", str(checked)])


def test_other_pictures_do_not_mix(tmp_path, handed, capsys):
    """Groups of other pictures in the same folder are refused, and stay."""
    table = photos_in(tmp_path, 3)
    run(table, "verify")
    run(table)
    before = tree(tmp_path / "groups")
    shutil.rmtree(tmp_path / "checked")
    (tmp_path / "photos" / "cat" / "a small.png").unlink()
    draw_picture(5, size=SIZE).save(tmp_path / "photos" / "cat" / "a small.png")
    run(table, "verify")
    assert run(table) == commands.STOPPED_SHORT
    assert "name another folder with --out" in capsys.readouterr().err
    assert tree(tmp_path / "groups") == before


def test_numbers_of_hashes():
    """Of a part of a longer column too."""
    texts = pa.chunked_array([pa.array(["0" * 16, "f" * 16, "8" + "0" * 15]).slice(1), pa.array(["0" * 15 + "1"])])
    assert grouping.hash_numbers(texts).tolist() == [2**64 - 1, 2**63, 1]
    assert grouping.hash_numbers(texts.slice(0, 0)).dtype == np.uint64
