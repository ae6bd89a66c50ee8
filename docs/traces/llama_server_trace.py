"""Writes the open trace of a running llama-server: the log-probabilities of all tokens, or of the best, after given ones.

    pip install numpy safetensors
    python3 llama_server_trace.py http://127.0.0.1:8080 TOKENS.jsonl OUT.jsonl [BEST]

Every line of TOKENS.jsonl has `item`, `prompt` and `tokens`, as a trace has them. The server is asked once for each token.
BEST is how many tokens it shows, by default all; its numbers depend on it.
"""

import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

url, given, out, best = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int((sys.argv[4:] or [2**20])[0])


def ask(path, body=None):
    return json.load(urllib.request.urlopen(url + path, json.dumps(body).encode() if body else None))


props = ask("/props")
facts = {key: str(props[key]) for key in ("model_path", "total_slots", "build_info") if key in props}
engine = f"llama-server {facts.pop('build_info', 'unknown')}"
lines, numbers, tokens = [], [], []
for line in filter(lambda line: "prompt" in line, map(json.loads, given.read_text().splitlines())):
    for place in range(len(line["tokens"])):
        body = {"prompt": line["prompt"] + line["tokens"][:place], "n_predict": 1, "n_probs": best, "temperature": 0}
        [row] = ask("/completion", body)["completion_probabilities"]
        top = sorted(row["top_logprobs"], key=lambda one: one["id"])
        numbers.append(np.array([one["logprob"] for one in top], np.float32))
        tokens.append(np.array([one["id"] for one in top], np.int64))
    lines.append(json.dumps({key: line[key] for key in ("item", "prompt", "tokens")}))

shows = "log-probabilities" if (np.stack(tokens) == np.arange(len(tokens[0]))).all() else "top"
head = {"open-trace": 1, "shows": shows, "environment": {"engine": engine, "facts": facts}}
save_file({"numbers": np.stack(numbers), "tokens": np.stack(tokens)}, out.with_suffix(".safetensors"))
out.write_text("\n".join([json.dumps(head), *lines]) + "\n")
