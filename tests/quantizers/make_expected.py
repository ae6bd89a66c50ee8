"""Writes expected.json: blocks of values, and what torchao, torch and ml_dtypes make of them.

    pip install numpy ml_dtypes torch torchao
    python make_expected.py
"""

import json

import ml_dtypes
import numpy as np
import torch
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx

random = np.random.default_rng(7)
unit = lambda: random.standard_normal(32).astype(np.float32)
power = lambda low, high: np.exp2(random.integers(low, high, 32)).astype(np.float32)
BLOCKS = np.stack([
    unit(), unit() * 1e6, unit() * 1e-6, unit() * power(-12, 12), np.round(unit() * 16) / 16, power(-8, 3) * np.sign(unit()),
    np.nextafter(power(-4, 4), np.float32(np.inf)), np.nextafter(power(-4, 4), np.float32(0)), unit() * (random.random(32) < 0.1),
    np.zeros(32, np.float32),
]).astype(np.float32)


def mx(dtype, mode):
    scales, data = to_mx(torch.from_numpy(BLOCKS), dtype, 32, mode)
    return to_dtype(data, scales, dtype, 32, torch.float32).numpy()


def fp8(dtype, reach):
    x = torch.from_numpy(BLOCKS)
    scale = x.abs().amax(dim=1, keepdim=True) / reach
    return (torch.where(scale == 0, torch.zeros_like(x), x / scale).clamp(-reach, reach).to(dtype).float() * scale).numpy()


def grid(dtype, reach):
    given = np.clip(BLOCKS, -reach, reach)
    given[:, 0] = reach
    return given, given.astype(dtype).astype(np.float32)


FLOOR, CEIL = ScaleCalculationMode.FLOOR, ScaleCalculationMode.RCEIL
EXPECTED = {
    "e4m3-e8m0-g32": (BLOCKS, mx(torch.float8_e4m3fn, FLOOR)),
    "e4m3-e8m0up-g32": (BLOCKS, mx(torch.float8_e4m3fn, CEIL)),
    "e5m2-e8m0-g32": (BLOCKS, mx(torch.float8_e5m2, FLOOR)),
    "e2m1-e8m0-g32": (BLOCKS, mx(torch.float4_e2m1fn_x2, FLOOR)),
    "e2m1-e8m0up-g32": (BLOCKS, mx(torch.float4_e2m1fn_x2, CEIL)),
    "e4m3-f32-channel": (BLOCKS, fp8(torch.float8_e4m3fn, 448.0)),
    "e5m2-f32-channel": (BLOCKS, fp8(torch.float8_e5m2, 57344.0)),
    "e2m3-f32-channel": grid(ml_dtypes.float6_e2m3fn, 7.5),
    "e3m2-f32-channel": grid(ml_dtypes.float6_e3m2fn, 28.0),
}

words = lambda rows: ["".join(f"{word:08x}" for word in row.view(np.uint32)) for row in rows]
written = {name: [list(pair) for pair in zip(words(given), words(worth))] for name, (given, worth) in EXPECTED.items()}
with open("expected.json", "w") as file:
    json.dump(written, file, indent=1)
    file.write("\n")
