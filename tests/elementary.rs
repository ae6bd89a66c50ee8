//! The elementary functions against oracles written by others, and their bits against recorded ones.

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{One, Signed, Zero};
use reprocheck::numerics::{
    NAN,
    elementary::{self, FUNCTIONS, Function},
};
use sha2::{Digest, Sha256};

/// What is recorded of one function.
struct Record {
    name: &'static str,
    /// SHA-256 of the results over `sample(DIGEST_STEP)`: the same on every platform.
    digest: &'static str,
    /// How many of all 2^32 inputs give another result than the nearest `f32`: first where the nearest is
    /// a normal number, then where it is subnormal or zero.
    misrounded: [u64; 2],
}

const RECORDS: &[Record] = &[
    Record {
        name: "exp",
        digest: "7cdfa10e5cfdccdca4232a0e3ba03f4b31aeaf48c2a146cd4b558ae4b5320b6d",
        misrounded: [0, 0],
    },
    Record {
        name: "tanh",
        digest: "80dc6e68056b93de535c974750aa346f85c4bc71fc722ba08ddd0abc18c9fb7c",
        misrounded: [0, 0],
    },
    Record {
        name: "sigmoid",
        digest: "088c292fe5a74248ee00ef8e7436186bbd5cf928dbdd1e294c61347a28140ebc",
        misrounded: [66, 0],
    },
    Record {
        name: "silu",
        digest: "3a9bfaf3be10f470600d7a36f3d7d5e1a2edf54d82649507b52a7d381dae857a",
        misrounded: [0, 1 << 23],
    },
    Record {
        name: "gelu_erf",
        digest: "d2114099eb78c826a1dceb35ecea6445d5979e84f695044e0641258a2bc3810a",
        misrounded: [2, 1 << 23],
    },
    Record {
        name: "gelu_tanh",
        digest: "9f3cdbe35f760f433a24b027c0e14bf694e4e672e2fc1c3f00f741ce6d090918",
        misrounded: [1, 1 << 23],
    },
    Record {
        name: "rsqrt",
        digest: "7a23315047fc73c7f1e835df22dbb83f1d8943146796fbe34873737f84ef1c7e",
        misrounded: [0, 0],
    },
    Record {
        name: "sqrt",
        digest: "2b20557f4cc6c06ba50f8ac94e982e2b1b227c34f078f77ecc0e9fc26ca83517",
        misrounded: [0, 0],
    },
    Record {
        name: "sin",
        digest: "3cc50e5008edf88c2858f15c923291e0ccebc46fb24e81f56ae0d5cbe81d8007",
        misrounded: [0, 0],
    },
    Record {
        name: "cos",
        digest: "c6d65df97bd30699d67ca51faf842f6b30024871e1201db1fbf599f8772ffcbe",
        misrounded: [0, 0],
    },
    Record {
        name: "log",
        digest: "85cbf59d92e92bb460e236f71866ef6563bda3a3be33b54b061ac7208c634225",
        misrounded: [0, 0],
    },
    Record {
        name: "erf",
        digest: "f7e8c4d114f5111a53760902a90552ede3973df4f65efad3f81ee9921766c39f",
        misrounded: [0, 0],
    },
];

const DIGEST_STEP: usize = 4_099;

/// The edges: zeros, subnormals, infinities, NaNs of several payloads, the published exceptions, and the
/// neighbors of the places where a body changes its course.
fn edges() -> Vec<u32> {
    let magnitudes: [f32; 16] = [
        0.0,
        f32::MIN_POSITIVE,
        f32::MAX,
        0.2,
        1.0,
        9.5,
        20.0,
        88.722_84,
        89.0,
        103.972_08,
        104.0,
        700.0,
        1000.0,
        1_048_576.0,
        9_830.398,
        f32::INFINITY,
    ];
    let patterns = [
        0x7FC0_0000,
        0x7F80_0001,
        0x7FFF_FFFF,
        0x3C41_3D3A,
        0x4117_8FEB,
        0x4C5D_65A5,
        0x65D8_90D3,
        0x6F31_A8EC,
        0x5922_AA80,
        0x5F18_B878,
        0x6115_CB11,
    ];
    let around = magnitudes.iter().flat_map(|x| (-2..=2).map(|d| x.to_bits().wrapping_add_signed(d)));
    around.chain(patterns).flat_map(|bits| [bits, bits ^ 0x8000_0000]).collect()
}

/// The edges and every `step`-th bit pattern.
fn sample(step: usize) -> impl Iterator<Item = f32> {
    edges().into_iter().chain((0..=u32::MAX).step_by(step)).map(f32::from_bits)
}

/// Where slice and scalar differ: the bits of the input and of both results.
fn mismatches(f: &Function, inputs: &[f32]) -> Vec<(u32, u32, u32)> {
    let mut sliced = inputs.to_vec();
    (f.slice)(&mut sliced);
    let pairs = inputs.iter().zip(sliced).map(|(&x, y)| (x.to_bits(), (f.scalar)(x).to_bits(), y.to_bits()));
    pairs.filter(|(_, a, b)| a != b).collect()
}

#[test]
fn slices_hold_the_scalar_bits() {
    let inputs: Vec<f32> = sample(7_919).collect();
    for f in FUNCTIONS {
        assert_eq!(mismatches(f, &inputs), [], "{}", f.name);
    }
}

#[test]
fn slices_of_every_ragged_length_and_offset_hold_the_scalar_bits() {
    let inputs: Vec<f32> = sample(99_999_989).collect();
    for f in FUNCTIONS {
        for length in 0..=140 {
            for offset in [0, 1, 7, 50] {
                assert_eq!(mismatches(f, &inputs[offset..offset + length]), [], "{} of {length}", f.name);
            }
        }
    }
}

#[test]
fn every_nan_is_canonical() {
    for f in FUNCTIONS {
        for x in sample(65_537) {
            let y = (f.scalar)(x);
            assert!(!y.is_nan() || y.to_bits() == NAN.to_bits(), "{}({x})", f.name);
            assert!(!x.is_nan() || y.is_nan(), "{}({x})", f.name);
        }
    }
}

#[test]
fn values_at_the_edges() {
    const INF: f32 = f32::INFINITY;
    // The results at -infinity, -0, +0 and +infinity.
    let table: [(&str, [f32; 4]); 12] = [
        ("exp", [0.0, 1.0, 1.0, INF]),
        ("tanh", [-1.0, -0.0, 0.0, 1.0]),
        ("sigmoid", [0.0, 0.5, 0.5, 1.0]),
        ("silu", [-0.0, -0.0, 0.0, INF]),
        ("gelu_erf", [-0.0, -0.0, 0.0, INF]),
        ("gelu_tanh", [-0.0, -0.0, 0.0, INF]),
        ("rsqrt", [NAN, -INF, INF, 0.0]),
        ("sqrt", [NAN, -0.0, 0.0, INF]),
        ("sin", [NAN, -0.0, 0.0, NAN]),
        ("cos", [NAN, 1.0, 1.0, NAN]),
        ("log", [NAN, -INF, -INF, INF]),
        ("erf", [-1.0, -0.0, 0.0, 1.0]),
    ];
    for (f, (name, values)) in FUNCTIONS.iter().zip(table) {
        assert_eq!(f.name, name);
        let found = [-INF, -0.0, 0.0, INF].map(|x| (f.scalar)(x).to_bits());
        assert_eq!(found, values.map(f32::to_bits), "{name}");
    }
    for f in [elementary::silu, elementary::gelu_erf, elementary::gelu_tanh] {
        for x in [f32::MIN, -1e30, -1000.5, -1000.0, -999.5, -200.0] {
            assert_eq!(f(x).to_bits(), (-0.0_f32).to_bits());
        }
        assert_eq!(f(f32::MAX), f32::MAX);
    }
    assert_eq!(elementary::log(-1.0).to_bits(), NAN.to_bits());
    assert_eq!(elementary::rsqrt(-1.0).to_bits(), NAN.to_bits());
}

/// Inputs that implementations are known to misround, with the right results.
#[test]
fn published_hard_cases() {
    type Scalar = fn(f32) -> f32;
    let cases: [(Scalar, u32, u32); 13] = [
        (elementary::sin, 0x4619_9998, 0xBEB1_FA5D),
        (elementary::sin, 0xC619_9998, 0x3EB1_FA5D),
        (elementary::cos, 0x5922_AA80, 0x3F08_AEBF),
        (elementary::cos, 0xD922_AA80, 0x3F08_AEBF),
        (elementary::cos, 0x5F18_B878, 0x3F7F_14BB),
        (elementary::cos, 0xDF18_B878, 0x3F7F_14BB),
        (elementary::cos, 0x6115_CB11, 0x3F78_142F),
        (elementary::exp, 0xBBF0_EDF1, 0x3F7E_1FE9),
        (elementary::log, 0x3C41_3D3A, 0xC08E_158F),
        (elementary::log, 0x4117_8FEB, 0x400F_E5E7),
        (elementary::log, 0x4C5D_65A5, 0x418F_034B),
        (elementary::log, 0x65D8_90D3, 0x4254_D1F9),
        (elementary::log, 0x6F31_A8EC, 0x4284_5A89),
    ];
    for (f, x, y) in cases {
        assert_eq!(f(f32::from_bits(x)).to_bits(), y, "at {x:#010x}");
    }
}

#[test]
fn bits_are_the_recorded_ones() {
    let inputs: Vec<f32> = sample(DIGEST_STEP).collect();
    let mut found = Vec::new();
    for f in FUNCTIONS {
        let mut ys = inputs.clone();
        (f.slice)(&mut ys);
        let bytes: Vec<u8> = ys.iter().flat_map(|y| y.to_bits().to_le_bytes()).collect();
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        found.push((f.name, digest));
    }
    let recorded: Vec<_> = RECORDS.iter().map(|r| (r.name, r.digest.to_string())).collect();
    assert_eq!(found, recorded);
}

/// Fractional bits of the fixed-point numbers of [`Gates`].
const FRACTION: usize = 512;

/// The gates in exact arithmetic: fixed-point integers of some 500 bits, rounded once to `f32`.
struct Gates {
    /// sqrt(2/pi).
    scale: BigInt,
}

impl Gates {
    fn new() -> Self {
        // Machin: pi = 16 atan(1/5) - 4 atan(1/239).
        let atan_inverse = |n: u32| {
            let (mut power, mut sum, mut k) = ((BigInt::one() << FRACTION) / n, BigInt::zero(), 0_u32);
            while !power.is_zero() {
                let term = &power / (2 * k + 1);
                sum = if k % 2 == 0 { sum + term } else { sum - term };
                power /= n * n;
                k += 1;
            }
            sum
        };
        let pi: BigInt = atan_inverse(5) * 16 - atan_inverse(239) * 4;
        let two_over_pi = (BigInt::from(2) << (2 * FRACTION)) / pi;
        Self { scale: (two_over_pi << FRACTION).sqrt() }
    }

    /// The nearest `f32` to the function called `name` at `x`.
    fn nearest(&self, name: &str, x: f32) -> f32 {
        let gated = name != "sigmoid";
        if x.is_nan() {
            return NAN;
        } else if gated && x.abs() < 2_f32.powi(-60) {
            // x/2 plus less than x^2, on the upper side: as good as the next f64, ties included.
            let half = f64::from(x) / 2.0;
            return if x == 0.0 { x } else { half.next_up() as f32 };
        } else if x >= 120.0 {
            return if gated { x } else { 1.0 };
        } else if x <= -120.0 {
            return if gated { -0.0 } else { 0.0 };
        }
        let wide = fixed(x);
        let value = match name {
            "sigmoid" => logistic(&wide),
            "silu" => mul(&wide, &logistic(&wide)),
            "gelu_tanh" => {
                let cube = mul(&mul(&wide, &wide), &wide);
                let inner = &wide + cube * 44_715 / 1_000_000;
                mul(&wide, &logistic(&mul(&inner, &(&self.scale * 2))))
            }
            "gelu_erf" if x <= -16.0 => return -0.0,
            "gelu_erf" if x >= 16.0 => return x,
            "gelu_erf" => {
                // erf(x/sqrt(2)) = sqrt(2/pi) e^(-x^2/2) (x + x^3/3 + x^5/(3*5) + …).
                let square = mul(&wide, &wide);
                let (mut term, mut sum, mut odd) = (wide.clone(), BigInt::zero(), 1);
                while !term.is_zero() && term != BigInt::from(-1) {
                    sum += &term;
                    odd += 2;
                    term = mul(&term, &square) / odd;
                }
                let erf = mul(&mul(&self.scale, &exp_negative(&(square >> 1))), &sum);
                mul(&wide, &((BigInt::one() << FRACTION) + erf)) >> 1
            }
            _ => unreachable!("{name} is not a gate"),
        };
        if gated { round(&value).copysign(x) } else { round(&value) }
    }
}

/// `x` as a fixed-point number; exact for what [`Gates`] asks.
fn fixed(x: f32) -> BigInt {
    if x.abs() < 2_f32.powi(-150 + 24) {
        return BigInt::zero();
    }
    let exponent = (x.abs().to_bits() >> 23) as i32 - 150;
    let mantissa = BigInt::from(x.to_bits() & 0x007F_FFFF | 0x0080_0000);
    let magnitude = mantissa << (FRACTION as i32 + exponent);
    if x < 0.0 { -magnitude } else { magnitude }
}

fn mul(a: &BigInt, b: &BigInt) -> BigInt {
    (a * b) >> FRACTION
}

/// e^-t for t >= 0: the series at t/2^16, squared 16 times.
fn exp_negative(t: &BigInt) -> BigInt {
    let small: BigInt = t >> 16;
    let (mut term, mut sum, mut n) = (BigInt::one() << FRACTION, BigInt::zero(), 0);
    while !term.is_zero() {
        sum = if n % 2 == 0 { sum + &term } else { sum - &term };
        n += 1;
        term = mul(&term, &small) / n;
    }
    (0..16).fold(sum, |e, _| mul(&e, &e))
}

/// 1/(1+e^-w), without cancellation on either side.
fn logistic(w: &BigInt) -> BigInt {
    if w.abs() > BigInt::from(200) << FRACTION {
        return if w.is_negative() { BigInt::zero() } else { BigInt::one() << FRACTION };
    }
    let e = exp_negative(&w.abs());
    let one = BigInt::one() << FRACTION;
    let numerator = if w.is_negative() { e.clone() } else { one.clone() };
    (numerator << FRACTION) / (one + e)
}

/// The nearest `f32`.
fn round(value: &BigInt) -> f32 {
    let (sign, magnitude): (Sign, &BigUint) = (value.sign(), value.magnitude());
    // The 40 leading bits, the last of them set where anything follows, are exact in f64.
    let dropped = magnitude.bits().saturating_sub(40);
    let sticky = magnitude.trailing_zeros().is_some_and(|zeros| zeros < dropped);
    let leading = u64::try_from(magnitude >> dropped).expect("40 bits") | u64::from(sticky);
    let y = (leading as f64 * 2_f64.powi(dropped as i32 - FRACTION as i32)) as f32;
    if sign == Sign::Minus { -y } else { y }
}

const GATES: [&str; 4] = ["sigmoid", "silu", "gelu_erf", "gelu_tanh"];

/// Not claimed to be correctly rounded; yet on this sample nearly every normal result is.
#[test]
fn gates_are_the_nearest_on_a_sample() {
    let gates = Gates::new();
    for f in FUNCTIONS.iter().filter(|f| GATES.contains(&f.name)) {
        for x in sample(300_007) {
            let (found, nearest) = ((f.scalar)(x), gates.nearest(f.name, x));
            let apart = found.to_bits().abs_diff(nearest.to_bits());
            let allowed = u32::from(nearest.abs() < f32::MIN_POSITIVE);
            assert!(apart <= allowed, "{}({x:e}) = {found:e}, not {nearest:e}", f.name);
        }
    }
}

#[cfg(target_os = "linux")]
mod core_math_oracle {
    use super::*;
    use rayon::prelude::*;

    fn oracle(name: &str) -> Option<fn(f32) -> f32> {
        Some(match name {
            "exp" => core_math::expf,
            "tanh" => core_math::tanhf,
            "rsqrt" => core_math::rsqrtf,
            // Not in CORE-MATH; exact in f64 to more than twice the bits, hence rounded twice to no harm.
            "sqrt" => |x| f64::from(x).sqrt() as f32,
            "sin" => core_math::sinf,
            "cos" => core_math::cosf,
            "log" => core_math::logf,
            "erf" => core_math::erff,
            _ => return None,
        })
    }

    fn canonical(y: f32) -> u32 {
        if y.is_nan() { NAN.to_bits() } else { y.to_bits() }
    }

    #[test]
    fn correctly_rounded_on_a_sample() {
        for f in FUNCTIONS {
            let Some(oracle) = oracle(f.name) else { continue };
            for x in sample(997) {
                assert_eq!((f.scalar)(x).to_bits(), canonical(oracle(x)), "{}({x:e})", f.name);
            }
        }
    }

    /// The nearest `f32` to a gate: from CORE-MATH's correctly rounded `f64` functions where their few
    /// errors cannot matter, in exact arithmetic elsewhere.
    fn nearest(gates: &Gates, name: &str, x: f32) -> f32 {
        let wide = f64::from(x);
        if (f64::from(f32::MIN_POSITIVE)..120.0).contains(&wide.abs()) || name == "sigmoid" {
            // The bounds are generous: the error of the argument grows by the argument in the result.
            let (y, bound) = match name {
                "sigmoid" => (1.0 / (1.0 + core_math::exp(-wide)), 2_f64.powi(-49)),
                "silu" => (wide / (1.0 + core_math::exp(-wide)), 2_f64.powi(-49)),
                "gelu_erf" => {
                    let z = -wide * std::f64::consts::FRAC_1_SQRT_2;
                    (wide * 0.5 * core_math::erfc(z), 2_f64.powi(-42))
                }
                _ => {
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide * wide * wide);
                    (wide / (1.0 + core_math::exp(-2.0 * u)), 2_f64.powi(-42))
                }
            };
            let (low, high) = ((y * (1.0 - bound)) as f32, (y * (1.0 + bound)) as f32);
            if low.to_bits() == high.to_bits() {
                return low;
            }
        }
        gates.nearest(name, x)
    }

    /// Compares every input, and the slice with the scalar on the way.
    fn every_input(name: &str) {
        let index = FUNCTIONS.iter().position(|f| f.name == name).expect("a function of the table");
        let (f, gates) = (&FUNCTIONS[index], Gates::new());
        let count = |block: u32| {
            let mut wrong = [0_u64; 2];
            let inputs: Vec<f32> = (0..1 << 16).map(|low| f32::from_bits(block << 16 | low)).collect();
            let mut sliced = inputs.clone();
            (f.slice)(&mut sliced);
            for (x, y) in inputs.into_iter().zip(sliced) {
                assert_eq!((f.scalar)(x).to_bits(), y.to_bits(), "{name}({x:e}), scalar and slice");
                let right = match oracle(name) {
                    Some(oracle) => oracle(x),
                    None => nearest(&gates, name, x),
                };
                if y.to_bits() != canonical(right) {
                    wrong[usize::from(right.abs() < f32::MIN_POSITIVE)] += 1;
                }
            }
            wrong
        };
        let wrong = (0..1 << 16).into_par_iter().map(count);
        let wrong = wrong.reduce(|| [0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        assert_eq!(wrong, RECORDS[index].misrounded, "{name}");
    }

    macro_rules! every_input_of {
        ($($name:ident)*) => {$(
            #[test]
            #[ignore = "minutes; run with: cargo test --release --test all elementary:: -- --ignored"]
            fn $name() {
                every_input(stringify!($name));
            }
        )*};
    }

    every_input_of!(exp tanh sigmoid silu gelu_erf gelu_tanh rsqrt sqrt sin cos log erf);
}
