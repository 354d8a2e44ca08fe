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


def sparsemax(s):
    """Of one row, by a sort; −inf is no column."""
    ordered = jnp.sort(s)[::-1]
    some = jnp.isfinite(ordered)
    ordered = jnp.where(some, ordered, 0.0)
    sums = jnp.cumsum(ordered)
    counts = jnp.arange(1, len(s) + 1)
    support = (some & (1 + counts * ordered > sums)).sum()
    threshold = (sums[support - 1] - 1) / support
    return jnp.where(s > threshold, jnp.where(jnp.isfinite(s), s, 0.0) - threshold, 0.0)


def entmax15(s):
    """Of one row, by a sort: the closed form of α = 1.5."""
    z = jnp.where(jnp.isfinite(s), s / 2, 0.0)
    top = jnp.where(jnp.isfinite(s), s / 2, -jnp.inf)
    ordered = jnp.sort(top)[::-1]
    some = jnp.isfinite(ordered)
    ordered = jnp.where(some, ordered, 0.0)
    counts = jnp.arange(1, len(s) + 1)
    means = jnp.cumsum(ordered) / counts
    spread = jnp.cumsum(ordered**2) - counts * means**2
    roots = jnp.maximum((1 - spread) / counts, 0.0)
    thresholds = means - jnp.sqrt(jnp.where(roots > 0, roots, 1.0)) * (roots > 0)
    support = (some & (thresholds <= ordered)).sum()
    threshold = thresholds[support - 1]
    return jnp.where(top > threshold, (z - threshold) ** 2, 0.0)


def entmax(s, alpha):
    """Of one row, by bisection; one Newton step from there has the gradients of the threshold."""
    e = alpha - 1
    seen = jnp.isfinite(s)
    z = e * jnp.where(seen, s, 0.0)
    largest = jnp.where(seen, z, -jnp.inf).max()

    def sums(threshold):
        base = jnp.where(seen, z - threshold, -1.0)
        inside = base > 0
        return jnp.where(inside, jnp.where(inside, base, 1.0) ** (1 / e), 0.0)

    low, high = jax.lax.stop_gradient((largest - 1, largest))
    for _ in range(200):
        middle = (low + high) / 2
        above = jax.lax.stop_gradient(sums(middle).sum()) > 1
        low, high = jnp.where(above, middle, low), jnp.where(above, high, middle)
    value, slope = sums(low).sum(), jax.lax.stop_gradient(jax.grad(lambda t: sums(t).sum())(low))
    return sums(low - (value - 1) / slope)


def with_threshold(config, s, some, alpha, labels):
    """Sparsemax and entmax of rows: p, its entropy, support and loss."""
    kind = config["kind"]
    safe = jnp.where(some[:, None], s, 0.0)
    if kind == "sparsemax":
        fixed, p = 2.0, jax.vmap(sparsemax)(safe)
    else:
        fixed = f64(kind["entmax"]["alpha"])
        if alpha is None and fixed == 1.5:
            p = jax.vmap(entmax15)(safe)
        else:
            fixed = fixed if alpha is None else alpha
            p = jax.vmap(entmax)(safe, jnp.broadcast_to(fixed, s.shape[:1]))
    p = jnp.where(some[:, None], p, 0.0)
    logs = jnp.log(jnp.where(p > 0, p, 1.0))
    out = {"p": p, "entropy": -(p * logs).sum(axis=1), "support": (p > 0).sum(axis=1)}
    if labels is not None:
        finite = jnp.where(jnp.isfinite(s), s, 0.0)
        fixed = jnp.broadcast_to(fixed, s.shape[:1])
        powers = jnp.where(p > 0, jnp.exp(fixed[:, None] * logs), 0.0).sum(axis=1)
        known = labels < s.shape[1]
        of_label = jnp.take_along_axis(finite, jnp.where(known, labels, 0)[:, None], axis=1)[:, 0]
        loss = (p * finite).sum(axis=1) - of_label + (1 - powers) / (fixed * (fixed - 1))
        out["loss"] = jnp.where(known, loss, 0.0)
    return out


def softmax(config, x, mask=None, row_scale=None, alpha=None, labels=None):
    """p or log p, lse, entropy and what else there is."""
    allowed = jnp.ones(x.shape, bool) if mask is None else jnp.asarray(mask)
    scale = scale_of(config, allowed.sum(axis=1).astype(jnp.float64))
    scale = scale if row_scale is None else scale * row_scale
    seen = allowed & (x != -jnp.inf)
    some = seen.any(axis=1)
    # Twice where: nothing that is hidden reaches a gradient.
    scores = scale[:, None] * jnp.where(seen, x, 0.0)
    masked = jnp.where(seen, scores, jnp.where(some[:, None], -jnp.inf, 0.0))
    kind = config.get("kind", "softmax")
    if kind == "sparsemax" or "entmax" in kind:
        return with_threshold(config, masked, some, alpha, labels)
    if "top_k" in kind:
        order = jnp.argsort(-jnp.where(seen, scores, -jnp.inf), axis=1, stable=True)
        ranks = jnp.argsort(order, axis=1)
        seen &= ranks < kind["top_k"]["k"]
        masked = jnp.where(seen, scores, jnp.where(some[:, None], -jnp.inf, 0.0))
    if kind == "taylor":
        masked = jnp.where(seen, jnp.log(1 + scores + scores**2 / 2), masked)
        scores = masked
    lse = jax.nn.logsumexp(masked, axis=1)
    log_p = jnp.where(seen, scores - lse[:, None], 0.0)
    p = jnp.where(seen, jnp.exp(log_p), 0.0)
    entropy = -(p * log_p).sum(axis=1)
    out = {"p": p, "lse": jnp.where(some, lse, -jnp.inf), "entropy": entropy}
    if config.get("log", False):
        out["p"] = jnp.where(seen, log_p, -jnp.inf)
    if labels is not None:
        known = labels < x.shape[1]
        of_label = jnp.take_along_axis(scores, jnp.where(known, labels, 0)[:, None], axis=1)[:, 0]
        out["loss"] = jnp.where(known, lse - of_label, 0.0)
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
# Of kinds that hide columns: config, mask, scales, and how many alphas there are; all but top-k with labels.
HIDING = {
    "cross_entropy": ({"scale": {"temperature": 0.7}}, "mask", "rows", None),
    "cross_entropy_log": ({"log": True}, "", None, None),
    "top_k": ({"kind": {"top_k": {"k": 1}}}, "", None, None),
    "top_k_log": ({"kind": {"top_k": {"k": 1}}, "scale": {"fixed": -1.5}, "log": True}, "mask", "rows", None),
    "sparsemax": ({"kind": "sparsemax"}, "", None, None),
    "sparsemax_row_scale": ({"kind": "sparsemax", "scale": {"kappa_log_n": {"kappa": 0.4}}}, "mask", "rows", None),
    "entmax15": ({"kind": {"entmax": {"alpha": 1.5}}}, "mask", "one", None),
    "entmax": ({"kind": {"entmax": {"alpha": 1.25}}, "scale": {"temperature": 0.7}}, "", None, None),
    "entmax_alphas": ({"kind": {"entmax": {"alpha": 1.5}}}, "mask", "rows", "rows"),
    "entmax_alpha": ({"kind": {"entmax": {"alpha": 1.5}}}, "", None, "one"),
}
# Of the two long shapes, which are read twice and split, one each.
LONG = ["long_log_n", "split_kappa_log_n", "long_sparsemax", "split_entmax_alphas"]


def drawn(case, shape, masked, scales, alphas=None, labelled=False):
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
    if alphas:
        inputs["alpha"] = (1 + draw.rng.random(shape[0] if alphas == "rows" else 1)).astype(np.float32)
    if labelled:
        seen = inputs.get("mask", np.ones(shape, bool)) & (inputs["x"] != -np.inf)
        labels = [np.flatnonzero(row)[-1] if row.any() and i != 3 else 2**32 - 1 for i, row in enumerate(seen)]
        inputs["labels"] = np.array(labels, np.uint32)
    return draw, inputs


def widened(config, columns):
    """With as many columns kept as rows have room for."""
    if "top_k" in config.get("kind", ""):
        return config | {"kind": {"top_k": {"k": (columns + 1) // 2}}}
    return config


def cases():
    for shape_name, shape in SHAPES.items():
        for name, (config, masked, scales) in OPTIONS.items():
            case = f"{shape_name}_{name}"
            if shape[1] < 4000 or case in LONG:
                yield case, shape, config, masked, scales, None, False
    for shape_name, shape in SHAPES.items():
        for name, (config, masked, scales, alphas) in HIDING.items():
            case = f"{shape_name}_{name}"
            if shape[1] < 4000 and shape_name != "one" or case in LONG:
                yield case, shape, widened(config, shape[1]), masked, scales, alphas, "top_k" not in name


def to_jax(name, value):
    return {"mask": value, "labels": jnp.asarray(value.astype(np.int64))}[name] if name in ("mask", "labels") else f64(value)


def softmax_cases():
    """Pairs of a name, config, inputs and results."""
    for case, shape, config, *options in cases():
        _, inputs = drawn(case, shape, *options)
        yield case, config, inputs, softmax(config, **{name: to_jax(name, value) for name, value in inputs.items()})


def softmax_backward_cases():
    """The same, with the gradients of all outputs, or of some."""
    for index, (case, shape, config, *options) in enumerate(cases()):
        draw, inputs = drawn(case, shape, *options)
        given = {name: to_jax(name, value) for name, value in inputs.items()}
        fixed = {name: given.pop(name, None) for name in ("mask", "labels")}
        taken = ["p", "lse", "entropy"] if index % 3 == 0 else [["p"], ["p", "entropy"]][index % 2]
        kind = config.get("kind", "softmax")
        if kind == "sparsemax" or "entmax" in kind:
            taken = [name for name in taken if name != "lse"]
        taken += ["loss"] if "labels" in inputs else []

        def loss(given, incoming):
            out = softmax(config, **fixed, **given)
            finite = {name: jnp.where(jnp.isfinite(out[name]), out[name], 0.0) for name in incoming}
            return sum((finite[name] * incoming[name]).sum() for name in incoming)

        incoming = {name: draw.normal(*(shape if name == "p" else shape[:1])) for name in taken}
        gradients = jax.grad(loss)(given, {name: f64(value) for name, value in incoming.items()})
        inputs |= {f"d{name}": value for name, value in incoming.items()}
        if fixed["mask"] is not None:
            inputs["dp"][~fixed["mask"]] = np.nan
        yield case, config, inputs, {f"d{name}": value for name, value in gradients.items()}
