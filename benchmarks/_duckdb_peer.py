"""
One class out of a table with duckdb, in a process of an environment of its own: the other side of box_tables.py.
"""

import json
import sys
import time
from pathlib import Path


def answer(folder: Path) -> tuple[int, float]:
    """Write the rows of boats to a file; return how many they are, and this process's CPU seconds."""
    import duckdb

    table, found = folder.parent / "boxes.csv", folder / "found.csv"
    duckdb.sql(f"COPY (SELECT * FROM read_csv('{table}') WHERE LabelName = '/m/019jd') TO '{found}' (HEADER)")
    with found.open("rb") as file:
        return sum(1 for _ in file) - 1, time.process_time()


if __name__ == "__main__":
    print(json.dumps(answer(Path(sys.argv[1]))))
