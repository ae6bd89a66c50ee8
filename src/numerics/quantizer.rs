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
    /// The values of a float of at most 8 bits; of one without a mantissa these are zero and powers of two.
    Floats(Format),
    /// Whole numbers of so many bits, rounded once more to fewer: to whole multiples of the step that these have.
    Twice {
        /// The bits of what is rounded first.
        first: u8,
        /// The bits of the code.
        bits: u8,
    },
    /// BitMoD's: a float of so many bits, 3 or 4, whose negative zero stands for one more number, in each group that of
    /// [`extras`](Self::extras) under which the least is lost.
    Lists(u8),
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
    /// Any f32: of the hundredths of what brings the largest value to the grid's, from 1 to 120, that under which the least is lost.
    Fitted,
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
    /// The zero of each group; of a list, its extra number.
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
            Grid::Integers(bits) | Grid::Odd(bits) | Grid::Twice { bits, .. } | Grid::Lists(bits) => {
                bits.into()
            }
            Grid::Floats(format) => format.bits(),
        }
    }

    /// The numbers of a list that every group has.
    pub fn common(self) -> Format {
        match self {
            Grid::Floats(format) => format,
            Grid::Lists(3) => Format::powers_of_two(2).unwrap_or(Format::E2M1),
            _ => Format::E2M1,
        }
    }

    /// The numbers of which a group has one more, in the order in which they are tried.
    pub fn extras(self) -> [f32; 4] {
        if self == Grid::Lists(3) { [3.0, -3.0, 6.0, -6.0] } else { [5.0, -5.0, 8.0, -8.0] }
    }

    /// The largest value.
    pub fn reach(self) -> f32 {
        match self {
            Grid::Integers(bits) | Grid::Twice { bits, .. } => ((1 << (bits - 1)) - 1) as f32,
            Grid::Odd(bits) => ((1 << bits) - 1) as f32,
            Grid::Floats(format) => format.max_finite(),
            Grid::Lists(_) => self.extras()[2],
        }
    }

    /// What a scale brings the largest value to: the largest of the grid, but where that is what it becomes when it is rounded
    /// again.
    fn filled(self) -> f32 {
        match self {
            Grid::Twice { first, bits } => Grid::Integers(first).reach() / (1_u32 << (first - bits)) as f32,
            other => other.reach(),
        }
    }

    /// A power of two that divides all values.
    pub fn unit(self) -> f32 {
        match self {
            Grid::Integers(_) | Grid::Odd(_) | Grid::Twice { .. } => 1.0,
            Grid::Floats(_) | Grid::Lists(_) => self.common().min_subnormal(),
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
            Grid::Twice { first, bits } => {
                let (steps, first) = ((1_u32 << (first - bits)) as f32, Grid::Integers(first).reach());
                values.iter_mut().for_each(|value| {
                    let once = (*value * steps).round_ties_even().clamp(-first, first);
                    *value = (once / steps).round_ties_even().clamp(-reach, reach) + 0.0;
                });
            }
            Grid::Lists(_) => unreachable!("which numbers a list has is a matter of the group"),
        }
    }

    /// The numbers of a list with this one, from the smallest on.
    fn listed(self, extra: f32) -> Vec<f32> {
        let (common, positive) = (self.common(), 1 << (self.bits() - 1));
        let mut numbers: Vec<f32> = (0..positive).map(|code| common.decode(code)).collect();
        numbers.extend((1..positive).map(|code| -common.decode(code)));
        numbers.push(extra);
        numbers.sort_by(f32::total_cmp);
        numbers
    }

    /// The code of a value of the grid, its zero added, in the low [`bits`](Self::bits).
    pub fn encode(self, value: f32) -> u8 {
        match self {
            Grid::Integers(_) | Grid::Twice { .. } => value as u8,
            Grid::Odd(_) => ((value + self.reach()) / 2.0) as u8,
            // What is in no group's list but one stands where negative zero would.
            Grid::Lists(bits) if self.extras().contains(&value) => 1 << (bits - 1),
            Grid::Floats(_) | Grid::Lists(_) => self.common().encode(value) as u8,
        }
    }

    /// The zero of whole numbers that reach as far below it as above.
    fn middle(self) -> f32 {
        match self {
            Grid::Integers(bits) | Grid::Twice { bits, .. } => (1 << (bits - 1)) as f32,
            Grid::Odd(_) | Grid::Floats(_) => 0.0,
            Grid::Lists(_) => self.extras()[0],
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

    /// Can it be? A zero is a whole number, and a scale under another is one of several. What is chosen by its loss is chosen for one
    /// output, and one thing at a time.
    pub fn is_possible(self) -> bool {
        let nested = self.scale == Scale::Nested;
        let lists = matches!(self.grid, Grid::Lists(_));
        let chosen = lists || self.scale == Scale::Fitted;
        let one_output = matches!(self.span, Span::Line | Span::Group(_));
        (!self.zero || matches!(self.grid, Grid::Integers(_)))
            && !(nested && (self.zero || self.is_whole() || lists))
            && !(chosen && (self.zero || !one_output))
            && !(lists && self.scale == Scale::Fitted)
    }

    /// Does a byte beside the scale of a group say more of its codes?
    pub fn has_byte(self) -> bool {
        self.zero || matches!(self.grid, Grid::Lists(_))
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
            Scale::F32 | Scale::Fitted => 4,
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
        let scale = 8 * (self.scale_bytes() + usize::from(self.has_byte())) as u32;
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
            high.max(-low) / (self.grid.filled() * Format::E4M3.max_finite())
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
        let mut codes = values.to_vec();
        let chosen = self.scale == Scale::Fitted || matches!(self.grid, Grid::Lists(_));
        let of_group = |(group, &range): (usize, &(f32, f32))| match chosen {
            true => self.chosen(values.chunks(self.group(terms)).nth(group).unwrap_or_default(), range),
            false => self.scale_of(range, whole),
        };
        let (scales, zeros): (Vec<f32>, Vec<f32>) = ranges.iter().enumerate().map(of_group).unzip();
        for (codes, scale) in codes.chunks_mut(self.group(terms)).zip(&scales) {
            let scale = scale * whole;
            // A scale so small that it is zero leaves zeros.
            let divisor = if scale == 0.0 { f32::INFINITY } else { scale };
            codes.iter_mut().for_each(|code| *code /= divisor);
        }
        if let Grid::Lists(_) = self.grid {
            for (codes, extra) in codes.chunks_mut(self.group(terms)).zip(&zeros) {
                self.round_group(codes, *extra);
            }
        } else if self.zero {
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

    /// Rounds what a scale has made of a group; of a list, that with this extra number.
    fn round_group(self, codes: &mut [f32], extra: f32) {
        let Grid::Lists(_) = self.grid else { return self.grid.round_slice(codes) };
        let numbers = self.grid.listed(extra);
        for code in codes {
            // To the nearest, what is halfway to the smaller one, as the method's own code does.
            let below = numbers.windows(2).filter(|pair| *code > f32::midpoint(pair[0], pair[1])).count();
            *code = numbers[below];
        }
    }

    /// The scale and the extra number of a group under which the least is lost, by the sum of its squares in f64, term after term; of
    /// several alike the one that is tried first.
    fn chosen(self, values: &[f32], range: (f32, f32)) -> (f32, f32) {
        let plain =
            Quantizer { scale: if self.scale == Scale::Fitted { Scale::F32 } else { self.scale }, ..self };
        let candidates: Vec<(f32, f32)> = match self.grid {
            Grid::Lists(_) => {
                let reach = |extra: f32| extra.abs().max(self.grid.common().max_finite());
                let scale = |extra: f32| plain.scale_to(range, reach(extra), 1.0);
                self.grid.extras().map(|extra| (scale(extra), extra)).to_vec()
            }
            _ => {
                let (scale, zero) = plain.scale_of(range, 1.0);
                (1_u8..=120).map(|hundredths| (scale * (f32::from(hundredths) / 100.0), zero)).collect()
            }
        };
        let mut codes = vec![0.0; values.len()];
        let mut least = f64::INFINITY;
        let mut best = candidates[0];
        for (scale, zero) in candidates {
            let divisor = if scale == 0.0 { f32::INFINITY } else { scale };
            codes.iter_mut().zip(values).for_each(|(code, value)| *code = value / divisor);
            self.round_group(&mut codes, zero);
            let lost = |(code, value): (&f32, &f32)| f64::from(*value) - f64::from(code * scale);
            let lost = codes.iter().zip(values).map(lost).fold(0.0, |sum, lost| sum + lost * lost);
            if lost < least {
                (least, best) = (lost, (scale, zero));
            }
        }
        best
    }

    /// The scale and the zero of a group of values from the smallest to the largest.
    fn scale_of(self, (low, high): (f32, f32), whole: f32) -> (f32, f32) {
        let scale = self.scale_to((low, high), self.grid.filled(), whole);
        let zero = match self.zero {
            true if scale == 0.0 => 0.0,
            true => (-low / scale).round_ties_even().min(self.levels()),
            false => self.grid.middle(),
        };
        (scale, zero)
    }

    /// The scale that brings the largest of such a group to the reach.
    fn scale_to(self, (low, high): (f32, f32), reach: f32, whole: f32) -> f32 {
        let largest = high.max(-low);
        let wanted = if self.zero { (high - low) / self.levels() } else { largest / reach };
        match self.scale {
            Scale::F32 | Scale::Fitted => wanted,
            Scale::F16 => Format::F16.round(wanted).min(Format::F16.max_finite()),
            Scale::PowerBelow => power(exponent(largest.into()) - exponent(reach.into())),
            Scale::PowerAbove => {
                let wanted = f64::from(largest) / f64::from(reach);
                let below = exponent(wanted);
                power(below + i32::from(wanted > f64::from(power(below))))
            }
            Scale::Nested if whole == 0.0 => 0.0,
            Scale::Nested => Format::E4M3.round(wanted / whole),
        }
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
            Grid::Twice { first, bits } => write!(f, "int{bits}of{first}"),
            Grid::Lists(bits) => write!(f, "bitmod{bits}"),
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
        if let Some((bits, first)) = text.strip_prefix("int").and_then(|rest| rest.split_once("of")) {
            let first = digit(first, 3, 8)?;
            return Ok(Grid::Twice { first, bits: digit(bits, 2, first - 1)? });
        }
        if let Some(bits) = text.strip_prefix("int") {
            return Ok(Grid::Integers(digit(bits, 2, 8)?));
        }
        if let Some(bits) = text.strip_prefix("bitmod") {
            return Ok(Grid::Lists(digit(bits, 3, 4)?));
        }
        if let Some(bits) = text.strip_prefix("odd") {
            return Ok(Grid::Odd(digit(bits, 1, 7)?));
        }
        let (exponent, mantissa) =
            text.strip_prefix('e').and_then(|rest| rest.split_once('m')).ok_or(NoGrid)?;
        let exponent = digit(exponent, 2, 6)?;
        let format = match digit(mantissa, 0, 5)? {
            0 => Format::powers_of_two(exponent).ok_or(NoGrid)?,
            mantissa => Format::minifloat(exponent, mantissa).map_err(|_| NoGrid)?,
        };
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
    Fitted = "fit",
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
            "e3m0-f16-g32",
            "int4of8-f32-channel",
            "bitmod4-f16-g128",
            "e2m1-fit-g32",
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
            "e7m0-f32-channel",
            "int4of4-f32-channel",
            "bitmod5-f16-g128",
            "bitmod4-e4m3-g16",
            "bitmod4-fit-g16",
            "e2m1-fit-tensor",
            "int4-fit-g16-zero",
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

    /// Numbers between -8 and 8, of which some are large.
    fn spread_out(count: usize, seed: u32) -> Vec<f32> {
        let value = |at: usize| {
            let hash = (at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 7;
            let unit = (hash % 65_521) as f32 / 32_760.5 - 1.0;
            if hash.is_multiple_of(13) { 8.0 * unit } else { unit }
        };
        (0..count).map(value).collect()
    }

    #[test]
    fn a_float_without_a_mantissa_is_the_nearest_power_of_two_and_halfway_the_even_one() {
        for (name, exponents) in [("e2m0", 3), ("e3m0", 7), ("e4m0", 15), ("e5m0", 31)] {
            let grid: Grid = name.parse().unwrap();
            let unit = f64::from(grid.unit());
            // Code 0 is zero, and code c the power c - 1 of the unit.
            let numbers: Vec<f64> =
                [0.0].into_iter().chain((0..exponents).map(|power| unit * (1_u64 << power) as f64)).collect();
            assert_eq!(f64::from(grid.reach()), numbers[numbers.len() - 1], "{name}");
            let nearest = |value: f64| {
                let size = value.abs().min(numbers[exponents as usize]);
                let away = |code: &usize| ((numbers[*code] - size).abs(), code % 2);
                let codes = 0..numbers.len();
                let code = codes.min_by(|one, other| away(one).partial_cmp(&away(other)).unwrap()).unwrap();
                numbers[code].copysign(value) as f32
            };
            let middles = numbers.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let around = middles.flat_map(|middle| {
                let middle = middle as f32;
                [middle, middle.next_up(), middle.next_down(), -middle]
            });
            let values: Vec<f32> = around.chain(spread_out(500, 1)).chain([1e30, -1e30]).collect();
            let mut rounded = values.clone();
            grid.round_slice(&mut rounded);
            for (value, rounded) in values.iter().zip(rounded) {
                assert_eq!(rounded, nearest((*value).into()), "{name} of {value}");
                let Grid::Floats(format) = grid else { unreachable!("it is one of floats") };
                assert_eq!(format.round(*value), rounded, "{name} of {value}");
            }
        }
    }

    #[test]
    fn rounding_twice_differs_where_the_first_rounding_ends_between_two_codes_and_nowhere_else() {
        // Sixteenths of every step of 8 bits, under the scale under which these are whole.
        let steps: Vec<f32> = (-127 * 16..=127 * 16).map(|sixteenth| sixteenth as f32 / 16.0).collect();
        let Quantized { codes, whole, .. } = one("int4of8-f32-channel", &steps);
        assert_eq!(whole, 16.0);
        let mut differing = 0;
        for (step, code) in steps.iter().zip(codes) {
            let first = step.round_ties_even();
            let direct = (step / 16.0).round_ties_even().clamp(-7.0, 7.0);
            // Between two codes of 4 bits: all of these go to the even one, from wherever they came.
            let is_between = first.rem_euclid(16.0) == 8.0 && first.abs() < 7.5 * 16.0;
            let even = (first / 16.0).round_ties_even();
            assert_eq!(code, if is_between { even } else { direct }, "{step}");
            assert_eq!(code != direct, is_between && direct != even, "{step}");
            differing += usize::from(code != direct);
        }
        // Eight sixteenths on one side of each of 14 such places; of those that go to even themselves, the last of them.
        assert_eq!(differing, 14 * 8);
    }

    #[test]
    fn bitmod_takes_the_first_of_four_lists_under_which_the_least_is_lost() {
        for (name, common, extras, common_reach) in [
            (
                "bitmod4-f32-g16",
                vec![0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0],
                [10.0, -10.0, 16.0, -16.0],
                12.0_f32,
            ),
            ("bitmod3-f32-g16", vec![0.0, 1.0, 2.0, 4.0], [3.0, -3.0, 6.0, -6.0], 4.0),
        ] {
            let mut taken = Vec::new();
            for seed in 0..60 {
                let group = spread_out(16, seed);
                let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let mut best: Option<(f64, Vec<f32>, f32)> = None;
                for extra in extras {
                    let mut list: Vec<f32> = common.iter().flat_map(|number| [*number, -number]).collect();
                    list.push(extra);
                    list.sort_by(f32::total_cmp);
                    list.dedup();
                    let scale = largest / common_reach.max(extra.abs());
                    let worth: Vec<f32> = group
                        .iter()
                        .map(|value| {
                            // Of two that are as near the smaller, since that comes first.
                            let away = |number: &f32| (f64::from(*number) - f64::from(value / scale)).abs();
                            let nearest = list.iter().min_by(|one, other| away(one).total_cmp(&away(other)));
                            nearest.unwrap() * scale
                        })
                        .collect();
                    let lost =
                        group.iter().zip(&worth).map(|(value, worth)| f64::from(*value) - f64::from(*worth));
                    let lost = lost.fold(0.0, |sum, lost| sum + lost * lost);
                    if best.as_ref().is_none_or(|(least, ..)| lost < *least) {
                        best = Some((lost, worth, extra));
                    }
                }
                let (_, worth, extra) = best.unwrap();
                assert_eq!(values(name, &group), worth, "{name}, group {seed}");
                taken.push(extra);
            }
            // Every list is somewhere the best.
            assert!(extras.iter().all(|extra| taken.contains(extra)), "{name}: {taken:?}");
        }
        // What is halfway goes to the smaller number.
        let halfway = [6.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.25, -0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(values("bitmod4-f32-g16", &halfway)[8..10], [0.0, -0.5]);
    }

    #[test]
    fn a_scale_that_is_fitted_is_the_hundredth_of_the_usual_one_that_loses_the_least() {
        let lost = |given: &[f32], worth: &[f32]| {
            let lost = given.iter().zip(worth).map(|(value, worth)| f64::from(*value) - f64::from(*worth));
            lost.fold(0.0, |sum, lost| sum + lost * lost)
        };
        let mut below = 0;
        for seed in 0..20 {
            let group = spread_out(32, seed);
            let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let under = |hundredths: i32| -> Vec<f32> {
                let scale = largest / 6.0 * (hundredths as f32 / 100.0);
                group.iter().map(|value| Format::E2M1.round(value / scale) * scale).collect()
            };
            let best = (1..=120)
                .min_by(|one, other| lost(&group, &under(*one)).total_cmp(&lost(&group, &under(*other))));
            let fitted = values("e2m1-fit-g32", &group);
            assert_eq!(fitted, under(best.unwrap()), "group {seed}");
            below += usize::from(lost(&group, &fitted) < lost(&group, &values("e2m1-f32-g32", &group)));
        }
        assert!(below > 15, "only {below} of 20 groups lose less");
    }

    #[test]
    fn zeros_stay_zeros_and_nothing_hides_a_nan() {
        for name in [
            "int4-f16-g8",
            "int4-f32-channel-zero",
            "e4m3-f32-tensor",
            "e2m1-e8m0-g8",
            "e2m1-e4m3-g8",
            "e3m0-f32-g8",
            "int4of8-f16-g8",
            "bitmod3-f16-g8",
            "e2m1-fit-channel",
        ] {
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
