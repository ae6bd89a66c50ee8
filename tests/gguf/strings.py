"""The texts on which tokenizers are compared: 2,000 of them, the same every time."""

import random

WORDS = """the of and to in is it's I'll we've they'd I'm don't 'tis y'all Hello HELLO hELLo world naïve café
straße Ωmega Привет мир こんにちは 数学 你好 世界 한국어 العربية שלום हिन्दी ไทย ქართული e\u0301 ﬁ ſ 'ſ ʼn İ ı ǅ
snake_case camelCase CONSTANT_NAME http://a.b/c?d=e&f=g a@b.c #tag $x {y} [z] (w) <tag/> --flag \\n \\t
0 1 42 123 1234 12345 3.14159 1e-10 0xFF 1,000,000 ٣٤٥ Ⅻ ½ ² 三 १२
def f(x): return x**2 -> => != === && || :: ;; ... ___ --- *** /// 'quoted' "double" `code`""".split()
SYMBOLS = list("🙂🚀👨‍👩‍👧‍👦🇩🇪✅❤️½²™©«»„“”‘’…–—·•¿¡€£¥§¶°±×÷√∑∞≈≠≤≥■□▁▂Ġ�\u200b\u200d\ufeff\u00ad")
SPACES = [" ", "  ", "   ", " " * 7, " " * 20, "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", " \t ", "\u00a0",
          "\u2003", "\u3000", "\u0085", "\u2028", "\v", "\f"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<|eot_id|>", "<|begin_of_text|>",
           "<fim_prefix>", "<|padding|>", "<0x0A>", "<|user|>", "<|end|>", "<PAD>", "[PAD151646]", "<|im_start", "im_end|>"]
CODE = ["fn main() {\n    println!(\"{}\", 1 + 1);\n}\n", "for (int i = 0; i < 10; ++i) {\n\ta[i] = b[i] << 2;\n}",
        "SELECT * FROM t WHERE a >= 10 AND b IS NOT NULL;", "<div class=\"a\">\r\n  <p>x &amp; y</p>\r\n</div>",
        "\\begin{align} x^2 &= \\frac{1}{2} \\\\ \\end{align}", "if __name__ == \"__main__\":\n        main()  # done\n\n\n"]


def any_character(dice):
    while True:
        code = dice.choice([dice.randrange(0x80), dice.randrange(0x800), dice.randrange(0x10000), dice.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def strings(count=2000):
    dice = random.Random(20240726)
    kinds = [
        lambda: " ".join(dice.choices(WORDS, k=dice.randint(1, 20))),
        lambda: "".join(str(dice.randrange(10)) for _ in range(dice.randint(1, 30))),
        lambda: f"{dice.randrange(10 ** 6)} {dice.choice('+-*/=<>^%')} {dice.randrange(10 ** 9)}={dice.random()}",
        lambda: "".join(dice.choices(SYMBOLS, k=dice.randint(1, 12))),
        lambda: "".join(dice.choices(SPACES, k=dice.randint(1, 8))),
        lambda: "".join(dice.choice(WORDS) + dice.choice(SPACES) for _ in range(dice.randint(1, 12))),
        lambda: "".join(dice.choice(WORDS + SYMBOLS + SPACES + SPECIAL + CODE) for _ in range(dice.randint(1, 15))),
        lambda: "".join(any_character(dice) for _ in range(dice.randint(1, 40))),
        lambda: "".join(chr(dice.randrange(0x4E00, 0x9FA6)) for _ in range(dice.randint(1, 25))),
        lambda: "".join(dice.choice("aAbB'sStTlLrReEvVdDmM ") for _ in range(dice.randint(1, 40))),
        lambda: "".join(dice.choice(SPECIAL) + dice.choice(WORDS + SPACES) for _ in range(dice.randint(1, 5))),
        lambda: dice.choice(CODE) + dice.choice(CODE),
        lambda: dice.choice("a ▁-=*\n0!") * dice.randint(1, 60),
    ]
    made = [""]
    while len(made) < count:
        made.append(kinds[len(made) % len(kinds)]())
    return made
