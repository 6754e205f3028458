"""Finds the shipped content folders, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def content(kind: str) -> Path:
    """Return the folder of shipped content called ``kind`` (``models``, ``device_agents``, ``results``, ``reports``).

    Inside the package in a wheel, at the root of the repository in a checkout or an editable install.
    """
    packaged = _PACKAGE / "_content" / kind
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / kind
