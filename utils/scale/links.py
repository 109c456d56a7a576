"""
The table of addresses to collect: ids, addresses, labels, and what else `source = "photos.csv"` knows of photos.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from utils.addresses import host_name, web_host
from utils.errors import FieldguideError
from utils.names import as_label, unsafe_name
from utils.photo_table import ADDRESS_NAMES, FIELDS, column_name, known_columns
from utils.scale.photos import CELLS, read_texts, require_ids

LINK_FIELDS = tuple(name for name in FIELDS if name != "file")  # url, label, side, group, page_url, …


def read_links(address: str) -> pa.Table:
    """
    Return the table of N addresses as text: id and `LINK_FIELDS`, "" where the table says nothing.

    Labels are spelt as folders. Raises FieldguideError if the file cannot be read, lacks a column, or holds an id twice
    or none.
    """
    found = read_texts(address, _link_columns)
    require_ids(address, found)
    columns = {"id": found["id"]}
    for name in LINK_FIELDS:
        there = name in found.column_names
        column = pc.fill_null(pc.utf8_trim_whitespace(found[name]), "") if there else pa.repeat("", len(found))
        columns[name] = column.cast(CELLS)
    columns["label"] = _each_once(as_label, columns["label"])
    return pa.table(columns)


def _link_columns(address: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return which columns hold what, or say what the table lacks."""
    spelt = {column_name(name): name for name in reversed(names)}
    known = known_columns(list(spelt))
    if (url := known.get("url") or next((name for name in ADDRESS_NAMES if name in spelt), "")) and "id" in spelt:
        if known.get("page_url") == url:  # as beside a column of files: here it is what is fetched
            del known["page_url"]
        chosen = {"id": "id", **known, "url": url}
        return {field: spelt[name] for field, name in chosen.items() if field != "file" and name in spelt}
    raise FieldguideError(
        f"{address} has the columns {', '.join(names)[:200]}. It needs one called id, and one called url with the "
        "addresses of the pictures. The column label is optional."
    )


def _each_once(spell, column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column of text with each different text spelt anew."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = column.dictionary_encode()
    return pa.array([spell(text) for text in encoded.dictionary.to_pylist()], CELLS).take(encoded.indices)


def host_of(url: str) -> str:
    """Return the host that an address names, spelt in one way; "" if it names none."""
    host = web_host(url)
    return _spelt_host(host) if host else ""


_spelt_host = lru_cache(100_000)(host_name)


def hosts_of(links: pa.Table) -> np.ndarray:
    """Return a number, int64 (N,), for the host of each address; addresses of one host have the same."""
    hosts = [host_of(url) for url in links["url"].to_pylist()]
    return np.unique(np.array(hosts, dtype=object), return_inverse=True)[1]


def not_asked(links: pa.Table) -> dict[int, str]:
    """
    Return position → the reason why that address is not asked for: no address, no fit label, an address that stands in
    two rows. As for one machine, an address with two labels is left out, and one that comes again is asked for once.
    """
    told = dict.fromkeys(np.flatnonzero(pc.equal(links["url"], "")).tolist(), "no address")
    labels = links["label"].combine_chunks().dictionary_encode()
    for code, label in enumerate(labels.dictionary.to_pylist()):
        if label and (why := unsafe_name(label)):
            those = np.flatnonzero(labels.indices.to_numpy() == code).tolist()
            told |= dict.fromkeys(those, f"the label {label[:60]!r} cannot be a folder name: {why}")
    urls, of = links["url"].combine_chunks().dictionary_encode().indices.to_numpy(), labels.indices.to_numpy()
    _, first, url, often = np.unique(urls, return_index=True, return_inverse=True, return_counts=True)
    torn = np.zeros(len(first), dtype=bool)
    np.logical_or.at(torn, url, of != of[first][url])
    for n in np.flatnonzero(often[url] > 1).tolist():
        if torn[url[n]]:
            told.setdefault(n, "an address with two labels")
        elif n != first[url[n]]:
            told.setdefault(n, f"the same address as {links['id'][int(first[url[n]])].as_py()[:100]}")
    return told
