"""safetensors files of numpy arrays, for the scripts beside this one."""

import json
import struct

import numpy as np


def save(path, tensors):
    names = {"int32": "I32", "int16": "I16", "float16": "F16", "float32": "F32"}
    header, data = {}, b""
    for name, array in sorted(tensors.items(), key=lambda t: (-t[1].itemsize, t[0])):
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
