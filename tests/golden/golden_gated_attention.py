"""Gated attention: o = u * (A v), A from relu(q k^T)^2 or a softmax, q and k given or affine maps of one z; mixed chunks."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64, repeat_heads, visible_keys


def option(value):
    """The name of an option and what it holds."""
    return next(iter(value.items())) if isinstance(value, dict) else (value, None)


def full_weights(config, products, seen, s):
    """A for every pair."""
    n = seen.sum(-1, keepdims=True)
    at_least_one = jnp.maximum(n, 1)
    squared = jnp.where(seen, jax.nn.relu(products) ** 2, 0.0)
    kind, divisor = option(config.get("weights", {"squared_relu": "len_dim"}))
    if kind == "squared_relu":
        kind, options = option(divisor)
        match kind:
            case "len_dim":
                return squared / (at_least_one * s)
            case "fixed_len_dim":
                return squared / (options["len"] * s)
            case "len_squared":
                return jnp.where(seen, jax.nn.relu(products / at_least_one) ** 2, 0.0)
            case "row_sum":
                return squared / (squared.sum(-1, keepdims=True) + f64(options["eps"]))
        raise ValueError(kind)
    scale = 1 / math.sqrt(s)
    if kind == "softmax_log_n":
        scale = scale * jnp.log(jnp.maximum(n, divisor["floor"])) / jnp.log(f64(divisor["base"]))
    # Where a row sees nothing, any weights will do, but for NaN, whose gradient would be NaN as well.
    some = seen | ~seen.any(-1, keepdims=True)
    return jnp.where(seen, jax.nn.softmax(scale * products, axis=-1, where=some), 0.0)


def mixed_chunk_weights(config, products, linear_products, lens, s):
    """Within a chunk relu^2, across chunks the plain product: as one matrix."""
    options = config["mode"]["mixed_chunk"]
    c = options.get("chunk", 256)
    n = products.shape[-1]
    causal = config.get("causal", "none") != "none"
    i, j = jnp.arange(n)[:, None], jnp.arange(n)[None, :]
    real = (j < lens[:, None, None])[:, None]
    inside = (i // c == j // c) & (j <= i if causal else True) & real
    across = (j // c < i // c if causal else True) & real

    kind, value = option(options.get("quadratic", "chunk_dim"))
    quadratic = c * s if kind == "chunk_dim" else f64(value)
    kind, value = option(options.get("linear", "tokens"))
    across = jnp.broadcast_to(across, products.shape)
    tokens = jnp.maximum(across.sum(-1, keepdims=True), 1)
    linear = {"tokens": tokens, "chunk": c, "fixed": f64(value)}[kind]
    squared = jax.nn.relu(products) ** 2
    return jnp.where(inside, squared / quadratic, 0.0) + jnp.where(across, linear_products / linear, 0.0)


def gated_attention(config, v, q=None, k=None, z=None, u=None, kv_lens=None, q_lin=None, k_lin=None, **maps):
    q, k, z, v, u, q_lin, k_lin = map(f64, (q, k, z, v, u, q_lin, k_lin))
    if z is not None:
        def mapped(name):
            gamma, beta = f64(maps[f"gamma_{name}"]), f64(maps.get(f"beta_{name}"))
            rows = lambda x: jnp.atleast_2d(x)[None, :, None, :]
            return rows(gamma) * z + (0.0 if beta is None else rows(beta))
        q, k = mapped("q"), mapped("k")
        if "gamma_q_lin" in maps:
            q_lin, k_lin = mapped("q_lin"), mapped("k_lin")
    batch, heads, n, s = q.shape
    m = k.shape[2]
    product = lambda a, b: jnp.einsum("bhic,bhjc->bhij", a, repeat_heads(b, heads))
    if "mixed_chunk" in config.get("mode", {}):
        lens = np.full(batch, m) if kv_lens is None else np.minimum(np.asarray(kv_lens).astype(np.int64), m)
        weights = mixed_chunk_weights(config, product(q, k), product(q_lin, k_lin), jnp.asarray(lens), s)
    else:
        seen = jnp.broadcast_to(visible_keys(config, batch, n, m, kv_lens)[:, None], [batch, heads, n, m])
        weights = full_weights(config, product(q, k), seen, s)
        weights = jnp.where(seen.any(-1, keepdims=True), weights, 0.0)
    o = weights @ repeat_heads(v, heads)
    return {"o": o if u is None else u * o}


WEIGHTS = {
    "v1": {"squared_relu": "len_dim"}, "v2": {"squared_relu": {"fixed_len_dim": {"len": 512}}},
    "v3": {"squared_relu": "len_squared"}, "v4": {"squared_relu": {"row_sum": {"eps": 1e-6}}}, "v5": "softmax",
    "v6": {"softmax_log_n": {"base": 512.0, "floor": 1}}, "v6_floor": {"softmax_log_n": {"base": 64.0, "floor": 16}},
    "v4_eps": {"squared_relu": {"row_sum": {"eps": 3.0}}},
}


def drawn(draw, config, n, m=None, s=8, e=8, batch=1, heads=1, kv_heads=None, form="qk", gate=False, kv_lens=None, rows=None,
          dtype=np.float32):
    """Inputs. form: qk, z (gamma alone), or z_beta."""
    m, kv_heads, rows = m or n, kv_heads or heads, rows or heads
    linear = ["_lin"] if "mixed_chunk" in config.get("mode", {}) else []
    inputs = {"v": draw.normal(batch, kv_heads, m, e)}
    if form == "qk":
        for suffix in ["", *linear]:
            inputs[f"q{suffix}"] = draw.normal(batch, heads, n, s)
            inputs[f"k{suffix}"] = draw.normal(batch, kv_heads, m, s)
    else:
        inputs["z"] = draw.normal(batch, heads, n, s, dtype=dtype)
        for suffix in ["", *linear]:
            for side in "qk":
                inputs[f"gamma_{side}{suffix}"] = 1 + draw.normal(rows, s, scale=0.5)
                if form == "z_beta":
                    inputs[f"beta_{side}{suffix}"] = draw.normal(rows, s, scale=0.5)
    if gate:
        inputs["u"] = draw.normal(batch, heads, n, e)
    if kv_lens is not None:
        inputs["kv_lens"] = np.array(kv_lens, np.uint32)
    return inputs


def gated_attention_cases():
    # The sizes of tests/gated_attention.rs where a case is not about them, so that a driver compiles the same kernels.
    def case(name, config, *sizes, **options):
        inputs = drawn(Draw(f"gated_attention/{name}"), config, *sizes, **options)
        return name, config, inputs, gated_attention(config, **inputs)

    for label, chosen in WEIGHTS.items():
        for causal in ["none", "bottom_right"]:
            config = {"weights": chosen, "causal": causal}
            yield case(f"{label}_{causal}_qk", config, 15, 21, heads=2)
            yield case(f"{label}_{causal}_qk_gate", config, 21, gate=True)
            yield case(f"{label}_{causal}_z", config, 15, form="z", heads=2)
            yield case(f"{label}_{causal}_gau", config, 37, form="z_beta", gate=True, s=10, e=9)
        yield case(f"{label}_window", {"weights": chosen, "causal": "top_left", "window": {"left": 5}}, 30, form="z", gate=True)
        yield case(f"{label}_kv_lens", {"weights": chosen, "causal": "bottom_right"}, 9, 24, batch=4, kv_lens=[24, 0, 5, 99])
    v1 = {"weights": WEIGHTS["v1"]}
    for n in [1, 2, 17, 64, 65, 257]:
        for s in [8, 64] if n == 257 else [8, 64, 128]:
            # Halves keep the files small.
            dtype = np.float16 if n * s > 2048 else np.float32
            yield case(f"size_n{n}_s{s}", v1 | {"causal": "top_left"}, n, s=s, e=8 if s == 8 else 4, form="z", gate=s == 8, dtype=dtype)
    for s, e in [(1, 1), (3, 5), (37, 2), (5, 19), (73, 3)]:
        yield case(f"odd_s{s}_e{e}", {"weights": WEIGHTS["v4"]}, 4, s=s, e=e, form="z_beta", gate=True)
    for label, causal in {"offset_minus_4": {"offset": -4}, "offset_9": {"offset": 9}, "top_left": "top_left",
                          "bottom_right": "bottom_right"}.items():
        for n, m in [(5, 33), (33, 5), (1, 65)]:
            for name in ["v1", "v6"]:
                yield case(f"{name}_{label}_{n}x{m}", {"weights": WEIGHTS[name], "causal": causal}, n, m, gate=True)
    yield case("window_both_sides", v1 | {"window": {"left": 4, "right": 6}}, 30, 41)
    for heads, kv_heads in [(4, 2), (6, 1)]:
        yield case(f"grouped_{heads}_{kv_heads}", v1, 12, 20, batch=2, heads=heads, kv_heads=kv_heads, gate=True)
    yield case("one_map_for_all_heads", v1, 12, heads=3, form="z_beta", rows=1, gate=True)

    # Mixed chunks.
    divisors = {"default": {}, "chunk": {"quadratic": "chunk_dim", "linear": "chunk"},
                "paper": {"quadratic": {"fixed": 256.0}, "linear": "chunk"},
                "fixed": {"quadratic": {"fixed": 0.7}, "linear": {"fixed": 13.5}}, "tokens": {"linear": "tokens"}}
    for causal in ["none", "top_left"]:
        for label, chosen in divisors.items():
            config = {"mode": {"mixed_chunk": {"chunk": 16} | chosen}, "causal": causal}
            yield case(f"mixed_{causal}_{label}_gau", config, 53, form="z_beta", gate=True)
            yield case(f"mixed_{causal}_{label}_qk", config, 37)
        for chunk, n in [(1, 9), (3, 20), (64, 64), (64, 65), (64, 200), (100, 250), (256, 257), (1000, 40)]:
            config = {"mode": {"mixed_chunk": {"chunk": chunk}}, "causal": causal}
            yield case(f"mixed_{causal}_chunk{chunk}_n{n}", config, n, form="z", gate=True)
        config = {"mode": {"mixed_chunk": {"chunk": 8}}, "causal": causal}
        yield case(f"mixed_{causal}_kv_lens", config, 20, batch=4, kv_lens=[20, 0, 5, 19])
        yield case(f"mixed_{causal}_grouped", config, 20, heads=4, kv_heads=2)
        yield case(f"mixed_{causal}_odd", config, 20, s=21, e=18, form="z_beta")
    config = {"mode": {"mixed_chunk": {}}, "causal": "bottom_right"}
    yield case("mixed_bottom_right_default_chunk", config, 300, form="z", gate=True)


def gated_attention_backward_cases():
    def case(name, config, *sizes, **options):
        draw = Draw(f"gated_attention_backward/{name}")
        inputs = drawn(draw, config, *sizes, **options)
        o = gated_attention(config, **inputs)["o"]
        inputs["dout"] = draw.normal(*o.shape)
        floats = {key: f64(value) for key, value in inputs.items() if key not in ("kv_lens", "dout")}

        def loss(floats):
            return (gated_attention(config, kv_lens=inputs.get("kv_lens"), **floats)["o"] * f64(inputs["dout"])).sum()

        gradients = jax.grad(loss)(floats)
        weights, divisor = option(config.get("weights", {"squared_relu": "len_dim"}))
        if weights != "squared_relu" or option(divisor)[0] == "row_sum":
            inputs["o"] = np.asarray(o, np.float32)
        return name, config, inputs, {f"d{key}": value for key, value in gradients.items()}

    for label, chosen in WEIGHTS.items():
        config = {"weights": chosen, "causal": "bottom_right"}
        yield case(f"{label}_gau", config, 21, form="z_beta", gate=True)
        yield case(f"{label}_kv_lens", config, 9, 24, batch=4, heads=2, kv_heads=1, kv_lens=[24, 0, 5, 99])
    v1, v6 = {"weights": WEIGHTS["v1"]}, {"weights": WEIGHTS["v6"]}
    yield case("v1_offset_minus_4", v1 | {"causal": {"offset": -4}}, 20, 11)
    yield case("v1_odd", v1, 12, form="z_beta", gate=True, s=21, e=18)
    yield case("v1_one_map_for_all_heads", v1 | {"causal": "top_left", "window": {"left": 5}}, 140, form="z", heads=2, rows=1)
    yield case("v6_offset_9", v6 | {"causal": {"offset": 9}}, 20, 11)
    yield case("v6_window_both_sides", v6 | {"window": {"left": 4, "right": 6}}, 30, 41)
    yield case("v6_wide", v6 | {"causal": "top_left"}, 9, form="z", gate=True, s=130, e=70)
    divisors = {"default": {}, "chunk": {"linear": "chunk"}, "fixed": {"quadratic": {"fixed": 0.7}, "linear": {"fixed": 13.5}}}
    for causal in ["none", "top_left"]:
        for label, chosen in divisors.items():
            config = {"mode": {"mixed_chunk": {"chunk": 16} | chosen}, "causal": causal}
            yield case(f"mixed_{causal}_{label}", config, 37, form="z_beta", gate=True)
        config = {"mode": {"mixed_chunk": {"chunk": 8}}, "causal": causal}
        yield case(f"mixed_{causal}_kv_lens", config, 20, batch=4, heads=2, kv_heads=1, kv_lens=[20, 0, 5, 19])
