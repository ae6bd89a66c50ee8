"""Compares the tokens of a GGUF file's tokenizer with those of transformers and of the model's own rules.

    pip install gguf==0.19.0 transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf torch
    python compare.py                          # writes the 2,000 texts to strings.json
    python compare.py MODEL.gguf IDS.json      # compares

IDS.json is a list with what `Tokenizer::encode(text, false)` makes of each text, in their order.

transformers (`integrations/gguf/gguf_tokenizer_mapping.py` of 5.24.0) is known to depart from the models' own rules:
it cuts a text as GPT-2 does unless `tokenizer.ggml.pre` is one of those in its table, in which `smollm`, `starcoder`,
`refact`, `command-r`, `deepseek-coder` and `default` are not; it gives some files a token `<|endoftext|>` beyond their
last; and of `llama` it puts no space before a text that begins with one, and none after a special token, unless the
architecture is `phi3`.
"""

import json
import pathlib
import sys

from strings import strings

NORMAL, BYTE = 1, 6


def by_transformers(path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def by_the_models_own_rules(path):
    from gguf import GGUFReader
    from original import of_bytes, of_scored

    fields = GGUFReader(path).fields
    take = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    tokens, token_type = take("tokens"), take("token_type")
    if take("model") == "gpt2":
        return of_bytes(take("pre"), tokens, token_type, take("merges"))
    encode = of_scored(tokens, token_type, take("scores"))
    special = [token for token, of in zip(tokens, token_type) if of not in (NORMAL, BYTE)]
    # SentencePiece puts a space before a text alone, all others one after every special token too.
    return lambda text: None if any(token in text for token in special) else encode(text)


def main():
    texts = strings()
    if len(sys.argv) == 1:
        pathlib.Path("strings.json").write_text(json.dumps(texts), encoding="utf-8")
        return
    path, ours = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))
    assert len(ours) == len(texts)
    for name, other in [("transformers", by_transformers), ("the model's own rules", by_the_models_own_rules)]:
        try:
            encode = other(path)
        except Exception as error:
            print(f"{name}: {error}")
            continue
        theirs = [encode(text) for text in texts]
        pairs = [(text, a, b) for text, a, b in zip(texts, ours, theirs) if b is not None]
        unlike = [(text, a, b) for text, a, b in pairs if a != b]
        print(f"{name}: {len(pairs) - len(unlike)} of {len(pairs)} texts have the same tokens")
        for text, a, b in unlike[:5]:
            print(f"  {text!r}\n    ours   {a}\n    theirs {b}")


main()
