"""The multi-label loss, by logsumexp over scores and the zero that stands for the threshold; its gradients by jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64

NONE = 2**32 - 1


def labels_of(config, shape, inputs):
    """[rows, classes]: the weight of each class as a positive one."""
    if config.get("labels", "bitmap") == "soft":
        return f64(inputs["soft_labels"])
    if "labels" in inputs:
        return jnp.asarray((inputs["labels"] != 0).astype(np.float64))
    labels = np.zeros(shape)
    for row in range(shape[0]):
        if "label_indices" in inputs:
            own = inputs["label_indices"][row]
        else:
            first, end = inputs["label_offsets"][row:row + 2]
            own = inputs["label_list"][first:end]
        labels[row, own[own != NONE]] = 1.0
    return jnp.asarray(labels)


def threshold_of(config, inputs):
    fixed = config.get("threshold", {"fixed": 0.0})
    return f64(inputs["threshold"]) if fixed == "tensor" else jnp.asarray([f64(float(fixed["fixed"]))])


def rows_of(config, scores, labels, threshold, mask):
    """The two logarithms of each row."""
    x = scores - threshold
    weights = [1.0 - labels, labels] if mask is None else [jnp.where(mask, 1.0 - labels, 0.0), jnp.where(mask, labels, 0.0)]
    zero, one = jnp.zeros([len(scores), 1]), jnp.ones([len(scores), 1])
    pairs = [(jnp.concatenate([zero, sign * x], axis=1), jnp.concatenate([one, weight], axis=1))
             for sign, weight in zip([1.0, -1.0], weights)]
    if config.get("labels") == "soft" and abs(scores).max() < 100:
        # logsumexp has no gradient for weights that are 0.
        return [jnp.log((weight * jnp.exp(exponent)).sum(axis=1)) for exponent, weight in pairs]
    return [jax.nn.logsumexp(exponent, axis=1, b=weight) for exponent, weight in pairs]


def reduced(config, losses):
    match config.get("reduction", "none"):
        case "mean":
            return losses.mean(keepdims=True)
        case "sum":
            return losses.sum(keepdims=True)
    return losses


def loss(config, inputs):
    scores, mask = f64(inputs["scores"]), inputs.get("mask")
    x = scores - threshold_of(config, inputs)
    seen = np.ones(scores.shape, bool) if mask is None else mask
    result = {"predictions": jnp.where(seen, x > 0, 0.0), "probabilities": jnp.where(seen, jax.nn.sigmoid(2 * x), 0.0)}
    if config.get("labels") != "none":
        labels = labels_of(config, scores.shape, inputs)
        neg, pos = rows_of(config, scores, labels, threshold_of(config, inputs), mask)
        result |= {"loss": reduced(config, neg + pos), "lse_neg": neg, "lse_pos": pos}
    return result


def gradients(config, inputs):
    scores, dloss = f64(inputs["scores"]), f64(inputs["dloss"])
    labels = labels_of(config, scores.shape, inputs)

    def weighted(scores, labels, threshold):
        neg, pos = rows_of(config, scores, labels, threshold, inputs.get("mask"))
        return (reduced(config, neg + pos) * dloss).sum()

    of = jax.grad(weighted, argnums=[0, 1, 2])(scores, labels, threshold_of(config, inputs))
    wanted = [True, config.get("labels") == "soft", config.get("threshold") == "tensor"]
    return {name: one for name, one, want in zip(["dscores", "dsoft_labels", "dthreshold"], of, wanted) if want}


def calls():
    """Pairs of a name, config and inputs of the loss."""
    shapes = {"five": [6, 5], "n40": [9, 40], "n300": [3, 300], "one": [4, 1], "n4100": [1, 4100]}
    reductions = ["none", "mean", "sum"]
    turn = 0
    for labels in ["bitmap", "indices", "offsets", "soft"]:
        for name, (rows, classes) in shapes.items():
            for kind in ["fixed", "one", "each"]:
                turn += 1
                if rows * classes > 2000 and turn % 6 != 0:
                    continue
                case = f"{labels}_{name}_{kind}"
                draw = Draw(case)
                config, inputs = {"labels": labels}, {"scores": draw.normal(rows, classes, scale=3.0)}
                if turn % 5 == 0:
                    inputs["scores"] *= 1000.0
                if reductions[turn % 3] != "none":
                    config["reduction"] = reductions[turn % 3]
                hard = draw.mask(rows, classes, keep=0.2)
                lists = [np.flatnonzero(row).astype(np.uint32)[::-1] for row in hard]
                if labels == "bitmap":
                    inputs["labels"] = hard
                elif labels == "indices":
                    inputs["label_indices"] = np.full([rows, max(map(len, lists)) + 2], NONE, np.uint32)
                    for row, own in zip(inputs["label_indices"], lists):
                        row[1:1 + len(own)] = own
                        row[-1:] = own[:1] if len(own) else NONE
                elif labels == "offsets":
                    inputs["label_list"] = np.concatenate([np.append(own, own[:1]) for own in lists]).astype(np.uint32)
                    inputs["label_offsets"] = np.cumsum([0] + [len(own) + min(len(own), 1) for own in lists]).astype(np.uint32)
                else:
                    soft = 1 / (1 + np.exp(draw.normal(rows, classes)))
                    inputs["soft_labels"] = np.where(draw.mask(rows, classes, keep=0.9), soft, hard).astype(np.float32)
                if kind != "fixed":
                    config["threshold"] = "tensor"
                    inputs["threshold"] = draw.normal(1 if kind == "one" else classes)
                elif turn % 2 == 0:
                    config["threshold"] = {"fixed": 0.625}
                if turn % 4 != 1:
                    inputs["mask"] = draw.mask(rows, classes)
                    inputs["mask"][0] &= rows == 1
                yield case, config, inputs


def multilabel_softmax_cases():
    """Pairs of a name, config, inputs and results."""
    for case, config, inputs in calls():
        yield case, config, inputs, loss(config, inputs)
    scores = Draw("predictions").normal(5, 9)
    yield "predictions", {"labels": "none"}, {"scores": scores}, loss({"labels": "none"}, {"scores": scores})


def multilabel_softmax_backward_cases():
    for case, config, inputs in calls():
        rows = len(inputs["scores"])
        saved = loss(config, inputs)
        # Labels of 0 and 1 whose scores say the opposite have gradients past all bounds.
        if config["labels"] == "soft" and abs(inputs["scores"]).max() > 100:
            continue
        more = {name: np.asarray(saved[name]).astype(np.float32) for name in ["lse_neg", "lse_pos"]}
        more["dloss"] = Draw(case + "_backward").normal(1 if "reduction" in config else rows)
        yield case, config, inputs | more, gradients(config, inputs | more)
