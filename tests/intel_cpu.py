"""This CPU as one of Intel's to ONNX Runtime: OpenVINO's plug-in offers itself on no other one.

Its code runs on others as well; the plug-in alone asks who made the CPU, and so only a test may
pretend another maker.
"""

import ctypes

import onnxruntime as ort

_INTEL = 0x8086
#: Where the object of Python keeps what it wraps, and where that keeps its vendor, bytes.
_WRAPPED, _VENDOR = 16, 4


def pretend() -> str:
    """Makes ONNX Runtime say so, before a plug-in is loaded; returns why it cannot."""
    device = next(one.device for one in ort.get_ep_devices() if one.ep_name.startswith("CPU"))
    wrapped = ctypes.c_void_p.from_address(id(device) + _WRAPPED).value
    if not wrapped:
        return "onnxruntime keeps its devices in another way"
    vendor = ctypes.c_uint32.from_address(wrapped + _VENDOR)
    if vendor.value != device.vendor_id:
        return "onnxruntime keeps the vendor of a device elsewhere"
    vendor.value = _INTEL
    return "" if device.vendor_id == _INTEL else "onnxruntime keeps the vendor of a device twice"
