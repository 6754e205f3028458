"""What a runtime adapter is. One runtime a file in this folder; each is passed tests/conformance/runtime.

Runs on the device: standard library and NumPy only, Python 3.8+. A module in this folder is an adapter when it defines
``ADAPTER``, an object with the methods of :class:`Adapter`.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

Json = Dict[str, Any]


class RuntimeProblem(Exception):
    """A failure that the adapter understands; becomes an ``error`` event. Codes are those of docs/protocol.md."""

    def __init__(self, code: str, message: str, advice: Optional[str] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice


class Session:
    """A loaded model on one delegate, in this process. Made by :meth:`Adapter.load`."""

    run: Callable[[], Any]
    """Runs one inference on the bound inputs to completion, the device's own queue included. The fastest call there
    is with everything bound before; an attribute, so that the timed loop pays no look-up."""

    def describe(self) -> Json:
        """Return the members of the ``loaded`` event from ``runtime_version`` on (docs/protocol.md)."""
        raise NotImplementedError

    def bind(self, inputs: Json) -> None:
        """Bind ``{name: ndarray}`` for the next runs. RuntimeProblem ``shape_mismatch`` when they do not fit."""
        raise NotImplementedError

    def outputs(self) -> Json:
        """Return ``{name: ndarray}`` copies of the last run's outputs, in the model's order."""
        raise NotImplementedError

    def close(self) -> None:
        """Free everything."""


class Adapter:
    """Knows one runtime."""

    name: str = ""
    formats: List[str] = []

    def probe(self) -> Json:
        """Return the runtime's entry of ``probe`` (docs/protocol.md, Capabilities), its delegates really looked for."""
        raise NotImplementedError

    def load(self, model: str, trial: Json) -> Session:
        """Load ``model`` (a path) as the trial of the job asks: delegate, threads, shapes, options."""
        raise NotImplementedError

    def profile(self, model: str, trial: Json, inputs: Json) -> List[List[Any]]:
        """Return rows of the ``ops`` event from a session of its own, or ``[]`` where the runtime cannot tell."""
        return []
