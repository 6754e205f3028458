"""A transport to a real device behind a proxy that can be told to break."""

from __future__ import annotations

from pathlib import PurePosixPath

from device_rig import RealAdbd, RealAdbServer, RealSshd
from fault_proxy import FaultProxy
from socbench.transports.adb import AdbTransport
from socbench.transports.adb_wire import Server
from socbench.transports.ssh import SshTransport


class Link:
    """A device behind a proxy that can be told to break; ``open`` makes a transport over it."""

    def __init__(self, kind: str, device: RealAdbd | RealSshd, server: RealAdbServer | None) -> None:
        self.kind, self.device, self.server = kind, device, server
        self.proxy = FaultProxy(device.port)
        self.home = device.home
        self._opened: list[AdbTransport | SshTransport] = []

    def open(self, **options: object) -> AdbTransport | SshTransport:
        """Open the channel; may be called again after a fault."""
        root = PurePosixPath(self.device.home) / "socbench"
        made: AdbTransport | SshTransport
        if isinstance(self.device, RealSshd):
            self.device.trust(self.proxy.port, self.device.port)
            name = f"{self.device.user}@127.0.0.1:{self.proxy.port}"
            made = SshTransport(name, root=root, **self.device.client_options(), **options)  # type: ignore[arg-type]
        else:
            assert self.server is not None
            name = f"127.0.0.1:{self.proxy.port}"
            made = AdbTransport(name, root=root, server=Server(port=self.server.port), **options)  # type: ignore[arg-type]
        self._opened.append(made)
        return made

    def close(self) -> None:
        """Close every channel and the proxy."""
        for transport in self._opened:
            transport.close()
        if self.server is not None:
            self.server.adb("disconnect")
        self.proxy.close()
