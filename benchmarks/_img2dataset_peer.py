"""
img2dataset's side of collect_many.py, run by the Python of an environment of its own.

    PEER/bin/python benchmarks/_img2dataset_peer.py {lean,decoding} LINKS OUT
"""

import sys

from img2dataset import download


def fetch(how: str, links: str, out: str) -> None:
    """Collect, with bytes as they came; `decoding` opens each picture, `lean` does not."""
    lean = {"disable_all_reencoding": True} if how == "lean" else {"skip_reencode": True}
    download(
        url_list=links,
        input_format="csv",
        url_col="url",
        output_folder=out,
        output_format="files",
        resize_mode="no",
        processes_count=1,
        thread_count=32,
        number_sample_per_shard=1000,
        **lean,
    )


if __name__ == "__main__":  # its workers import this file
    fetch(*sys.argv[1:])
