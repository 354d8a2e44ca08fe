"""Writes the golden vectors: inputs in f32, results by JAX in f64. See README.md.

Every op is written here a second time, from its formula and with whole matrices (a softmax over a masked matrix, a
scan over tokens), so that it shares no idea with the crate's CPU twins, which are loops over rows.
"""

import importlib
import json
import pathlib

import jax
import numpy as np
import safetensors

jax.config.update("jax_enable_x64", True)

ROOT = pathlib.Path(__file__).resolve().parent
VERSIONS = {"jax": jax.__version__, "numpy": np.__version__}
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
          "uint8": "U8", "uint32": "U32", "int32": "I32", "int64": "I64"}


def write(op, case, config, inputs, want):
    """One file in the input format of `examples/op.rs`, plus a tensor `want.NAME` for each output.

    The container is written by hand because the safetensors package does not fix the order of the metadata, and the
    same vectors should be the same bytes; the package then reads it back.
    """
    tensors = {name: np.ascontiguousarray(value) for name, value in inputs.items() if value is not None}
    tensors |= {f"want.{name}": np.asarray(value, np.float64) for name, value in want.items() if value is not None}
    tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    metadata = {"op": op.removesuffix("_backward"), "config": json.dumps(config), "made_with": json.dumps(VERSIONS)}
    if op.endswith("_backward"):
        metadata["pass"] = "backward"
    header, offset = {"__metadata__": metadata}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": DTYPES[value.dtype.name], "shape": list(value.shape),
                        "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + b"".join(value.tobytes() for value in tensors.values())
    back = dict(safetensors.deserialize(data))
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        assert back[name]["shape"] == list(value.shape) and bytes(back[name]["data"]) == value.tobytes(), name
    path = ROOT / op / f"{case}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def main():
    written = set()
    scripts = sorted(path.stem for path in ROOT.glob("golden_*.py"))
    for op in (name.removeprefix("golden_") for name in scripts if name != "golden_common"):
        module = importlib.import_module(f"golden_{op}")
        for name in [op, f"{op}_backward"]:
            for case, config, inputs, want in getattr(module, f"{name}_cases", lambda: [])():
                path = write(name, case, config, inputs, want)
                assert path not in written, path
                written.add(path)
        # What JAX compiled for one op's shapes is gigabytes, and of no use to the next.
        jax.clear_caches()
    for stale in set(ROOT.glob("*/*.safetensors")) - written:
        stale.unlink()
    total = sum(path.stat().st_size for path in written)
    print(f"{len(written)} files, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
