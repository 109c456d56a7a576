"""Collecting at scale without Ray: the table, who gets which host, and what a worker answers."""

from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from pyarrow import csv, parquet  # noqa: E402
from standin_host import serving, without_proxy  # noqa: E402

from utils.download import Rules, download_images, kept_count, take_photos  # noqa: E402
from utils.errors import FieldguideError  # noqa: E402
from utils.scale.collecting import _renew, leave_out  # noqa: E402
from utils.scale.dealing import ADDRESSES_IN_BLOCK, Deal, next_hand  # noqa: E402
from utils.scale.fetched import (  # noqa: E402
    DEADLY,
    LATER_NAME,
    LEFT_NAME,
    LINK_ANSWERS,
    MOST_TABLES,
    SILENT,
    TOKEN_NAME,
    Collected,
    Fetching,
    note_sources,
    take_answer,
    taken_before,
    unanswered_rows,
)
from utils.scale.links import LINK_FIELDS, hosts_of, not_asked, read_links  # noqa: E402
from utils.scale.parts import FINISHED  # noqa: E402
from utils.tables import SOURCES_COLUMNS, TABLE, append_rows, read_rows  # noqa: E402

# --- The table --------------------------------------------------------------------------------------------------------


def table(folder: Path, text: str) -> str:
    """Write a table and return its path."""
    (folder / "links.csv").write_text(text, encoding="utf-8")
    return str(folder / "links.csv")


def links_of(*urls: str, label: str = "") -> pa.Table:
    """Return the table of these addresses, with the ids 0, 1, …"""
    columns = {"id": list(map(str, range(len(urls))))} | {name: [""] * len(urls) for name in LINK_FIELDS}
    columns |= {"url": list(urls), "label": [label] * len(urls)}
    return pa.table(columns, schema=pa.schema([(name, pa.large_string()) for name in columns]))


def test_columns_are_those_that_01_knows(tmp_path):
    """As in a table that is a source of 01: other names, blanks and capitals; a label is spelt as its folder."""
    text = (
        "ID,Image URL,Species,Photographer,licence\n007, https://a.org/1.jpg ,ants.,Ann,CC0\nx,https://a.org/2.jpg,,,\n"
    )
    found = read_links(table(tmp_path, text.replace("ID", "id"))).to_pylist()
    assert found[0] == dict.fromkeys(LINK_FIELDS, "") | {
        "id": "007",
        "url": "https://a.org/1.jpg",
        "label": "ants",
        "creator": "Ann",
        "license": "CC0",
    }
    assert found[1]["label"] == ""


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("names", ["id,file,url", "id,filename,image_url", "id,url,path,label"])
def test_a_column_of_files_may_stand_beside_the_addresses(tmp_path, names, form):
    """The addresses are what is fetched, so they are not taken for pages as well."""
    texts = {name: [{"id": "7", "label": "ant"}.get(name, f"https://a.org/{name}")] for name in names.split(",")}
    (csv.write_csv if form == "csv" else parquet.write_table)(pa.table(texts), tmp_path / f"links.{form}")
    (row,) = read_links(f"{tmp_path}/links.{form}").to_pylist()
    assert row["id"] == "7" and row["url"].endswith("url") and row["page_url"] == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,url,url\na,b.jpg,c.jpg\n", "two columns called url"),
        ("id,file\na,b.jpg\n", "one called url"),
        ("url\nhttps://a.org/1.jpg\n", "one called id"),
        ("id,url\na,https://a.org/1\nb,https://a.org/2\na,https://a.org/3\n", "1 id more than once: “a”"),
    ],
)
def test_a_table_that_does_not_do_is_refused(tmp_path, text, told):
    """A missing column and a doubled id have a sentence each."""
    with pytest.raises(FieldguideError, match=told):
        read_links(table(tmp_path, text))


def test_what_is_not_asked_for_says_why(tmp_path):
    """As on one machine: no address, no fit label, two labels for one address, an address that comes again."""
    rows = [
        "a,http://a.org/1,x",
        "b,,x",
        "c,http://a.org/2,x",
        "d,http://a.org/2,y",
        "e,http://a.org/1,x",
        "f,http://a.org/3,con",
    ]
    told = not_asked(read_links(table(tmp_path, "\n".join(["id,url,label", *rows]) + "\n")))
    both = "an address with two labels"
    assert told[1] == "no address" and told[2] == told[3] == both and told[4] == "the same address as a"
    assert "'con' cannot be a folder name" in told[5] and 0 not in told


def test_hosts_are_told_apart_as_the_fetcher_does():
    """Neither capitals, ports nor another spelling of a name make another host; what has no host shares a number."""
    urls = [
        "http://A.org/1",
        "https://a.org:8443/2",
        "http://Bücher.example/",
        "http://xn--bcher-kva.example",
        "",
        "http://[::1",
    ]
    found = hosts_of(links_of(*urls)).tolist()
    assert found[0] == found[1] and found[2] == found[3] and found[4] == found[5] and len(set(found)) == 3


# --- The deal ---------------------------------------------------------------------------------------------------------


def test_a_host_lies_in_one_hand_and_the_largest_holds_up_nobody():
    """With 90 % of the addresses at one host, two blocks are never of one host, and the others are done first."""
    rng = np.random.default_rng(0)
    hosts = np.where(rng.random(20_000) < 0.9, 0, rng.integers(1, 400, 20_000))
    deal, hands, given, others_done = Deal(np.arange(len(hosts)), hosts), [], [], 0
    while deal.is_waiting or hands:
        while len(hands) < 4 and deal.is_waiting:
            hands.append(deal.next_block())
            there = [set(hosts[block].tolist()) for block in hands]
            assert sum(map(len, there)) == len(set().union(*there))
            given += hands[-1]
        if len(set(hosts[given].tolist()) - {0}) == 399 and not others_done:
            others_done = len(given)
        deal.take_back(hands.pop(int(rng.integers(len(hands)))))
    assert sorted(given) == list(range(20_000))
    assert others_done < 2 * (hosts > 0).sum() + 4 * ADDRESSES_IN_BLOCK


@pytest.mark.parametrize("others_answered", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_only_the_deadly_address_is_given_up(workers, others_answered):
    """With several blocks in hand too: it goes to a worker that has no other, and gets none."""
    hosts, answered, lost = np.arange(3000) % 60, set(), []
    deal, hands, last = Deal(np.arange(3000), hosts), [[] for _ in range(workers)], []
    while deal.is_waiting or any(hands):
        while given := next_hand(deal, hands):
            hands[given[0]].append(given[1])
        n = max(range(workers), key=lambda n: (any(7 in block for block in hands[n]), len(hands[n])))
        if any(7 in block for block in hands[n]):  # it dies, with all that it has in hand
            last, hands[n] = hands[n], []
            for block in last:
                answered |= set(block) - {7} if others_answered else set()
                lost += deal.take_back(block, [each for each in block if each not in answered])
        else:
            answered |= set(hands[n][0])
            deal.take_back(hands[n].pop(0))
    assert lost == [7] and last == [[7]] and answered == set(range(3000)) - {7}


def test_a_host_that_is_given_up_is_handed_out_no_more():
    """Its other addresses are told, those of another host stay."""
    hosts = np.array([0] * 600 + [1] * 5)
    deal = Deal(np.arange(605), hosts)
    block = next(block for block in (deal.next_block(), deal.next_block()) if 0 in block)
    assert sorted(block + deal.give_up(block[0])) == list(range(600))
    deal.take_back(block)
    assert set(deal.next_block()) <= set(range(600, 605))


# --- A worker ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch):
    """Return the stand-in host."""
    without_proxy(monkeypatch)
    with serving() as host:
        yield host


def fetching_from(host, folder: Path) -> Fetching:
    """Return the work of a worker that may ask the stand-in host, into a folder with the token."""
    (folder / TOKEN_NAME).write_text("here")
    return Fetching(str(folder), "here", Rules(allowed_hosts=[host.name], deadline=3))


def rows_of(work: Fetching, links: pa.Table) -> list[dict]:
    """Return what a worker answers to all addresses of a table, in their order."""
    records = links.select(LINK_FIELDS).to_pylist()
    found = [row for part in work.answers(range(len(records)), records) for row in part.to_pylist()]
    return sorted(found, key=lambda row: row["row"])


def test_a_worker_answers_as_01_collects(host, tmp_path):
    """The same pictures under the same names, and the same rows of sources.csv, as from one machine."""
    urls = [
        f"{host.url}/{path}" for path in ("photo/1", "photo/2", "gone", "photo/1/again", "noai", "text", "busy_long")
    ]
    links = links_of(*urls, label="ants")
    parts = Collected(tmp_path / "many" / "rows", links["id"])
    for part in fetching_from(host, tmp_path / "many").answers(range(7), links.select(LINK_FIELDS).to_pylist()):
        parts.take(part)
    parts.finish()
    note_sources(tmp_path / "many", parts.folder)
    asked = [{"url": url, "engine": TABLE} for url in urls[:-1]]
    download_images(asked, tmp_path / "one" / "raw" / "ants", allowed_hosts=[host.name], deadline=3)
    for name in ("one", "many"):
        assert len(list((tmp_path / name / "raw" / "ants").iterdir())) == 2
    kept = [sorted(path.name for path in (tmp_path / name / "raw" / "ants").iterdir()) for name in ("one", "many")]
    assert kept[0] == kept[1]
    rows = [read_rows(tmp_path / name / "sources.csv", SOURCES_COLUMNS) for name in ("one", "many")]
    assert [row | {"fetched_at": ""} for row in rows[0]] == [row | {"fetched_at": ""} for row in rows[1]]


def test_01_goes_on_from_what_was_collected(host, tmp_path, make_project):
    """A project with that data folder and that table as its source has its pictures, and asks for none of them."""
    text = "".join(f"{n},{host.url}/{'photo' if n else 'gone'}/{n},{'cat' if n % 2 else 'dog'}\n" for n in range(7))
    place = Path(table(tmp_path, f"id,url,label\n{text}"))
    project, links = make_project(source=str(place), allowed_hosts=[host.name]), read_links(str(place))
    parts = Collected(project.data / "rows", links["id"])
    for part in fetching_from(host, project.data).answers(range(7), links.select(LINK_FIELDS).to_pylist()):
        parts.take(part)
    parts.finish()
    note_sources(project.data, parts.folder)
    before = len(host.asked)
    assert take_photos(project, place).total() == 0 and len(host.asked) == before == 7
    assert [kept_count(project, label) for label in ("cat", "dog")] == [3, 3]


def test_what_failed_for_the_moment_is_missing_in_the_next_run(host, tmp_path):
    """A busy host and one that hangs up are asked again, one that says no is not; _DONE says how many there are."""
    links = links_of(*(f"{host.url}/{path}" for path in ("busy_long", "gone", "noai", "reset", "photo/1")))
    parts = Collected(tmp_path / "rows", links["id"])
    for part in fetching_from(host, tmp_path).answers(range(5), links.select(LINK_FIELDS).to_pylist()):
        parts.take(part)
    parts.finish()
    assert '"later": 2' in (tmp_path / "rows" / FINISHED).read_text()
    again = Collected(tmp_path / "rows", links["id"])
    assert again.missing.tolist() == [0, 3] and (tmp_path / "rows" / LATER_NAME).exists()
    again.begin()
    assert not (tmp_path / "rows" / LATER_NAME).exists() and not (tmp_path / "rows" / FINISHED).exists()
    again.take(unanswered_rows(links, [0], "gone for good"))
    again.finish()
    assert not (tmp_path / "rows" / FINISHED).exists()  # 3 has no row


def test_what_01_took_is_not_fetched_again_and_what_it_did_not_gets_its_row(host, tmp_path):
    """An address that failed there and is fetched here has a row with its picture; a file that is gone is missing."""
    links = links_of(*(f"{host.url}/photo/{n}" for n in range(3)), label="ants")
    asked = [{"url": url} for url in links["url"].to_pylist()[:2]]
    download_images(asked, tmp_path / "raw" / "ants", allowed_hosts=[host.name], deadline=3)
    before = read_rows(tmp_path / "sources.csv", SOURCES_COLUMNS)
    append_rows(
        tmp_path / "sources.csv",
        SOURCES_COLUMNS,
        [before[0] | {"url": links["url"][2].as_py(), "status": "failed", "id": ""}],
    )
    (tmp_path / "raw" / "ants" / f"{before[1]['id']}.jpg").unlink()
    parts = Collected(tmp_path / "rows", links["id"])
    assert parts.take(taken_before(tmp_path, links, parts.missing)) == 1 and parts.missing.tolist() == [1, 2]
    for part in fetching_from(host, tmp_path).answers([1, 2], links.select(LINK_FIELDS).slice(1).to_pylist()):
        parts.take(part)
    parts.finish()
    for _ in range(2):  # a second time adds nothing
        note_sources(tmp_path, parts.folder)
    rows = read_rows(tmp_path / "sources.csv", SOURCES_COLUMNS)
    assert [(row["url"][-1], row["status"]) for row in rows[2:]] == [("2", "failed"), ("2", "kept")]
    found = parquet.read_table(tmp_path / "rows", columns=["file", "width"]).to_pylist()
    assert all((tmp_path / row["file"]).is_file() and row["width"] for row in found) and len(found) == 3


def corrected(folder: Path, text: str, **rules) -> Collected:
    """Return what a run finds whose table is this one now, after it left out what is not asked for."""
    links = read_links(table(folder, text))
    parts = Collected(folder / "rows", links["id"])
    _renew(folder, links, parts, Rules(**rules))
    parts.begin()
    leave_out(links, parts)
    return parts


def test_a_corrected_table_and_other_rules_have_effect(tmp_path):
    """A row that was left out, has another address or label, or was refused by other rules is asked for anew."""
    text = "id,url,label\na,http://a.org/1,con\nb,http://a.org/2,x\nc,http://a.org/3,x\nd,http://a.org/4,x\n"
    parts = corrected(tmp_path, text)
    assert parts.missing.tolist() == [1, 2, 3] and parts.errors == 1
    rows = unanswered_rows(read_links(table(tmp_path, text)), [1, 2, 3], ["refused", "gone", DEADLY]).to_pylist()
    for row, status in zip(rows, ("refused", "failed", ""), strict=True):
        row["status"] = status
    parts.take(pa.Table.from_pylist(rows, schema=LINK_ANSWERS))
    parts.finish()
    assert parquet.read_table(tmp_path / "rows" / LEFT_NAME)["id"].to_pylist() == ["a"]
    parts = corrected(tmp_path, text)
    assert not len(parts.missing) and parts.errors == 4
    parts.finish()
    assert (tmp_path / "rows" / FINISHED).exists() and not (tmp_path / "rows" / LATER_NAME).exists()
    assert corrected(tmp_path, text.replace("con", "corn")).missing.tolist() == [0]
    assert corrected(tmp_path, text, honour_noai=False).missing.tolist() == [1]
    parts = corrected(tmp_path, text.replace("3,x", "3,y").replace("a.org/4", "a.org/5"), honour_noai=False)
    assert parts.missing.tolist() == [1, 2, 3] and parts.errors == 1
    assert [row["url"] for row in read_rows(tmp_path / "sources.csv", SOURCES_COLUMNS)] == [
        f"http://a.org/{n}" for n in (2, 3)
    ]


def test_rows_that_wait_are_kept_without_a_table_for_each(tmp_path):
    """As many as a silent host has; each once, in the order of the table."""
    count = 3 * MOST_TABLES
    links = links_of(*(f"http://a.org/{n}" for n in range(count)))
    parts = Collected(tmp_path / "rows", links["id"])
    taken = [parts.take(unanswered_rows(links, [n, n - 1], "busy", passing=True)) for n in range(1, count)[::-1]]
    assert sum(taken) == count and len(parts._apart[LATER_NAME]) <= MOST_TABLES
    parts.finish()
    assert parquet.read_table(tmp_path / "rows" / LATER_NAME)["id"].to_pylist() == list(map(str, range(count)))


def test_a_silent_host_is_left_for_another_run(host, tmp_path):
    """After so many failures in a row its others are not asked for, and say so; pictures in between begin anew."""
    good = [f"{host.url}/photo/{n}" for n in range(2)]
    busy = [f"{host.url}/busy_long?{n}" for n in range(80)]
    rows = rows_of(fetching_from(host, tmp_path), links_of(*busy[: SILENT - 1], *good, *busy[SILENT - 1 :]))
    assert [n for n, row in enumerate(rows) if row["file"]] == [SILENT - 1, SILENT]
    silent = [row for row in rows if row["silent"]]
    assert silent and all(row["passing"] for row in silent) and "failed 12 times in a row" in silent[0]["error"]
    assert len(rows) == 82 and rows[-1]["silent"] and len(host.asked) < 70


def test_addresses_that_nobody_asked_for_are_counted_apart(host, tmp_path):
    """Those of a silent host, in hand or not, say nothing of how quick the work is."""
    links = links_of(*(f"{host.url}/busy_long?{n}" for n in range(600)))
    parts, deal = Collected(tmp_path / "rows", links["id"]), Deal(np.arange(600), hosts_of(links))
    block = deal.next_block()
    answers = fetching_from(host, tmp_path).answers(block, links.select(LINK_FIELDS).take(pa.array(block)).to_pylist())
    counts = np.sum([take_answer(answer, deal, links, parts) for answer in answers], axis=0)
    assert counts.sum() == 600 == parts.later.sum() and SILENT <= counts[0] < 70


def test_a_machine_that_does_not_see_the_folder_refuses(host, tmp_path):
    """The file that this run wrote there tells: without it, or with another run's, the worker says so."""
    work = fetching_from(host, tmp_path)
    assert work.refusal() == ""
    (tmp_path / TOKEN_NAME).write_text("another run")
    assert "does not see the folder" in work.refusal()
