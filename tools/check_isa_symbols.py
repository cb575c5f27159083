#!/usr/bin/env python3
"""Checks that no instruction of a newer machine can run on an older one.

    tools/check_isa_symbols.py BUILD_DIR     check the objects of an optimised build
    tools/check_isa_symbols.py --self-test   plant leaks and expect them to be found

The units of src/backends/cpu/isa/ are compiled for their own level. If one of them instantiated a
template of the standard library, the linker might take that copy for the whole program, and an older
machine would fault. So for every object of BUILD_DIR/src:
  - x86-64: isa/avx512*, isa/amx*: anything; isa/avx2*: no EVEX (zmm, masks, registers above 15); all others: no VEX at all;
  - 64-bit ARM: isa/neon_i8mm: no SVE and no arithmetic in half precision or bf16; isa/neon_dotprod: no products of
    matrices or of mixed signs either; all others: no byte products at all;
  - isa units define no weak symbol and export only <unit>_kernels().
Needs nm and objdump, those of the cross compiler for objects of another processor. Exits 1 and lists the offenders when
there are any.
"""
import argparse
import functools
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

EVEX = re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\{1to\d+\}")
VEX = re.compile(r"^v[a-z0-9]+\s.*%[xyz]mm|^vzero(upper|all)\b|%ymm")
SVE_HALF = (r"\b[zp]\d+[./]|^(bfdot|bfmmla|bfmlal|bfcvt|fmlal|fmlsl)|"
            r"^f(add|sub|mul|mla|mls|div|max|min|sqrt|neg|abs|rint)\w*\s.*(\bh\d|\.[48]h)")
MATRIX = SVE_HALF + r"|^(us|su)dot\b|^[su]*mmla\b"
DOT = MATRIX + r"|^[su]dot\b"

# Processor family -> the units that its build must have.
UNITS = {
    "x86_64": ("generic", "avx2", "avx2_int8", "avx512", "avx512_vnni", "avx512_bf16", "amx", "amx_int8"),
    "aarch64": ("generic", "neon", "neon_dotprod", "neon_i8mm"),
}
# Unit -> what it must not hold; others: of OTHERS.
FORBIDDEN = {
    "avx2": EVEX, "avx2_int8": EVEX, "avx512": None, "avx512_vnni": None, "avx512_bf16": None,
    "amx": None,
    "amx_int8": None,
    "neon_dotprod": re.compile(MATRIX), "neon_i8mm": re.compile(SVE_HALF),
}
OTHERS = {"x86_64": VEX, "aarch64": re.compile(DOT)}
ELF_MACHINES = {62: "x86_64", 183: "aarch64"}


def unit_of(path):
    """The name of an isa unit's object, or None for other objects."""
    if path.parent.name == "isa" and path.name.endswith(".cc.o"):
        return path.name.removesuffix(".cc.o")
    return None


@functools.cache
def family_of(path):
    with path.open("rb") as file:
        return ELF_MACHINES[int.from_bytes(file.read(20)[18:], "little")]


def run(tool, *arguments):
    path = arguments[-1]
    if family_of(path) != platform.machine():
        tool = f"{family_of(path)}-linux-gnu-{tool}"
    return subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def instruction_offenders(path, pattern):
    """Functions that hold a forbidden instruction, each with its first one."""
    function, found = "?", {}
    for line in run("objdump", "-d", "--no-show-raw-insn", "-C", path).splitlines():
        header = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if header:
            function = header.group(1)
            continue
        parts = line.split("\t")
        instruction = " ".join(parts[1:]).strip()
        if pattern.search(instruction):
            found.setdefault(function, instruction)
    return [f"{path.name}: {name}: {instruction}" for name, instruction in found.items()]


def symbol_offenders(path, unit):
    """Weak definitions, and exports other than the table of the unit."""
    offenders = []
    for line in run("nm", "-C", "--defined-only", path).splitlines():
        kind, name = line[17:18], line[19:]
        if kind in "WVu" and not name.startswith("DW.ref."):
            offenders.append(f"{path.name}: weak symbol {name}")
        elif kind.isupper() and kind not in "WV" and f"{unit}_kernels()" not in name:
            offenders.append(f"{path.name}: exports {name}")
    return offenders


def check_object(path):
    unit = unit_of(path)
    offenders = symbol_offenders(path, unit) if unit else []
    pattern = FORBIDDEN.get(unit, OTHERS[family_of(path)])
    return offenders + (instruction_offenders(path, pattern) if pattern else [])


def check_build(build):
    objects = sorted((build / "src").rglob("*.cc.o"))
    units = {unit_of(path) for path in objects} - {None}
    expected = set(UNITS[family_of(objects[0])]) if objects else set()
    if units != expected or not units:
        return [f"{build}: the units are {sorted(units)} instead of {sorted(expected)}"]
    return [offender for path in objects for offender in check_object(path)]


def self_test():
    """Compiles leaking units and innocent ones, for every processor that a compiler is there for."""
    sort = ("#include <algorithm>\nnamespace nibble { static void f(float* p, int n) "
            "{ std::sort(p, p + n); }\nvoid avx512_kernels(float* p, int n) { f(p, n); } }\n")
    square = "void f(float* x) { for (int i = 0; i < 1024; ++i) x[i] = x[i] * x[i]; }\n"
    dot = ("int f(const X* x, const signed char* w) "
           "{ int s = 0; for (int i = 0; i < 1024; ++i) s += x[i] * w[i]; return s; }\n")
    half = "typedef __fp16 H __attribute__((vector_size(16)));\nH f(H x) { return x * x; }\n"
    arm = [
        ("isa/generic.cc.o", dot, ["-DX=signed char", "-march=armv8.2-a+dotprod"], "sdot"),
        ("isa/neon_dotprod.cc.o", dot, ["-DX=unsigned char", "-march=armv8.2-a+i8mm"], "usdot"),
        ("linear.cc.o", square, ["-march=armv8.2-a+sve"], "p0.s"),
        ("linear.cc.o", half, ["-march=armv8.2-a+fp16"], ".8h"),
        ("linear.cc.o", dot, ["-DX=signed char"], None),
    ]
    x86 = [
        ("isa/avx512.cc.o", sort, ["-mavx512f", "-O1"], "weak symbol"),
        ("isa/avx512.cc.o", "int leaked() { return 1; }\n", ["-mavx512f"], "exports"),
        ("isa/avx2.cc.o", "static " + square.replace("f(", "nibble_f(") +
         "namespace nibble { void avx2_kernels() { static float x[1024]; nibble_f(x); } }\n",
         ["-mavx512f", "-mprefer-vector-width=512"], "zmm"),
        ("linear.cc.o", square, ["-mavx2"], "ymm"),
        ("linear.cc.o", square, [], None),
    ]
    arm_compiler = "c++" if platform.machine() == "aarch64" else "aarch64-linux-gnu-g++"
    x86_compiler = "c++" if platform.machine() == "x86_64" else "x86_64-linux-gnu-g++"
    cases = [(compiler, *case) for compiler, group in ((arm_compiler, arm), (x86_compiler, x86))
             if shutil.which(compiler) for case in group]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for index, (compiler, name, source, flags, expected) in enumerate(cases):
            path = pathlib.Path(folder, str(index), name)
            path.parent.mkdir(parents=True)
            subprocess.run([compiler, "-x", "c++", "-", "-c", "-O3", "-std=c++20", *flags, "-o", str(path)],
                           input=source, text=True, check=True)
            offenders = check_object(path)
            good = any(expected in o for o in offenders) if expected else not offenders
            if not good:
                failures += 1
                print(f"self-test {index} ({name} {flags}): expected {expected}, found {offenders}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return 1 if self_test() else 0
    if args.build is None:
        parser.error("name a build directory, or --self-test")
    offenders = check_build(args.build)
    for offender in offenders:
        print(offender)
    return 1 if offenders else 0


if __name__ == "__main__":
    sys.exit(main())
