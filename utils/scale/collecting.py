"""
Collecting: pictures of the web, fetched by many machines as 01 fetches them, into one folder that all of them see.

`--out` is the data folder of a project: raw/<label>/ and sources.csv are those of 01. rows/ holds a row for each id.
"""

import argparse
import secrets
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from utils.download import Rules
from utils.scale.dealing import Deal
from utils.scale.fetched import TOKEN_NAME, Collected, Fetching, note_sources, taken_before, unanswered_rows
from utils.scale.hands import fetched_by_hands
from utils.scale.links import hosts_of, not_asked, read_links
from utils.scale.parts import own_folder
from utils.storage import remove_leftovers, write_whole
from utils.words import counted

ROWS_FOLDER = "rows"  # the folder of the parts, inside that of the pictures


def collect(options: argparse.Namespace, pace) -> int:
    """Fetch what is missing, and return how many rows have an error."""
    links = read_links(options.table)
    rules = Rules(allowed_hosts=tuple(options.allow_host), honour_noai=not options.ignore_noai)
    with own_folder(options.out) as folder:
        parts = Collected(folder / ROWS_FOLDER, links["id"])
        _renew(folder, links, parts, rules)
        known = len(links) - len(parts.missing)
        if known:
            print(f"{counted(known)} of {len(links):,} have their row already.", file=sys.stderr)
        try:
            if len(parts.missing):
                parts.begin()
                remove_leftovers(folder)
                _fetch(options, folder, links, parts, rules, pace)
        finally:
            parts.finish()
            note_sources(folder, parts.folder)
    later = int(parts.later.sum())
    failed = parts.errors + later
    told = f"{counted(len(links), 'address', 'addresses')} in {Path(options.out)}, {failed:,} without a picture.{pace}"
    if later:
        told += f" {later:,} of them failed for the moment: run this again to ask for them again."
    print(told, file=sys.stderr)
    return failed


def _renew(folder: Path, links: pa.Table, parts: Collected, rules: Rules) -> None:
    """Forget what the table or the rules changed, once sources.csv has it: pictures stay, with where they are from."""
    if outdated := parts.outdated(links, rules):
        note_sources(folder, parts.folder)
        parts.forget(outdated)
        changed = counted(sum(int(old.sum()) for old in outdated.values()), "row")
        print(f"Looking anew at {changed}: the table or the options changed, or nobody asked.", file=sys.stderr)
    parts.note_rules(rules)


def _fetch(options, folder: Path, links: pa.Table, parts: Collected, rules: Rules, pace) -> None:
    """Fetch what is missing on a cluster."""
    leave_out(links, parts)
    if here := parts.take(taken_before(folder, links, parts.missing)):
        print(f"{counted(here)} of {len(links):,} were fetched by notebook 01 already.", file=sys.stderr)
    if not len(parts.missing):
        return
    deal = Deal(parts.missing, hosts_of(links))
    token = secrets.token_hex(16)
    write_whole(folder / TOKEN_NAME, token)
    total, here = len(links), len(links) - len(parts.missing)
    try:
        with tqdm(total=total, initial=here, desc="collect", unit="address") as bar:
            job = Fetching(str(folder), token, rules)
            fetched_by_hands(job, deal, links, parts, partial(pace.told, bar), bar.update, options)
    finally:
        (folder / TOKEN_NAME).unlink(missing_ok=True)


def leave_out(links: pa.Table, parts: Collected) -> None:
    """Give the addresses that are not asked for their rows."""
    told = {n: why for n, why in not_asked(links).items() if not parts.known[n]}
    for group in (list(told)[start : start + 10_000] for start in range(0, len(told), 10_000)):
        parts.leave_out(unanswered_rows(links, group, [told[n] for n in group]))
