"""Which Vulkan devices there are, asked of the loader itself: a runtime on Vulkan does not say that its GPU is the CPU.

Structures and numbers are those of the Vulkan 1.0 specification.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Dict, List, Optional

Json = Dict[str, Any]
SOFTWARE = re.compile(r"swiftshader|llvmpipe|lavapipe|softpipe|basic render", re.IGNORECASE)
TYPE_CPU = 4
PREFERENCE = {2: 0, 1: 1, 3: 2, 0: 3, 4: 4}
"""Discrete, integrated, virtual, other, CPU: the order in which runtimes choose."""


class _InstanceInfo(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    ]


class _Application(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api", ctypes.c_uint32),
    ]


class _Half(ctypes.Structure):
    """VkPhysicalDeviceShaderFloat16Int8Features."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("fp16", ctypes.c_uint32),
        ("int8", ctypes.c_uint32),
    ]


class _Features(ctypes.Structure):
    """VkPhysicalDeviceFeatures2, its 55 plain features as one block."""

    _fields_ = [("kind", ctypes.c_int), ("next", ctypes.c_void_p), ("plain", ctypes.c_uint32 * 64)]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("api", ctypes.c_uint32),
        ("driver", ctypes.c_uint32),
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("name", ctypes.c_char * 256),
        ("rest", ctypes.c_char * 1024),
    ]


def library() -> Any:
    """Return the Vulkan loader, or None when it is not there."""
    for name in ("libvulkan.so.1", "libvulkan.so", "libvulkan.dylib", "vulkan-1.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def devices() -> List[Json]:
    """Return ``{"name", "software", "kind", "fp16"}`` of the Vulkan devices, the one that runtimes take first."""
    vulkan = library()
    if vulkan is None:
        return []
    instance = ctypes.c_void_p()
    application = _Application(kind=0, api=(1 << 22) | (1 << 12))  # Vulkan 1.1, for the question about fp16
    info = _InstanceInfo(kind=1, application=ctypes.cast(ctypes.pointer(application), ctypes.c_void_p))
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) != 0:
        return []
    try:
        count = ctypes.c_uint32()
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) != 0 or not count.value:
            return []
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        found = []
        for handle in handles[: count.value]:
            properties = _Properties()
            vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), ctypes.byref(properties))
            name = properties.name.decode("utf-8", "replace")
            software = properties.kind == TYPE_CPU or SOFTWARE.search(name) is not None
            half = _has_fp16(vulkan, instance, handle)
            found.append({"name": name, "software": software, "kind": properties.kind, "fp16": half})
    finally:
        vulkan.vkDestroyInstance(instance, None)
    return sorted(found, key=lambda entry: (entry["software"], PREFERENCE.get(entry["kind"], 3)))


def _has_fp16(vulkan: Any, instance: Any, handle: Any) -> Optional[bool]:
    """Say whether a device computes in fp16 (shaderFloat16), None where it cannot be asked."""
    vulkan.vkGetInstanceProcAddr.restype = ctypes.c_void_p
    address = vulkan.vkGetInstanceProcAddr(instance, b"vkGetPhysicalDeviceFeatures2")
    if not address:
        return None
    ask = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
    half = _Half(kind=1000082000)
    features = _Features(kind=1000059000, next=ctypes.cast(ctypes.pointer(half), ctypes.c_void_p))
    ask(ctypes.c_void_p(handle), ctypes.byref(features))
    return bool(half.fp16)


def chosen() -> Optional[Json]:
    """Return the device that a runtime takes when it is left to choose, or None without any."""
    return next(iter(devices()), None)


def reason() -> str:
    """Return why there is no Vulkan device."""
    if library() is None:
        return "there is no Vulkan loader (libvulkan.so.1) here"
    return "Vulkan finds no device here: no GPU driver is installed"
