"""
What is asked of each picture. A job goes to every machine, and makes there a worker that judges pictures.

A job has `columns`, the Arrow schema of its rows beside id and error; `facts`, what must be the same for all rows of a
folder; and `worker(cores)`, which is called once per process and returns a function from pictures to their rows in
order, each a mapping of column to value. A job whose places are not those of pictures has `read`, which yields what
stands at each. One that is `complete` gives no row an error for a reason that may pass. Each kind has a module of its
own, as only one of them needs torch.
"""

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pkgutil import resolve_name

import pyarrow as pa

from utils.errors import FieldguideError

JOB_MAKERS = {  # name: the function that makes the job of the command line's options
    "verify": "utils.scale.verifying:verifying",
    "features": "utils.scale.looking:looking",
    "predict": "utils.scale.predicting:predicting",
}


def job_of(options: argparse.Namespace):
    """Return the job that the command line asks for."""
    if options.task != "predict" and options.model:
        raise FieldguideError(f"{options.task} takes no model. Leave out --model {options.model}.")
    if options.task == "predict" and not options.model:
        raise FieldguideError("predict needs a model. Name a model.onnx or an export.pkl with --model.")
    return resolve_name(JOB_MAKERS[options.task])(options)


def part_schema(columns: pa.Schema) -> pa.Schema:
    """Return the columns of a job's parts: the id, those of the job, and why a picture has no answer."""
    error = pa.field("error", pa.string())
    made_by = [field for field in columns if field.name == "model_sha256"]
    return pa.schema([pa.field("id", pa.string()), *(f for f in columns if f not in made_by), error, *made_by])


def abreast(work: Callable, items: Iterator, together: int) -> Iterator:
    """Yield what `work` makes of each item, in order, on so many threads; no more items than threads are at hand."""
    items = iter(items)
    with ThreadPoolExecutor(together) as pool:
        while group := list(islice(items, together)):
            yield from pool.map(work, group)
