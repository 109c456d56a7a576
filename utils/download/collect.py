"""
Stage 01, second half: fetch pictures, or take those that are in hand, each with a row of its own.

Reads and writes raw/<label>/<id>.<ext> and sources.csv, through `collection`. What has a row is not asked for again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path

from tqdm.auto import tqdm

from utils.addresses import LONGEST_ADDRESS
from utils.download.collection import Collection, Gathered, collecting
from utils.download.fetch import Rules
from utils.download.queue import fetching
from utils.errors import FieldguideError
from utils.names import safe_name
from utils.project import Project
from utils.storage import content_id, require_writable
from utils.tables import one_line

WINDOW = 4  # pictures per connection that are under way, or wait in memory for their turn
LONGEST_TEXT = 500  # characters of a title and the like; the web sends longer ones, and tables must stay readable


def save_pictures(project: Project, pictures: Iterable[Gathered], *, total: int | None = None) -> Counter:
    """
    Write pictures to raw/<label>/, without a label to unsorted/, or to raw/ of a project that finds things, and a row
    for each to sources.csv; pass over what has a row already.

    A file in a folder counts as new once it has changed. Bytes are kept as they came, even if they are not a picture:
    02 judges them. `total` is their number, for the progress bar. Return how many rows were added, by label, status and
    kind of reason. Raises FieldguideError if a label cannot be a folder name, a file cannot be written, or another
    notebook is at work there.
    """
    with collecting(project.table("sources")) as collection:
        for picture in tqdm(pictures, total=total, desc="pictures", unit="picture"):
            if not collection.has_picture(picture):
                loose = project.raw if project.task == "detect" else project.unsorted
                folder = _folder_of(project.raw, picture.label) if picture.label else loose
                collection.add(folder, picture, status="failed" if picture.problem else "kept", reason=picture.problem)
    return collection.tally


def download_images(
    results: Iterable, dest: str | Path, *, wanted: int | None = None, flat: bool = False, **rules
) -> Counter:
    """
    Fetch pictures into `dest`, named by their content, with a row for each address asked for.

    Every address has one row with one status: "kept", "thumbnail" (the picture failed for the reason given, and its
    thumbnail was kept), "copy" (of a picture that is there), "failed" or "refused" (by our rules). An address with a
    row is not asked for again: after an interruption, the next run goes on from there. No more pictures are asked for
    at a time than are still wanted. Return how many rows were added, by label, status and kind of reason.

    Only http and https are fetched. Every redirect is judged anew: private, loopback, link-local and metadata
    addresses are refused, by name and after resolving. HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE count.
    Raises FieldguideError if there is no network (addresses not reached then have no row, so they are asked for again),
    a result has no address, `dest` cannot be a label's folder, or a file cannot be written.

    Parameters
    ----------
    results : iterable of addresses, or of records with `url` and any of thumbnail, page_url, title, query, …
        A record may be a mapping, also one of a search client's with "image" for `url` and "url" for `page_url`.
        Read as fetching goes on. If it raises, such as a search that is refused midway, everything it gave before is
        put on disk first; then the error is raised here.
    dest : str or Path
        raw/<label> of a project, whose sources.csv gets the rows; or any folder, which then holds its own sources.csv.
    flat : bool
        Whether `dest` is raw/ of a project that finds things: its pictures have no label, and its sources.csv gets the
        rows.
    wanted : int, optional
        How many different pictures with a row `dest` shall hold, those of earlier runs included.
    **rules
        Fields of `Rules`: allowed_hosts, deadline, workers, per_host, largest, honour_noai.
    """
    results, rules = _listed(results), Rules(**rules)
    dest = Path(dest).absolute() if flat else _label_folder(dest)
    root = dest.parent if flat else dest.parents[1] if dest.parent.name == "raw" else dest
    label, sources = "" if flat else dest.name, root / "sources.csv"
    with (
        collecting(sources) as collection,
        # It moves on with every address, also one that gave nothing.
        tqdm(total=wanted, desc=label[:40], unit="picture", miniters=0) as bar,
    ):
        have, goal = collection.pictures(dest, label), inf if wanted is None else wanted
        bar.update(have)
        if have >= goal:
            return collection.tally
        require_writable(dest)  # now, not after the first pictures were fetched
        addresses = _unknown((as_gathered(result, label, n) for n, result in enumerate(results, start=1)), collection)
        with fetching(addresses, rules, window=WINDOW * rules.workers, wanted=lambda: goal - have) as outcomes:
            for asked, (picture, fetched) in enumerate(outcomes, start=1):
                found = {"status": fetched.status, "reason": fetched.reason}
                facts = (fetched.extension, fetched.width, fetched.height)
                gained = collection.add(dest, replace(picture, data=fetched.data), **found, facts=facts)
                have += gained
                bar.set_postfix_str(f"{asked} addresses asked", refresh=False)
                bar.update(gained)
    return collection.tally


def _folder_of(raw: Path, label: str) -> Path:
    """Return raw/<label>, or refuse a label that cannot be a folder name."""
    try:
        return raw / safe_name(label)
    except ValueError as error:
        raise FieldguideError(f"{error}.") from error


def _label_folder(dest: str | Path) -> Path:
    """Return the folder for the pictures; below raw/ it must be a label's name."""
    dest = Path(dest).absolute()
    return _folder_of(dest.parent, dest.name) if dest.parent.name == "raw" or dest.name == ".." else dest


def _listed(results) -> Iterable:
    """Return results as a list, if one alone was given; refuse anything else that is not a list."""
    if isinstance(results, str | Mapping):
        return [results]
    if isinstance(results, bytes) or not isinstance(results, Iterable):
        raise FieldguideError(f"{repr(results)[:200]} is not a list of addresses or of search results. Give one.")
    return results


def as_gathered(result, label: str, number: int) -> tuple[Gathered, str, str]:
    """Return a result without its bytes, its address and that of its thumbnail."""
    if isinstance(result, str):
        return Gathered(label, _noted(one_line(result)), b"", engine="address"), one_line(result), ""
    tell = result.get if isinstance(result, Mapping) else partial(getattr, result)
    url, page_url = tell("url", None), tell("page_url", None)
    if isinstance(result, Mapping) and "image" in result:  # as a search client names them
        url, page_url = result["image"], page_url or url
    if not url or not isinstance(url, str):
        raise FieldguideError(
            f"The result number {number} has no address of a picture: {repr(result)[:200]}. "
            "Give addresses, or records with `url` (or mappings with 'url' or 'image')."
        )
    url, thumbnail, page_url = (one_line(told or "") for told in (url, tell("thumbnail", None), page_url))
    told = {name: one_line(tell(name, None) or "")[:LONGEST_TEXT] for name in ("query", "engine", "title", "license")}
    told["page_url"] = page_url if len(page_url) <= LONGEST_ADDRESS else ""  # cut, it would lead elsewhere
    return Gathered(label, _noted(url), b"", **told | {"license": told["license"] or "unknown"}), url, thumbnail


def _noted(url: str) -> str:
    """Return an address as the table notes it: one that is too long, by its beginning and a hash."""
    return url if len(url) <= LONGEST_ADDRESS else f"{url[:LONGEST_TEXT]}…{content_id(url.encode())}"


def _unknown(
    pictures: Iterable[tuple[Gathered, str, str]], collection: Collection
) -> Iterator[tuple[Gathered, str, str]]:
    """Yield the pictures that have no row yet, each address once, with their addresses."""
    seen: set[str] = set()
    for picture, address, thumbnail in pictures:
        if picture.url not in seen and not collection.has(picture.label, picture.url):
            seen.add(picture.url)
            yield picture, address, thumbnail
