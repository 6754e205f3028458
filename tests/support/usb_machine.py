"""USB devices in a virtual machine: dummy_hcd and FunctionFS with real adbds, seen by a real ADB server there.

The ADB server of the machine is passed on to a port of the host's loopback, so socbench on the host speaks to it as to
its own, and sees real USB: devices that come and go, equal serials, paths of ports. Every device is an adbd in
namespaces of its own (mounts, processes, network) with its own /data and machine id; ``reboot`` ends all of them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import device_tools
import vm_tools
from device_rig import free_port, wait_for
from socbench.errors import ChannelError
from socbench.transports.adb_wire import Listed, Server, devices
from socbench.transports.base import Deadline

COUNT = 4
_PORT = 5037
_MODULES = ("libcomposite", "usb_f_fs", f"dummy_hcd num={COUNT} is_super_speed=1")
_INIT = r"""#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/android
for name in /tmp /run /d; do busybox mount -t tmpfs tmpfs $name; done
mkdir -p /dev/pts /dev/shm /dev/usb-ffs/adb
busybox mount -t devpts devpts /dev/pts; busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t configfs none /sys/kernel/config
busybox ip link set lo up; busybox ip link set eth0 up; busybox ip addr add 10.0.2.15/24 dev eth0
. /functions
/usr/lib/android-sdk/platform-tools/adb -a -P 5037 nodaemon server > /tmp/server.log 2>&1 &
exec 3<>/dev/hvc0
stty raw -echo <&3
echo "READY $(cut -d' ' -f1 /proc/uptime)"
while read -r line <&3; do (eval "$line") >&3 2>&1 </dev/null; echo "=rc $?" >&3; done
"""
_FUNCTIONS = r"""
gadget() { # gadget NUMBER SERIAL: a device that is not plugged in
  g=/sys/kernel/config/usb_gadget/g$1; mkdir -p $g/strings/0x409 $g/configs/c.1/strings/0x409 || return
  echo 0x18d1 > $g/idVendor; echo 0x4ee7 > $g/idProduct
  echo Test > $g/strings/0x409/manufacturer; echo "Fake device" > $g/strings/0x409/product
  printf %s "$2" > $g/strings/0x409/serialnumber; echo ADB > $g/configs/c.1/strings/0x409/configuration
  mkdir $g/functions/ffs.adb$1 && ln -s $g/functions/ffs.adb$1 $g/configs/c.1/ || return
  mkdir -p /d/$1/data/local/tmp /d/$1/ffs; mkfifo /d/$1/again /d/$1/done; printf '%032d\n' $1 > /d/$1/machine-id
  busybox mount -t functionfs adb$1 /d/$1/ffs
}
ready() { n=0; while [ ! -e /d/$1/ffs/ep1 ]; do n=$((n+1)); [ $n -lt 600 ] || return 1; sleep 0.1; done; }
start() { # start NUMBER: power on and plug in
  cat /proc/sys/kernel/random/uuid > /d/$1/boot_id
  setsid unshare --mount --net --pid --fork --kill-child --mount-proc sh /device $1 >> /d/$1/log 2>&1 3>&- &
  echo $! > /d/$1/pid
  ready $1 && plug $1
}
plug() { echo dummy_udc.$1 > /sys/kernel/config/usb_gadget/g$1/UDC; }
unplug() { echo > /sys/kernel/config/usb_gadget/g$1/UDC; }
replug() { # replug NUMBER: the daemon does not take its endpoints up again by itself, so it is started anew
  echo > /d/$1/again; cat /d/$1/done
  ready $1 && plug $1
}
stop() { # stop NUMBER: power off, whatever ran there is gone
  unplug $1 2>/dev/null; kill -9 $(cat /d/$1/pid); n=0
  while [ -e /d/$1/ffs/ep1 ]; do n=$((n+1)); [ $n -lt 600 ] || return 1; sleep 0.1; done
}
"""
_DEVICE = r"""
busybox mount -o bind /d/$1/ffs /dev/usb-ffs/adb && busybox mount -o bind /d/$1/data /data || exit
busybox mount -o bind /d/$1/machine-id /etc/machine-id || exit
busybox mount -o bind /d/$1/boot_id /proc/sys/kernel/random/boot_id || exit
cd /
while :; do
  env -i PATH=/usr/bin:/bin HOME=/data LD_LIBRARY_PATH=$LD_LIBRARY_PATH /usr/lib/android-sdk/platform-tools/adbd &
  read -r line < /d/$1/again
  kill -9 $!; wait $!
  while [ -e /d/$1/ffs/ep1 ]; do sleep 0.1; done
  : > /d/$1/done
done
"""


def _disk(target: Path) -> None:
    root = device_tools.CACHE / "usb-root.partial"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(device_tools.usb_tools(), root, symlinks=True)
    for name in ("proc", "sys", "dev", "tmp", "run", "d", "data"):
        (root / name).mkdir(exist_ok=True)
    for name, text in (("test-init", _INIT), ("functions", _FUNCTIONS), ("device", _DEVICE)):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/data:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "machine-id").write_text("0" * 32 + "\n")
    vm_tools.add_numpy(root, "manylinux_2_28_x86_64")
    partial = target.with_suffix(".partial")
    vm_tools.disk(root, partial)
    partial.rename(target)
    shutil.rmtree(root)


class UsbMachine:
    """The machine, booted, without a device; ``add`` makes one with a serial and plugs it in."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        disk = vm_tools.kept("usb", "ext4", (_INIT, _FUNCTIONS, _DEVICE), _disk)
        vm_tools.initramfs("amd64", device_tools.usb_tools() / "bin" / "busybox", folder / "initrd", _MODULES)
        self.server = Server(port=free_port())
        self.machine = vm_tools.Machine(folder, "amd64", disk, folder / "initrd", {_PORT: self.server.port})
        wait_for(lambda: "READY" in self.machine.console(), "the USB machine", 180)
        wait_for(self._answers, "the ADB server in the machine", 60)

    def _answers(self) -> bool:
        try:
            self.listed()
        except ChannelError:
            return False
        return True

    def listed(self) -> list[Listed]:
        """Return what the ADB server there lists."""
        return devices(self.server, Deadline.after(10, "the ADB server in the machine"))

    def add(self, number: int, serial: str) -> None:
        """Make device ``number`` (below COUNT), power it on and plug it in."""
        self.machine.control(f"gadget {number} {serial} && start {number}")

    def unplug(self, number: int) -> None:
        """Pull the cable; what runs on the device goes on."""
        self.machine.control(f"unplug {number}")

    def replug(self, number: int) -> None:
        """Put the cable back in."""
        self.machine.control(f"replug {number}")

    def reboot(self, number: int) -> None:
        """Power off and on again: nothing that ran there is left, the files are."""
        self.machine.control(f"stop {number}; start {number}")

    def stop(self) -> None:
        """Switch the machine off."""
        self.machine.stop()
