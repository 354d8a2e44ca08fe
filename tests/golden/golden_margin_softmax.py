"""Margin softmax from the angles themselves: every logit stored, the target's replaced."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64

NONE = 2**32 - 1


def target_cosine(margin, c, given):
    """What the margin makes of cos(theta), by theta; `given` are margins of rows."""
    if margin == "none":
        return c
    (kind, numbers), = margin.items()
    m = numbers.get("m")
    m = f64(m) if isinstance(m, float) else m
    m = m if given is None else given
    theta = jnp.arccos(jnp.clip(c, -1.0, 1.0))
    if kind == "cosine":
        return c - m
    if kind == "angular":
        turned = jnp.cos(theta + m)
        beyond = {"plain": turned, "monotone": jnp.where(theta + m < jnp.pi, turned, c - m * jnp.sin(m)),
                  "easy": jnp.where(c > 0, turned, c)}
        return beyond[numbers["beyond"]]
    if kind == "sphere":
        k = jnp.floor(theta * m / jnp.pi)
        return (-1.0) ** k * jnp.cos(m * theta) - 2 * k
    if kind == "sphere_min":
        return jnp.minimum(jnp.cos(m * theta), c)
    if kind == "combined":
        return jnp.cos(numbers["m1"] * theta + f64(numbers["m2"])) - f64(numbers["m3"])
    raise ValueError(kind)


def as_f64(x):
    """What is one already may be traced by jax.grad."""
    return x if isinstance(x, jax.Array) else f64(x)


def logits_of(config, features, weights, labels, bias=None, class_margins=None, row_margins=None):
    """Logits without a margin, and with it."""
    if config.get("normalize", True):
        features = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        weights = weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
    scale, margin = f64(config.get("scale", 64.0)), config.get("margin", "none")
    cosines = (features @ weights.T).reshape(features.shape[0], -1, config.get("centres", 1)).max(axis=2)
    classes = cosines.shape[1]
    own = np.arange(classes) == labels[:, None]
    given = row_margins
    if class_margins is not None:
        given = class_margins[np.minimum(labels, classes - 1)]
    given = None if given is None else given[:, None]
    bias = 0.0 if bias is None else bias
    if isinstance(margin, dict) and "metric" in margin:
        m = f64(margin["metric"]["m"]) if given is None else given
        plain = -scale * jnp.sqrt(1.0 - cosines) + bias
        return plain, jnp.where(own, plain - scale * m, plain), own
    plain = scale * cosines + bias
    return plain, jnp.where(own, scale * target_cosine(margin, cosines, given) + bias, plain), own


def margin_softmax(config, features, weights, labels, class_weights=None, sampled=None, **options):
    features, weights = as_f64(features), as_f64(weights)
    options = {name: as_f64(value) for name, value in options.items()}
    if sampled is not None:
        # The listed classes as if there were no others, and the numbers of the labels among them.
        weights = weights.reshape(-1, config.get("centres", 1), weights.shape[1])[sampled].reshape(-1, weights.shape[1])
        options = {name: value if name == "row_margins" else value[sampled] for name, value in options.items()}
        class_weights = None if class_weights is None else class_weights[sampled]
        labels = np.where(labels == NONE, NONE, np.searchsorted(sampled, labels)).astype(np.uint32)
    plain, logits, own = logits_of(config, features, weights, labels, **options)
    labelled = labels != NONE
    counts = jnp.ones(plain.shape[1]) if class_weights is None else f64(class_weights)
    counts = jnp.where(labelled, counts[np.minimum(labels, plain.shape[1] - 1)], 0.0)
    lse = jax.nn.logsumexp(logits, axis=1)
    p = jax.nn.softmax(logits, axis=1)
    smoothing, z_loss = f64(config.get("label_smoothing", 0.0)), f64(config.get("z_loss", 0.0))
    ones = (1.0 - smoothing) * own + smoothing / plain.shape[1]
    loss = counts * (jnp.sum(ones * (lse[:, None] - logits), axis=1) + z_loss * lse**2)
    reduction = config.get("reduction", "none")
    if reduction == "mean":
        weight = counts.sum()
        loss = loss.sum(keepdims=True) / jnp.where(weight == 0.0, 1.0, weight)
    elif reduction == "sum":
        loss = loss.sum(keepdims=True)
    without = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=1) - jnp.where(own, logits, 0.0).sum(axis=1)
    others = jnp.where(labelled, without, -jnp.inf)
    predicted = jnp.argmax(plain, axis=1)
    predicted = predicted if sampled is None else jnp.asarray(sampled)[predicted]
    return {"loss": loss, "lse": lse, "entropy": -(p * jax.nn.log_softmax(logits, axis=1)).sum(axis=1),
            "predicted": predicted.astype(jnp.float64), "others": others, "logits": plain if sampled is None else None}


def margin_softmax_inputs():
    """Pairs of a name, config and inputs."""
    angular = {f"arcface_{beyond}": {"angular": {"m": 0.5, "beyond": beyond}} for beyond in ["plain", "monotone", "easy"]}
    margins = {"none": "none", "cosface": {"cosine": {"m": 0.35}}, **angular, "sphere_4": {"sphere": {"m": 4}},
               "sphere_3": {"sphere": {"m": 3}}, "sphere_min_4": {"sphere_min": {"m": 4}},
               "combined": {"combined": {"m1": 2, "m2": 0.3, "m3": 0.2}}, "metric": {"metric": {"m": 0.4}}}
    cosface, smooth = margins["cosface"], {"label_smoothing": 0.1, "z_loss": 0.001}
    cases = [(name, [12, 40, 16], {"margin": margin, "scale": 30.0}, []) for name, margin in margins.items()]
    cases += [("mean", [20, 70, 9], {"margin": cosface, "scale": 10.0, "reduction": "mean"}, []),
              ("sum", [20, 70, 9], {"margin": cosface, "scale": 10.0, "reduction": "sum"}, []),
              ("linear", [70, 130, 8], {"normalize": False, "scale": 1.0}, []),
              ("linear_smooth", [20, 35, 8], {"normalize": False, "scale": 1.0, **smooth}, ["bias"]),
              ("one_class", [3, 1, 5], {"margin": cosface}, []),
              ("wide", [2, 1500, 4], {"margin": cosface}, []),
              ("weighted", [20, 30, 9], {"margin": cosface, "scale": 10.0, "reduction": "mean", **smooth},
               ["bias", "class_weights"]),
              ("class_margins", [12, 30, 8], {"margin": margins["arcface_monotone"], "scale": 16.0}, ["class_margins"]),
              ("row_margins", [12, 30, 8], {"margin": margins["arcface_plain"], "scale": 16.0}, ["row_margins"]),
              ("metric_margins", [12, 30, 8], {"margin": margins["metric"], "scale": 16.0}, ["row_margins", "bias"]),
              ("centres", [12, 20, 8], {"margin": margins["arcface_easy"], "scale": 16.0, "centres": 3, **smooth}, []),
              ("centres_plain", [12, 9, 8], {"normalize": False, "scale": 0.5, "centres": 2}, ["class_weights"]),
              ("sampled", [12, 50, 8], {"margin": cosface, "scale": 16.0, "reduction": "mean", **smooth},
               ["bias", "class_weights", "sampled"]),
              ("sampled_centres", [12, 30, 8], {"margin": margins["arcface_monotone"], "scale": 16.0, "centres": 2},
               ["class_margins", "sampled"])]
    for case, (rows, classes, dim), config, options in cases:
        draw = Draw(case)
        centres = config.get("centres", 1)
        inputs = {"features": draw.normal(rows, dim), "weights": draw.normal(classes * centres, dim),
                  "labels": draw.rng.integers(0, classes, rows).astype(np.uint32)}
        inputs["labels"][3::7] = NONE
        # Some rows near their targets, and some far from them, as every part of a margin needs.
        for i in range(0, rows, 2):
            if inputs["labels"][i] != NONE and classes > 1:
                near = (1.0 if i % 4 else -1.0) * inputs["weights"][inputs["labels"][i] * centres]
                inputs["features"][i] = near + 0.3 * inputs["features"][i]
        if "sampled" in options:
            others = draw.rng.permutation(classes)[:classes // 4]
            own = inputs["labels"][inputs["labels"] != NONE]
            inputs["sampled"] = np.union1d(own, others).astype(np.uint32)
        for name in [name for name in options if name != "sampled"]:
            numbers = draw.normal(rows if name == "row_margins" else classes)
            inputs[name] = numbers if name == "bias" else np.minimum(np.abs(numbers), np.float32(3.0))
        yield case, config, inputs


def margin_softmax_cases():
    """The inputs, and their results."""
    for case, config, inputs in margin_softmax_inputs():
        yield case, config, inputs, margin_softmax(config, **inputs)


def margin_softmax_backward_cases():
    """The same inputs with what the loss saved, and the gradients of all results, or of some."""
    for index, (case, config, inputs) in enumerate(margin_softmax_inputs()):
        fixed = {name: value for name, value in inputs.items() if name not in ["features", "weights", "bias"]}
        moved = {name: f64(value) for name, value in inputs.items() if name not in fixed}
        config = config | {"form": ["workspace", "recompute"][index % 2]}
        if case == "combined":
            config["through_norm"] = False
        taken = [["loss"], ["loss", "lse"], ["loss", "lse", "entropy"]][index % 3]
        saved = margin_softmax(config, **fixed, **moved)
        draw = Draw(f"{case}_backward")
        incoming = {name: draw.normal(*saved[name].shape) for name in taken}

        def loss(moved):
            out = margin_softmax(config, **fixed, **moved)
            return sum((out[name] * f64(incoming[name])).sum() for name in incoming)

        gradients = jax.grad(loss)(moved)
        if case == "combined":
            # What is before the norms: a of (a - x (x . a)) / |x| is not known from it, and so comes from the unit rows alone.
            units = {name: moved[name] / jnp.linalg.norm(moved[name], axis=1, keepdims=True) for name in moved}
            plain = config | {"normalize": False}

            def of_units(units):
                out = margin_softmax(plain, **fixed, **units)
                return sum((out[name] * f64(incoming[name])).sum() for name in incoming)

            gradients = jax.grad(of_units)(units)
        names = ["lse", "others"] + (["entropy"] if "entropy" in taken else [])
        inputs = inputs | {name: np.asarray(saved[name], np.float32) for name in names}
        inputs |= {f"d{name}": value for name, value in incoming.items()}
        yield case, config, inputs, {f"d{name}": value for name, value in gradients.items()}
