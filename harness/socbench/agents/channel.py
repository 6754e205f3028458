"""A transport that is opened again when it breaks, so that those who use it need not know that it broke."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from socbench.errors import ChannelError, DeadlineError, DeviceStateError, Interrupted
from socbench.transports import open_transport
from socbench.transports.base import Transport

T = TypeVar("T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


class Channel:
    """The way to one device. ``lost`` is told why when it breaks; ``away`` may be set: told True then, False after."""

    def __init__(
        self,
        address: str,
        *,
        opener: Callable[[str], Transport] = open_transport,
        patience_s: float = 600.0,
        stop: threading.Event | None = None,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.address = address
        self.patience_s = patience_s
        self.stop = stop or threading.Event()
        self._opener = opener
        self._lost = lost
        self.away: Callable[[bool], None] = lambda _: None
        self.transport = opener(address)

    def reopen(self, why: ChannelError) -> None:
        """Open the transport anew, waiting longer after every failure.

        Raises the last ChannelError when ``patience_s`` is over, Interrupted when the session is stopped meanwhile.
        """
        self._lost(str(why))
        self.away(True)
        self.transport.close()
        give_up_s = time.monotonic() + self.patience_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                self.transport = self._opener(self.address)
                self.away(False)
                return
            except ChannelError as problem:
                if time.monotonic() + wait_s > give_up_s:
                    raise
                why = problem
            if self.stop.wait(wait_s):
                raise Interrupted(f"stopped while {self.address} could not be reached: {why}")
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def retry(self, action: Callable[[Transport], T], *, attempts: int = 5) -> T:
        """Return ``action(transport)``, done again over a new channel where it breaks: it must bear repeating."""
        for attempt in range(attempts):
            try:
                return action(self.transport)
            except (DeadlineError, DeviceStateError):
                raise  # a deadline is not started again; that the device may not be used does not pass by itself
            except ChannelError as problem:
                if attempt == attempts - 1:
                    raise
                self.reopen(problem)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Give the transport back."""
        self.transport.close()
