"""Reads the bytes of stored outputs, a row group at a time: one query a tensor would read the whole file for each."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from socbench.store.reader import Database, damaged_files, table_files

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

_KEPT_BYTES: Final = 256 * 1024 * 1024


class OutputBytes:
    """The bytes of one session's outputs by sha256. A damaged file is left out and named in the database's warnings.

    A trial's outputs lie in one row group, so the last ones that were read are kept, up to 256 MiB of them.
    """

    def __init__(self, database: Database, session: str) -> None:
        self._database = database
        self._files: list[tuple[Path, pq.ParquetFile]] = []
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._groups: OrderedDict[tuple[int, int], dict[str, memoryview]] = OrderedDict()
        for folder in database.folders:
            if folder.name == session:
                for path in table_files(folder, "outputs"):
                    self._index(path)

    def get(self, sha256: str) -> memoryview | None:
        """Return the bytes; ``None`` where no row of the session holds them."""
        for place in self._places.get(sha256, ()):
            found = self._group(place).get(sha256)
            if found is not None:
                return found
        return None

    def _index(self, path: Path) -> None:
        """Note in which row groups of a file each sha256 occurs."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = len(self._files)
        try:
            file = pq.ParquetFile(path)
            shas = file.read(columns=["sha256"])["sha256"].to_pylist()
        except (pa.ArrowException, OSError, KeyError) as problem:
            self._warn(problem)
            return
        self._files.append((path, file))
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            for sha256 in dict.fromkeys(shas[start : start + rows]):
                self._places.setdefault(sha256, []).append((number, group))
            start += rows

    def _group(self, place: tuple[int, int]) -> dict[str, memoryview]:
        import pyarrow as pa

        if place not in self._groups:
            number, group = place
            try:
                table = self._files[number][1].read_row_group(group, columns=["sha256", "data"])
            except (pa.ArrowException, OSError) as problem:
                self._warn(problem)
                self._groups[place] = {}
                return {}
            self._groups[place] = _bytes_of(table)
            while len(self._groups) > 1 and self._size() > _KEPT_BYTES:
                self._groups.popitem(last=False)
        self._groups.move_to_end(place)
        return self._groups[place]

    def _size(self) -> int:
        return sum(len(data) for group in self._groups.values() for data in group.values())

    def _warn(self, problem: Exception) -> None:
        found = list(damaged_files(self._database.folders).values())
        found = found or [f"stored outputs could not be read ({problem})"]
        self._database.warnings.extend(text for text in found if text not in self._database.warnings)


def _bytes_of(table: pa.Table) -> dict[str, memoryview]:
    """Return the data of rows by their sha256; rows without are left out."""
    rows = zip(table["sha256"].to_pylist(), table["data"], strict=True)
    return {sha256: memoryview(data.as_buffer()) for sha256, data in rows if data.is_valid}
