"""Compile HLSL with the library of DXC, as wgpu does, and print the files that compile.

    python3 dxc.py LIBRARY FILE...

What DXC says of another goes to FILE.log. There is no program of DXC for Linux that a package manager has, only the
library, whose interface is COM: objects with a table of functions.
"""

import ctypes
import sys
import uuid

COMPILER_CLASS = "73e22d93-e6ce-47f3-b5bf-f0664f39c1b0"
COMPILER = "228b4687-5a6a-4730-900c-9702b2203f54"
RESULT = "58346cda-dde7-4497-9461-6f87af5e0659"
# Places in the tables. Three are of every object; two more, on Linux, are its destructor.
COMPILE, GET_STATUS, GET_ERRORS, GET_POINTER, RELEASE = 5, 5, 7, 5, 2
UTF8 = 65001
# wgpu's own, and shader model 6.0, the oldest that has subgroups.
ARGUMENTS = ["-E", "main", "-HV", "2018", "-no-warnings", "-Ges"]
PORTABLE = [*ARGUMENTS, "-T", "cs_6_0"]
# The oldest that has a type of 16 bits.
HALVES = [*ARGUMENTS, "-T", "cs_6_2", "-enable-16bit-types"]


class Source(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("size", ctypes.c_size_t), ("encoding", ctypes.c_uint32)]


def guid(text):
    return uuid.UUID(text).bytes_le


def call(this, place, *arguments, result=ctypes.c_int32):
    table = ctypes.cast(this, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    types = [ctypes.c_void_p if isinstance(a, ctypes.c_void_p) or a is None else type(a) for a in arguments]
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *types)(table[place])(this, *arguments)


def compile_file(compiler, path):
    """What DXC says, nothing if it takes the file."""
    with open(path, "rb") as file:
        text = file.read()
    source = ctypes.pointer(Source(text, len(text), UTF8))
    chosen = HALVES if b"half" in text.replace(b"f16_half", b"") else PORTABLE
    arguments = (ctypes.c_wchar_p * len(chosen))(*chosen)
    result, errors, status = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int32()
    code = call(
        compiler,
        COMPILE,
        source,
        arguments,
        ctypes.c_uint32(len(chosen)),
        None,
        ctypes.c_char_p(guid(RESULT)),
        ctypes.pointer(result),
    )
    if code != 0:
        return f"Compile: {code & 0xFFFFFFFF:#x}\n"
    call(result, GET_STATUS, ctypes.pointer(status))
    said = f"status {status.value & 0xFFFFFFFF:#x}\n" if status.value != 0 else ""
    if said and call(result, GET_ERRORS, ctypes.pointer(errors)) == 0 and errors:
        said += ctypes.string_at(call(errors, GET_POINTER, result=ctypes.c_void_p)).decode()
        call(errors, RELEASE)
    call(result, RELEASE)
    return said


def main():
    library = ctypes.CDLL(sys.argv[1])
    compiler = ctypes.c_void_p()
    code = library.DxcCreateInstance(guid(COMPILER_CLASS), guid(COMPILER), ctypes.byref(compiler))
    if code != 0:
        sys.exit(f"DxcCreateInstance: {code & 0xFFFFFFFF:#x}")
    for path in sys.argv[2:]:
        said = compile_file(compiler, path)
        with open(path + ".log", "w") as log:
            log.write(said)
        if not said:
            print(path, flush=True)


main()
