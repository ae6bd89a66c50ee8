"""Our decoder beside llama.cpp and transformers on the same weights, in tokens per second.

    pip install torch transformers accelerate gguf safetensors
    cargo bench --no-run --bench decoder
    python3 benches/peers.py MODEL LLAMA_CPP_BIN DECODER [ROUNDS]

MODEL is a file of GGUF, or a folder that `shapes.py` made; LLAMA_CPP_BIN is the folder with llama-batched-bench and
llama-quantize; DECODER is the program that the second line names. The weights are made anew in f32 and in bf16 for
llama.cpp. The engines take turns, each in a process of its own with two threads, and the best round counts: what else
runs on a machine makes everyone slower and nobody faster. Prefill reads a prompt of 128 tokens; decode adds 16 tokens to
prompts of 8.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREFILL, PROMPT, TOKENS, BATCHES = 128, 8, 16, (1, 8)
COLUMNS = ("prefill 128", "decode, batch 1", "decode, batch 8")
OURS = ("fp32/sequential/t2", "bf16/sequential/t2", "bf16/dpbf16/t2")


def with_types(model, bin, folder):
    """Files of GGUF with the same weights in f32 and in bf16."""
    files = {kind: folder / f"{kind}.gguf" for kind in ("f32", "bf16")}
    for kind, file in files.items():
        if model.is_dir():
            convert(model, file, kind)
        else:
            command = [bin / "llama-quantize", "--allow-requantize", model, file, kind.upper()]
            subprocess.run(command, check=True, capture_output=True)
    return files


def convert(folder, file, kind):
    """A checkpoint of Qwen2 without a tokenizer."""
    import gguf
    import torch
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen2", "only the shapes of Qwen2.5 are converted"
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, layers)
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        for name in tensors.keys():
            values = tensors.get_tensor(name)
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if kind == "f32" or values.dim() == 1:
                writer.add_tensor(target, values.float().numpy())
            else:
                codes = values.view(torch.uint16).numpy().view("uint8")
                writer.add_tensor(target, codes, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ours(decoder, model):
    """The table of our own benchmark."""
    run = subprocess.run([decoder, model, *OURS], check=True, capture_output=True, text=True)
    rows = [[cell.strip() for cell in line.split("│")] for line in run.stdout.splitlines() if "│" in line]
    rows = [row[1:-1] if row[0] == "" else row for row in rows]
    head, rows = rows[0], rows[1:]
    places = [head.index(column) for column in COLUMNS]
    return {f"reprocheck {row[0]}": [float(row[place]) for place in places] for row in rows}


def llama(bin, files):
    """What llama.cpp's own benchmark says."""
    speeds = {}
    for kind, file in files.items():

        def bench(prompt, tokens, batches):
            command = [bin / "llama-batched-bench", "-m", file, "-c", "4096", "-t", "2", "-tb", "2"]
            command += ["-npp", str(prompt), "-ntg", str(tokens), "-npl", ",".join(map(str, batches))]
            run = subprocess.run(
                [*command, "--output-format", "jsonl"], check=True, capture_output=True, text=True
            )
            return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]

        [prefill], decode = bench(PREFILL, 1, [1]), bench(PROMPT, TOKENS, BATCHES)
        speeds[f"llama.cpp {kind}"] = [prefill["speed_pp"], *(row["speed_tg"] for row in decode)]
    return speeds


def transformers(model):
    """The same with torch, in a process that ends with it."""
    command = [sys.executable, __file__, "--torch", model]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def torch_alone(model):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    speeds = {}
    for name, dtype in ("f32", torch.float32), ("bf16", torch.bfloat16):
        at = (model, {}) if model.is_dir() else (model.parent, {"gguf_file": model.name})
        net = AutoModelForCausalLM.from_pretrained(at[0], dtype=dtype, **at[1]).eval()

        def run(batch, prompt, tokens):
            ids = torch.arange(batch * prompt).reshape(batch, prompt) * 7919 % net.config.vocab_size
            begun, past = time.perf_counter(), None
            for _ in range(tokens):
                out = net(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, ids = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
            return time.perf_counter() - begun

        with torch.inference_mode():
            run(1, PREFILL, 2)
            prefill = PREFILL / min(run(1, PREFILL, 1) for _ in range(3))
            decode = []
            for batch in BATCHES:
                whole = min(run(batch, PROMPT, 1 + TOKENS) for _ in range(2))
                decode.append(batch * TOKENS / (whole - run(batch, PROMPT, 1)))
        speeds[f"transformers {name}"] = [prefill, *decode]
    print(json.dumps(speeds))


def main(model, bin, decoder, rounds):
    best = {}
    with tempfile.TemporaryDirectory() as folder:
        files = with_types(model, bin, Path(folder))
        for _ in range(rounds):
            for speeds in ours(decoder, model), llama(bin, files), transformers(model):
                for name, row in speeds.items():
                    best[name] = [max(pair) for pair in zip(row, best.get(name, row))]
    print(f"{'tokens/s':34}" + "".join(f"{column:>17}" for column in COLUMNS))
    for name, row in best.items():
        print(f"{name:34}" + "".join(f"{speed:17.1f}" for speed in row))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "2"
    if sys.argv[1:2] == ["--torch"]:
        torch_alone(Path(sys.argv[2]))
    elif len(sys.argv) in (4, 5):
        paths = [Path(word) for word in sys.argv[1:4]]
        main(*paths, int(sys.argv[4]) if sys.argv[4:] else 2)
    else:
        sys.exit("usage: peers.py MODEL LLAMA_CPP_BIN DECODER [ROUNDS]")
