"""Matrix products: c = activation(a b + bias), or the gradient of what is activated."""

import jax
import jax.numpy as jnp

from golden_common import Draw, f64

ACTIVATIONS = {
    "none": lambda x: x,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def matmul(config, a, b, bias=None, dc=None):
    x = jnp.matmul(f64(a), f64(b), precision="highest")
    if bias is not None:
        x = x + f64(bias)
    c, gradient = jax.vjp(ACTIVATIONS[config.get("activation", "none")], x)
    return {"c": c if dc is None else gradient(f64(dc))[0]}


def matmul_cases():
    """Pairs of a name, config, inputs and results."""
    shapes = {
        "square_n33": ([1, 1, 33, 33], [1, 1, 33, 33], None),
        "row": ([1, 1, 1, 40], [1, 1, 40, 36], [36]),
        "batch": ([2, 3, 17, 20], [2, 3, 20, 12], [2, 3, 17, 12]),
        "shared_b": ([3, 1, 9, 16], [1, 1, 16, 24], [3, 1, 1, 24]),
        "shared_a": ([1, 2, 5, 7], [2, 1, 7, 3], None),
        "one": ([1, 1, 1, 1], [1, 1, 1, 1], [1]),
    }
    for activation in ACTIVATIONS:
        for name, (a, b, bias) in shapes.items():
            case = f"{activation}_{name}"
            draw = Draw(case)
            config = {} if activation == "none" else {"activation": activation}
            inputs = {"a": draw.normal(*a), "b": draw.normal(*b)}
            if bias is not None:
                inputs["bias"] = draw.normal(*bias)
            yield case, config, inputs, matmul(config, **inputs)
            if name in ("square_n33", "shared_b"):
                inputs["dc"] = draw.normal(max(a[0], b[0]), max(a[1], b[1]), a[2], b[3])
                yield f"{case}_dc", config, inputs, matmul(config, **inputs)
