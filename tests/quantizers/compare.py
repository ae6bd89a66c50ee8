"""Holds quantizers against those of others: microxcaling and torchao for MX, torch's casts for fp8, ml_dtypes for grids, torchao
and a reference after NVIDIA's description for NVFP4.

    pip install numpy ml_dtypes torch torchao
    git clone https://github.com/microsoft/microxcaling
    cargo build --release --example quantize
    PYTHONPATH=microxcaling python compare.py target/release/examples/quantize

Every line says how many blocks were compared and how many differ. Blocks have values of one size, of many sizes, on the grid's
own midpoints, powers of two, what is next to them, and zeros. Lines of "tiny" have values around and below the smallest normal
f32.

Where they differ: microxcaling takes exponents from a logarithm in f32, which rounds up just below a power of two ("below a
power"). torchao flushes subnormal values and scales of MX blocks. Its NVFP4 has no block scale below 2^-9, where here a smaller one
rounds to e4m3 as every other, perhaps to zero ("small scales"), and it multiplies by the reciprocal of a scale, which moves values
on midpoints.
"""

import subprocess
import sys

import ml_dtypes
import numpy as np
import torch
from mx.mx_ops import _quantize_mx
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
from torchao.prototype.mx_formats.kernels import unpack_uint4, f4_unpacked_to_f32

PROGRAM = sys.argv[1]
BLOCKS = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000


def ours(name, values):
    given = values.astype("<f4").tobytes()
    out = subprocess.run([PROGRAM, name, str(values.shape[1])], input=given, stdout=subprocess.PIPE, check=True)
    return np.frombuffer(out.stdout, "<f4").reshape(values.shape)


def blocks(width, seed, tiny=True):
    random = np.random.default_rng(seed)
    count = BLOCKS // 8
    unit = lambda: random.standard_normal((count, width)).astype(np.float32)
    power = lambda low, high: np.exp2(random.integers(low, high, (count, 1))).astype(np.float32)
    each = lambda low, high: np.exp2(random.integers(low, high, (count, width))).astype(np.float32)
    return np.concatenate([
        unit(),
        unit() * power(-20, 20),
        unit() * each(-12, 12),
        np.round(unit() * 16) / 16 * power(-6, 6),
        # A power of two, or what is next to it, is the largest.
        np.nextafter(each(-4, 4) * np.sign(unit()), np.where(unit() > 0, np.inf, 0).astype(np.float32)),
        each(-8, 3) * np.sign(unit()),
        unit() * power(-140, -120) if tiny else unit() * power(-20, -10),
        unit() * (random.random((count, width)) < 0.1),
    ]).astype(np.float32)


def report(name, whose, given, one, other, apart=None, why=""):
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    bad = ~same.all(axis=1)
    known = f", {int((bad & apart).sum()):,} of {int(apart.sum()):,} {why}" if apart is not None else ""
    bad = bad & ~apart if apart is not None else bad
    print(f"{name:18} {whose:26} {len(given):9,} blocks, {int(bad.sum()):7,} differ{known}", flush=True)
    if bad.any():
        row = np.flatnonzero(bad)[0]
        at = np.flatnonzero(~same[row])[0]
        largest = np.abs(given[row]).max()
        print(f"    first: {given[row, at]!r} under {largest!r} is {one[row, at]!r} here, {other[row, at]!r} there")
    return bad


def microxcaling():
    for element, name in [("fp8_e4m3", "e4m3"), ("fp8_e5m2", "e5m2"), ("fp6_e2m3", "e2m3"), ("fp6_e3m2", "e3m2"),
                          ("fp4_e2m1", "e2m1"), ("int8", "int8")]:
        given = blocks(32, 1, tiny=False)
        logarithms = np.floor(torch.log2(torch.from_numpy(np.abs(given))).numpy())
        below = ((logarithms != np.frexp(given)[1] - 1) & (given != 0)).any(axis=1)
        other = _quantize_mx(torch.from_numpy(given), 8, element, "max", axes=[-1], block_size=32, round="even")
        one = ours(f"{name}-e8m0-g32", given)
        report(f"{name}-e8m0-g32", "microxcaling", given, one, other.numpy(), below, "below a power")


def torchao_mx():
    kinds = [(torch.float8_e4m3fn, "e4m3"), (torch.float8_e5m2, "e5m2"), (torch.float4_e2m1fn_x2, "e2m1")]
    for dtype, name in kinds:
        for mode, scale in [(ScaleCalculationMode.FLOOR, "e8m0"), (ScaleCalculationMode.RCEIL, "e8m0up")]:
            for tiny in [False, True]:
                given = blocks(32, 2, tiny)
                scales, data = to_mx(torch.from_numpy(given), dtype, 32, mode)
                other = to_dtype(data, scales, dtype, 32, torch.float32)
                whose = f"torchao {mode.name}{' tiny' if tiny else ''}"
                report(f"{name}-{scale}-g32", whose, given, ours(f"{name}-{scale}-g32", given), other.numpy())


def torch_fp8():
    for dtype, name, reach in [(torch.float8_e4m3fn, "e4m3", 448.0), (torch.float8_e5m2, "e5m2", 57344.0)]:
        given = blocks(128, 3)
        x = torch.from_numpy(given)
        scale = x.abs().amax(dim=1, keepdim=True) / reach
        quotient = torch.where(scale == 0, torch.zeros_like(x), x / scale)
        other = quotient.clamp(-reach, reach).to(dtype).float() * scale
        report(f"{name}-f32-channel", "torch cast", given, ours(f"{name}-f32-channel", given), other.numpy())


def grids():
    for name, dtype, reach in [("e2m1", ml_dtypes.float4_e2m1fn, 6.0), ("e2m3", ml_dtypes.float6_e2m3fn, 7.5),
                               ("e3m2", ml_dtypes.float6_e3m2fn, 28.0), ("e4m3", ml_dtypes.float8_e4m3fn, 448.0),
                               ("e5m2", ml_dtypes.float8_e5m2, 57344.0)]:
        # With the reach among them, the scale is 1.
        given = np.clip(blocks(32, 4), -reach, reach)
        given[:, 0] = reach
        other = given.astype(dtype).astype(np.float32)
        report(f"{name}-f32-channel", "ml_dtypes", given, ours(f"{name}-f32-channel", given), other)


def nvfp4():
    given = blocks(16, 5, tiny=False)
    wide = given.reshape(-1, 160)
    one = ours("e2m1-e4m3-g16", wide).reshape(-1, 16)
    amax = np.abs(given).max()
    g = np.float32(amax) / np.float32(6 * 448)
    stored = (np.abs(given).max(axis=1, keepdims=True) / np.float32(6) / g).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    scale = stored * g
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.where(scale == 0, np.float32(0), given / scale)
    other = quotient.clip(-6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale
    report("e2m1-e4m3-g16", "reference of NVFP4", given, one, other)
    x = torch.from_numpy(wide.copy())
    tensor = per_tensor_amax_to_scale(x.abs().max())
    scales, data = nvfp4_quantize(x, 16, tensor)
    codes = f4_unpacked_to_f32(unpack_uint4(data)).reshape(-1, 16)
    other = codes.numpy() * (scales.float().reshape(-1, 1) * tensor).numpy()
    small = (stored <= 2.0**-9).ravel()
    report("e2m1-e4m3-g16", "torchao nvfp4", given, one, other, small, "small scales")


def integers():
    for name, bits, group, half in [("int4-f16-g128", 4, 128, True), ("int3-f16-g128", 3, 128, True), ("int8-f32-g64", 8, 64, False)]:
        given = blocks(group, 6, tiny=False)
        reach = np.float32(2 ** (bits - 1) - 1)
        scale = np.abs(given).max(axis=1, keepdims=True) / reach
        scale = np.minimum(scale, 65504).astype(np.float16).astype(np.float32) if half else scale
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(scale == 0, np.float32(0), np.rint(given / scale).clip(-reach, reach))
        report(name, "numpy", given, ours(name, given), (codes * scale).astype(np.float32))


microxcaling()
torchao_mx()
torch_fp8()
grids()
nvfp4()
integers()
