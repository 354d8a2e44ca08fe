"""Linear attention: o = phi(q) S / (phi(q) z + eps), S = sum psi(k) v^T, z = sum psi(k), over all keys or those so far."""

import jax
import jax.numpy as jnp
import numpy as np

from golden_common import Draw, f64, repeat_heads

LOGARITHMIC = ["exp", "softmax", "favor"]
NONE = "none"
SUM = {"sum": {"eps": 1e-6}}


def feature_maps(config, q, k, projection):
    """phi(q) and psi(k); their logarithms where psi is an exponential."""
    chosen = config.get("feature_map", "elu_plus_one")
    kind, options = next(iter(chosen.items())) if isinstance(chosen, dict) else (chosen, {})
    d = q.shape[-1]
    match kind:
        case "elu_plus_one":
            return kind, jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
        case "exp":
            return kind, q, k
        case "relu":
            return kind, jax.nn.relu(q), jax.nn.relu(k)
        case "one_plus_relu":
            return kind, 1 + jax.nn.relu(q), 1 + jax.nn.relu(k)
        case "identity":
            return kind, q, k
        case "softmax":
            return kind, jax.nn.log_softmax(q, axis=-1), k
        case "cosine":
            unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
            with_one = lambda x: jnp.concatenate([jnp.ones_like(x[..., :1]), unit(x)], axis=-1)
            return kind, with_one(q), with_one(k)
        case "taylor2":
            scale = f64(options.get("scale")) or d**-0.5
            pairs = jnp.triu_indices(d)
            weight = jnp.where(pairs[0] == pairs[1], 0.5**0.5, 1.0)
            def features(x):
                x = scale**0.5 * x
                return jnp.concatenate([jnp.ones_like(x[..., :1]), x, weight * x[..., pairs[0]] * x[..., pairs[1]]], -1)
            s = scale * jnp.einsum("bhic,bhjc->bhij", q, repeat_heads(k, q.shape[1]))
            sim = jnp.einsum("bhif,bhjf->bhij", features(q), repeat_heads(features(k), q.shape[1]))
            if not isinstance(sim, jax.core.Tracer):
                np.testing.assert_allclose(sim, 1 + s + s**2 / 2, rtol=1e-11, atol=1e-11)
            return kind, features(q), features(k)
        case "favor":
            scale = f64(options.get("scale")) or d**-0.25
            def exponents(x):
                x = scale * x
                square = jnp.sum(x**2, axis=-1, keepdims=True)
                return x @ f64(projection).T - square / 2 - jnp.log(projection.shape[0]) / 2
            return kind, exponents(q), exponents(k)
    raise ValueError(kind)


def by_weights(log_phi, log_psi, v, seen, eps):
    """Normalised attention of an exponential map from the matrix of its weights' logarithms: finite for any input."""
    log_weights = jax.nn.logsumexp(log_phi[..., :, None, :] + log_psi[..., None, :, :], axis=-1)
    log_weights = jnp.where(seen, log_weights, -jnp.inf)
    # eps is one more weight, of a key whose value is 0.
    log_eps = jnp.full_like(log_weights[..., :1], jnp.log(eps))
    weights = jax.nn.softmax(jnp.concatenate([log_weights, log_eps], axis=-1), axis=-1)[..., :-1]
    return jnp.einsum("bhij,bhjc->bhic", weights, v)


def linear_attention(config, q, k, v, projection=None, kv_lens=None, state_s=None, state_z=None, state_max=None):
    q, k, v, state_s, state_z, state_max = map(f64, (q, k, v, state_s, state_z, state_max))
    batch, heads, n, _ = q.shape
    kv_heads, m = k.shape[1:3]
    causal = config.get("mode", "full") == "causal"
    normalization = config.get("normalization", SUM)
    kind, phi, psi = feature_maps(config, q, k, projection)
    logarithmic = kind in LOGARITHMIC
    lens = np.full(batch, m) if kv_lens is None else np.minimum(np.asarray(kv_lens).astype(np.int64), m)
    here = jnp.arange(m) < lens[:, None]

    # The state before, as the sums themselves; the first shape of a state is [batch, kv_heads, features, v_dim].
    before_s = jnp.zeros([batch, kv_heads, psi.shape[-1], v.shape[-1]]) if state_s is None else state_s
    before_z = jnp.zeros(before_s.shape[:3]) if state_z is None else state_z
    if state_max is not None:
        before_s, before_z = before_s * jnp.exp(state_max)[..., None], before_z * jnp.exp(state_max)

    # Sums over the keys: all at once, or a scan over tokens that emits a row each.
    plain_phi, plain_psi = (jnp.exp(phi), jnp.exp(psi)) if logarithmic else (phi, psi)
    plain_psi = plain_psi * here[:, None, :, None]
    grouped = plain_phi.reshape(batch, kv_heads, heads // kv_heads, n, -1)
    if causal:
        def step(state, token):
            s, z = state
            phi_t, psi_t, v_t = token
            s = s + psi_t[..., :, None] * v_t[..., None, :]
            z = z + psi_t
            return (s, z), (jnp.einsum("bhgf,bhfc->bhgc", phi_t, s), jnp.einsum("bhgf,bhf->bhg", phi_t, z))
        tokens = (jnp.moveaxis(grouped, 3, 0), jnp.moveaxis(plain_psi, 2, 0), jnp.moveaxis(v, 2, 0))
        (s, z), (numerator, divisor) = jax.lax.scan(step, (before_s, before_z), tokens)
        numerator, divisor = jnp.moveaxis(numerator, 0, 3), jnp.moveaxis(divisor, 0, 3)
    else:
        s = before_s + jnp.einsum("bhjf,bhjc->bhfc", plain_psi, v)
        z = before_z + plain_psi.sum(2)
        if kind == "softmax":
            # The softmax over the sequence of each key feature; 0 where there is no key.
            apply_s = jnp.where(z[..., None] > 0, s / jnp.where(z > 0, z, 1.0)[..., None], 0.0)
        else:
            apply_s = s
        numerator = jnp.einsum("bhgif,bhfc->bhgic", grouped, apply_s)
        divisor = jnp.einsum("bhgif,bhf->bhgi", grouped, z)
    o = numerator if normalization == NONE else numerator / (divisor + f64(normalization["sum"]["eps"]))[..., None]
    o = o.reshape(batch, heads, n, -1)

    # Two other roads to the same output, which stay finite where exp does not.
    if state_s is None and kind == "softmax" and not causal:
        columns = jax.nn.softmax(k, axis=2, where=here[:, None, :, None]) * here[:, None, :, None]
        columns = jnp.where(jnp.isnan(columns), 0.0, columns)
        other = jnp.exp(phi) @ repeat_heads(jnp.einsum("bhjf,bhjc->bhfc", columns, v), heads)
    elif state_s is None and logarithmic and normalization != NONE:
        seen = jnp.tril(jnp.ones([n, m], bool)) if causal else here[:, None, None, :]
        other = by_weights(phi, repeat_heads(psi, heads), repeat_heads(v, heads), seen, f64(normalization["sum"]["eps"]))
    else:
        other = o
    if bool(jnp.isfinite(s).all() & jnp.isfinite(plain_phi).all() & (jnp.abs(psi) < 300).all()):
        np.testing.assert_allclose(other, o, rtol=1e-9, atol=1e-12 * float(jnp.abs(o).max()))
    want = {"o": other, "state_s": s, "state_z": z}
    if logarithmic:
        # Largest exponent of a key so far, per feature, or per head for favor.
        top = jnp.where(here[:, None, :, None], psi, -jnp.inf).max(2)
        if kind == "favor":
            top = top.max(-1, keepdims=True)
        top = top if state_max is None else jnp.maximum(top, state_max)
        finite = jnp.where(jnp.isfinite(top), top, 0.0)
        scaled = jnp.where(here[:, None, :, None], jnp.exp(psi - finite[:, :, None, :]), 0.0)
        fade = 0.0 if state_max is None else jnp.exp(state_max - finite)
        want["state_z"] = scaled.sum(2) + (0.0 if state_z is None else state_z * fade)
        want["state_s"] = jnp.einsum("bhjf,bhjc->bhfc", scaled, v)
        if state_s is not None:
            want["state_s"] += state_s * fade[..., None]
        want["state_max"] = top
    assert all(bool(jnp.isfinite(want[name]).all()) for name in ["o", "state_s", "state_z"])
    return want


def features_of(config, d, rows):
    chosen = config.get("feature_map", "elu_plus_one")
    kind = next(iter(chosen)) if isinstance(chosen, dict) else chosen
    return kind, {"cosine": d + 1, "taylor2": (d + 1) * (d + 2) // 2, "favor": rows}.get(kind, d)


def linear_attention_cases():
    # The sizes of tests/linear_attention.rs where a case is not about them, so that a driver compiles the same kernels.
    def case(name, config, n, m=None, d=8, dv=12, batch=1, heads=2, kv_heads=1, state=False, rows=17, scale=1.0,
             kv_lens=None, top=0.0, dtype=np.float32):
        draw = Draw(f"linear_attention/{name}")
        m = m or n
        kind, features = features_of(config, d, rows)
        inputs = {
            "q": draw.normal(batch, heads, n, d, scale=scale, dtype=dtype),
            "k": draw.normal(batch, kv_heads, m, d, scale=scale, dtype=dtype),
            "v": draw.normal(batch, kv_heads, m, dv),
        }
        if kind == "favor":
            # Exponents w.x - |x|^2 / 2 are only large where both are.
            inputs["projection"] = draw.normal(rows, d, scale=scale)
        if kv_lens is not None:
            inputs["kv_lens"] = np.array(kv_lens, np.uint32)
        if state:
            inputs["state_s"] = draw.normal(batch, kv_heads, features, dv, scale=3.0)
            inputs["state_z"] = np.abs(draw.normal(batch, kv_heads, features, scale=3.0)) + np.float32(0.5)
            if kind in LOGARITHMIC:
                count = 1 if kind == "favor" else features
                inputs["state_max"] = draw.normal(batch, kv_heads, count) + np.float32(top)
        if state == "fresh":
            inputs["state_s"][:], inputs["state_z"][:] = 0.0, 0.0
            if "state_max" in inputs:
                inputs["state_max"][:] = -np.inf
        return name, config, inputs, linear_attention(config, **inputs)

    maps = {"elu": "elu_plus_one", "exp": "exp", "relu": "relu", "one_plus_relu": "one_plus_relu", "identity": "identity",
            "softmax": "softmax", "cosine": "cosine", "taylor2": {"taylor2": {}}, "taylor2_scaled": {"taylor2": {"scale": 0.7}},
            "favor": {"favor": {"scale": None}}, "favor_scaled": {"favor": {"scale": 0.4}}}

    # Every map, mode, normalisation and state; then a length of several chunks.
    for label, feature_map in maps.items():
        for mode in ["full", "causal"]:
            for normalization in [SUM, NONE]:
                refused = feature_map == "identity" or (feature_map == "softmax" and mode == "full")
                if refused and normalization is SUM:
                    continue
                config = {"mode": mode, "feature_map": feature_map, "normalization": normalization}
                norm = "none" if normalization is NONE else "sum"
                yield case(f"{label}_{mode}_{norm}", config, 13, None if mode == "causal" else 17)
                yield case(f"{label}_{mode}_{norm}_state", config, 13, None if mode == "causal" else 17, state=True)
        normalization = NONE if feature_map == "identity" else {"sum": {"eps": 1e-3}}
        config = {"mode": "causal", "feature_map": feature_map, "normalization": normalization}
        yield case(f"{label}_causal_n100", config, 100, heads=1, state=True)
        yield case(f"{label}_decode", config, 1, batch=2, heads=4, kv_heads=2, state=True)
        yield case(f"{label}_fresh_state", config, 9, d=4, dv=3, rows=12, state="fresh")

    # Sizes.
    for n in [1, 2, 17, 64, 65, 257]:
        for d in [8, 64] if n == 257 else [8, 64, 128]:
            mode = "causal" if d != 8 else "full"
            # Halves keep the files small.
            dtype = np.float16 if n * d > 2048 else np.float32
            yield case(f"size_n{n}_d{d}", {"mode": mode}, n, d=d, dv=4, heads=1, dtype=dtype)
    for d, dv in [(1, 1), (3, 7), (37, 2), (5, 19), (73, 3)]:
        for mode in ["full", "causal"]:
            yield case(f"odd_{mode}_d{d}_v{dv}", {"mode": mode}, 4, d=d, dv=dv, heads=1)
    yield case("taylor2_d33", {"mode": "causal", "feature_map": {"taylor2": {}}}, 20, d=33, dv=3, heads=1)
    yield case("favor_33_rows", {"mode": "full", "feature_map": {"favor": {}}}, 20, d=16, dv=3, heads=1, rows=33)
    yield case("elu_causal_n700", {"mode": "causal"}, 700, d=3, dv=2, heads=1)

    # Key lengths, grouped heads, eps that matters, a state that dwarfs the keys or is dwarfed by them, large inputs.
    for label in ["elu", "exp", "softmax", "taylor2", "favor"]:
        config = {"feature_map": maps[label], "normalization": NONE if label == "softmax" else SUM}
        yield case(f"{label}_kv_lens", config, 5, 24, batch=5, kv_lens=[24, 0, 1, 13, 99])
        yield case(f"{label}_kv_lens_state", config, 5, 24, batch=3, kv_lens=[24, 0, 7], state=True)
    for mode in ["full", "causal"]:
        for heads, kv_heads in [(4, 4), (4, 2), (6, 1)]:
            yield case(f"grouped_{mode}_{heads}_{kv_heads}", {"mode": mode}, 11, batch=2, heads=heads, kv_heads=kv_heads)
        for label in ["elu", "relu", "exp", "favor"]:
            config = {"mode": mode, "feature_map": maps[label], "normalization": {"sum": {"eps": 2.5}}}
            yield case(f"{label}_{mode}_large_eps", config, 19)
        for label in ["exp", "favor"] + (["softmax"] if mode == "causal" else []):
            config = {"mode": mode, "feature_map": maps[label]}
            yield case(f"{label}_{mode}_state_above", config, 19, state=True, top=12.0)
            yield case(f"{label}_{mode}_state_below", config, 19, state=True, top=-40.0)
        for label in ["exp", "softmax", "favor"]:
            normalization = NONE if (label, mode) == ("softmax", "full") else SUM
            config = {"mode": mode, "feature_map": maps[label], "normalization": normalization}
            yield case(f"{label}_{mode}_large", config, 40, scale=3000.0 if label != "favor" else 20.0, heads=1)


def matrices(config, given, projection, kv_lens, state_max, units):
    """The same from the matrix of all weights, with a last key for each feature of the state before: what gradients are taken of.

    The maxima `units` that the final state is told in are held, as is `state_max`.
    """
    q, k, v = given["q"], given["k"], given["v"]
    batch, heads, n, _ = q.shape
    m = k.shape[2]
    causal = config.get("mode", "full") == "causal"
    normalization = config.get("normalization", SUM)
    kind, phi, psi = feature_maps(config, q, k, projection)
    lens = np.full(batch, m) if kv_lens is None else np.minimum(np.asarray(kv_lens).astype(np.int64), m)
    here = jnp.arange(m) < lens[:, None]
    seen = jnp.tril(jnp.ones([n, m], bool)) if causal else here[:, None, None, :]
    held = here[:, None, :, None]
    grown = lambda x: repeat_heads(x, heads)

    before_s, before_z = given.get("state_s"), given.get("state_z")
    if before_s is None:
        before_s, before_z = jnp.zeros([*psi.shape[:2], psi.shape[-1], v.shape[-1]]), jnp.zeros([*psi.shape[:2], psi.shape[-1]])
    unit = 0.0 if state_max is None else state_max
    if kind not in LOGARITHMIC:
        weights = jnp.where(seen, jnp.einsum("bhif,bhjf->bhij", phi, grown(psi)), 0.0)
        numerator = jnp.einsum("bhij,bhjc->bhic", weights, grown(v)) + jnp.einsum("bhif,bhfc->bhic", phi, grown(before_s))
        divisor = weights.sum(-1) + jnp.einsum("bhif,bhf->bhi", phi, grown(before_z))
        o = numerator if normalization == NONE else numerator / (divisor + f64(normalization["sum"]["eps"]))[..., None]
        rest = jnp.where(held, psi, 0.0)
        return {"o": o, "state_s": before_s + jnp.einsum("bhjf,bhjc->bhfc", rest, v), "state_z": before_z + rest.sum(2)}

    fresh = jnp.isneginf(unit)
    fade = jnp.where(fresh, 0.0, jnp.exp(jnp.where(fresh, 0.0, unit) - units))
    rest = jnp.where(held, jnp.exp(jnp.where(held, psi - units[:, :, None, :], 0.0)), 0.0)
    after_s = before_s * fade[..., None] + jnp.einsum("bhjf,bhjc->bhfc", rest, v)
    after_z = before_z * fade + rest.sum(2)
    after = {"state_s": after_s, "state_z": after_z}
    if kind == "softmax" and not causal:
        there = after_z > 0
        columns = jnp.where(there[..., None], after_s / jnp.where(there, after_z, 1.0)[..., None], 0.0)
        return {"o": jnp.einsum("bhif,bhfc->bhic", jnp.exp(phi), grown(columns)), **after}
    # Terms of pairs and of the state, relative to the largest of the row, which is held.
    terms = jnp.where(seen[..., None], phi[..., :, None, :] + grown(psi)[..., None, :, :], -jnp.inf)
    state = phi + grown(jnp.broadcast_to(unit, before_z.shape))[..., None, :]
    state = jnp.where(grown(jnp.broadcast_to(jnp.isneginf(unit), before_z.shape))[..., None, :], -jnp.inf, state)
    top = jax.lax.stop_gradient(jnp.maximum(terms.max((-1, -2)), state.max(-1)))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    power = lambda x: jnp.where(jnp.isneginf(x), 0.0, jnp.exp(jnp.where(jnp.isneginf(x), 0.0, x)))
    weights = power(terms - top[..., None, None]).sum(-1)
    state = power(state - top[..., None])
    numerator = jnp.einsum("bhij,bhjc->bhic", weights, grown(v)) + jnp.einsum("bhif,bhfc->bhic", state, grown(before_s))
    divisor = weights.sum(-1) + jnp.einsum("bhif,bhf->bhi", state, grown(before_z))
    if normalization == NONE:
        return {"o": numerator * jnp.exp(top)[..., None], **after}
    eps = jnp.exp(jnp.log(f64(normalization["sum"]["eps"])) - top)
    return {"o": numerator / (divisor + eps)[..., None], **after}


def linear_attention_backward_cases():
    def case(name, config, n, m=None, d=5, dv=6, batch=1, heads=2, kv_heads=1, state=False, rows=7, scale=1.0, kv_lens=None,
             comes_in=None):
        draw = Draw(f"linear_attention_backward/{name}")
        m = m or n
        kind, features = features_of(config, d, rows)
        inputs = {
            "q": draw.normal(batch, heads, n, d, scale=scale),
            "k": draw.normal(batch, kv_heads, m, d, scale=scale),
            "v": draw.normal(batch, kv_heads, m, dv),
        }
        if kind == "favor":
            inputs["projection"] = draw.normal(rows, d, scale=scale)
        if kv_lens is not None:
            inputs["kv_lens"] = np.array(kv_lens, np.uint32)
        if state:
            inputs["state_s"] = draw.normal(batch, kv_heads, features, dv)
            inputs["state_z"] = np.abs(draw.normal(batch, kv_heads, features)) + np.float32(0.5)
            # Features that have a sign are not to cancel in the divisor: the first is 1.
            inputs["state_z"][..., 0] += np.float32(4 * features)
            if kind in LOGARITHMIC:
                inputs["state_max"] = draw.normal(batch, kv_heads, 1 if kind == "favor" else features)
        if state == "fresh":
            inputs["state_s"][:], inputs["state_z"][:] = 0.0, 0.0
            if "state_max" in inputs:
                inputs["state_max"][:] = -np.inf
        fixed = {name: inputs.get(name) for name in ["projection", "kv_lens", "state_max"]}
        fixed["state_max"] = f64(fixed["state_max"])
        given = {name: f64(value) for name, value in inputs.items() if name not in fixed}

        # The maxima of the final state, per feature, or per head for favor.
        units = None
        if kind in LOGARITHMIC:
            _, _, psi = feature_maps(config, given["q"], given["k"], fixed["projection"])
            lens = np.full(batch, m) if kv_lens is None else np.minimum(np.asarray(kv_lens), m)
            top = jnp.where((jnp.arange(m) < lens[:, None])[:, None, :, None], psi, -jnp.inf).max(2)
            top = top.max(-1, keepdims=True) if kind == "favor" else top
            top = top if fixed["state_max"] is None else jnp.maximum(top, fixed["state_max"])
            units = jnp.broadcast_to(jnp.where(jnp.isfinite(top), top, 0.0), psi.shape[:2] + psi.shape[-1:])
        outputs = jax.jit(lambda given: matrices(config, given, **fixed, units=units))

        # The same as forward's own, where that is finite.
        want = outputs(given)
        if scale == 1.0:
            forward = linear_attention(config, **{name: inputs.get(name) for name in ["q", "k", "v", "projection", "kv_lens",
                                                                                       "state_s", "state_z", "state_max"]})
            for output in want:
                most = float(jnp.abs(want[output]).max())
                np.testing.assert_allclose(want[output], forward[output], rtol=1e-9, atol=1e-11 * most)
        incoming = {name: draw.normal(*want[name].shape) for name in (["o", "state_s", "state_z"] if comes_in else ["o"])}

        def loss(given):
            out = outputs(given)
            return sum((out[name] * f64(value)).sum() for name, value in incoming.items())

        gradients = jax.jit(jax.grad(loss))(given)
        inputs |= {"dout" if name == "o" else f"d{name}": value for name, value in incoming.items()}
        assert all(bool(jnp.isfinite(gradient).all()) for gradient in gradients.values()), name
        return name, config, inputs, {f"d{name}": value for name, value in gradients.items()}

    maps = {"elu": "elu_plus_one", "exp": "exp", "relu": "relu", "one_plus_relu": "one_plus_relu", "identity": "identity",
            "softmax": "softmax", "cosine": "cosine", "taylor2": {"taylor2": {}}, "favor": {"favor": {"scale": 0.4}}}
    half = {"sum": {"eps": 0.5}}

    # Every map, mode and normalisation, with a state and what comes in of the final one; causal without, over more than a chunk, and a
    # single token. The sizes are the same, so that a driver compiles the same kernels.
    for label, feature_map in maps.items():
        for mode in ["full", "causal"]:
            for normalization in [SUM, NONE]:
                refused = feature_map == "identity" or (feature_map == "softmax" and mode == "full")
                if refused and normalization is SUM:
                    continue
                config = {"mode": mode, "feature_map": feature_map, "normalization": normalization}
                norm = "none" if normalization is NONE else "sum"
                yield case(f"{label}_{mode}_{norm}", config, 7, None if mode == "causal" else 11, state=True, comes_in=True)
        normalization = NONE if feature_map == "identity" else SUM
        config = {"mode": "causal", "feature_map": feature_map, "normalization": normalization}
        yield case(f"{label}_causal_n70", config, 70, heads=1)
        yield case(f"{label}_step", config, 1, batch=2, heads=4, kv_heads=2, state=True, comes_in=True)

    # Sizes, key lengths, grouped heads, an eps that matters, larger inputs, a state that has seen no key.
    for mode in ["full", "causal"]:
        for n in [1, 2, 64, 65]:
            yield case(f"size_{mode}_n{n}", {"mode": mode, "normalization": half}, n, heads=1)
        for d, dv in [(1, 1), (17, 3)]:
            yield case(f"odd_{mode}_d{d}_v{dv}", {"mode": mode, "normalization": half}, 4, d=d, dv=dv, heads=1)
        yield case(f"grouped_{mode}", {"mode": mode}, 5, batch=2, heads=6, kv_heads=2)
        for label in ["exp", "softmax", "favor"]:
            normalization = NONE if (label, mode) == ("softmax", "full") else SUM
            config = {"mode": mode, "feature_map": maps[label], "normalization": normalization}
            yield case(f"{label}_{mode}_large", config, 12, scale=4.0 if label != "favor" else 2.0, heads=1)
            yield case(f"{label}_{mode}_fresh_state", config, 5, state="fresh", comes_in=True)
    for label in ["elu", "exp", "softmax", "taylor2", "favor"]:
        config = {"feature_map": maps[label], "normalization": NONE if label == "softmax" else SUM}
        yield case(f"{label}_kv_lens", config, 3, 9, batch=4, kv_lens=[9, 0, 1, 99], state=True, comes_in=True)
