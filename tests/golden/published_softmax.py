"""What entmax 1.3, torch 2.15.0 and bert4torch 0.6.2 compute for the numbers of tests/*softmax/published.rs, in f64.

Not part of make_golden.py: torch is gigabytes. In an environment of Python 3.11:
    pip install torch==2.15.0 entmax==1.3 numpy && pip install --no-deps bert4torch==0.6.2 && python published_softmax.py
"""

import importlib.util
import math
import pathlib
import struct
from unittest import mock

import entmax
import torch

ROWS, COLUMNS = 2, 6
LABELS = torch.tensor([2, 4])
KEY = (42, 1, 2, 3, 4)


def numbers(seed):
    """Multiples of 1/32 in [-1.6, 1.6], which are f32."""
    own = [[((37 * i + 61 * c + 17 * i * c + seed) % 101 - 50) / 32 for c in range(COLUMNS)] for i in range(ROWS)]
    return torch.tensor(own, dtype=torch.float64)


def show(name, tensor):
    print(f"    {name}: [{', '.join(f'{x:.12f}' for x in tensor.detach().flatten().tolist())}]")


def sparse(name, project, loss, alpha=None):
    """p, what flows back through it, the loss of each row, and its gradient."""
    print(name)
    x = numbers(1).requires_grad_()
    p = project(x) if alpha is None else project(x, alpha)
    p.backward(numbers(2))
    show("p", p)
    show("dx", x.grad)
    if alpha is not None:
        show("dalpha", alpha.grad)
    x = numbers(1).requires_grad_()
    of_rows = loss(x, LABELS)
    of_rows.sum().backward()
    show("loss", of_rows)
    show("gradient of the loss", x.grad)


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [k[0] + 0x9E3779B9 & 0xFFFFFFFF, k[1] + 0xBB67AE85 & 0xFFFFFFFF]
    return c


def exponential():
    """The crate's noise, before the outer logarithm: torch draws exponential numbers where the crate has a key."""
    def one(row, column):
        word = philox((column // 4, row + KEY[4], KEY[2], KEY[3]), KEY[:2])[column % 4]
        v = struct.unpack("f", struct.pack("f", (word + 0.5) / 2**32))[0]
        return -math.log1p(-min(v, 1 - 2.0**-24))

    own = torch.tensor([[one(row, column) for column in range(COLUMNS)] for row in range(ROWS)], dtype=torch.float64)
    return mock.patch.object(torch.Tensor, "exponential_", lambda _: own)


def main():
    sparse("sparsemax", entmax.sparsemax, entmax.SparsemaxLoss(reduction="none"))
    sparse("entmax15", entmax.entmax15, entmax.Entmax15Loss(reduction="none"))
    alpha = torch.full((ROWS, 1), 1.25, dtype=torch.float64, requires_grad=True)
    sparse("entmax_bisect", entmax.entmax_bisect, entmax.EntmaxBisectLoss(alpha=1.25, reduction="none"), alpha)

    for hard in (False, True):
        print(f"gumbel_softmax, hard {hard}")
        x = numbers(1).requires_grad_()
        with exponential():
            y = torch.nn.functional.gumbel_softmax(x, tau=0.5, hard=hard)
        y.backward(numbers(2))
        show("y", y)
        show("dlogits", x.grad)

    # Its package imports more than is installed.
    losses = pathlib.Path(importlib.util.find_spec("bert4torch").origin).with_name("losses.py")
    spec = importlib.util.spec_from_file_location("losses", losses)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    print("MultilabelCategoricalCrossentropy")
    x, labels = numbers(1).requires_grad_(), (numbers(2) > 0.5).double()
    loss = module.MultilabelCategoricalCrossentropy()(x, labels)
    loss.backward()
    show("loss", loss)
    show("dscores", x.grad)


if __name__ == "__main__":
    main()
