"""Products of ggml's own CPU kernels: products.json.

    pip install llama-cpp-python==0.3.36 numpy && python make_products.py

Of every type that has a kernel: two rows of 512 weights, rounded by ggml, as hex, and what ggml_mul_mat makes of
them and of two rows of x: y[row of x][row of weights]. x has one large column, so that rounding it shows.
"""
import ctypes as C
import json
import pathlib

import llama_cpp
import numpy as np

lib = pathlib.Path(llama_cpp.__file__).parent / "lib"
base = C.CDLL(str(lib / "libggml-base.so"), mode=C.RTLD_GLOBAL)
cpu = C.CDLL(str(lib / "libggml-cpu.so"), mode=C.RTLD_GLOBAL)
TYPES = dict(q4_0=2, q4_1=3, q5_0=6, q5_1=7, q8_0=8, q2_k=10, q3_k=11, q4_k=12, q5_k=13, q6_k=14, iq2_xxs=16, iq2_xs=17,
             iq3_xxs=18, iq1_s=19, iq4_nl=20, iq3_s=21, iq2_s=22, iq4_xs=23, iq1_m=29, tq1_0=34, tq2_0=35, mxfp4_gguf=39,
             nvfp4_gguf=40, q1_0=41, q2_0=42)
ROWS, COLS, F32 = 2, 512, 0


class Params(C.Structure):
    _fields_ = [("size", C.c_size_t), ("memory", C.c_void_p), ("no_alloc", C.c_bool)]


POINTER = C.c_void_p
for function, result, arguments in (
        (base.ggml_init, POINTER, [Params]), (base.ggml_free, None, [POINTER]),
        (base.ggml_new_tensor_2d, POINTER, [POINTER, C.c_int, C.c_int64, C.c_int64]),
        (base.ggml_mul_mat, POINTER, [POINTER] * 3), (base.ggml_new_graph, POINTER, [POINTER]),
        (base.ggml_build_forward_expand, None, [POINTER] * 2), (base.ggml_get_data, POINTER, [POINTER]),
        (base.ggml_row_size, C.c_size_t, [C.c_int, C.c_int64]),
        (base.ggml_quantize_chunk, C.c_size_t, [C.c_int, POINTER, POINTER, C.c_int64, C.c_int64, C.c_int64, POINTER]),
        (cpu.ggml_graph_compute_with_ctx, C.c_int, [POINTER, POINTER, C.c_int])):
    function.restype, function.argtypes = result, arguments


def address(array):
    return array.ctypes.data_as(POINTER)


def product(kind, blocks, x):
    context = base.ggml_init(Params(64 << 20, None, False))
    a = base.ggml_new_tensor_2d(context, kind, COLS, ROWS)
    b = base.ggml_new_tensor_2d(context, F32, COLS, len(x))
    C.memmove(base.ggml_get_data(a), address(blocks), blocks.size)
    C.memmove(base.ggml_get_data(b), address(x), x.nbytes)
    result = base.ggml_mul_mat(context, a, b)
    graph = base.ggml_new_graph(context)
    base.ggml_build_forward_expand(graph, result)
    cpu.ggml_graph_compute_with_ctx(context, graph, 1)
    y = np.zeros((len(x), ROWS), np.float32)
    C.memmove(address(y), base.ggml_get_data(result), y.nbytes)
    base.ggml_free(context)
    return y


cpu.ggml_cpu_init()
rng = np.random.default_rng(20261201)
w = rng.normal(0, 0.05, (ROWS, COLS)).astype(np.float32)
x = rng.normal(0, 1, (2, COLS)).astype(np.float32)
x[:, 5] *= 20
evenly = np.ones(COLS, np.float32)
types = {}
for name, kind in TYPES.items():
    blocks = np.zeros(ROWS * base.ggml_row_size(kind, COLS), np.uint8)
    base.ggml_quantize_chunk(kind, address(w), address(blocks), 0, ROWS, COLS, address(evenly))
    types[name] = {"hex": blocks.tobytes().hex(), "y": product(kind, blocks, x).tolist()}
golden = {"x": x.tobytes().hex(), "types": types}
(pathlib.Path(__file__).parent / "products.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
