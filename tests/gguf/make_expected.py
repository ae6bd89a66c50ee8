"""Writes two small vocabularies, and expected.json: what the models' own rules make of texts with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    python make_expected.py

`bytes.json` is a byte-level vocabulary with merges, `scored.json` one of SentencePiece with scores.
"""

import io
import json
import pathlib

import sentencepiece
from original import CONTROL, NORMAL, of_bytes, of_scored
from sentencepiece import sentencepiece_model_pb2
from strings import SPECIAL, strings
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).parent
# Only one name of those that share their rules.
NAMES = ["default", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "tekken", "deepseek-coder"]


def write(name, value):
    (FOLDER / name).write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def vocabulary_of_bytes(texts):
    tokenizer = Tokenizer(models.BPE())
    # Cut as little as possible, so that there are tokens which every rule cuts its own way.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # Often enough that letters are merged with the marks on them.
    tokenizer.train_from_iterator(texts + ["हिन्दी"] * 20, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    # Words that no merges make: with some rules they are tokens all the same.
    tokens += ["ĠHello", "Hello"]
    token_type = [NORMAL] * len(tokens) + [CONTROL]
    merges = [" ".join(merge) for merge in model["merges"]]
    return {"tokens": tokens + ["<|im_end|>"], "token_type": token_type, "merges": merges}


def vocabulary_scored(texts):
    file = io.BytesIO()
    # Everything else is written in bytes.
    texts = (text for text in texts if text.isascii() and "\0" not in text)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=file,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(file.getvalue())
    pieces = [(piece.piece, piece.type, piece.score) for piece in model.pieces]
    tokens, token_type, scores = map(list, zip(*pieces))
    return {"tokens": tokens, "token_type": token_type, "scores": scores}


def main():
    texts = [text for text in strings(500) if not any(special in text for special in SPECIAL)]
    small, scored = vocabulary_of_bytes(texts), vocabulary_scored(texts)
    write("bytes.json", small)
    write("scored.json", scored)
    chosen = [text for text in strings(130) if not any(special in text for special in SPECIAL[3:6])]
    cases = [{"pre": pre, "ids": list(map(of_bytes(pre, **small), chosen))} for pre in NAMES]
    cases.append({"pre": None, "ids": list(map(of_scored(**scored), chosen))})
    assert len(set(small["tokens"])) == len(small["tokens"])
    alike = [(a["pre"], b["pre"]) for i, a in enumerate(cases) for b in cases[:i] if a["ids"] == b["ids"]]
    assert not alike, f"no text tells these rules apart: {alike}"
    lines = ",\n".join(json.dumps(case) for case in cases)
    chosen = json.dumps(chosen, ensure_ascii=False)
    (FOLDER / "expected.json").write_text(f'{{"strings": {chosen},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


main()
