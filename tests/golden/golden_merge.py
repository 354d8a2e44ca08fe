"""Merges of partial attention results: the weights of the parts are the softmax of their log-sum-exp."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64


def merge(config, o_parts, lse_parts, entropy_parts=None, o=None, lse=None, entropy=None):
    if config.get("accumulate", False):
        o_parts = np.concatenate([o[None], o_parts])
        lse_parts = np.concatenate([lse[None], lse_parts])
        entropy_parts = None if entropy_parts is None else np.concatenate([entropy[None], entropy_parts])
    scores = f64(lse_parts)
    seen = jnp.isfinite(scores)
    some = seen.any(axis=0)
    weights = jnp.where(seen & some, jax.nn.softmax(jnp.where(some, scores, 0.0), axis=0), 0.0)
    result = {
        "o": jnp.einsum("p...,p...d->...d", weights, jnp.where(seen[..., None], f64(o_parts), 0.0)),
        "lse": jax.nn.logsumexp(scores, axis=0),
    }
    if entropy_parts is not None:
        own = jnp.where(seen, f64(entropy_parts), 0.0)
        result["entropy"] = (weights * own - jax.scipy.special.xlogy(weights, weights)).sum(axis=0)
    return result


def merge_cases():
    """Pairs of a name, config, inputs and results."""
    shapes = {"two_n13": [2, 1, 2, 13, 16], "seven_d5": [7, 2, 1, 9, 5], "one": [1, 1, 1, 4, 3], "wide": [3, 1, 1, 2, 300]}
    for accumulate in [False, True]:
        for with_entropy in [False, True]:
            for name, shape in shapes.items():
                case = name + accumulate * "_accumulate" + with_entropy * "_entropy"
                draw = Draw(case)
                inputs = {"o_parts": draw.normal(*shape), "lse_parts": 4 * draw.normal(*shape[:4])}
                if with_entropy:
                    inputs["entropy_parts"] = abs(draw.normal(*shape[:4]))
                if accumulate:
                    inputs |= {"o": draw.normal(*shape[1:]), "lse": 4 * draw.normal(*shape[1:4])}
                    if with_entropy:
                        inputs["entropy"] = abs(draw.normal(*shape[1:4]))
                # Every fifth row of a part sees no key, and in every fourth row of all parts none does.
                for suffix in ["_parts", ""] if accumulate else ["_parts"]:
                    lse = inputs["lse" + suffix]
                    hidden = np.arange(lse.size).reshape(lse.shape) % 5 == 1
                    hidden |= np.arange(shape[3]) % 4 == 3
                    lse[hidden] = -np.inf
                    inputs["o" + suffix][hidden] = np.nan
                    if with_entropy:
                        inputs["entropy" + suffix][hidden] = np.nan
                config = {"accumulate": True} if accumulate else {}
                yield case, config, inputs, merge(config, **inputs)
