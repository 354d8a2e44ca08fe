"""Softmax attention: o = softmax(scale * q k^T, softcap, + bias, masks) v, log-sum-exp and row entropy."""

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from golden_common import Draw, f64, repeat_heads, visible_keys


def row_scale_of(config, n, d, given):
    """The factor of each row's scores; n is the number of keys it sees."""
    scale = config.get("scale", "inv_sqrt_dim")
    kind, value = next(iter(scale.items())) if isinstance(scale, dict) else (scale, None)
    log_n = jnp.log(jnp.maximum(n, 1))
    match kind:
        case "inv_sqrt_dim":
            return jnp.full(n.shape, d**-0.5)
        case "fixed":
            return jnp.full(n.shape, f64(value))
        case "log_n":
            return jnp.log(jnp.maximum(n, value["floor"])) / jnp.log(f64(value["base"])) / math.sqrt(d)
        case "kappa_log_n":
            return f64(value["kappa"]) * log_n / d
        case "log_n_inference":
            return jnp.maximum(1.0, log_n / math.log(value["train_len"])) / math.sqrt(d)
        case "log_n_sqrt_dim":
            return log_n / math.sqrt(d)
        case "scalable_softmax":
            return f64(value["s"]) * log_n / (math.sqrt(d) if value["inv_sqrt_dim"] else 1.0)
        case "per_row":
            return jnp.broadcast_to(given, n.shape)
    raise ValueError(kind)


def attention(config, q, k, v, kv_lens=None, bias=None, mask=None, row_scale=None):
    q, k, v, bias, row_scale = map(f64, (q, k, v, bias, row_scale))
    batch, heads, n, d = q.shape
    m = k.shape[2]
    k, v = repeat_heads(k, heads), repeat_heads(v, heads)

    seen = jnp.broadcast_to(visible_keys(config, batch, n, m, kv_lens)[:, None], [batch, heads, n, m])
    if mask is not None:
        seen &= jnp.asarray(mask) != 0
    scale = row_scale_of(config, seen.sum(-1), d, row_scale)
    scores = scale[..., None] * jnp.einsum("bhic,bhjc->bhij", q, k)
    cap = config.get("softcap")
    if cap is not None:
        scores = f64(cap) * jnp.tanh(scores / f64(cap))
    if bias is not None:
        scores = scores + bias
        seen &= jnp.broadcast_to(bias, scores.shape) != -jnp.inf

    some = seen.any(-1)
    lse = jax.nn.logsumexp(jnp.where(seen, scores, -jnp.inf), axis=-1)
    weights = jnp.where(seen, jax.nn.softmax(scores, axis=-1, where=seen), 0.0)
    weights = jnp.where(some[..., None], weights, 0.0)
    entropy = -jax.scipy.special.xlogy(weights, weights).sum(-1)
    o = jnp.einsum("bhij,bhjc->bhic", weights, v)

    small = float(jnp.where(seen, jnp.abs(scores), 0.0).max()) < 50.0
    if cap is None and bool(some.all()) and small and v.shape[3] <= d:
        # JAX's own attention says the same. It takes the softmax in f32 whatever it is given, and values as wide as keys.
        swap = lambda x: jnp.swapaxes(x, 1, 2)
        finite = None if bias is None else jnp.where(seen, jnp.broadcast_to(bias, scores.shape), 0.0)
        wide = jnp.pad(v, [(0, 0)] * 3 + [(0, d - v.shape[3])])
        own = jax.nn.dot_product_attention(
            swap(q * scale[..., None]), swap(k), swap(wide), bias=finite, mask=seen, scale=1.0)
        np.testing.assert_allclose(swap(own)[..., : v.shape[3]], o, rtol=1e-5, atol=1e-5)
    return {"o": o, "lse": lse, "entropy": entropy}


def attention_cases():
    def case(name, config, build):
        inputs = build(Draw(f"attention/{name}"))
        return name, config, inputs, attention(config, **inputs)

    def qkv(draw, n, m=None, d=16, dv=None, batch=1, heads=1, kv_heads=None, scale=1.0, dtype=np.float32):
        m, dv, kv_heads = m or n, dv or d, kv_heads or heads
        return {
            "q": draw.normal(batch, heads, n, d, scale=scale, dtype=dtype),
            "k": draw.normal(batch, kv_heads, m, d, dtype=dtype),
            "v": draw.normal(batch, kv_heads, m, dv, dtype=dtype),
        }

    def with_hidden(draw, *shape):
        """A bias that hides about a third of the keys, and every key of row 2."""
        bias = draw.normal(*shape)
        bias[~draw.mask(*shape)] = -np.inf
        bias[..., 2, :] = -np.inf
        return bias

    def with_empty_row(draw, *shape):
        mask = draw.mask(*shape)
        mask[..., 3, :] = False
        return mask

    # Sizes; of the other cases most have those of tests/attention.rs, so that a driver compiles the same kernels.
    for n in [1, 2, 17, 64, 65, 257]:
        for d in [8, 64, 128]:
            dv = d if n * d <= 2048 else 4
            # Halves keep the files small.
            dtype = np.float16 if n * d > 2048 else np.float32
            yield case(f"full_n{n}_d{d}", {}, lambda draw: qkv(draw, n, d=d, dv=dv, dtype=dtype))
    for d, dv in [(1, 1), (3, 5), (5, 130), (37, 2), (97, 6), (130, 3), (255, 1), (256, 256)]:
        yield case(f"odd_d{d}_v{dv}", {"causal": "top_left"}, lambda draw: qkv(draw, 5, 7, d, dv))
    for dtype in [np.float16, ml_dtypes.bfloat16]:
        yield case(f"stored_as_{np.dtype(dtype).name}", {}, lambda draw: qkv(draw, 33, d=12, heads=2, dtype=dtype))
    yield case("many_keys", {}, lambda draw: qkv(draw, 2, 1100, d=4, dv=2))

    # Causal masks at every relation of lengths, and windows.
    alignments = {"top_left": "top_left", "bottom_right": "bottom_right", "offset_minus_4": {"offset": -4},
                  "offset_9": {"offset": 9}, "offset_far_left": {"offset": -40}, "offset_far_right": {"offset": 2000}}
    for label, causal in alignments.items():
        for n, m in [(17, 17), (5, 33), (33, 5), (1, 65), (65, 1)]:
            yield case(f"{label}_{n}x{m}", {"causal": causal}, lambda draw: qkv(draw, n, m, d=8))
    yield case("causal_n257", {"causal": "bottom_right"}, lambda draw: qkv(draw, 257, d=8, dv=4))
    windows = [(3, None), (None, 2), (0, 0), (5, 7), (64, 0), (1000, 1000)]
    for causal in ["none", "top_left", "bottom_right"]:
        for left, right in windows:
            config = {"causal": causal, "window": {"left": left, "right": right}}
            yield case(f"window_{causal}_{left}_{right}", config, lambda draw: qkv(draw, 21, 34, d=8))
    yield case("window_n257", {"causal": "top_left", "window": {"left": 31}}, lambda draw: qkv(draw, 257, d=8, dv=4))

    # Scales, each full and causal: under a causal mask n differs from row to row.
    scales = {
        "fixed": {"fixed": 0.3}, "fixed_negative": {"fixed": -0.7}, "log_512": {"log_n": {"base": 512.0, "floor": 1}},
        "log_64_floor_16": {"log_n": {"base": 64.0, "floor": 16}}, "kappa": {"kappa_log_n": {"kappa": 4.1666}},
        "inference_16": {"log_n_inference": {"train_len": 16}}, "log_n_sqrt_dim": "log_n_sqrt_dim",
        "ssmax": {"scalable_softmax": {"s": 0.43, "inv_sqrt_dim": False}},
        "ssmax_sqrt_dim": {"scalable_softmax": {"s": 1.7, "inv_sqrt_dim": True}}, "per_row": "per_row",
    }
    for label, scale in scales.items():
        for causal in ["none", "bottom_right"]:
            def build(draw):
                inputs = qkv(draw, 29, d=8, heads=2)
                if scale == "per_row":
                    inputs["row_scale"] = draw.normal(1, 2, 29)
                return inputs
            yield case(f"scale_{label}_{causal}", {"scale": scale, "causal": causal}, build)
    log_n = {"log_n": {"base": 512.0, "floor": 1}}
    yield case("log_n_counts_window_and_mask", {"scale": log_n, "causal": "bottom_right", "window": {"left": 9}},
               lambda draw: qkv(draw, 20, 26, d=8) | {"mask": draw.mask(1, 1, 20, 26), "bias": with_hidden(draw, 1, 1, 20, 26)})

    # Softcap, bias, masks, lengths, grouped heads.
    for cap in [0.5, 30.0]:
        yield case(f"softcap_{cap}", {"softcap": cap}, lambda draw: qkv(draw, 18, 23, d=10, scale=3.0))

    for label, shape in [("full", (2, 2, 15, 22)), ("heads", (2, 1, 15, 22)), ("batch", (1, 2, 15, 22)),
                         ("both", (15, 22)), ("three_axes", (2, 15, 22)), ("one_row", (22,))]:
        size = {"batch": 2, "heads": 2}
        yield case(f"bias_{label}", {}, lambda draw: qkv(draw, 15, 22, d=7, **size) | {"bias": draw.normal(*shape)})
        yield case(f"mask_{label}", {}, lambda draw: qkv(draw, 15, 22, d=7, **size) | {
            "mask": with_empty_row(draw, *shape) if len(shape) > 1 else draw.mask(*shape)})
    yield case("bias_with_minus_infinity", {"scale": log_n}, lambda draw: qkv(draw, 19, 40, d=8, heads=2) | {
        "bias": with_hidden(draw, 1, 2, 19, 40)})
    yield case("bias_all_minus_infinity", {}, lambda draw: qkv(draw, 5, 6, d=4) | {
        "bias": np.full((5, 6), -np.inf, np.float32)})
    yield case("mask_as_u8", {"causal": "top_left"}, lambda draw: qkv(draw, 19, 21, d=8) | {
        "mask": 255 * with_empty_row(draw, 1, 1, 19, 21).astype(np.uint8)})
    for dtype in [np.uint32, np.int32, np.int64]:
        for causal in ["none", "top_left", "bottom_right"] if dtype == np.uint32 else ["bottom_right"]:
            yield case(f"kv_lens_{np.dtype(dtype).name}_{causal}", {"causal": causal}, lambda draw: qkv(
                draw, 7, 24, d=8, batch=6) | {"kv_lens": np.array([24, 0, 1, 7, 13, 90], dtype)})
    yield case("kv_lens_log_n_window", {"causal": "bottom_right", "scale": log_n, "window": {"left": 4}}, lambda draw: qkv(
        draw, 9, 24, d=8, batch=3) | {"kv_lens": np.array([24, 5, 13], np.uint32)})
    for heads, kv_heads in [(4, 1), (4, 2), (6, 3), (9, 3)]:
        yield case(f"grouped_{heads}_{kv_heads}", {"causal": "bottom_right"}, lambda draw: qkv(
            draw, 12, 20, d=8, batch=2, heads=heads, kv_heads=kv_heads))
    yield case("grouped_decode", {"causal": "bottom_right"}, lambda draw: qkv(
        draw, 1, 130, d=8, batch=2, heads=8, kv_heads=2) | {"kv_lens": np.array([130, 77], np.uint32)})
    yield case("large_scores", {"scale": {"fixed": 1.0}}, lambda draw: qkv(draw, 16, d=4, scale=5000.0))
    yield case("everything", {"causal": {"offset": 6}, "window": {"left": 17, "right": 3}, "softcap": 5.0,
                              "scale": "per_row"}, lambda draw: qkv(
        draw, 17, 30, d=20, dv=12, batch=2, heads=4, kv_heads=2, scale=2.0) | {
        "row_scale": draw.normal(2, 4, 17, scale=0.3), "bias": with_hidden(draw, 4, 17, 30),
        "mask": with_empty_row(draw, 2, 1, 17, 30), "kv_lens": np.array([30, 20], np.int32)})


def gradients(config, inputs, incoming):
    """Of q, k and v, of the bias, and of the scales: `incoming` is what flows back into o, lse and the entropy."""
    kind, value = next(iter(config["scale"].items())) if isinstance(config.get("scale"), dict) else (None, None)
    batch, heads, n, d = inputs["q"].shape
    m = inputs["k"].shape[2]
    fixed = {name: inputs.get(name) for name in ("kv_lens", "mask")}
    seen = jnp.broadcast_to(visible_keys(config, batch, n, m, fixed["kv_lens"])[:, None], [batch, heads, n, m])
    if fixed["mask"] is not None:
        seen &= jnp.asarray(fixed["mask"]) != 0
    numbers = seen.sum(-1)
    given = {name: f64(value) for name, value in inputs.items() if name not in fixed}
    hidden = jnp.zeros([], bool)
    if "bias" in given:
        hidden = given["bias"] == -jnp.inf
        seen &= ~hidden
        given["bias"] = jnp.where(hidden, 0.0, given["bias"])
    some = seen.any(-1)
    # The scale is so many times its number, one for each head; without one, that is a factor.
    of_number = {"fixed": lambda value: value, "kappa_log_n": lambda value: value["kappa"],
                 "scalable_softmax": lambda value: value["s"]}.get(kind, lambda value: 1.0)(value)
    given["scale"] = jnp.full([heads, 1], f64(float(of_number)))
    unit = {"fixed": lambda: {"fixed": 1.0}, "kappa_log_n": lambda: {"kappa_log_n": {"kappa": 1.0}},
            "scalable_softmax": lambda: {"scalable_softmax": value | {"s": 1.0}}}
    of_one = config | ({"scale": unit[kind]()} if kind in unit else {})

    def loss(given):
        scale = given["scale"] * row_scale_of(of_one, numbers, d, given.get("row_scale"))
        k, v = repeat_heads(given["k"], heads), repeat_heads(given["v"], heads)
        scores = scale[..., None] * jnp.einsum("bhic,bhjc->bhij", given["q"], k)
        if config.get("softcap") is not None:
            scores = f64(config["softcap"]) * jnp.tanh(scores / f64(config["softcap"]))
        if "bias" in given:
            scores = scores + given["bias"]
        # No infinity and no logarithm of 0, of which derivatives are NaN.
        top = jax.lax.stop_gradient(jnp.where(seen, scores, -1e300).max(-1, keepdims=True))
        top = jnp.where(some[..., None], top, 0.0)
        powers = jnp.where(seen, jnp.exp(jnp.where(seen, scores - top, 0.0)), 0.0)
        total = jnp.where(some[..., None], powers.sum(-1, keepdims=True), 1.0)
        weights = powers / total
        out = {"o": jnp.einsum("bhij,bhjc->bhic", weights, v), "lse": (top + jnp.log(total))[..., 0]}
        below = jnp.where(seen, scores - top, 0.0) - jnp.log(total)
        out["entropy"] = -(weights * below).sum(-1)
        return sum((jnp.where(some[..., None] if name == "o" else some, out[name], 0.0) * incoming[name]).sum()
                   for name in incoming)

    incoming = {name: f64(value) for name, value in incoming.items()}
    found = jax.grad(loss)(given)
    per_row = config.get("scale") == "per_row"
    found.pop("scale" if per_row else "row_scale", None)
    return {f"d{name}": value for name, value in found.items()}


def attention_backward_cases():
    """Pairs of a name, config, inputs and gradients; of which outputs something flows back, goes in turn."""
    turn = 0

    def case(name, config, sizes, **more):
        nonlocal turn
        turn += 1
        draw = Draw(f"backward_{name}")
        n, m, d, dv, batch, heads, kv_heads, scale, dtype = sizes
        inputs = {"q": draw.normal(batch, heads, n, d, scale=scale, dtype=dtype),
                  "k": draw.normal(batch, kv_heads, m, d, dtype=dtype),
                  "v": draw.normal(batch, kv_heads, m, dv, dtype=dtype)}
        inputs |= {name: make(draw) for name, make in more.items()}
        out = attention(config, **inputs)
        taken = ["lse", "entropy"] if "without_o" in name else [["o"], ["o", "lse", "entropy"]][turn % 2]
        incoming = {name: draw.normal(*out[name].shape) for name in taken}
        want = gradients(config, inputs, incoming)
        kept = ["o", "lse"] + (["entropy"] if "entropy" in taken else [])
        saved = {name: np.asarray(out[name]).astype(np.float32) for name in kept}
        names = {"o": "dout", "lse": "dlse", "entropy": "dentropy"}
        return name, config, inputs | saved | {names[name]: value for name, value in incoming.items()}, want

    def sizes(n, m=None, d=8, dv=None, batch=1, heads=1, kv_heads=None, scale=1.0, dtype=np.float32):
        return n, m or n, d, dv or d, batch, heads, kv_heads or heads, scale, dtype

    for n in [1, 2, 17, 65]:
        yield case(f"full_n{n}", {}, sizes(n))
    yield case("without_o", {"causal": "top_left"}, sizes(17))
    for d, dv in [(1, 1), (3, 5), (5, 130), (64, 64), (97, 6), (130, 3), (128, 128), (255, 256)]:
        yield case(f"odd_d{d}_v{dv}", {"causal": "top_left"}, sizes(5, 7, d, dv))
    for dtype in [np.float16, ml_dtypes.bfloat16]:
        yield case(f"stored_as_{np.dtype(dtype).name}", {}, sizes(33, d=12, heads=2, dtype=dtype))
    yield case("many_keys", {}, sizes(2, 700, d=4, dv=4))
    yield case("many_queries", {}, sizes(700, 2, d=4, dv=4))
    alignments = {"top_left": "top_left", "bottom_right": "bottom_right", "offset_minus_4": {"offset": -4},
                  "offset_9": {"offset": 9}, "offset_far_left": {"offset": -40}}
    for label, causal in alignments.items():
        for n, m in [(17, 17), (5, 33), (33, 5)]:
            yield case(f"{label}_{n}x{m}", {"causal": causal}, sizes(n, m))
    for causal in ["none", "bottom_right"]:
        for left, right in [(3, None), (None, 2), (5, 7)]:
            config = {"causal": causal, "window": {"left": left, "right": right}}
            yield case(f"window_{causal}_{left}_{right}", config, sizes(21, 34))
    scales = {
        "fixed": {"fixed": 0.3}, "fixed_negative": {"fixed": -0.7}, "log_512": {"log_n": {"base": 512.0, "floor": 1}},
        "log_64_floor_16": {"log_n": {"base": 64.0, "floor": 16}}, "kappa": {"kappa_log_n": {"kappa": 4.1666}},
        "inference_16": {"log_n_inference": {"train_len": 16}}, "log_n_sqrt_dim": "log_n_sqrt_dim",
        "ssmax": {"scalable_softmax": {"s": 0.43, "inv_sqrt_dim": False}},
        "ssmax_sqrt_dim": {"scalable_softmax": {"s": 1.7, "inv_sqrt_dim": True}},
    }
    for label, scale in scales.items():
        yield case(f"scale_{label}", {"scale": scale, "causal": "bottom_right"}, sizes(29, heads=2))
    for label, shape in {"rows": (2, 2, 19), "heads": (1, 2, 1), "one": (1, 1, 1)}.items():
        yield case(f"row_scale_{label}", {"scale": "per_row", "causal": "bottom_right"}, sizes(19, batch=2, heads=2),
                   row_scale=lambda draw: draw.normal(*shape, scale=0.5))
    log_n = {"log_n": {"base": 512.0, "floor": 1}}
    yield case("softcap", {"softcap": 0.5}, sizes(18, 23, scale=3.0))
    for label, shape in [("full", (2, 2, 15, 22)), ("heads", (2, 1, 15, 22)), ("batch", (1, 2, 15, 22)),
                         ("both", (1, 1, 15, 22)), ("rows", (2, 2, 1, 22)), ("one_row", (1, 1, 1, 22))]:
        yield case(f"bias_{label}", {"causal": "top_left"}, sizes(15, 22, batch=2, heads=2),
                   bias=lambda draw: draw.normal(*shape))

    def with_hidden(draw, *shape):
        bias = draw.normal(*shape)
        bias[~draw.mask(*shape)] = -np.inf
        bias[..., 2, :] = -np.inf
        return bias

    def with_empty_row(draw, *shape):
        mask = draw.mask(*shape)
        mask[..., 3, :] = False
        return mask

    yield case("bias_with_minus_infinity", {"scale": log_n}, sizes(19, 40, heads=2),
               bias=lambda draw: with_hidden(draw, 1, 2, 19, 40))
    yield case("mask", {"scale": log_n, "causal": "top_left"}, sizes(19, 21, heads=2),
               mask=lambda draw: with_empty_row(draw, 1, 2, 19, 21))
    for causal in ["none", "bottom_right"]:
        yield case(f"kv_lens_{causal}", {"causal": causal}, sizes(7, 24, batch=6),
                   kv_lens=lambda draw: np.array([24, 0, 1, 7, 13, 90], np.uint32))
    for heads, kv_heads in [(4, 1), (6, 3)]:
        yield case(f"grouped_{heads}_{kv_heads}", {"causal": "bottom_right"},
                   sizes(12, 20, batch=2, heads=heads, kv_heads=kv_heads))
    yield case("large_scores", {"scale": {"fixed": 1.0}}, sizes(16, d=4, scale=50.0))
    yield case("everything", {"causal": {"offset": 6}, "window": {"left": 17, "right": 3}, "softcap": 5.0,
                              "scale": "per_row"}, sizes(17, 30, d=20, dv=12, batch=2, heads=4, kv_heads=2, scale=2.0),
               row_scale=lambda draw: draw.normal(2, 4, 17, scale=0.3), bias=lambda draw: with_hidden(draw, 1, 4, 17, 30),
               mask=lambda draw: with_empty_row(draw, 2, 1, 17, 30), kv_lens=lambda draw: np.array([30, 20], np.uint32))
