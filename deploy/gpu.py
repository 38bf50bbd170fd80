"""Whether a CUDA device answers, asked of the driver itself."""

import ctypes
from functools import cache


def name() -> str:
    """The first GPU's name, empty where none answers."""
    if unusable():
        return ""
    driver, buffer, device = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(128), 0
    code = driver.cuDeviceGetName(buffer, len(buffer), device)
    return buffer.value.decode(errors="replace") if code == 0 else ""


@cache
def unusable() -> str | None:
    """Why no NVIDIA GPU can be used here, None when one answers."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    code = driver.cuInit(0)
    if code:
        return f"the NVIDIA driver does not start (cuInit gives {code})"
    count = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    return None if code == 0 and count.value > 0 else "no NVIDIA GPU"
