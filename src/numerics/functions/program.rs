//! Functions as programs: straight-line code in `f32`, and the one name of a file of it.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{LazyLock, PoisonError, RwLock},
};

use super::Called;
use crate::{
    name::{named, shortened},
    numerics::{
        canonical,
        file_key::{DIGITS, FileKey},
    },
};

/// How the name of a program begins.
pub(crate) const PREFIX: &str = "program:";

/// The most operations of one function.
pub const MOST_STEPS: usize = 256;

/// What a file says of the functions that a model calls, by the file's key; where the file was read in this process, it is known what
/// it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Program(FileKey);

/// What a file says.
struct Known {
    /// The file, for whoever keeps it.
    text: String,
    functions: Vec<(Called, Code)>,
}

/// What every file says that this process has read, kept for as long as it runs. A matrix has few.
static KNOWN: LazyLock<RwLock<HashMap<Program, &'static Known>>> = LazyLock::new(RwLock::default);

/// What a name looks like: a regular expression without its ends.
pub(super) fn pattern() -> String {
    format!("{PREFIX}[0-9a-f]{{{DIGITS}}}")
}

/// The file that the name of functions stands for, if it is none of a program that was read.
pub fn file_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|file| file.parse::<FileKey>().is_err())
}

impl Program {
    /// The one of a file with this SHA-256, in hexadecimal digits, whose text gives these functions.
    ///
    /// # Errors
    ///
    /// When these are no such digits.
    pub fn learned(sha256: &str, text: &str, functions: Vec<(Called, Code)>) -> Result<Program, String> {
        let program = FileKey::of(sha256).map(Program).map_err(|_| unread(sha256))?;
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).entry(program).or_insert_with(|| {
            let known = Known { text: text.to_owned(), functions };
            Box::leak(Box::new(known))
        });
        Ok(program)
    }

    fn known(self) -> Option<&'static Known> {
        KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&self).copied()
    }

    /// The text of its file, if that was read.
    pub fn text(self) -> Option<&'static str> {
        Some(&self.known()?.text)
    }

    /// The functions that it gives, if its file was read.
    pub fn gives(self) -> Option<Vec<Called>> {
        Some(self.known()?.functions.iter().map(|(called, _)| *called).collect())
    }

    /// The code of a function, where it gives that one; nothing where its file was not read.
    pub(super) fn code(self, called: Called) -> Option<Option<&'static Code>> {
        let functions = &self.known()?.functions;
        Some(functions.iter().find(|(given, _)| *given == called).map(|(_, code)| code))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Program, String> {
        text.parse().map(Program).map_err(|_| unread(text))
    }
}

fn unread(text: &str) -> String {
    format!(
        "`{PREFIX}{}` names a file, and here none is read: write the {DIGITS} hexadecimal digits that stand for it in the names of cells",
        shortened(text)
    )
}

/// What a line of a program does, rounding once to `f32`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// a * b + c
    Fma,
    /// -a
    Neg,
    /// a without its sign
    Abs,
    /// a where that is less than b, or else b
    Min,
    /// a where that is more than b, or else b
    Max,
    /// The square root of a
    Sqrt,
    /// The largest integer up to a
    Floor,
    /// a * 2^n, where n is the largest integer up to b, held to -300 and 300
    Ldexp,
}

named! { Operation, "operation":
    Add = "add", Sub = "sub", Mul = "mul", Div = "div", Fma = "fma", Neg = "neg", Abs = "abs", Min = "min", Max = "max",
    Sqrt = "sqrt", Floor = "floor", Ldexp = "ldexp",
}

impl Operation {
    /// How many numbers it takes.
    pub fn takes(self) -> usize {
        match self {
            Operation::Neg | Operation::Abs | Operation::Sqrt | Operation::Floor => 1,
            Operation::Fma => 3,
            _ => 2,
        }
    }
}

/// One line: an operation on what stands in these places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    operation: Operation,
    of: [u16; 3],
}

/// One function. Its argument, its constants and the results of its steps stand in places, one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Code {
    /// Their bits.
    constants: Vec<u32>,
    steps: Vec<Step>,
    /// The place of what is returned.
    result: u16,
}

/// Something that a line reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The argument.
    Argument,
    /// The number with these bits.
    Constant(u32),
    /// What the step of this number gave, counted from 0.
    Step(usize),
}

impl Code {
    /// These steps, of which each reads what stands before it, and what is returned. Nothing where one does not, takes another number
    /// of numbers, or where there are more than [`MOST_STEPS`].
    pub fn new(lines: &[(Operation, Vec<Read>)], result: Read) -> Option<Code> {
        let read = lines.iter().flat_map(|(_, read)| read).chain([&result]);
        let mut constants: Vec<u32> = Vec::new();
        for read in read {
            if let Read::Constant(bits) = read
                && !constants.contains(bits)
            {
                constants.push(*bits);
            }
        }
        let place = |read: &Read, before: usize| {
            let place = match read {
                Read::Argument => 0,
                Read::Constant(bits) => 1 + constants.iter().position(|constant| constant == bits)?,
                Read::Step(step) => 1 + constants.len() + Some(*step).filter(|step| *step < before)?,
            };
            u16::try_from(place).ok()
        };
        let step = |(at, (operation, read)): (usize, &(Operation, Vec<Read>))| {
            let places = read.iter().map(|read| place(read, at)).collect::<Option<Vec<_>>>()?;
            let mut of = [0; 3];
            of.get_mut(..operation.takes()).filter(|of| of.len() == places.len())?.copy_from_slice(&places);
            Some(Step { operation: *operation, of })
        };
        let steps = lines.iter().enumerate().map(step).collect::<Option<Vec<_>>>()?;
        let result = place(&result, steps.len())?;
        (steps.len() <= MOST_STEPS).then_some(Code { constants, steps, result })
    }

    /// The function of every value less this, in place.
    #[inline(always)]
    pub(super) fn each(&self, less: f32, xs: &mut [f32]) {
        let mut places = vec![[0.0; LANES]; 1 + self.constants.len() + self.steps.len()];
        for (place, bits) in places[1..].iter_mut().zip(&self.constants) {
            *place = [f32::from_bits(*bits); LANES];
        }
        for xs in xs.chunks_mut(LANES) {
            for (lane, x) in places[0].iter_mut().zip(&*xs) {
                *lane = x - less;
            }
            for (step, at) in self.steps.iter().zip(1 + self.constants.len()..) {
                let (before, rest) = places.split_at_mut(at);
                let [a, b, c] = step.of.map(|place| &before[usize::from(place)]);
                let out = &mut rest[0];
                match step.operation {
                    Operation::Add => lanes(out, |lane| a[lane] + b[lane]),
                    Operation::Sub => lanes(out, |lane| a[lane] - b[lane]),
                    Operation::Mul => lanes(out, |lane| a[lane] * b[lane]),
                    Operation::Div => lanes(out, |lane| a[lane] / b[lane]),
                    Operation::Fma => lanes(out, |lane| a[lane].mul_add(b[lane], c[lane])),
                    Operation::Neg => lanes(out, |lane| -a[lane]),
                    Operation::Abs => lanes(out, |lane| a[lane].abs()),
                    Operation::Min => lanes(out, |lane| if a[lane] < b[lane] { a[lane] } else { b[lane] }),
                    Operation::Max => lanes(out, |lane| if a[lane] > b[lane] { a[lane] } else { b[lane] }),
                    Operation::Sqrt => lanes(out, |lane| a[lane].sqrt()),
                    Operation::Floor => lanes(out, |lane| a[lane].floor()),
                    Operation::Ldexp => lanes(out, |lane| ldexp(a[lane], b[lane])),
                }
            }
            for (x, lane) in xs.iter_mut().zip(&places[usize::from(self.result)]) {
                *x = canonical(*lane);
            }
        }
    }
}

/// So many values go through a program together.
const LANES: usize = 16;

#[inline(always)]
fn lanes(out: &mut [f32; LANES], of: impl Fn(usize) -> f32) {
    for (lane, out) in out.iter_mut().enumerate() {
        *out = of(lane);
    }
}

/// a * 2^n for the largest integer n up to `by`, held to -300 and 300, where every `f32` has long reached its limit; NaN where either
/// is.
#[inline(always)]
fn ldexp(a: f32, by: f32) -> f32 {
    let n = by.floor();
    let n = if n > 300.0 { 300.0 } else { n };
    let n = if n < -300.0 { -300.0 } else { n };
    let power = f64::from_bits(((1023 + n as i64) << 52).cast_unsigned());
    // The product is exact in f64, so that the conversion alone rounds.
    let scaled = (f64::from(a) * power) as f32;
    if by.is_nan() { by } else { scaled }
}

/// The steps, each by the places that it reads: equal where two programs are.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bits in &self.constants {
            write!(f, "{bits:08x} ")?;
        }
        for Step { operation, of } in &self.steps {
            let [a, b, c] = of;
            write!(f, "{operation} {a} {b} {c} ")?;
        }
        write!(f, "{}", self.result)
    }
}
