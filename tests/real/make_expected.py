"""What others make of the real model: transformers its logits and tokens, the package gguf its weights.

    python -m venv V && V/bin/pip install torch transformers accelerate gguf
    V/bin/python tests/real/make_expected.py MODEL.gguf [COLUMNS]

Writes expected.safetensors (logits of COLUMNS tokens after every position, 64 unless said; 0 for all) and weights.txt
(the SHA-256 of every tensor in f32, rows as Hugging Face has them) beside itself, or into the folder named by OUT.
"""

import hashlib
import os
import pathlib
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n <",
    "12 + 30 = 42\n17 + 25 =",
    "<|im_start|>user\nTom has 3 apples and buys 4 more. How many apples has he?<|im_end|>\n<|im_start|>assistant\n",
    "我喜欢学习 and 🙂 emoji, 1234567",
]


def weights(path: pathlib.Path, out: pathlib.Path) -> None:
    reader = gguf.GGUFReader(path)

    def number(key: str) -> int:
        return int(reader.fields[f"llama.attention.{key}"].contents())

    lines = []
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4")
        heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(tensor.name.split(".")[-2])
        if heads:
            # Of every head rows 0, 2, 4 ... and then 1, 3, 5 ...
            shape = values.shape
            values = values.reshape(number(heads), -1, 2, shape[1]).swapaxes(1, 2).reshape(shape)
        digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
        lines.append(f"{digest}  {tensor.name}\n")
    (out / "weights.txt").write_text("".join(sorted(lines, key=lambda line: line.split()[1])))


def answers(path: pathlib.Path, columns: int, out: pathlib.Path) -> None:
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    vocabulary = model.config.vocab_size
    chosen = torch.arange(vocabulary)
    if columns:
        chosen = torch.from_numpy(np.sort(np.random.default_rng(1).choice(vocabulary, columns, replace=False)))
    tensors = {"columns": chosen.to(torch.int32)}
    for index, prompt in enumerate(PROMPTS):
        tokens = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(tokens).logits[0]
            answer = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=64, do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )
        tensors[f"prompt.{index}.tokens"] = tokens[0].to(torch.int32)
        tensors[f"prompt.{index}.greedy"] = answer[0, tokens.shape[1] :].to(torch.int32)
        tensors[f"prompt.{index}.logits"] = logits[:, chosen].contiguous()
        tensors[f"prompt.{index}.largest"] = logits.abs().amax(dim=1).contiguous()
    save_file(tensors, out / "expected.safetensors", {f"prompt.{i}": text for i, text in enumerate(PROMPTS)})


if __name__ == "__main__":
    model = pathlib.Path(sys.argv[1])
    out = pathlib.Path(os.environ.get("OUT", pathlib.Path(__file__).parent))
    weights(model, out)
    answers(model, int(sys.argv[2]) if len(sys.argv) > 2 else 64, out)
