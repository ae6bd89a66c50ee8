"""Compares linear layers of torch in bfloat16 on a CPU with what `reprocheck dot` makes of the same numbers.

    pip install torch==2.13.0
    python compare.py path/to/reprocheck

Needs a CPU with AVX512-BF16, and nothing of AMX: ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 hides that. DNNL_VERBOSE=1 names the
kernel: brg_matmul:avx512_core_bf16 of oneDNN 3.12. (Calls of up to 4,096 multiply-adds torch does itself.) On an Intel
Xeon (family 6, model 207) every line below has 1.000 in a column: `dpbf16` up to 512 terms, and beyond that its
blocks. They are of 512 terms for a single row, and for several rows from 1536 terms up of 1024. So a row of that length
has other bits alone than in a batch.

A result of 8 bits hides how it was added. So the last four terms of each sum take away what the others have added, and
what is left are the rounding errors.
"""

import json
import subprocess
import sys

import torch

ORDERS = ["sequential", "dpbf16", "dpbf16-blocks:512", "dpbf16-blocks:1024"]
OUTPUTS = 256


def case(terms, rows):
    random = torch.Generator().manual_seed(terms)
    draw = lambda *shape: torch.randn(*shape, generator=random).bfloat16()
    x, w = draw(rows, terms), draw(OUTPUTS, terms)
    x[0, -4:] = 1.0
    left = (x[0].double() * w.double())[:, :-4].sum(1)
    for term in range(terms - 4, terms):
        w[:, term] = (-left).bfloat16()
        left += w[:, term].double()
    return x, w


def ours(program, order, x, w):
    lines = "".join(json.dumps({"a": x.tolist(), "b": column.tolist()}) + "\n" for column in w)
    command = [program, "dot", "--precision", "bf16", "--order", order]
    answers = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    return [json.loads(answer)["value"] for answer in answers.splitlines()]


def main():
    torch.set_num_threads(1)
    print("terms rows ", *ORDERS)
    for terms in [32, 66, 128, 512, 576, 1024, 1536, 2048, 4096]:
        for rows in [1, 2, 8]:
            x, w = case(terms, rows)
            theirs = torch.nn.functional.linear(x, w)[0].tolist()
            shares = []
            for order in ORDERS:
                values = ours(sys.argv[1], order, x[0], w)
                shares.append(sum(a == b for a, b in zip(values, theirs)) / OUTPUTS)
            print(f"{terms:5} {rows:4} ", *(f"{share:>{len(order)}.3f}" for order, share in zip(ORDERS, shares)))


main()
