"""Makes a checkpoint of a given shape with seeded random weights in bf16, for measurements of speed.

    pip install numpy
    python3 benches/shapes.py qwen2.5-0.5b FOLDER     # 494 M parameters, 1 GB: the shapes of Qwen2.5-0.5B
    python3 benches/shapes.py qwen3-29m FOLDER        # 29 M
    python3 benches/shapes.py qwen3-small FOLDER      # 0.9 M

There is no tokenizer: prompts are token ids. The config is laid out as transformers 4 wrote it, which every
engine reads. A tensor depends on its name and shape alone, so the same bytes come out on every machine.
"""

import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np

SHAPES = {
    "qwen2.5-0.5b": dict(
        model_type="qwen2",
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_window_layers=21,
    ),
    "qwen3-29m": dict(
        model_type="qwen3",
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_window_layers=8,
        head_dim=64,
        attention_bias=False,
    ),
    "qwen3-small": dict(
        model_type="qwen3",
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_window_layers=4,
        head_dim=32,
        attention_bias=False,
    ),
}
COMMON = dict(
    attention_dropout=0.0,
    bos_token_id=None,
    eos_token_id=None,
    hidden_act="silu",
    initializer_range=0.02,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_scaling=None,
    rope_theta=1000000.0,
    sliding_window=32768,
    tie_word_embeddings=True,
    torch_dtype="bfloat16",
    transformers_version="4.51.0",
    use_cache=True,
    use_sliding_window=False,
)


def tensors(shape):
    """Name and shape of every tensor; a matrix is [out, in]."""
    qwen3 = shape["model_type"] == "qwen3"
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim", width // shape["num_attention_heads"])
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", [shape["vocab_size"], width]
    for layer in range(shape["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", [width]
        for letter, out in ("q", queries), ("k", keys), ("v", keys):
            yield f"{at}self_attn.{letter}_proj.weight", [out, width]
            if not qwen3:
                yield f"{at}self_attn.{letter}_proj.bias", [out]
            elif letter != "v":
                yield f"{at}self_attn.{letter}_norm.weight", [head]
        yield at + "self_attn.o_proj.weight", [width, queries]
        yield at + "post_attention_layernorm.weight", [width]
        yield at + "mlp.gate_proj.weight", [inner, width]
        yield at + "mlp.up_proj.weight", [inner, width]
        yield at + "mlp.down_proj.weight", [width, inner]
    yield "model.norm.weight", [width]


def values(name, shape):
    """A norm lies around 1 and a bias around 0; a matrix keeps the size of what goes through it."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        return 1 + np.float32(0.1) * noise
    if name.endswith("bias"):
        return np.float32(0.1) * noise
    gain = 3 if "embed_tokens" in name else 1
    return np.float32(gain / math.sqrt(shape[1])) * noise


def bf16(x):
    """The upper half of each f32, rounded to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def main(name, folder):
    shape = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    architecture = shape["model_type"].capitalize() + "ForCausalLM"
    config = {"architectures": [architecture], **COMMON, **shape}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ends = {"eos_token_id": None, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n")

    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor, size in tensors(shape):
        end = offset + 2 * math.prod(size)
        header[tensor] = {"dtype": "BF16", "shape": size, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor, size in tensors(shape):
            file.write(bf16(values(tensor, size)).tobytes())
    print(f"{folder}: {offset // 2 / 1e6:.1f} M parameters")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(f"usage: shapes.py {{{','.join(SHAPES)}}} FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
