"""The language model of examples/length_generalization.rs a second time, in JAX: loss and gradients of one call, for some of its kinds.

    python3 -m venv target/golden && target/golden/bin/pip install jax==0.10.2 numpy==2.4.6 safetensors==0.8.0
    target/golden/bin/python tests/length_generalization/model.py

Each file beside this script holds weights, tokens and labels, and, of every parameter NAME, `want.NAME`, its gradient in f64, and
`f32.NAME`, the same computed in f32: how far a naive f32 computation is from the truth. It is written as whole matrices and shares nothing
with the crate.
"""

import os
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

jax.config.update("jax_default_matmul_precision", "highest")

VOCABULARY, DIM, UNITS, KEY_DIM, HEADS, BATCH, LEN = 11, 16, 2, 8, 2, 2, 19
WIDE = 2 * DIM  # of a unit's u and v
GLU = (8 * DIM + 2 * KEY_DIM) // 3  # of a gated linear unit
KINDS = ["relu2-n", "relu2-fixed", "relu2-sum", "gau-softmax", "gau-softmax-log-n", "softmax", "softmax-log-n", "linear"]
TRAINED = 16  # the fixed N, and the base of log n


def norm(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def silu(x):
    return x / (1 + jnp.exp(-x))


def turned(x):
    """Rotary embedding of neighbours in pairs; x is [..., len, dim]."""
    dim = x.shape[-1]
    angle = jnp.arange(LEN)[:, None] * 10000.0 ** (-2 * jnp.arange(dim // 2) / dim)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)


def weights(kind, s, dim):
    """Of scores [..., len, len], all keys up to a row's own seen."""
    seen = jnp.tril(jnp.ones((LEN, LEN), bool))
    n = jnp.arange(1, LEN + 1)[:, None].astype(s.dtype)
    if kind.startswith("relu2"):
        r = jnp.where(seen, jnp.maximum(s, 0) ** 2, 0)
        divisor = {"relu2-n": n * dim, "relu2-fixed": float(TRAINED * dim)}
        return r / (r.sum(-1, keepdims=True) + 1e-6 if kind == "relu2-sum" else divisor[kind])
    if kind == "linear":
        r = jnp.where(seen, s, 0)
        return r / (r.sum(-1, keepdims=True) + 1e-6)
    scale = jnp.log(n) / np.log(TRAINED) / dim**0.5 if kind.endswith("log-n") else 1 / dim**0.5
    return jax.nn.softmax(jnp.where(seen, s * scale, -jnp.inf), -1)


def unit(kind, p, x):
    u, v, z = jnp.split(silu(norm(x) @ p["input"]), [WIDE, 2 * WIDE], -1)
    gamma_q, beta_q, gamma_k, beta_k = p["maps"]
    q, k = turned(gamma_q * z + beta_q), turned(gamma_k * z + beta_k)
    a = weights(kind, q @ k.swapaxes(-1, -2), KEY_DIM)
    return x + (u * (a @ v)) @ p["output"]


def block(kind, p, x):
    def heads(y):
        return y.reshape(BATCH, LEN, HEADS, -1).swapaxes(1, 2)

    q, k, v = (heads(y) for y in jnp.split(norm(x) @ p["input"], 3, -1))
    q, k = turned(q), turned(k)
    if kind == "linear":
        q, k = (jnp.where(y > 0, y + 1, jnp.exp(jnp.minimum(y, 0))) for y in (q, k))
    o = weights(kind, q @ k.swapaxes(-1, -2), DIM // HEADS) @ v
    x = x + o.swapaxes(1, 2).reshape(BATCH, LEN, DIM) @ p["output"]
    a, b = jnp.split(norm(x) @ p["up"], 2, -1)
    return x + (silu(a) * b) @ p["down"]


def loss(kind, parameters, tokens, labels):
    x = parameters["embedding"][tokens]
    layer = unit if "maps" in next(iter(parameters["layers"])) else block
    for p in parameters["layers"]:
        x = layer(kind, p, x)
    logits = norm(x) @ parameters["head"].T
    own = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    return -jnp.sum(jnp.where(labels >= 0, own, 0)) / jnp.sum(labels >= 0)


def flat(parameters):
    named = {name: parameters[name] for name in ("embedding", "head")}
    for i, p in enumerate(parameters["layers"]):
        named |= {f"layer{i}.{name}": value for name, value in p.items()}
    return named


def main():
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng(number)

        def normal(*shape, scale=1.0):
            return (scale * rng.standard_normal(shape)).astype(np.float32)

        if kind.startswith(("relu2", "gau")):
            layers = [
                {
                    "input": normal(DIM, 2 * WIDE + KEY_DIM, scale=DIM**-0.5),
                    "maps": normal(4, KEY_DIM),
                    "output": normal(WIDE, DIM, scale=WIDE**-0.5),
                }
                for _ in range(UNITS)
            ]
        else:
            layers = [
                {
                    "input": normal(DIM, 3 * DIM, scale=DIM**-0.5),
                    "output": normal(DIM, DIM, scale=DIM**-0.5),
                    "up": normal(DIM, 2 * GLU, scale=DIM**-0.5),
                    "down": normal(GLU, DIM, scale=GLU**-0.5),
                }
                for _ in range(UNITS // 2)
            ]
        parameters = {"embedding": normal(VOCABULARY, DIM), "head": normal(VOCABULARY, DIM, scale=0.5), "layers": layers}
        tokens = rng.integers(0, VOCABULARY, (BATCH, LEN))
        labels = np.where(rng.random((BATCH, LEN)) < 0.8, rng.integers(0, VOCABULARY, (BATCH, LEN)), -1)

        def gradients(dtype):
            cast = jax.tree.map(lambda x: jnp.asarray(x, dtype), parameters)
            value, grads = jax.value_and_grad(lambda p: loss(kind, p, tokens, labels))(cast)
            return value, flat(grads)

        value, want = gradients(jnp.float64)
        _, naive = gradients(jnp.float32)
        tensors = {name: np.asarray(tensor) for name, tensor in flat(parameters).items()}
        tensors |= {f"want.{name}": np.asarray(tensor) for name, tensor in want.items()}
        tensors |= {f"f32.{name}": np.asarray(tensor) for name, tensor in naive.items()}
        tensors |= {"tokens": tokens.astype(np.uint32), "labels": labels.astype(np.int32).view(np.uint32)}
        tensors |= {"want.loss": np.asarray(value)}
        save_file(tensors, Path(__file__).with_name(f"{kind}.safetensors"), {"made_with": f"jax {jax.__version__}, numpy {np.__version__}"})


if __name__ == "__main__":
    main()
