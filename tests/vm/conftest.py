"""The virtual machines of ``make test-vm``, booted once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from usb_machine import UsbMachine


@pytest.fixture(scope="session")
def usb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsbMachine]:
    machine = UsbMachine(tmp_path_factory.mktemp("usb"))
    yield machine
    machine.stop()
