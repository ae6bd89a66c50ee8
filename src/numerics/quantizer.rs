//! Quantizers: how a stretch of values becomes codes of a few bits, and the scales that bring them back.
//!
//! A grid says which codes there are, a span which values share a scale, a scale's own format what it may be. All that is
//! computed here is computed in f32, and a scale divides: a multiplication by its reciprocal gives other bits.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroUsize},
    ops::Range,
    str::FromStr,
};

use super::format::Format;

/// How values become codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quantizer {
    /// Which codes there are.
    pub grid: Grid,
    /// What a scale may be.
    pub scale: Scale,
    /// Which values share a scale.
    pub span: Span,
    /// Does the grid reach from the smallest value of a span to the largest, and not as far below zero as above?
    pub zero: bool,
}

/// Which codes there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grid {
    /// Whole numbers of so many bits, as far below zero as above: those of 4 bits reach from -7 to 7.
    Integers(u8),
    /// Odd numbers of so many bits: those of 2 bits are -3, -1, 1 and 3.
    Odd(u8),
    /// The values of a float of at most 8 bits.
    Floats(Format),
}

/// What a scale may be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scale {
    /// Any f32.
    F32,
    /// Any f16.
    F16,
    /// A power of two, the largest below which no value's exponent exceeds the grid's: what the OCP's formats have.
    PowerBelow,
    /// A power of two, the smallest that brings every value into the grid.
    PowerAbove,
    /// An 8-bit float (e4m3) times an f32 that the whole tensor shares: a matrix of weights, or a token's activations.
    Nested,
}

/// Which values share a scale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Span {
    /// All terms of an output (a channel), all activations of a token.
    Line,
    /// So many terms after one another.
    Group(NonZeroU16),
    /// So many terms of as many outputs.
    Square(NonZeroU16),
    /// The whole matrix, or all activations that a place ever reads.
    Tensor,
    /// The same, whose limits were measured beforehand: values beyond them become the grid's ends.
    Measured(Limits),
}

/// The smallest and the largest value that were met, zero among them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// By their bits, so that they can be a part of a name.
    low: u32,
    high: u32,
}

impl Limits {
    /// Of a place that nothing was measured at: nothing can be made of values there.
    pub const NONE: Limits = Limits { low: f32::NAN.to_bits(), high: f32::NAN.to_bits() };

    /// From the one to the other.
    pub fn new(low: f32, high: f32) -> Limits {
        Limits { low: low.min(0.0).to_bits(), high: high.max(0.0).to_bits() }
    }

    /// From where to where.
    pub fn ends(self) -> (f32, f32) {
        (f32::from_bits(self.low), f32::from_bits(self.high))
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.ends();
        write!(f, "{low}..{high}")
    }
}

/// How many bits values take that stand side by side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bits {
    /// The code of each: what a product multiplies.
    pub code: u32,
    /// A scale, with whatever else stands beside the codes; none where it is 0.
    pub scale: u32,
    /// How many values share a scale: all of an output where it is none.
    pub shared_by: Option<NonZeroUsize>,
}

impl Bits {
    /// Of so many values of one output.
    pub fn of(self, values: usize) -> u64 {
        let scales = values.div_ceil(self.shared_by.map_or(values.max(1), NonZeroUsize::get));
        u64::from(self.code) * values as u64 + u64::from(self.scale) * scales as u64
    }
}

/// A vector as codes.
#[derive(Clone, PartialEq, Debug)]
pub struct Quantized {
    /// What each value is on the grid, the zero of its span taken away.
    pub codes: Vec<f32>,
    /// The zero of each group.
    pub zeros: Vec<f32>,
    /// What multiplies each group; 1 where there is one group alone. NaN where a value was not finite, so that nothing hides it.
    pub scales: Vec<f32>,
    /// What multiplies all of them: a scale that groups have none beside or one under, otherwise 1.
    pub whole: f32,
}

impl Quantized {
    /// A stretch of it that begins and ends where groups of so many do.
    pub fn stretch(&self, terms: Range<usize>, group: usize) -> Quantized {
        let groups = terms.start / group..terms.end.div_ceil(group);
        Quantized {
            codes: self.codes[terms].to_vec(),
            zeros: self.zeros[groups.clone()].to_vec(),
            scales: self.scales[groups].to_vec(),
            whole: self.whole,
        }
    }

    /// What each code is worth, where it is multiplied as a value.
    pub fn values(&self, group: usize) -> impl Iterator<Item = f32> {
        self.codes.iter().enumerate().map(move |(term, code)| code * (self.scales[term / group] * self.whole))
    }
}

/// Every power of two from 2^-127 to 2^127.
fn power(exponent: i32) -> f32 {
    f64::from_bits(((exponent.clamp(-127, 127) + 1023) as u64) << 52) as f32
}

/// The exponent of the largest power of two that is not larger. Of 0 it is less than any.
fn exponent(value: f64) -> i32 {
    (value.to_bits() >> 52) as i32 - 1023
}

impl Grid {
    /// The bits of a code.
    pub fn bits(self) -> u32 {
        match self {
            Grid::Integers(bits) | Grid::Odd(bits) => bits.into(),
            Grid::Floats(format) => format.bits(),
        }
    }

    /// The largest value.
    pub fn reach(self) -> f32 {
        match self {
            Grid::Integers(bits) => ((1 << (bits - 1)) - 1) as f32,
            Grid::Odd(bits) => ((1 << bits) - 1) as f32,
            Grid::Floats(format) => format.max_finite(),
        }
    }

    /// A power of two that divides all values.
    pub fn unit(self) -> f32 {
        match self {
            Grid::Integers(_) | Grid::Odd(_) => 1.0,
            Grid::Floats(format) => format.min_subnormal(),
        }
    }

    /// Rounds numbers to the grid: to the nearest of it, ties to the even code; what is beyond its ends to these.
    #[inline(always)]
    fn round_slice(self, values: &mut [f32]) {
        let reach = self.reach();
        match self {
            // Whole numbers have one zero.
            Grid::Integers(_) => values.iter_mut().for_each(|value| {
                *value = value.round_ties_even().clamp(-reach, reach) + 0.0;
            }),
            Grid::Odd(_) => values.iter_mut().for_each(|value| {
                *value = (2.0 * ((*value - 1.0) / 2.0).round_ties_even() + 1.0).clamp(-reach, reach);
            }),
            Grid::Floats(format) => format.round_slice(values),
        }
    }

    /// The code of a value of the grid, its zero added, in the low [`bits`](Self::bits).
    pub fn encode(self, value: f32) -> u8 {
        match self {
            Grid::Integers(_) => value as u8,
            Grid::Odd(_) => ((value + self.reach()) / 2.0) as u8,
            Grid::Floats(format) => format.encode(value) as u8,
        }
    }

    /// The zero of whole numbers that reach as far below it as above.
    fn middle(self) -> f32 {
        match self {
            Grid::Integers(bits) => (1 << (bits - 1)) as f32,
            Grid::Odd(_) | Grid::Floats(_) => 0.0,
        }
    }
}

impl Quantizer {
    /// One of them.
    pub const fn new(grid: Grid, scale: Scale, span: Span) -> Quantizer {
        Quantizer { grid, scale, span, zero: false }
    }

    /// The same with another span.
    #[must_use]
    pub const fn over(self, span: Span) -> Quantizer {
        Quantizer { span, ..self }
    }

    /// How many of so many terms share a scale of their own.
    pub fn group(self, terms: usize) -> usize {
        match self.span {
            Span::Line | Span::Tensor | Span::Measured(_) => terms.max(1),
            Span::Group(count) | Span::Square(count) => count.get().into(),
        }
    }

    /// Can it be? A zero is a whole number, and a scale under another is one of several.
    pub fn is_possible(self) -> bool {
        let nested = self.scale == Scale::Nested;
        (!self.zero || matches!(self.grid, Grid::Integers(_))) && !(nested && (self.zero || self.is_whole()))
    }

    /// Has a vector one scale, which multiplies its finished sums?
    pub fn is_whole(self) -> bool {
        matches!(self.span, Span::Line | Span::Tensor | Span::Measured(_))
    }

    /// Does what it makes of an output depend on the others?
    pub fn looks_across(self) -> bool {
        self.scale == Scale::Nested || matches!(self.span, Span::Square(_) | Span::Tensor)
    }

    /// How large the number of a code is at most, its zero taken away.
    pub fn reach(self) -> f32 {
        if self.zero { self.levels() } else { self.grid.reach() }
    }

    /// The bits of a code as a whole number, its zero taken away and its sign left out: a float counts in its smallest steps.
    pub fn digits(self) -> u32 {
        u64::BITS - ((self.reach() / self.grid.unit()) as u64).leading_zeros()
    }

    /// How many steps lead from the smallest code to the largest, where these are numbered from 0.
    fn levels(self) -> f32 {
        ((1_u32 << self.grid.bits()) - 1) as f32
    }

    /// The bytes that a scale takes.
    pub fn scale_bytes(self) -> usize {
        match self.scale {
            Scale::F32 => 4,
            Scale::F16 => 2,
            Scale::PowerBelow | Scale::PowerAbove | Scale::Nested => 1,
        }
    }

    /// The bits that values take.
    pub fn bits(self) -> Bits {
        let shared_by = match self.span {
            Span::Line | Span::Tensor | Span::Measured(_) => None,
            Span::Group(count) | Span::Square(count) => Some(count.into()),
        };
        let scale = 8 * (self.scale_bytes() + usize::from(self.zero)) as u32;
        Bits { code: self.grid.bits(), scale, shared_by }
    }

    /// The bits that hold every sum of products of so many codes of both exactly.
    pub fn bits_of_sum(self, other: Quantizer, terms: usize) -> u32 {
        self.digits() + other.digits() + (usize::BITS - terms.saturating_sub(1).leading_zeros())
    }

    /// Quantizes the outputs of a matrix, or the activations of one token. A part of its caller, which may be compiled for the
    /// machine's own vectors.
    #[inline(always)]
    pub fn quantize(self, vectors: &[&[f32]]) -> Vec<Quantized> {
        let unmeasured = self.span == Span::Measured(Limits::NONE);
        let broken = |vector: &[f32]| unmeasured || !vector.iter().all(|value| value.is_finite());
        let all_broken = self.looks_across() && vectors.iter().any(|vector| broken(vector));
        let mut ranges: Vec<Vec<(f32, f32)>> = vectors.iter().map(|vector| self.ranges(vector)).collect();
        let join = |(low, high): (f32, f32), (other_low, other_high): (f32, f32)| {
            (low.min(other_low), high.max(other_high))
        };
        let outputs = match self.span {
            Span::Square(count) => count.get().into(),
            Span::Tensor => vectors.len().max(1),
            Span::Line | Span::Group(_) | Span::Measured(_) => 1,
        };
        for ranges in ranges.chunks_mut(outputs) {
            let mut joint = ranges[0].clone();
            for other in &ranges[1..] {
                joint.iter_mut().zip(other).for_each(|(joint, other)| *joint = join(*joint, *other));
            }
            ranges.iter_mut().for_each(|range| range.clone_from(&joint));
        }
        let whole = if self.scale == Scale::Nested {
            let (low, high) = ranges.iter().flatten().copied().fold((0.0, 0.0), join);
            high.max(-low) / (self.grid.reach() * Format::E4M3.max_finite())
        } else {
            1.0
        };
        let quantized = |(vector, ranges): (&&[f32], Vec<(f32, f32)>)| {
            let is_broken = all_broken || broken(vector);
            self.vector(vector, &ranges, if is_broken { f32::NAN } else { whole })
        };
        vectors.iter().zip(ranges).map(quantized).collect()
    }

    /// The smallest and the largest of each group, zero among them: those that were measured, or else those that are there.
    #[inline(always)]
    fn ranges(self, values: &[f32]) -> Vec<(f32, f32)> {
        if let Span::Measured(limits) = self.span {
            return vec![limits.ends()];
        }
        let range = |values: &[f32]| {
            let fold = |(low, high): (f32, f32), value: &f32| (low.min(*value), high.max(*value));
            values.iter().fold((0.0, 0.0), fold)
        };
        match values {
            [] => vec![(0.0, 0.0)],
            values => values.chunks(self.group(values.len())).map(range).collect(),
        }
    }

    #[inline(always)]
    fn vector(self, values: &[f32], ranges: &[(f32, f32)], whole: f32) -> Quantized {
        let (terms, groups) = (values.len(), ranges.len());
        if whole.is_nan() {
            // No code of odd numbers is zero.
            let nothing = if let Grid::Odd(_) = self.grid { 1.0 } else { 0.0 };
            let one_for_all = self.is_whole() || self.scale == Scale::Nested;
            let (scale, whole) = if one_for_all { (1.0, whole) } else { (whole, 1.0) };
            let (codes, zeros) = (vec![nothing; terms], vec![self.grid.middle(); groups]);
            return Quantized { codes, zeros, scales: vec![scale; groups], whole };
        }
        let (scales, zeros): (Vec<f32>, Vec<f32>) =
            ranges.iter().map(|&range| self.scale_of(range, whole)).unzip();
        let mut codes = values.to_vec();
        for (codes, scale) in codes.chunks_mut(self.group(terms)).zip(&scales) {
            let scale = scale * whole;
            // A scale so small that it is zero leaves zeros.
            let divisor = if scale == 0.0 { f32::INFINITY } else { scale };
            codes.iter_mut().for_each(|code| *code /= divisor);
        }
        if self.zero {
            for (codes, zero) in codes.chunks_mut(self.group(terms)).zip(&zeros) {
                let levels = self.levels();
                codes.iter_mut().for_each(|code| {
                    *code = (code.round_ties_even() + zero).clamp(0.0, levels) - zero;
                });
            }
        } else {
            self.grid.round_slice(&mut codes);
        }
        if self.is_whole() {
            return Quantized { codes, zeros, scales: vec![1.0], whole: scales[0] };
        }
        Quantized { codes, zeros, scales, whole }
    }

    /// The scale and the zero of a group of values from the smallest to the largest.
    fn scale_of(self, (low, high): (f32, f32), whole: f32) -> (f32, f32) {
        let largest = high.max(-low);
        let reach = self.grid.reach();
        let wanted = if self.zero { (high - low) / self.levels() } else { largest / reach };
        let scale = match self.scale {
            Scale::F32 => wanted,
            Scale::F16 => Format::F16.round(wanted).min(Format::F16.max_finite()),
            Scale::PowerBelow => power(exponent(largest.into()) - exponent(reach.into())),
            Scale::PowerAbove => {
                let wanted = f64::from(largest) / f64::from(reach);
                let below = exponent(wanted);
                power(below + i32::from(wanted > f64::from(power(below))))
            }
            Scale::Nested if whole == 0.0 => 0.0,
            Scale::Nested => Format::E4M3.round(wanted / whole),
        };
        let zero = match self.zero {
            true if scale == 0.0 => 0.0,
            true => (-low / scale).round_ties_even().min(self.levels()),
            false => self.grid.middle(),
        };
        (scale, zero)
    }
}

/// Which factors a quantizer is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The matrix.
    Weights,
    /// What meets it.
    Activations,
}

impl Side {
    /// What one scale a line is called.
    const fn line(self) -> &'static str {
        match self {
            Side::Weights => "channel",
            Side::Activations => "token",
        }
    }
}

impl Span {
    /// Its name: `channel` or `token`, `g128`, `s128`, `tensor`.
    pub fn name(self, side: Side) -> String {
        match self {
            Span::Line => side.line().to_owned(),
            Span::Group(count) => format!("g{count}"),
            Span::Square(count) => format!("s{count}"),
            Span::Tensor | Span::Measured(_) => "tensor".to_owned(),
        }
    }

    /// The span of that name; a tensor of activations is none yet that was measured. Groups are whole bytes of codes, whatever these take.
    pub fn named(text: &str, side: Side) -> Option<Span> {
        let count = |digits: &str| {
            let count = digits.parse().ok().filter(|count| (8..=1024).contains(count) && count % 8 == 0);
            count.filter(|_| !digits.starts_with(['0', '+'])).and_then(NonZeroU16::new)
        };
        match text {
            "tensor" => Some(Span::Tensor),
            _ if text == side.line() => Some(Span::Line),
            _ => match text.split_at_checked(1)? {
                ("g", digits) => count(digits).map(Span::Group),
                ("s", digits) if side == Side::Weights => count(digits).map(Span::Square),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grid::Integers(bits) => write!(f, "int{bits}"),
            Grid::Odd(bits) => write!(f, "odd{bits}"),
            Grid::Floats(format) => format.fmt(f),
        }
    }
}

/// Why a text names no grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoGrid;

impl FromStr for Grid {
    type Err = NoGrid;

    fn from_str(text: &str) -> Result<Grid, NoGrid> {
        let digit = |text: &str, from: u8, to: u8| {
            let number = text.parse().ok().filter(|number| (from..=to).contains(number));
            number.filter(|_| text.len() == 1).ok_or(NoGrid)
        };
        if let Some(bits) = text.strip_prefix("int") {
            return Ok(Grid::Integers(digit(bits, 2, 8)?));
        }
        if let Some(bits) = text.strip_prefix("odd") {
            return Ok(Grid::Odd(digit(bits, 1, 7)?));
        }
        let (exponent, mantissa) =
            text.strip_prefix('e').and_then(|rest| rest.split_once('m')).ok_or(NoGrid)?;
        let format = Format::minifloat(digit(exponent, 2, 6)?, digit(mantissa, 1, 5)?).map_err(|_| NoGrid)?;
        if format.bits() <= 8 { Ok(Grid::Floats(format)) } else { Err(NoGrid) }
    }
}

crate::name::named! {
    Scale, "scale":
    F32 = "f32",
    F16 = "f16",
    PowerBelow = "e8m0",
    PowerAbove = "e8m0up",
    Nested = "e4m3",
}

impl Quantizer {
    /// Its name: grid, scale and span, as in `int4-f16-g128`, and `-zero` where it has a zero.
    pub fn name(self, side: Side) -> String {
        let zero = if self.zero { "-zero" } else { "" };
        format!("{}-{}-{}{zero}", self.grid, self.scale, self.span.name(side))
    }

    /// The quantizer of that name, if there is one.
    pub fn named(text: &str, side: Side) -> Option<Quantizer> {
        let (text, zero) = text.strip_suffix("-zero").map_or((text, false), |text| (text, true));
        let mut parts = text.split('-');
        let (grid, scale, span) = (parts.next()?, parts.next()?, parts.next()?);
        let (grid, scale) = (grid.parse::<Grid>().ok()?, scale.parse::<Scale>().ok()?);
        let span = Span::named(span, side)?;
        let quantizer = Quantizer { grid, scale, span, zero };
        (parts.next().is_none() && quantizer.is_possible()).then_some(quantizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantizer(name: &str) -> Quantizer {
        Quantizer::named(name, Side::Weights).unwrap()
    }

    fn one(name: &str, values: &[f32]) -> Quantized {
        quantizer(name).quantize(&[values]).remove(0)
    }

    fn values(name: &str, given: &[f32]) -> Vec<f32> {
        one(name, given).values(quantizer(name).group(given.len())).collect()
    }

    #[test]
    fn a_name_is_the_quantizer_s_own() {
        for name in [
            "int4-f16-g128",
            "int2-f32-channel-zero",
            "odd3-f32-g64",
            "e4m3-f32-tensor",
            "e4m3-f32-s128",
            "e2m1-e8m0up-g32",
            "e2m1-e4m3-g16",
            "int8-e8m0-g8",
        ] {
            assert_eq!(quantizer(name).name(Side::Weights), name);
        }
        for name in [
            "int9-f32-channel",
            "int4-f32-token",
            "int4-f32-g12",
            "int4-f32-g0",
            "int4-f32-g2048",
            "int4-f32-g016",
            "e2m1-f32-g32-zero",
            "e2m1-e4m3-channel",
            "e5m3-f32-channel",
            "int4-f32",
            "int4-f32-g32-g32",
            "",
        ] {
            assert_eq!(Quantizer::named(name, Side::Weights), None, "{name}");
        }
        assert_eq!(Quantizer::named("e4m3-f32-s128", Side::Activations), None);
    }

    #[test]
    fn what_lies_beyond_limits_that_were_measured_becomes_the_grid_s_end() {
        let measured = |name: &str, limits: Limits, given: &[f32]| -> Vec<f32> {
            let quantizer = quantizer(name).over(Span::Measured(limits));
            quantizer.quantize(&[given]).remove(0).values(given.len()).collect()
        };
        let given = [-300.0, -12.7, 0.26, 12.7, 300.0];
        let limits = Limits::new(-3.0, 12.7);
        assert_eq!(measured("int8-f32-tensor", limits, &given), [-12.7, -12.7, 0.3, 12.7, 12.7]);
        assert_eq!(
            measured("e4m3-f32-tensor", Limits::new(0.0, 448.0), &given[..1]),
            [-300.0_f32.min(288.0)]
        );
        // With a zero the grid reaches no further below it than what was measured.
        let ends = measured("int8-f32-tensor-zero", Limits::new(-5.1, 20.4), &given);
        assert_eq!(ends[0], ends[1].min(-5.1));
        assert_eq!((ends[0], ends[4]), (-5.1, 20.4));
        assert_eq!(measured("int8-f32-tensor", Limits::new(1.0, -1.0), &given), [0.0; 5]);
        let nothing = quantizer("int8-f32-tensor").over(Span::Measured(Limits::NONE));
        assert!(nothing.quantize(&[&given]).remove(0).whole.is_nan());
    }

    #[test]
    fn integers_reach_as_far_below_zero_as_above() {
        let Quantized { codes, whole, .. } = one("int4-f32-channel", &[7.0, -7.0, 0.5, 1.5, -2.5, -0.3]);
        assert_eq!((codes.as_slice(), whole), ([7.0, -7.0, 0.0, 2.0, -2.0, 0.0].as_slice(), 1.0));
        assert!(codes[5].is_sign_positive());
        assert_eq!(values("odd2-f32-channel", &[6.0, -1.9, 0.1, -6.0]), [6.0, -2.0, 2.0, -6.0]);
    }

    #[test]
    fn a_zero_moves_the_grid_to_where_the_values_are() {
        let Quantized { codes, zeros, whole, .. } = one("int2-f32-channel-zero", &[-1.0, 2.0, 0.4, 1.2]);
        assert_eq!((zeros[0], whole), (1.0, 1.0));
        assert_eq!(codes, [-1.0, 2.0, 0.0, 1.0]);
        // Zero stays zero, where all values lie on one side of it.
        assert_eq!(values("int2-f32-channel-zero", &[3.0, 2.1, 1.0, 0.0]), [3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn a_power_below_cuts_off_what_a_power_above_keeps() {
        let mut given = [0.0; 32];
        (given[0], given[1]) = (7.9, 1.0);
        assert_eq!(values("e2m1-e8m0-g32", &given)[..2], [6.0, 1.0]);
        assert_eq!(values("e2m1-e8m0up-g32", &given)[..2], [8.0, 1.0]);
        given[0] = 6.0;
        assert_eq!(values("e2m1-e8m0up-g32", &given)[..2], [6.0, 1.0]);
    }

    #[test]
    fn a_nested_scale_is_a_float_of_eight_bits_under_one_for_all() {
        let mut given = [0.0; 32];
        (given[0], given[16]) = (2688.0, 3.0);
        let Quantized { scales, whole, codes, .. } = one("e2m1-e4m3-g16", &given);
        assert_eq!((whole, scales.as_slice()), (1.0, [448.0, 0.5].as_slice()));
        assert_eq!((codes[0], codes[16]), (6.0, 6.0));
    }

    #[test]
    fn a_span_across_outputs_has_the_scale_of_the_largest_of_them() {
        let rows: [&[f32]; 3] = [&[1.0; 8], &[448.0; 8], &[2.0; 8]];
        let scales = |name: &str| -> Vec<f32> {
            let quantized = quantizer(name).quantize(&rows);
            quantized.iter().map(|vector| vector.scales[0] * vector.whole).collect()
        };
        assert_eq!(scales("e4m3-f32-tensor"), [1.0; 3]);
        assert_eq!(scales("e4m3-f32-channel"), [1.0 / 448.0, 1.0, 2.0 / 448.0]);
        assert_eq!(scales("e4m3-f32-g8"), [1.0 / 448.0, 1.0, 2.0 / 448.0]);
    }

    #[test]
    fn zeros_stay_zeros_and_nothing_hides_a_nan() {
        for name in
            ["int4-f16-g8", "int4-f32-channel-zero", "e4m3-f32-tensor", "e2m1-e8m0-g8", "e2m1-e4m3-g8"]
        {
            assert_eq!(values(name, &[0.0; 16]), [0.0; 16], "{name}");
            for broken in [f32::NAN, f32::INFINITY] {
                let mut given = [1.0; 16];
                given[3] = broken;
                let Quantized { scales, whole, .. } = one(name, &given);
                assert!((scales[0] * whole).is_nan(), "{name}");
            }
        }
    }
}
