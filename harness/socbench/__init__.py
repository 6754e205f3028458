"""socbench benchmarks neural-network inference on real devices; ``socbench.open_results().trials()`` reads results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from socbench import errors, records
    from socbench.results import Results

__version__ = "0.1.0"
__all__ = ["__version__", "errors", "open_results", "records"]


def open_results(store: str | Path | None = None) -> Results:
    """Open a results store (``SOCBENCH_STORE``, else the user's data folder): ``open_results().trials()``."""
    from socbench import results

    return results.open_results(store)


def __getattr__(name: str) -> Any:
    # Making the records' dataclasses takes as long as two interpreter starts, which `socbench --help` can't spare.
    if name in ("errors", "records"):
        import importlib

        return importlib.import_module(f"socbench.{name}")
    raise AttributeError(f"module 'socbench' has no attribute {name!r}")
