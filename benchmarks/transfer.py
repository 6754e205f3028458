"""What socbench's own file transfer costs against ``adb push/pull`` and ``scp``: 100 MB, alternated in one run.

    python benchmarks/transfer.py [--megabytes 100] [--repeat 5] [--rate 40]

Over real daemons on loopback (fetched as the tests fetch them): bare, and through a token bucket of ``--rate`` MB/s
each way, as USB 2 and good Wi-Fi have. Prints one line a link and direction: median MB/s of both sides and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from device_rig import RealAdbd, RealAdbServer, RealSshd
from fault_proxy import FaultProxy, TokenBucket
from socbench.transports.adb import AdbTransport
from socbench.transports.adb_wire import Server
from socbench.transports.base import Deadline, Transport
from socbench.transports.ssh import SshTransport

Copy = Callable[[], None]


def seconds(copy: Copy) -> float:
    """Return how long one copy takes."""
    start = time.perf_counter()
    copy()
    return time.perf_counter() - start


def alternate(ours: Copy, theirs: Copy, repeat: int) -> tuple[list[float], list[float]]:
    """Time both in turn, each first every other time; one unrecorded copy each before."""
    ours()
    theirs()
    own: list[float] = []
    other: list[float] = []
    for number in range(repeat):
        turns = [(ours, own), (theirs, other)]
        for copy, times in turns if number % 2 else reversed(turns):
            times.append(seconds(copy))
    return own, other


def report(link: str, what: str, megabytes: int, own: list[float], other: list[float], floor: float) -> bool:
    """Print one line; return whether the ratio of the medians reaches ``floor``."""
    ours, theirs = megabytes / statistics.median(own), megabytes / statistics.median(other)
    ratio = ours / theirs
    ranges = [f"{megabytes / max(times):.0f}-{megabytes / min(times):.0f}" for times in (own, other)]
    spread = " against ".join(ranges)
    verdict = "ok" if ratio >= floor else "BELOW"
    numbers = f"{ours:6.1f} {theirs:6.1f} MB/s  ratio {ratio:4.2f} (floor {floor})"
    print(f"{link:10} {what:10} {numbers}  {verdict}  [{spread}]", flush=True)
    return ratio >= floor


def pair(
    link: str,
    transport: Transport,
    copies: tuple[list[str], list[str]],
    folder: Path,
    options: argparse.Namespace,
    names: tuple[str, str],
    env: dict[str, str],
    floor: float,
) -> bool:
    """Compare push and pull of one transport with the commands in ``copies``."""
    source, target, back = folder / "source", PurePosixPath(folder / "pushed"), folder / "back"

    def program(argv: list[str]) -> Copy:
        return lambda: _run(argv, env)

    def push() -> None:
        transport.push(source, target, deadline=Deadline.after(300))

    def pull() -> None:
        transport.pull(target, back, deadline=Deadline.after(300))

    good = True
    for what, ours, theirs in zip(names, (push, pull), copies, strict=True):
        own, other = alternate(ours, program(theirs), options.repeat)
        good = report(link, what, options.megabytes, own, other, floor) and good
    if source.read_bytes() != back.read_bytes():
        sys.exit(f"{link}: the file that came back is not the one that was sent")
    return good


def _run(argv: list[str], env: dict[str, str]) -> None:
    subprocess.run(
        argv, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def over_adb(
    link: str,
    device: RealAdbd,
    server: RealAdbServer,
    port: int,
    folder: Path,
    options: argparse.Namespace,
    floor: float,
) -> bool:
    """Compare with the adb program, both through the same server and port."""
    transport = AdbTransport(f"127.0.0.1:{port}", root=PurePosixPath(folder), server=Server(port=server.port))
    adb = ["adb", "-P", str(server.port), "-s", f"127.0.0.1:{port}"]
    pushed = str(folder / "pushed")
    copies = ([*adb, "push", str(folder / "source"), pushed], [*adb, "pull", pushed, str(folder / "back2")])
    try:
        return pair(link, transport, copies, folder, options, ("adb push", "adb pull"), server.env, floor)
    finally:
        transport.close()


def over_ssh(link: str, board: RealSshd, port: int, folder: Path, options: argparse.Namespace, floor: float) -> bool:
    """Compare with scp, a connection of its own each time, as a user has it; ours is open already."""
    board.trust(port)
    transport = SshTransport(f"{board.user}@127.0.0.1:{port}", root=PurePosixPath(folder), **board.client_options())  # type: ignore[arg-type]
    scp = ["scp", "-q", "-P", str(port), "-i", str(board.folder / "client_key"), "-F", "none"]
    scp += ["-o", f"UserKnownHostsFile={board.known_hosts}", "-o", "BatchMode=yes"]
    far = f"{board.user}@127.0.0.1:{folder / 'pushed'}"
    copies = ([*scp, str(folder / "source"), far], [*scp, far, str(folder / "back2")])
    try:
        return pair(link, transport, copies, folder, options, ("scp to", "scp from"), dict(os.environ), floor)
    finally:
        transport.close()


def main() -> int:
    """Run all comparisons; 1 when one is below its floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rate", type=float, default=40.0, help="MB/s of the shaped link")
    parser.add_argument("--only", choices=("adb", "ssh"))
    options = parser.parse_args()
    good = True
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as name:
        folder = Path(name)
        (folder / "source").write_bytes(os.urandom(options.megabytes * 1_000_000))
        if options.only != "ssh":
            server, device = RealAdbServer(folder / "server"), RealAdbd(folder / "adbd")
            try:
                good = over_adb("loopback", device, server, device.port, folder, options, 0.6) and good
                proxy = shaped(device.port, options.rate)
                good = over_adb(f"{options.rate:.0f} MB/s", device, server, proxy.port, folder, options, 0.9) and good
            finally:
                device.stop()
                server.stop()
        if options.only != "adb":
            board = RealSshd(folder / "sshd")
            try:
                good = over_ssh("loopback", board, board.port, folder, options, 0.6) and good
                proxy = shaped(board.port, options.rate)
                good = over_ssh(f"{options.rate:.0f} MB/s", board, proxy.port, folder, options, 0.9) and good
            finally:
                board.stop()
    return 0 if good else 1


def shaped(port: int, rate: float) -> FaultProxy:
    """Return a proxy with ``rate`` MB/s each way."""
    return FaultProxy(port, up=TokenBucket(rate * 1e6), down=TokenBucket(rate * 1e6))


if __name__ == "__main__":
    sys.exit(main())
