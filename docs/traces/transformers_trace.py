"""Writes the open trace of transformers: what it shows after given tokens, in one pass over each text.

    pip install torch transformers accelerate gguf safetensors
    python3 transformers_trace.py MODEL TOKENS.jsonl OUT.jsonl [float32|bfloat16|float16]

MODEL is a folder or a file of GGUF; every line of TOKENS.jsonl has a `prompt` and `tokens`, as a trace has them.
"""

import json
import platform
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

model, given, out = map(Path, sys.argv[1:4])
dtype = sys.argv[4] if sys.argv[4:] else "float32"
folder, file = (model.parent, {"gguf_file": model.name}) if model.is_file() else (model, {})
net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **file).eval()
facts = {
    "attention": net.config._attn_implementation,
    "dtype": dtype,
    "processor": platform.processor() or platform.machine(),
    "threads": str(torch.get_num_threads()),
    "torch": torch.__version__,
}
engine = f"transformers {transformers.__version__}"
lines = [json.dumps({"open-trace": 1, "shows": "logits", "environment": {"engine": engine, "facts": facts}})]
rows = []
for line in filter(lambda line: "prompt" in line, map(json.loads, given.read_text().splitlines())):
    prompt, tokens = line["prompt"], line["tokens"]
    with torch.inference_mode():
        logits = net(torch.tensor([prompt + tokens[:-1]])).logits[0].float()
    rows.append(logits[len(prompt) - 1 :])
    item = line.get("item", str(len(rows) - 1))
    lines.append(json.dumps({"item": item, "prompt": prompt, "tokens": tokens}))
save_file({"numbers": torch.cat(rows)}, out.with_suffix(".safetensors"))
out.write_text("\n".join(lines) + "\n")
