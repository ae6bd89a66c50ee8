//! Which elementary functions a model calls, and what each of them is: the exact ones, a library's, polynomials, bits, or a program.
//!
//! Norms, softmax, gates and rotary angles call [`Called`]. [`Functions`] says what these are, and is the same for one value and for
//! a slice, on every instruction set. What else the program computes (draws, statistics, the scale of attention) is exact.

mod poly;
pub mod program;
mod sets;

use std::{fmt, str::FromStr};

use pulp::Arch;

use self::{
    poly::DEGREES,
    program::{Code, Program},
    sets::{Exact, Exp2Fast, Libm, Poly, Set},
};
use super::{NAN, canonical};
use crate::name::{did_you_mean, named, nearest, shortened};

/// A function that a model calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Called {
    /// e to the power x: softmax.
    Exp,
    /// 1/sqrt(x): norms.
    Rsqrt,
    /// x/(1+e^-x): a gate.
    Silu,
    /// x/2*(1+erf(x/sqrt(2))): a gate.
    GeluErf,
    /// The same by tanh: a gate.
    GeluTanh,
    /// Sine: rotary angles.
    Sin,
    /// Cosine: rotary angles.
    Cos,
}

named! { Called, "function":
    Exp = "exp", Rsqrt = "rsqrt", Silu = "silu", GeluErf = "gelu_erf", GeluTanh = "gelu_tanh", Sin = "sin", Cos = "cos",
}

impl Called {
    /// What every model calls; what its gates do is its own.
    pub const BY_ALL: [Called; 4] = [Called::Exp, Called::Rsqrt, Called::Sin, Called::Cos];

    /// Who calls it, after "called by".
    pub fn by(self) -> &'static str {
        match self {
            Called::Exp => "softmax",
            Called::Rsqrt => "norms",
            Called::Silu | Called::GeluErf | Called::GeluTanh => "gates",
            Called::Sin | Called::Cos => "rotary angles",
        }
    }

    /// From where on it rises; below that it falls. Nothing where it does both again and again.
    pub(super) fn rises_from(self) -> Option<f32> {
        match self {
            Called::Exp => Some(f32::NEG_INFINITY),
            Called::Rsqrt => Some(f32::INFINITY),
            // Where each of them is least.
            Called::Silu => Some(-1.278_464_5),
            Called::GeluErf => Some(-0.751_791_54),
            Called::GeluTanh => Some(-0.752_461_4),
            Called::Sin | Called::Cos => None,
        }
    }

    /// The exact function of one value.
    pub fn exact(self, x: f32) -> f32 {
        Functions::Exact.of(self, x)
    }
}

/// What the functions are that a model calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Functions {
    /// Those of [`elementary`](super::elementary).
    #[default]
    Exact,
    /// Those of the crate `libm` in `f32`, and formulas over them.
    Libm,
    /// Minimax polynomials of this degree.
    Poly(Degree),
    /// The exponential by the bits of a float.
    Exp2Fast,
    /// Those that a file gives; the others are exact.
    Program(Program),
}

/// The degree of polynomials: 3 to 7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Degree(u8);

/// One row of [`FUNCTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct FunctionsEntry {
    /// The name, with a parameter in capitals.
    pub name: &'static str,
    /// What they are, in one sentence.
    pub sentence: &'static str,
}

/// Every kind of functions.
pub const FUNCTIONS: &[FunctionsEntry] = &[
    FunctionsEntry { name: EXACT, sentence: "one evaluation in f64, rounded once" },
    FunctionsEntry {
        name: LIBM,
        sentence: "the f32 functions of the crate libm, and formulas over them in f32",
    },
    FunctionsEntry {
        name: "poly:D",
        sentence: "minimax polynomials of degree 3 to 7 in f32, behind reductions of Cody and Waite; rsqrt is exact",
    },
    FunctionsEntry {
        name: EXP2_FAST,
        sentence: "exp by the bits of a float, and what is made of it in f32; rsqrt, sin and cos are exact",
    },
    FunctionsEntry {
        name: "program:FILE",
        sentence: "straight-line code in f32 that a file gives; what it does not give is exact",
    },
];

const EXACT: &str = "exact";
const LIBM: &str = "libm";
const POLY: &str = "poly:";
const EXP2_FAST: &str = "exp2-fast";

impl Functions {
    /// Settings to offer.
    pub const NAMES: [&str; 8] = [EXACT, LIBM, "poly:3", "poly:4", "poly:5", "poly:6", "poly:7", EXP2_FAST];

    /// What a setting looks like: a regular expression without its ends.
    pub(crate) fn pattern() -> String {
        let (least, most) = (DEGREES.start(), DEGREES.end());
        format!("({EXACT}|{LIBM}|{POLY}[{least}-{most}]|{EXP2_FAST}|{})", program::pattern())
    }

    /// The program, if it is one.
    pub fn program(self) -> Option<Program> {
        match self {
            Functions::Program(program) => Some(program),
            _ => None,
        }
    }

    /// A function of one value.
    pub fn of(self, called: Called, x: f32) -> f32 {
        let mut one = [x];
        self.each(called, 0.0, &mut one);
        one[0]
    }

    /// The function of every value, in place, in vectors of the width that the machine has.
    pub fn slice(self, called: Called, xs: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || self.each(called, 0.0, xs),
        );
    }

    /// The function of every value less this, in place: in a loop of whoever calls it, whose instructions it takes.
    #[inline(always)]
    pub(super) fn each(self, called: Called, less: f32, xs: &mut [f32]) {
        match self {
            Functions::Exact => each::<Exact>(called, less, xs),
            Functions::Libm => each::<Libm>(called, less, xs),
            Functions::Poly(Degree(3)) => each::<Poly<3>>(called, less, xs),
            Functions::Poly(Degree(4)) => each::<Poly<4>>(called, less, xs),
            Functions::Poly(Degree(5)) => each::<Poly<5>>(called, less, xs),
            Functions::Poly(Degree(6)) => each::<Poly<6>>(called, less, xs),
            Functions::Poly(Degree(_)) => each::<Poly<7>>(called, less, xs),
            Functions::Exp2Fast => each::<Exp2Fast>(called, less, xs),
            Functions::Program(program) => match program.code(called) {
                Some(Some(code)) => code.each(less, xs),
                Some(None) => each::<Exact>(called, less, xs),
                // Nobody knows what its file says: whoever opens an engine has refused it.
                None => xs.fill(NAN),
            },
        }
    }

    /// What a function is, in words that are equal where the functions are: nothing where it is exact.
    pub fn meaning(self, called: Called) -> Option<String> {
        let gate = matches!(called, Called::Silu | Called::GeluErf | Called::GeluTanh);
        match self {
            Functions::Exact => None,
            Functions::Libm => Some(LIBM.to_owned()),
            Functions::Exp2Fast => (called == Called::Exp || gate).then(|| EXP2_FAST.to_owned()),
            Functions::Poly(Degree(degree)) => match called {
                Called::Rsqrt => None,
                // An odd function has no even power, and both share their reduction.
                Called::Sin | Called::Cos => {
                    Some(format!("{POLY}{}, {}", (degree - 1) / 2 * 2 + 1, degree / 2 * 2))
                }
                _ => Some(format!("{POLY}{degree}")),
            },
            Functions::Program(program) => match program.code(called) {
                Some(code) => code.map(Code::to_string),
                None => Some(self.to_string()),
            },
        }
    }
}

/// One loop for each function, so that each becomes vectors.
#[inline(always)]
fn each<S: Set>(called: Called, less: f32, xs: &mut [f32]) {
    match called {
        Called::Exp => map::<S>(xs, less, S::exp),
        Called::Rsqrt => map::<S>(xs, less, S::rsqrt),
        Called::Silu => map::<S>(xs, less, S::silu),
        Called::GeluErf => map::<S>(xs, less, S::gelu_erf),
        Called::GeluTanh => map::<S>(xs, less, S::gelu_tanh),
        Called::Sin => map::<S>(xs, less, S::sin),
        Called::Cos => map::<S>(xs, less, S::cos),
    }
}

#[inline(always)]
fn map<S: Set>(xs: &mut [f32], less: f32, function: impl Fn(f32) -> f32) {
    for x in xs {
        let y = function(*x - less);
        *x = if S::CANONICAL { y } else { canonical(y) };
    }
}

impl fmt::Display for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Functions::Exact => f.write_str(EXACT),
            Functions::Libm => f.write_str(LIBM),
            Functions::Poly(Degree(degree)) => write!(f, "{POLY}{degree}"),
            Functions::Exp2Fast => f.write_str(EXP2_FAST),
            Functions::Program(program) => write!(f, "{}{program}", program::PREFIX),
        }
    }
}

impl FromStr for Functions {
    type Err = String;

    fn from_str(text: &str) -> Result<Functions, String> {
        if let Some(degree) = text.strip_prefix(POLY) {
            let is_digit = degree.len() == 1 && degree.bytes().all(|byte| byte.is_ascii_digit());
            let degree = degree.parse().ok().filter(|degree| is_digit && DEGREES.contains(degree));
            return degree.map(|degree| Functions::Poly(Degree(degree))).ok_or_else(|| {
                let (least, most) = (DEGREES.start(), DEGREES.end());
                format!(
                    "`{}` has no such degree: write {POLY}5, or another from {least} to {most}",
                    shortened(text)
                )
            });
        }
        if let Some(program) = text.strip_prefix(program::PREFIX) {
            return Ok(Functions::Program(program.parse()?));
        }
        match text {
            EXACT => Ok(Functions::Exact),
            LIBM => Ok(Functions::Libm),
            EXP2_FAST => Ok(Functions::Exp2Fast),
            _ => {
                let near = did_you_mean(nearest(text, Functions::NAMES.into_iter()));
                let names: Vec<_> = FUNCTIONS.iter().map(|entry| entry.name).collect();
                Err(format!(
                    "there are no functions `{}`: {near}write one of {}",
                    shortened(text),
                    names.join(", ")
                ))
            }
        }
    }
}
