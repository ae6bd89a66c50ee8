"""Writes expected.json: what Hugging Face's transformers makes of the templates in this folder.

    pip install transformers==5.23.0 jinja2==3.1.6
    python make_expected.py
"""

import datetime
import json
import pathlib

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils


class PinnedDay(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = PinnedDay

FOLDER = pathlib.Path(__file__).parent
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def message(role, content):
    return {"role": role, "content": content}


SYSTEM = message("system", "  Be brief.\n")
USER = message("user", "What is 17 + 25? <b>\"'é'\"</b>\n")
ASSISTANT = message("assistant", "<think>\n7 + 5 = 12, carry 1.\n</think>\n\n42")
MORE = message("user", " And 42 + 1?")
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT, MORE],
    [USER, ASSISTANT, MORE, ASSISTANT],
    [USER, message("tool", "1"), message("tool", "2"), MORE],
    [message("user", "one"), message("skip", "two"), message("user", "three"), message("stop", "four"), USER],
    [USER, MORE],
]
VARIABLES = {
    "chatml": [{}, {"tools": [{"function": {"name": "add", "parameters": {}}, "type": "function"}]}],
    "thinking": [{}, {"enable_thinking": False}, {"enable_thinking": True}],
    "headers": [{}, {"date_string": "1 Jan 2025"}],
    "brackets": [{}],
    "odds": [{}],
}


def main():
    cases = []
    for template, every in VARIABLES.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL_TOKENS)
        tokenizer.chat_template = (FOLDER / f"{template}.jinja").read_text(encoding="utf-8")
        for variables in every:
            for messages in CONVERSATIONS:
                for add_generation_prompt in (True, False):
                    case = dict(
                        template=template,
                        variables=variables,
                        messages=messages,
                        add_generation_prompt=add_generation_prompt,
                    )
                    try:
                        case["prompt"] = tokenizer.apply_chat_template(
                            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **variables
                        )
                    except Exception as error:
                        case["refused"] = str(error)
                    cases.append(case)
    expected = {"special_tokens": SPECIAL_TOKENS, "cases": cases}
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")


main()
