"""Gumbel-softmax, and its gradients by JAX; the noise from Philox4x32-10 in integers of 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64


def philox(counter, seed):
    """The words of blocks: arrays of the four words of the counter and the two of the seed."""
    low = np.uint64(0xFFFFFFFF)
    c, k = [np.asarray(x, np.uint64) for x in counter], [np.asarray(x, np.uint64) for x in seed]
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(q >> np.uint64(32)) ^ c[1] ^ k[0], q & low, (p >> np.uint64(32)) ^ c[3] ^ k[1], p & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c


def gumbel(shape, key, seeds=None, row_ids=None):
    rows, columns = shape
    ids = np.asarray(row_ids if row_ids is not None else np.zeros(rows) if seeds is not None else np.arange(rows), np.uint64)
    ids = ((ids + np.uint64(key[4])) & np.uint64(0xFFFFFFFF))[:, None]
    low = np.asarray(seeds if seeds is not None else np.full(rows, key[0]), np.uint64)[:, None]
    column = np.arange(columns)[None]
    zero = np.zeros([rows, columns], np.uint64)
    counter = [zero + (column // 4).astype(np.uint64), zero + ids, zero + np.uint64(key[2]), zero + np.uint64(key[3])]
    words = np.stack(philox(counter, [zero + low, zero + np.uint64(key[1])]))
    x = np.take_along_axis(words, (column % 4 + 0 * zero.astype(np.int64))[None], axis=0)[0].astype(np.float64)
    v = np.minimum(((x + 0.5) / 2**32).astype(np.float32), np.float32(1 - 2.0**-24))
    return -jnp.log(-jnp.log1p(-v.astype(np.float64)))


def kept(config, logits, mask):
    keep = np.isfinite(logits) if mask is None else np.isfinite(logits) & mask
    k = config.get("top_k")
    if k is not None:
        ranked = np.argsort(np.where(keep, -f64(logits), np.inf), axis=1, kind="stable")
        top = np.zeros_like(keep)
        np.put_along_axis(top, ranked[:, :k], True, axis=1)
        keep &= top
    return keep


def soft(logits, tau, noise, keep):
    """The softmax of what is kept, 0 in a row without; JAX has the gradient of masked classes as 0."""
    scores = (jnp.where(keep, logits, 0.0) + noise) / tau
    weights = jax.nn.softmax(jnp.where(keep, scores, -1e300), axis=1)
    return jnp.where(keep & keep.any(axis=1, keepdims=True), weights, 0.0)


def temperature(config, tau, rows):
    tau = f64(config.get("tau", 1.0)) if tau is None else tau
    return jnp.broadcast_to(jnp.atleast_1d(jnp.asarray(tau, jnp.float64)), [rows])[:, None]


def gumbel_softmax(config, logits, key, mask=None, tau=None, seeds=None, row_ids=None):
    noise = gumbel(logits.shape, key, seeds, row_ids)
    keep = kept(config, logits, mask)
    best = jnp.argmax(jnp.where(keep, jnp.where(keep, f64(logits), 0.0) + noise, -jnp.inf), axis=1)
    some = keep.any(axis=1)
    kind = config.get("kind", "soft")
    if kind == "soft":
        y = soft(f64(logits), temperature(config, tau, len(logits)), noise, keep)
    else:
        y = jax.nn.one_hot(best, logits.shape[1]) * some[:, None]
    return {
        "y": None if kind == "sample" else y,
        "index": jnp.where(some, best, 2**32 - 1).astype(np.float64),
        "noise": noise,
    }


def gumbel_softmax_backward(config, logits, key, dy, mask=None, tau=None, seeds=None, row_ids=None):
    noise = gumbel(logits.shape, key, seeds, row_ids)
    keep = kept(config, logits, mask)
    own = jnp.where(keep, f64(logits), 0.0)

    def loss(logits, tau):
        return (jnp.where(keep, f64(dy), 0.0) * soft(logits, temperature(config, tau, len(logits)), noise, keep)).sum()

    if tau is None:
        return {"dlogits": jax.grad(lambda x: loss(x, None))(own)}
    dlogits, dtau = jax.grad(loss, argnums=(0, 1))(own, f64(tau))
    return {"dlogits": dlogits, "dtau": dtau}


def inputs_of(case, shape, masked=False, taus=0, seeds=False, row_ids=False):
    draw = Draw(case)
    rows, columns = shape
    inputs = {"logits": 2 * draw.normal(rows, columns), "key": draw.rng.integers(0, 2**32, 5, dtype=np.uint32)}
    if masked:
        inputs["mask"] = draw.mask(rows, columns)
        inputs["mask"][rows // 2] = False
        inputs["logits"][~inputs["mask"]] = np.nan
        inputs["logits"][0, -1] = -np.inf
    if taus:
        inputs["tau"] = np.exp(draw.normal(taus, scale=0.5)).astype(np.float32)
    if seeds:
        inputs["seeds"] = draw.rng.integers(0, 2**32, rows, dtype=np.uint32)
    if row_ids:
        inputs["row_ids"] = draw.rng.integers(0, 2**32, rows, dtype=np.uint32)
    return draw, inputs


CASES = {
    "soft": ({}, [6, 17], {}),
    "soft_mask_c64": ({"tau": 0.5}, [5, 64], {"masked": True}),
    "soft_taus_ids": ({}, [7, 33], {"taus": 7, "row_ids": True}),
    "soft_top_k_mask": ({"top_k": 5, "tau": 2.0}, [9, 40], {"masked": True, "taus": 1}),
    "soft_long": ({"tau": 0.75}, [1, 9001], {"taus": 1}),
    "hard_seeds": ({"kind": "hard"}, [6, 130], {"seeds": True}),
    "hard_one": ({"kind": "hard"}, [3, 1], {}),
}


def gumbel_softmax_cases():
    """Pairs of a name, config, inputs and results."""
    sample = {
        "sample": ({"kind": "sample"}, [12, 50], {}),
        "sample_top_k_ids": ({"kind": "sample", "top_k": 3}, [12, 50], {"masked": True, "row_ids": True, "seeds": True}),
    }
    for case, (config, shape, options) in (CASES | sample).items():
        _, inputs = inputs_of(case, shape, **options)
        yield case, config, inputs, gumbel_softmax(config, **inputs)


def gumbel_softmax_backward_cases():
    """Pairs of a name, config, inputs and results."""
    for case, (config, shape, options) in CASES.items():
        draw, inputs = inputs_of(case, shape, **options)
        inputs["dy"] = draw.normal(*shape)
        inputs["dy"][~kept(config, inputs["logits"], inputs.get("mask"))] = np.nan
        yield case, config, inputs, gumbel_softmax_backward(config, **inputs)
