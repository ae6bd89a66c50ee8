"""What llama.cpp makes of the 2,000 texts of tests/gguf/strings.py with the real model's tokenizer.

    python -m venv V && V/bin/pip install xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    V/bin/python tests/real/make_tokens.py MODEL.gguf

Writes tokens.txt beside itself: a line for each text, with the first 16 digits of the SHA-256 of its tokens (little endian,
32 bits each) and the text in JSON. The model's own rules must give the same tokens, or nothing is written.
"""

import hashlib
import json
import pathlib
import struct
import sys
import urllib.request

import xllamacpp
from gguf import GGUFReader

FOLDER = pathlib.Path(__file__).parent
sys.path.append(str(FOLDER.parent / "gguf"))
from original import of_bytes  # noqa: E402
from strings import strings  # noqa: E402


def by_llama_cpp(path: pathlib.Path):
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = str(path), 512, 1, False
    server = xllamacpp.Server(parameters)

    def encode(text: str) -> list[int]:
        asked = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        with urllib.request.urlopen(f"{server.listening_address}/tokenize", asked) as answer:
            return json.load(answer)["tokens"]

    return encode


def main(path: pathlib.Path) -> None:
    fields = GGUFReader(path).fields
    own = of_bytes(*(fields[f"tokenizer.ggml.{key}"].contents() for key in ["pre", "tokens", "token_type", "merges"]))
    encode = by_llama_cpp(path)
    lines = []
    for text in strings():
        tokens = encode(text)
        assert tokens == own(text), f"two readings of {text!r}: {tokens} and {own(text)}"
        digest = hashlib.sha256(struct.pack(f"<{len(tokens)}I", *tokens)).hexdigest()
        lines.append(f"{digest[:16]}  {json.dumps(text, ensure_ascii=False)}\n")
    (FOLDER / "tokens.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
