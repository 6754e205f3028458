"""Real device software on loopback for tests: Debian's adbd, a private ADB server, a real sshd. Never root's own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import device_tools


def free_port() -> int:
    """Return a TCP port on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until ``condition`` holds; AssertionError says what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:``port``."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def with_small_disk(folder: Path, size: str, argv: list[str]) -> list[str]:
    """Return ``argv`` with a disk of ``size`` at ``folder``, in a mount namespace of its own (unseen outside)."""
    folder.mkdir()
    script = 'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"'
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    return ["unshare", *namespaces, "sh", "-c", script, "sh", size, str(folder), *argv]


def as_machine(folder: Path, machine_id: str, argv: list[str]) -> list[str]:
    """Return ``argv`` with a machine id of its own (unseen outside): to socbench it is another device than this one."""
    (folder / "machine-id").write_text(f"{machine_id}\n")
    script = 'mount --bind "$1" /etc/machine-id && shift && exec "$@"'
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    return ["unshare", *namespaces, "sh", "-c", script, "sh", str(folder / "machine-id"), *argv]


class Daemon:
    """A process of ours, ended with its whole session."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path, **options: object) -> None:
        self.argv, self.env, self.log, self._options = argv, env, log, options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it (again); it dies with the tests, even when those are killed."""
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                ["setpriv", "--pdeathsig", "KILL", "--", *self.argv],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                **self._options,
            )

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it and what is in its session."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGCONT)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class RealAdbd:
    """Debian's adbd, started as an ordinary process: its home is ``folder/home``, its port is on loopback only.

    ``environment`` is what a phone's shell would see; nothing of ours goes in.
    """

    def __init__(
        self,
        folder: Path,
        *,
        properties: dict[str, str] | None = None,
        authenticating: bool = False,
        small_disk: str = "",
        machine_id: str = "",
    ) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.small_disk = folder / "small-disk"
        self.root = (self.small_disk if small_disk else folder) / "socbench"
        self.port = free_port()
        prompts = folder / "prompt"
        listed = {"ro.product.name": "testphone", "ro.product.model": "Test Phone", "ro.product.device": "fake"}
        (folder / "properties").write_text("".join(f"{k}={v}\n" for k, v in {**listed, **(properties or {})}.items()))
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "ADBD_PORT": str(self.port),
            "LD_LIBRARY_PATH": device_tools.libraries(),
            "LD_PRELOAD": str(device_tools.loopback_shim()),
            "TEST_PROPERTIES": str(folder / "properties"),
            "SOCBENCH_DEVICE_ROOT": str(self.root),
        }
        options: dict[str, object] = {"cwd": self.home}
        self.prompt: AllowPrompt | None = None
        if authenticating:
            self.prompt = AllowPrompt(prompts)
            env["TEST_CONTROL_FD"] = str(self.prompt.descriptor)
            options["pass_fds"] = (self.prompt.descriptor,)
        binary = device_tools.adbd_binary(authenticating=authenticating)
        argv = with_small_disk(self.small_disk, small_disk, [str(binary)]) if small_disk else [str(binary)]
        argv = as_machine(folder, machine_id, argv) if machine_id else argv
        self.daemon = Daemon(argv, env, folder / "adbd.log", **options)
        wait_for(lambda: listens(self.port), "adbd")

    @property
    def serial(self) -> str:
        """The name that an ADB server has for it."""
        return f"127.0.0.1:{self.port}"

    def reboot(self) -> None:
        """End and start again, as a reboot looks to the host."""
        self.daemon.stop()
        self.daemon.start()
        wait_for(lambda: listens(self.port), "adbd after its restart")

    def stop(self) -> None:
        """End it."""
        self.daemon.stop()
        if self.prompt:
            self.prompt.close()


class AllowPrompt:
    """Plays the phone's screen: answers "Allow USB debugging?" over init's control socket with ``answer``."""

    def __init__(self, path: Path) -> None:
        self.answer: bytes | None = None
        self.asked = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self.descriptor = self._listener.fileno()
        self._path = str(path)
        self._screen: socket.socket | None = None
        self._question = False

    def watch(self) -> None:
        """Begin to look at the screen; the daemon must run."""
        self._screen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._screen.connect(self._path)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        assert self._screen is not None
        with contextlib.suppress(OSError):
            while data := self._screen.recv(8192):
                if data[:2] == b"PK":
                    self._question = True
                    self.asked.set()
                    self._say()

    def tap(self, allow: bool) -> None:
        """Answer the question, now if it is on the screen, else when it comes."""
        self.answer = b"OK" if allow else b"NO"
        self._say()

    def _say(self) -> None:
        if self._question and self.answer is not None and self._screen is not None:
            self._question = False
            self._screen.send(self.answer)

    def close(self) -> None:
        """End."""
        for one in (self._screen, self._listener):
            if one is not None:
                one.close()


class RealAdbServer:
    """The real adb server on a private port with keys of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self.env = {
            "PATH": f"{device_tools.adb_binary().parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LD_LIBRARY_PATH": device_tools.libraries(),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "ADB_MDNS": "0",
            "ADB_USB": "0",
        }
        argv = [str(device_tools.adb_binary()), "-P", str(self.port), "nodaemon", "server"]
        self.daemon = Daemon(argv, self.env, folder / "server.log")
        wait_for(lambda: listens(self.port), "the ADB server")

    def adb(self, *arguments: str, timeout_s: float = 60) -> str:
        """Run the adb program against this server; return what it printed."""
        argv = [str(device_tools.adb_binary()), "-P", str(self.port), *arguments]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=True)
        return done.stdout

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.daemon.stop()
        self.daemon.start()
        wait_for(lambda: listens(self.port), "the ADB server after its restart")

    def stop(self) -> None:
        """End it."""
        self.daemon.stop()


def make_keys(folder: Path) -> None:
    """Make a host's key, a client's that it lets in (``authorized_keys``), and one more."""
    for name in ("host_key", "client_key", "other_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")


class RealSshd:
    """A real sshd on loopback with host keys and settings of its own; logs in the user that runs the tests."""

    def __init__(self, folder: Path, *, small_disk: str = "", machine_id: str = "", **settings: str) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        self.folder, self.port, self.user = folder, free_port(), getpass.getuser()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        make_keys(folder)
        self.home = folder / "home"
        self.home.mkdir()
        self.small_disk = folder / "small-disk"
        self.root = (self.small_disk if small_disk else folder) / "socbench"
        lines = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(folder / "host_key"),
            "AuthorizedKeysFile": str(folder / "authorized_keys"),
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxSessions": "64",
            "SetEnv": f"HOME={self.home} SOCBENCH_DEVICE_ROOT={self.root}",
            "Subsystem": "sftp internal-sftp",
            **settings,
        }
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        argv = [str(device_tools.sshd_binary()), "-D", "-e", "-f", str(folder / "sshd_config")]
        if small_disk:
            argv = with_small_disk(self.small_disk, small_disk, argv)
        argv = as_machine(folder, machine_id, argv) if machine_id else argv
        self.daemon = Daemon(argv, dict(os.environ), folder / "sshd.log")
        wait_for(lambda: listens(self.port), "sshd")
        self.trust(self.port)

    def client_options(self) -> dict[str, object]:
        """Return what SshTransport needs to log in here and nowhere else: no setting of the user's is read."""
        key = str(self.folder / "client_key")
        return {"identity_file": key, "known_hosts": str(self.known_hosts), "config": []}

    def make_home(self, home: Path) -> None:
        """Make ``home`` a home folder whose OpenSSH configuration logs in here as ``ssh:board``."""
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        settings = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": self.user,
            "IdentityFile": str(self.folder / "client_key"),
            "UserKnownHostsFile": str(self.known_hosts),
        }
        text = "Host board\n" + "".join(f"  {key} {value}\n" for key, value in settings.items())
        (home / ".ssh" / "config").write_text(text)

    @property
    def known_hosts(self) -> Path:
        """The file that knows this host's key."""
        return self.folder / "known_hosts"

    def trust(self, *ports: int) -> None:
        """Let ``known_hosts`` know the host key on these ports, and no other."""
        key = (self.folder / "host_key.pub").read_text().split()[:2]
        self.known_hosts.write_text("".join(f"[127.0.0.1]:{port} {' '.join(key)}\n" for port in ports))

    def distrust(self) -> None:
        """Let ``known_hosts`` expect another key: the host key has changed."""
        key = (self.folder / "other_key.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {' '.join(key)}\n")

    def reboot(self) -> None:
        """End every connection and start again."""
        self.stop_sessions()
        self.daemon.stop()
        self.daemon.start()
        wait_for(lambda: listens(self.port), "sshd after its restart")

    def stop_sessions(self) -> None:
        """Kill the sessions of this sshd (they are in sessions of their own)."""
        if self.daemon.process is None:
            return
        for child in _children(self.daemon.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        self.stop_sessions()
        self.daemon.stop()


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_children(int(child))]
    return found
