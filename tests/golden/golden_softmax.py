"""Softmax of rows, and its gradients: jax.nn.softmax where every column that takes part is, and jax.vjp through that."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64


def scale_of(config, counts):
    scale = config.get("scale", {"temperature": 1.0})
    (kind, value), = scale.items()
    logs = jnp.log(jnp.maximum(counts, 1))
    if kind == "temperature":
        return jnp.full(counts.shape, 1 / f64(value))
    if kind == "fixed":
        return jnp.full(counts.shape, f64(value))
    if kind == "log_n":
        return jnp.log(jnp.maximum(counts, value["floor"])) / jnp.log(f64(value["base"]))
    if kind == "kappa_log_n":
        return f64(value["kappa"]) * logs
    return jnp.maximum(1.0, logs / jnp.log(value["train_len"]))


def softmax(config, x, mask=None, row_scale=None):
    """p or log p, lse and entropy."""
    allowed = jnp.ones(x.shape, bool) if mask is None else jnp.asarray(mask)
    scale = scale_of(config, allowed.sum(axis=1).astype(jnp.float64))
    scale = scale if row_scale is None else scale * row_scale
    seen = allowed & (x != -jnp.inf)
    some = seen.any(axis=1)
    # Twice where: nothing that is hidden reaches a gradient.
    scores = scale[:, None] * jnp.where(seen, x, 0.0)
    masked = jnp.where(seen, scores, jnp.where(some[:, None], -jnp.inf, 0.0))
    if config.get("kind", "softmax") == "taylor":
        masked = jnp.where(seen, jnp.log(1 + scores + scores**2 / 2), masked)
        scores = masked
    lse = jax.nn.logsumexp(masked, axis=1)
    log_p = jnp.where(seen, scores - lse[:, None], 0.0)
    p = jnp.where(seen, jnp.exp(log_p), 0.0)
    entropy = -(p * log_p).sum(axis=1)
    out = {"p": p, "lse": jnp.where(some, lse, -jnp.inf), "entropy": entropy}
    if config.get("log", False):
        out["p"] = jnp.where(seen, log_p, -jnp.inf)
    return out


SHAPES = {"one": [1, 1], "short": [7, 5], "mid": [5, 130], "long": [2, 4103], "split": [1, 16387]}
OPTIONS = {
    "plain": ({}, "", None),
    "temperature_log": ({"scale": {"temperature": 0.7}, "log": True}, "", None),
    "fixed_row_scale": ({"scale": {"fixed": -1.5}}, "mask", "rows"),
    "log_n": ({"scale": {"log_n": {"base": 512.0, "floor": 16}}, "log": True}, "mask", None),
    "kappa_log_n": ({"scale": {"kappa_log_n": {"kappa": 0.4}}}, "mask", "one"),
    "taylor": ({"kind": "taylor"}, "mask", "rows"),
    "taylor_log": ({"kind": "taylor", "scale": {"temperature": 0.7}, "log": True}, "", None),
    "log_n_inference": ({"scale": {"log_n_inference": {"train_len": 64}}, "log": True}, "mask", "rows"),
}
# Of the two long shapes, which are read twice and split, one each.
LONG = ["long_log_n", "split_kappa_log_n"]


def drawn(case, shape, masked, scales):
    draw = Draw(case)
    inputs = {"x": draw.normal(*shape, scale=2.0)}
    if shape[0] > 2:
        inputs["x"][1, ::3] = -np.inf
        inputs["x"][2] += 30.0
    if masked:
        inputs["mask"] = draw.mask(*shape)
        inputs["mask"][-1] &= shape[0] < 4
        inputs["x"][~inputs["mask"]] = np.nan
    if scales:
        inputs["row_scale"] = draw.normal(shape[0] if scales == "rows" else 1)
    return draw, inputs


def cases():
    for shape_name, shape in SHAPES.items():
        for name, (config, masked, scales) in OPTIONS.items():
            case = f"{shape_name}_{name}"
            if shape[1] < 4000 or case in LONG:
                yield case, shape, config, masked, scales


def softmax_cases():
    """Pairs of a name, config, inputs and results."""
    for case, shape, config, masked, scales in cases():
        _, inputs = drawn(case, shape, masked, scales)
        given = {name: value if name == "mask" else f64(value) for name, value in inputs.items()}
        yield case, config, inputs, softmax(config, **given)


def softmax_backward_cases():
    """The same, with the gradients of all outputs, or of some."""
    for index, (case, shape, config, masked, scales) in enumerate(cases()):
        draw, inputs = drawn(case, shape, masked, scales)
        given = {name: value if name == "mask" else f64(value) for name, value in inputs.items()}
        mask = given.pop("mask", None)
        taken = ["p", "lse", "entropy"] if index % 3 == 0 else [["p"], ["p", "entropy"]][index % 2]

        def loss(given, incoming):
            out = softmax(config, mask=mask, **given)
            finite = {name: jnp.where(jnp.isfinite(out[name]), out[name], 0.0) for name in incoming}
            return sum((finite[name] * incoming[name]).sum() for name in incoming)

        incoming = {name: draw.normal(*(shape if name == "p" else shape[:1])) for name in taken}
        gradients = jax.grad(loss)(given, {name: f64(value) for name, value in incoming.items()})
        inputs |= {f"d{name}": value for name, value in incoming.items()}
        if mask is not None:
            inputs["dp"][~mask] = np.nan
        yield case, config, inputs, {f"d{name}": value for name, value in gradients.items()}
