"""The cells of a table as text, column by column, as compact as Arrow keeps them."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import InvalidInput
from encephalon.library.datasets.arrow import arrow
from encephalon.library.datasets.media import Unreadable
from encephalon.library.datasets.splitting import ordered

__all__ = ["TABLES", "Cells"]

TABLES: Final = (".csv", ".tsv", ".parquet")
MOST_ROWS: Final = 1 << 26
LOOKED_AT: Final = 100
"""Rows that show what a column holds."""


class Cells:
    """Raises `InvalidInput` for a file that is no table, and for a column that it does not have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path.parent.resolve()
        try:
            self._table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
        except (arrow().ArrowException, OSError, UnicodeError, csv.Error) as error:
            raise InvalidInput(f"{path} is no table that can be read: {error}", path=path) from None
        self.names: list[str] = self._table.column_names
        self.count: int = self._table.num_rows
        if len(set(self.names)) < len(self.names):
            raise InvalidInput(f"{path} has several columns of one name; its columns are {', '.join(self.names)}")
        if not self.count:
            raise InvalidInput(f"{path} has no rows below its header", path=path)
        self._columns: dict[str, Any] = {}

    def plain(self, column: str) -> bool:
        """Whether it holds text or numbers, as what names files does."""
        try:
            self._column(column)
        except InvalidInput:
            return False
        return True

    def text(self, column: str, row: int) -> str:
        """ "" for an empty cell and for null."""
        return self._column(column)[row].as_py() or ""

    def first(self, column: str) -> Iterator[str]:
        """The cells near the top that hold something."""
        return (text for row in range(min(self.count, LOOKED_AT)) if (text := self.text(column, row)))

    def file(self, column: str, row: int) -> Path:
        """The file that a cell names. Raises `Unreadable` when it names none, or one outside of the table's folder,
        be it through a link."""
        text = self.text(column, row)
        if not text:
            raise Unreadable("names no file")
        try:
            path = (self._root / text).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise Unreadable(f"is no path: {error}") from None
        if Path(text).is_absolute() or not path.is_relative_to(self._root):
            raise Unreadable("leads out of the table's folder")
        return path

    def classes(self, column: str) -> tuple[list[str], NDArray[np.int64]]:
        """The distinct cells, in order, and the number of each row's; -1 for an empty one."""
        encoded = self._column(column).fill_null("").dictionary_encode()
        found: list[str] = encoded.dictionary.to_pylist()
        names = ordered(name for name in found if name)
        numbers = {name: at for at, name in enumerate(names)}
        renumbered = np.array([numbers.get(name, -1) for name in found], np.int64)
        return names, renumbered[encoded.indices.to_numpy()]

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(self.names)}"
                raise InvalidInput(f"{self.path} has no column '{name}'; {hint}", column=name)
            pa = arrow()
            try:
                self._columns[name] = self._table.column(name).cast(pa.large_string()).combine_chunks()
            except pa.ArrowException:
                kind = self._table.schema.field(name).type
                raise InvalidInput(f"column '{name}' holds {kind}, expected text or numbers", column=name) from None
        return self._columns[name]


def _parquet(path: Path) -> Any:
    """InvalidInput for more rows than any table of files has: a column that repeats itself takes no room in a file."""
    module = arrow("parquet")
    rows = module.read_metadata(path).num_rows
    if rows > MOST_ROWS:
        raise InvalidInput(f"{path} has {rows} rows, at most {MOST_ROWS} are taken", path=path)
    return module.read_table(path)


def _csv(path: Path) -> Any:
    """Every cell as text, so that a label "007" stays one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline(1 << 20)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in line and "," not in line else ","
    names = next(csv.reader([line], delimiter=delimiter), [])
    module = arrow("csv")
    return module.read_csv(
        path,
        parse_options=module.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=module.ConvertOptions(
            column_types=dict.fromkeys(names, arrow().large_string()), strings_can_be_null=False
        ),
    )
