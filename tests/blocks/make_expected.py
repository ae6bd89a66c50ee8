"""Writes expected.txt, which src/numerics/block.rs holds its block formats against: what the Python package `gguf`, of the
project that defines them, makes of the same bytes.

Made with Python 3.11, gguf 0.19.0 and numpy 2.4.6:

    pip install gguf==0.19.0 numpy==2.4.6
    python tests/blocks/make_expected.py

Of each format it says `layout` (the number of the type, values and bytes of a block), `stream` (SHA-256 of the values of
pseudo-random blocks), and `block` (one of them and its values). Of those that gguf can write also `quantized`: a ramp as
blocks, and their values. Values are f32, little endian. No scale is infinite or NaN, so that every bit is defined.
"""

import hashlib
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

BLOCKS = 2048
# Where the f16 of a block lie: its scale, and its minimum if it has one.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
}
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
# Both zeros, the smallest and the largest subnormal, the smallest normal, and the largest of either sign.
EDGES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF]


def words(state):
    while True:
        state ^= state << 13 & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 7
        state ^= state << 17 & 0xFFFF_FFFF_FFFF_FFFF
        yield state


def half(word):
    choice = word % 16
    code = EDGES[choice] if choice < len(EDGES) else word >> 32 & 0xFFFF
    # The exponent of infinities and NaNs becomes an ordinary one.
    return code & ~0x4000 if code & 0x7C00 == 0x7C00 else code


def block(source, size, halves):
    data = bytearray()
    while len(data) < size:
        data += next(source).to_bytes(8, "little")
    del data[size:]
    for at in halves:
        data[at : at + 2] = half(next(source)).to_bytes(2, "little")
    return bytes(data)


def values(data, kind):
    out = quants.dequantize(np.frombuffer(data, dtype=np.uint8), kind)
    assert out.dtype == np.float32 and np.isfinite(out).all()
    return out.astype("<f4").tobytes()


lines = []
for name, halves in HALVES.items():
    kind = GGMLQuantizationType[name]
    count, size = GGML_QUANT_SIZES[kind]
    source = words(2026 + kind.value)
    blocks = [block(source, size, halves) for _ in range(BLOCKS)]
    stream = values(b"".join(blocks), kind)
    assert len(stream) == 4 * count * BLOCKS
    lines.append(f"{name} layout {kind.value} {count} {size}")
    lines.append(f"{name} stream {hashlib.sha256(stream).hexdigest()}")
    # The first one whose scales are ordinary.
    shown = next(
        data
        for data in blocks
        if all(0x1C00 < int.from_bytes(data[at : at + 2], "little") & 0x7FFF < 0x4C00 for at in halves)
    )
    lines.append(f"{name} block {shown.hex()} {values(shown, kind).hex()}")
    if name in QUANTIZED:
        ramp = (np.arange(64, dtype=np.float32) - np.float32(13)) / np.float32(8)
        data = quants.quantize(ramp, kind).tobytes()
        lines.append(f"{name} quantized {data.hex()} {values(data, kind).hex()}")

pathlib.Path(__file__).with_name("expected.txt").write_text("\n".join(lines) + "\n")
