"""What the golden vectors of all ops share: random inputs and which keys a query sees."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def f64(x):
    """The f64 value of an f32 tensor, or of a config's number, which the crate holds in f32."""
    if isinstance(x, float):
        return float(np.float32(x))
    if isinstance(x, jax.Array):
        return x  # as it is, on its way through a gradient
    return None if x is None else jnp.asarray(np.asarray(x).astype(np.float64))


class Draw:
    """Random inputs, seeded by the case's name."""

    def __init__(self, case):
        self.rng = np.random.default_rng(zlib.crc32(case.encode()))

    def normal(self, *shape, scale=1.0, dtype=np.float32):
        return (scale * self.rng.standard_normal(shape)).astype(np.float32).astype(dtype)

    def mask(self, *shape, keep=0.7):
        return self.rng.random(shape) < keep


def visible_keys(config, batch, n, m, kv_lens=None):
    """[batch, n, m]: which keys each query sees by causal mask, window and key lengths."""
    lens = jnp.full([batch], m) if kv_lens is None else jnp.minimum(jnp.asarray(np.asarray(kv_lens).astype(np.int64)), m)
    lens = lens[:, None, None]
    i, j = jnp.arange(n)[None, :, None], jnp.arange(m)[None, None, :]
    causal = config.get("causal", "none")
    if isinstance(causal, dict):
        shift = causal["offset"]
    else:
        shift = lens - n if causal == "bottom_right" else 0
    # How far key j lies to the right of the query's diagonal.
    right = j - (i + shift)
    seen = j < lens
    if causal != "none":
        seen &= right <= 0
    window = config.get("window", {})
    if window.get("left") is not None:
        seen &= right >= -window["left"]
    if window.get("right") is not None:
        seen &= right <= window["right"]
    return seen


def repeat_heads(x, heads):
    """Gives every query head its own copy of its key head."""
    return jnp.repeat(x, heads // x.shape[1], axis=1)
