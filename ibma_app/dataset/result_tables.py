"""The tables that we write, as pandas reads them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def read_result_table(path: Path) -> pd.DataFrame:
    """Read a table of results (``.tsv``, missing values ``n/a``); region names stay text."""
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype={"cluster_id": str})


def stack_tables(tables: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """Put tables below each other; a first column has the name of each."""
    return pd.concat(tables, names=[column]).reset_index(column).reset_index(drop=True)
