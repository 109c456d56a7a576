"""The table of utils.scale: what is read, and which sentence each mistake gets."""

from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from pyarrow import parquet  # noqa: E402

from utils.errors import FieldguideError  # noqa: E402
from utils.scale.photos import read_photo_places  # noqa: E402


def table(folder: Path, text: str | bytes, name: str = "table.csv") -> str:
    """Write a table and return its address."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder / name)


def test_ids_stay_text_and_relative_paths_begin_at_the_table(tmp_path):
    """Zeros before an id stay; a path is taken from the table's folder, an address and a whole path as they are."""
    text = '\ufeffpath,label,id\na.jpg,x,007\n/b.jpg,y,1e3\n"s3://bucket/c, 1.jpg",,010\n'
    found = read_photo_places(table(tmp_path, text)).to_pydict()
    assert found == {"id": ["007", "1e3", "010"], "place": [f"{tmp_path}/a.jpg", "/b.jpg", "s3://bucket/c, 1.jpg"]}


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_parquet_with_numbers_as_ids(tmp_path, prefix):
    """Numbers become text. The table itself may lie in a storage; then so do its pictures."""
    parquet.write_table(pa.table({"id": [1, 2], "url": ["a.jpg", "b/c.jpg"]}), tmp_path / "t.parquet")
    found = read_photo_places(f"{prefix}{tmp_path}/t.parquet").to_pydict()
    assert found == {"id": ["1", "2"], "place": [f"{prefix}{tmp_path}/{name}" for name in ("a.jpg", "b/c.jpg")]}


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_large_table_is_read_to_its_end(tmp_path, prefix):
    """Time after time: rows that a reader of the heading takes would be missing without a word."""
    whole = table(tmp_path, "id,path,note\n" + "".join(f"{n},photos/{n}.jpg,{'x' * 40}\n" for n in range(300_000)))
    assert [len(read_photo_places(prefix + whole)) for _ in range(8)] == [300_000] * 8


MISTAKES = {
    "doubled": ("id,path\na,1\nb,2\na,3\n", "names 1 id more than once: “a”"),
    "no id": ("id,path\na,1\n,2\n", "row 2: no id"),
    "no place": ("id,path\na,\n", "row 1: no place"),
    "no column": ("name,path\na,1\n", "has the columns name, path. It needs one called id"),
    "semicolons": ("id;path\na;1\n", "Save it with commas"),
    "no rows": ("id,path\n", "names no picture"),
    "empty": ("", "cannot be read"),
    "ragged": ("id,path\na,1\nb\n", "cannot be read"),
    "the web": (
        "id,url\na,s3://b/a.jpg\nb,https://example.org/b.jpg\n",
        "row 2: https://example.org/b.jpg lies",
    ),
    "no text": (b"id,path\na,\xff\xfe\n", "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_a_sentence(tmp_path, mistake):
    """It names the table and what is wrong with it."""
    text, told = MISTAKES[mistake]
    with pytest.raises(FieldguideError, match=r"table\.csv") as caught:
        read_photo_places(table(tmp_path, text))
    assert told in str(caught.value)


def test_what_is_no_table(tmp_path):
    """A missing file, another kind, a damaged one, a storage we do not know."""
    for address, told in (
        (f"{tmp_path}/none.csv", "There is no table"),
        (f"{tmp_path}/photos.zip", "neither a .csv nor a .parquet"),
        (table(tmp_path, "no parquet", "t.parquet"), "cannot be read"),
        ("ftp://example.org/t.csv", "ftp:// is no storage"),
    ):
        with pytest.raises(FieldguideError, match=told):
            read_photo_places(address)
