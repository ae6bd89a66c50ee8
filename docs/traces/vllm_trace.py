"""Writes the open trace of vLLM: all logits after given tokens, in one pass over each text.

    pip install vllm safetensors
    python3 vllm_trace.py MODEL TOKENS.jsonl OUT.jsonl [float32|bfloat16|float16]

Every line of TOKENS.jsonl has `item`, `prompt` and `tokens`, as a trace has them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import vllm
from safetensors.numpy import save_file

model, given, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
dtype = sys.argv[4] if sys.argv[4:] else "float32"

if __name__ == "__main__":  # vLLM imports this file again where it starts processes.
    llm = vllm.LLM(model, dtype=dtype, max_model_len=2048, max_logprobs=-1, logprobs_mode="raw_logits", enforce_eager=True)
    vocabulary = llm.model_config.get_vocab_size()
    facts = {"dtype": dtype, "threads": str(torch.get_num_threads()), "torch": torch.__version__}
    all_of_them = vllm.SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, flat_logprobs=True, detokenize=False)
    head = {"open-trace": 1, "shows": "logits", "environment": {"engine": f"vllm {vllm.__version__}", "facts": facts}}
    lines, rows = [json.dumps(head)], []
    for line in filter(lambda line: "prompt" in line, map(json.loads, given.read_text().splitlines())):
        text = line["prompt"] + line["tokens"]
        [answer] = llm.generate([{"prompt_token_ids": text}], all_of_them, use_tqdm=False)
        flat = answer.prompt_logprobs
        for place in range(len(line["prompt"]), len(text)):
            span = slice(flat.start_indices[place], flat.end_indices[place])
            row = np.empty(vocabulary, np.float32)
            row[flat.token_ids[span]] = flat.logprobs[span]
            rows.append(row)
        lines.append(json.dumps({key: line[key] for key in ("item", "prompt", "tokens")}))
    save_file({"numbers": np.stack(rows)}, out.with_suffix(".safetensors"))
    out.write_text("\n".join(lines) + "\n")
