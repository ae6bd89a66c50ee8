"""Writes the open trace of a running SGLang server: the best log-probabilities after given tokens, in one pass over each text.

    python3 sglang_trace.py http://127.0.0.1:30000 TOKENS.jsonl OUT.jsonl [BEST]

Every line of TOKENS.jsonl has `item`, `prompt` and `tokens`, as a trace has them; BEST is how many are shown, by default 20.
"""

import array
import json
import sys
import urllib.request
from pathlib import Path

url, given, out, best = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int((sys.argv[4:] or [20])[0])


def ask(path, body=None):
    request = urllib.request.Request(url + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


server = ask("/server_info")
facts = {key: str(server[key]) for key in ("attention_backend", "dtype", "quantization") if server.get(key) is not None}
head = {"open-trace": 1, "shows": "top", "environment": {"engine": f"sglang {server['version']}", "facts": facts}}
lines, numbers, tokens = [json.dumps(head)], array.array("f"), array.array("q")
for line in filter(lambda line: line.get("tokens"), map(json.loads, given.read_text().splitlines())):
    body = {"input_ids": line["prompt"] + line["tokens"], "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    # From the last token of the prompt on, whose own row is empty.
    body |= {"return_logprob": True, "logprob_start_len": len(line["prompt"]) - 1, "top_logprobs_num": best}
    meta = ask("/generate", body)["meta_info"]
    assert [token for _, token, _ in meta["input_token_logprobs"]][1:] == line["tokens"], "it has read other tokens"
    for row in meta["input_top_logprobs"][1:]:
        numbers.extend(-9999.0 if number is None else number for number, _, _ in row)
        tokens.extend(token for _, token, _ in row)
    lines.append(json.dumps({key: line[key] for key in ("item", "prompt", "tokens")}))
size, shape = 4 * len(numbers), [len(numbers) // best, best]
places = {"numbers": ["F32", 0, size], "tokens": ["I64", size, 3 * size]}
names = json.dumps({name: {"dtype": of, "shape": shape, "data_offsets": at} for name, [of, *at] in places.items()}).encode()
out.with_suffix(".safetensors").write_bytes(len(names).to_bytes(8, "little") + names + numbers.tobytes() + tokens.tobytes())
out.write_text("\n".join(lines) + "\n")
