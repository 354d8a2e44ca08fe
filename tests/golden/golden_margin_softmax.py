"""Margin softmax from the angles themselves: every logit stored, the target's replaced."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64

NONE = 2**32 - 1


def target_cosine(margin, c):
    """What the margin makes of cos(theta), by theta."""
    if margin == "none":
        return c
    (kind, numbers), = margin.items()
    m = numbers.get("m")
    m = f64(m) if isinstance(m, float) else m
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


def margin_softmax(config, features, weights, labels):
    features, weights = f64(features), f64(weights)
    if config.get("normalize", True):
        features = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        weights = weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
    scale, margin = f64(config.get("scale", 64.0)), config.get("margin", "none")
    cosines = features @ weights.T
    labelled = labels != NONE
    own = (np.arange(weights.shape[0]) == labels[:, None]) & labelled[:, None]
    if isinstance(margin, dict) and "metric" in margin:
        distances = jnp.sqrt(1.0 - cosines)
        logits = -scale * (distances + jnp.where(own, f64(margin["metric"]["m"]), 0.0))
    else:
        logits = scale * jnp.where(own, target_cosine(margin, cosines), cosines)
    lse = jax.nn.logsumexp(logits, axis=1)
    p = jax.nn.softmax(logits, axis=1)
    loss = jnp.where(labelled, lse - jnp.where(own, logits, 0.0).sum(axis=1), 0.0)
    reduction = config.get("reduction", "none")
    if reduction == "mean":
        loss = loss.sum(keepdims=True) / max(int(labelled.sum()), 1)
    elif reduction == "sum":
        loss = loss.sum(keepdims=True)
    return {"loss": loss, "lse": lse, "entropy": -(p * jax.nn.log_softmax(logits, axis=1)).sum(axis=1),
            "predicted": jnp.argmax(cosines, axis=1).astype(jnp.float64)}


def margin_softmax_cases():
    """Pairs of a name, config, inputs and results."""
    angular = {f"arcface_{beyond}": {"angular": {"m": 0.5, "beyond": beyond}} for beyond in ["plain", "monotone", "easy"]}
    margins = {"none": "none", "cosface": {"cosine": {"m": 0.35}}, **angular, "sphere_4": {"sphere": {"m": 4}},
               "sphere_3": {"sphere": {"m": 3}}, "sphere_min_4": {"sphere_min": {"m": 4}},
               "combined": {"combined": {"m1": 2, "m2": 0.3, "m3": 0.2}}, "metric": {"metric": {"m": 0.4}}}
    cases = [(name, [12, 40, 16], {"margin": margin, "scale": 30.0}) for name, margin in margins.items()]
    cases += [("mean", [20, 70, 9], {"margin": margins["cosface"], "scale": 10.0, "reduction": "mean"}),
              ("sum", [20, 70, 9], {"margin": margins["cosface"], "scale": 10.0, "reduction": "sum"}),
              ("linear", [70, 130, 8], {"normalize": False, "scale": 1.0}),
              ("one_class", [3, 1, 5], {"margin": margins["cosface"]}),
              ("wide", [2, 1500, 4], {"margin": margins["cosface"]})]
    for case, (rows, classes, dim), config in cases:
        draw = Draw(case)
        inputs = {"features": draw.normal(rows, dim), "weights": draw.normal(classes, dim),
                  "labels": draw.rng.integers(0, classes, rows).astype(np.uint32)}
        inputs["labels"][3::7] = NONE
        # Some rows near their targets, and some far from them, as every part of a margin needs.
        for i in range(0, rows, 2):
            if inputs["labels"][i] != NONE and classes > 1:
                near = (1.0 if i % 4 else -1.0) * inputs["weights"][inputs["labels"][i]]
                inputs["features"][i] = near + 0.3 * inputs["features"][i]
        yield case, config, inputs, margin_softmax(config, **inputs)
