"""The rules of the models themselves, built from a vocabulary by the libraries that these models were made with."""

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4

DIGITS = pre_tokenizers.Digits(individual_digits=True)
GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


# What GPT_2 has inside, for where it is not the last step.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = split(
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES
)
QWEN_2 = split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES)
QWEN_3_5 = split(
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES
)
LARGE, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = split(
    rf"{BEFORE}{LARGE}*{SMALL}+|{BEFORE}{LARGE}+{SMALL}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + SPACES
)

# Names of `tokenizer.ggml.pre`, and how they cut a text.
RULES = {
    # No model's, but what llama.cpp does for this name.
    "default": [split(r"[\p{P}$+<=>^~|]+"), split(PATTERN), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), BYTES],
    "gpt-2": [GPT_2],
    "smollm": [DIGITS, GPT_2],
    "llama-bpe": [LLAMA_3, BYTES],
    "dbrx": [LLAMA_3, BYTES],
    "qwen2": [QWEN_2, BYTES],
    "qwen35": [QWEN_3_5, BYTES],
    "tekken": [TEKKEN, BYTES],
    "deepseek-coder": [
        split(r"[\r\n]"),
        split(r"\s?\p{L}+"),
        split(r"\s?\p{P}+"),
        split("[一-龥ࠀ-一가-퟿]+"),
        DIGITS,
        BYTES,
    ],
}
for of, names in {
    "gpt-2": ["phi-2", "mpt", "olmo"],
    "smollm": ["starcoder", "refact", "command-r"],
    "llama-bpe": ["llama-v3", "llama3"],
    "dbrx": ["smaug-bpe"],
    "qwen2": ["deepseek-r1-qwen"],
}.items():
    RULES |= dict.fromkeys(names, RULES[of])
WHOLE_WORDS = ["llama-bpe", "llama-v3", "llama3", "tekken"]


def of_bytes(pre, tokens, token_type, merges):
    """A function from a text to its tokens."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in WHOLE_WORDS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(RULES[pre])
    for token, of in zip(tokens, token_type):
        if of in (UNKNOWN, CONTROL):
            tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
        if of == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def of_scored(tokens, token_type, scores, adds_space=True):
    """The same by SentencePiece itself, for texts without special tokens: after these it puts no space."""
    model = sentencepiece_model_pb2.ModelProto()
    for token, of, score in zip(tokens, token_type, scores):
        of = USER_DEFINED if of == CONTROL or (of == UNKNOWN and token != "<unk>") else of
        model.pieces.add(piece=token, type=of, score=score)
    # A file may call the unknown token a control token; SentencePiece needs one.
    model.pieces[list(tokens).index("<unk>")].type = UNKNOWN
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(tokens)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = adds_space
    model.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode
