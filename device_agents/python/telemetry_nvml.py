"""Temperature, power and clocks of NVIDIA GPUs, through the driver's own library (NVML): docs/protocol.md, *Telemetry*.

The library comes with the driver; nothing is installed. Standard library only, Python 3.8+.
"""

import ctypes

LIBRARY = "libnvidia-ml.so.1"
MOST_DEVICES = 16
NAME_BYTES = 96
GRAPHICS_CLOCK, MEMORY_CLOCK, GPU_SENSOR = 0, 2, 0
ASKED = (
    ("temperature_milli_c", "nvmlDeviceGetTemperature", GPU_SENSOR),
    ("power_uw", "nvmlDeviceGetPowerUsage", None),
    ("gpu_clock_khz", "nvmlDeviceGetClockInfo", GRAPHICS_CLOCK),
    ("memory_clock_khz", "nvmlDeviceGetClockInfo", MEMORY_CLOCK),
)
"""Kind, function, its argument before the answer. NVML gives degrees, milliwatts and megahertz: all times 1000."""
WORDS = {1: "not initialised", 3: "not supported", 4: "permission denied", 9: "the driver is not loaded",
         15: "the GPU is lost", 18: "library and driver are of different versions"}  # fmt: skip


class NvmlSensor:
    """One number of one GPU; read like a file's."""

    def __init__(self, kind, source, function, arguments):
        self.kind = kind
        self.source = source
        self.function = function
        self.arguments = arguments

    def read(self):
        """Return ``(value, None)``, or ``(None, reason)``."""
        answer = ctypes.c_uint(0)
        code = self.function(*self.arguments, ctypes.byref(answer))
        return (answer.value * 1000, None) if code == 0 else (None, words_of(code))

    def close(self):
        """Nothing is held open."""


def words_of(code):
    """Return what an NVML return code means."""
    return WORDS.get(code, f"NVML says error {code}")


_cache = []


def find_gpus():
    """Return ``(sensors, None)``, or ``([], reason)`` where there is no library, no driver or no GPU."""
    if not _cache:
        _cache.append(_find())
    return _cache[0]


def _find():
    try:
        nvml = ctypes.CDLL(LIBRARY)
        code = nvml.nvmlInit_v2()
    except (OSError, AttributeError):
        return [], "no library " + LIBRARY
    if code:
        return [], words_of(code)
    count = ctypes.c_uint(0)
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    sensors = []
    for index in range(min(count.value, MOST_DEVICES)):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)):
            continue
        name = ctypes.create_string_buffer(NAME_BYTES)
        nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(NAME_BYTES))
        source = "nvml:gpu{}:{}".format(index, name.value.decode("utf-8", "replace") or "unknown")
        for kind, function, argument in ASKED:
            if hasattr(nvml, function):
                arguments = (device,) if argument is None else (device, ctypes.c_int(argument))
                sensors.append(NvmlSensor(kind, source, getattr(nvml, function), arguments))
    return (sensors, None) if sensors else ([], "no sensor")
