//! Attention behind its scores, as it is computed: over all keys at once, or over stretches of them that are brought together.
//!
//! A row of scores becomes weights, and these weigh values. Whoever has all keys at hand divides the weights by their sum, and then
//! adds. Whoever has a stretch of them (a block that fits a GPU's nearest memory, a part that another processor works on) adds with
//! the weights as they are, keeps the largest score, the sum of the weights and the weighed sum of the values of it, and divides once
//! at the end. Where stretches begin is then part of the result.

use std::{fmt, num::NonZeroUsize, ops::Range, str::FromStr};

use super::order::{Launch, Parts, plain_number};
use crate::name::{did_you_mean, nearest};

/// How attention is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Attention {
    /// A pass for the largest score, one for exponentials and their sum, one that divides; then the sum of values.
    #[default]
    ThreePass,
    /// The same without the first: an exponential is a number and a power of two, and cannot overflow.
    TwoPass,
    /// Blocks of so many keys, counted from the first of the sequence, each brought to those before it.
    Online(NonZeroUsize),
    /// The keys that a row sees in contiguous parts, each by itself, joined from the first to the last.
    SplitKv {
        /// How many.
        parts: Parts,
        /// Is each computed in such blocks?
        block: Option<NonZeroUsize>,
    },
}

const THREE_PASS: &str = "three-pass";
const TWO_PASS: &str = "two-pass";
const ONLINE: &str = "online:";
const SPLIT_KV: &str = "split-kv:";
const ROWS: &str = "rows";
const THREADS: &str = "threads";

impl Attention {
    /// Settings to offer; numbers may be any other.
    pub const NAMES: [&str; 7] = [
        THREE_PASS,
        TWO_PASS,
        "online:64",
        "split-kv:4",
        "split-kv:rows",
        "split-kv:threads",
        "split-kv:4+online:64",
    ];

    /// What a setting looks like: a regular expression without its ends.
    pub(crate) fn pattern() -> String {
        let online = format!("{ONLINE}[1-9][0-9]*");
        format!("({THREE_PASS}|{TWO_PASS}|{online}|{SPLIT_KV}([1-9][0-9]*|{ROWS}|{THREADS})(\\+{online})?)")
    }

    /// Which this is under `launch`: a split that follows the launch becomes one with a number.
    pub fn under(self, launch: Launch) -> Attention {
        match self {
            Attention::SplitKv { parts, block } => {
                Attention::SplitKv { parts: Parts::Fixed(parts.under(launch)), block }
            }
            own => own,
        }
    }

    /// Does the launch decide where keys are cut?
    pub fn depends_on_launch(self) -> bool {
        self.under(Launch { rows: 2, threads: 2 }) != self
    }

    /// Is it one operation behind the scores, because no step of it has all keys?
    pub fn is_cut(self) -> bool {
        matches!(self, Attention::Online(_) | Attention::SplitKv { .. })
    }

    /// The parts into which the keys are cut that a row sees, and the blocks of each; nothing where they are not cut.
    ///
    /// A block begins where it does in the sequence. If the first key that is seen lies inside of one, the keys before it are terms
    /// of weight 0 there, and a block of nothing but these is left out. A part begins with a key that is seen.
    pub(super) fn parts(self, seen: &Range<usize>, launch: Launch) -> Option<Vec<Vec<Range<usize>>>> {
        match self {
            Attention::ThreePass | Attention::TwoPass => None,
            Attention::Online(block) => {
                Some(vec![in_blocks(seen.start / block * block.get()..seen.end, block)])
            }
            Attention::SplitKv { parts, block } => {
                let size = seen.len().div_ceil(parts.under(launch).get()).max(1);
                let starts = seen.clone().step_by(size);
                let parts = starts.map(|start| start..seen.end.min(start.saturating_add(size)));
                Some(
                    parts
                        .map(|part| block.map_or(vec![part.clone()], |block| in_blocks(part, block)))
                        .collect(),
                )
            }
        }
    }
}

/// Cuts where a block of the sequence ends.
fn in_blocks(keys: Range<usize>, block: NonZeroUsize) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = keys.start;
    while start < keys.end {
        let end = (start / block * block.get()).saturating_add(block.get()).min(keys.end);
        blocks.push(start..end);
        start = end;
    }
    blocks
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attention::ThreePass => f.write_str(THREE_PASS),
            Attention::TwoPass => f.write_str(TWO_PASS),
            Attention::Online(block) => write!(f, "{ONLINE}{block}"),
            Attention::SplitKv { parts, block } => {
                f.write_str(SPLIT_KV)?;
                match parts {
                    Parts::Fixed(parts) => parts.fmt(f)?,
                    Parts::Threads => f.write_str(THREADS)?,
                    Parts::Rows => f.write_str(ROWS)?,
                }
                block.map_or(Ok(()), |block| write!(f, "+{ONLINE}{block}"))
            }
        }
    }
}

impl FromStr for Attention {
    type Err = String;

    fn from_str(text: &str) -> Result<Attention, String> {
        let online = |text: &str| plain_number(text.strip_prefix(ONLINE)?);
        let split = |text: &str| {
            let (parts, block) = match text.strip_prefix(SPLIT_KV)?.split_once('+') {
                Some((parts, block)) => (parts, Some(online(block)?)),
                None => (text.strip_prefix(SPLIT_KV)?, None),
            };
            let parts = match parts {
                ROWS => Parts::Rows,
                THREADS => Parts::Threads,
                number => Parts::Fixed(plain_number(number)?),
            };
            Some(Attention::SplitKv { parts, block })
        };
        let found = match text {
            THREE_PASS => Some(Attention::ThreePass),
            TWO_PASS => Some(Attention::TwoPass),
            _ => online(text).map(Attention::Online).or_else(|| split(text)),
        };
        found.ok_or_else(|| {
            format!(
                "there is no attention `{text}`: {}write {THREE_PASS}, {TWO_PASS}, {ONLINE}64 with any number of keys, or \
                 {SPLIT_KV}4 with any number of parts, {SPLIT_KV}{ROWS} or {SPLIT_KV}{THREADS}, which may be followed by +{ONLINE}64",
                did_you_mean(nearest(text, Attention::NAMES.into_iter()))
            )
        })
    }
}

/// What is taken from scores before their exponentials: the largest of them, or nothing where all are minus infinity.
#[inline(always)]
pub(super) fn base(largest: f32) -> f32 {
    if largest == f32::NEG_INFINITY { 0.0 } else { largest }
}

/// The exponential of a score as a number times a power of two, given by what is left of the score without that power.
///
/// The power is that of the nearest whole multiple of ln 2, x log2(e) rounded to f32 and then to a whole number, ties to even. What is
/// left is formed in f64 and rounded to f32. It is not more than half of ln 2, but where a score is so large that f64 does not
/// tell: there it is kept within a half.
#[inline(always)]
pub(super) fn without_power(x: f32) -> (f32, f32) {
    use std::f64::consts::LN_2;
    let power = (x * std::f32::consts::LOG2_E).round_ties_even();
    let rest = (f64::from(x) - f64::from(power) * LN_2) as f32;
    // Of minus infinity nothing is left.
    (if x == f32::NEG_INFINITY { x } else { rest.clamp(-0.5, 0.5) }, power)
}

/// A value times 2 to the power of a whole number that is not above 0: rounded once, which it is only below the normal numbers.
#[inline(always)]
pub(super) fn times_power(value: f32, power: f32) -> f32 {
    // Whatever lies lower is 0 in f32.
    const LEAST: f32 = -1000.0;
    let exponent = 1023 + power.max(LEAST) as i64;
    (f64::from(value) * f64::from_bits(exponent.cast_unsigned() << 52)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of every part.
    fn parts(name: &str, seen: Range<usize>, launch: Launch) -> String {
        let parts = name.parse::<Attention>().unwrap().parts(&seen, launch).unwrap();
        let shown = |part: Vec<Range<usize>>| {
            part.iter().map(|block| format!("{block:?}")).collect::<Vec<_>>().join(" ")
        };
        parts.into_iter().map(shown).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn every_form_has_one_name() {
        for name in Attention::NAMES.into_iter().chain(["online:1", "split-kv:rows+online:16"]) {
            assert_eq!(name.parse::<Attention>().unwrap().to_string(), name);
        }
        for (name, near) in [
            ("twopass", "did you mean `two-pass`? "),
            ("online", ""),
            ("online:0", ""),
            ("online:064", ""),
            ("online:+4", ""),
            ("split-kv:row", "did you mean `split-kv:rows`? "),
            ("split-kv:4+two-pass", ""),
            ("split-kv:4+", ""),
        ] {
            let error = name.parse::<Attention>().unwrap_err();
            assert!(error.contains(near) && error.ends_with("followed by +online:64"), "{error}");
        }
    }

    #[test]
    fn blocks_are_counted_from_the_first_key_of_the_sequence() {
        let of = |seen| parts("online:4", seen, Launch::default());
        assert_eq!(of(0..4), "0..4");
        assert_eq!(of(0..10), "0..4 4..8 8..10");
        // A window begins inside of one.
        assert_eq!(of(6..10), "4..8 8..10");
        assert_eq!(parts("online:18446744073709551615", 3..9, Launch::default()), "0..9");
    }

    #[test]
    fn parts_are_of_what_is_seen_the_last_one_shorter() {
        let of = |name, seen| parts(name, seen, Launch { rows: 2, threads: 3 });
        assert_eq!(of("split-kv:4", 0..10), "0..3 | 3..6 | 6..9 | 9..10");
        // Five keys in four parts: two each, and one is left for the third.
        assert_eq!(of("split-kv:4", 7..12), "7..9 | 9..11 | 11..12");
        assert_eq!(of("split-kv:rows", 0..10), "0..5 | 5..10");
        assert_eq!(of("split-kv:threads", 0..10), "0..4 | 4..8 | 8..10");
        assert_eq!(of("split-kv:2+online:4", 0..10), "0..4 4..5 | 5..8 8..10");
    }

    #[test]
    fn a_form_depends_on_the_launch_exactly_if_its_parts_do() {
        for name in Attention::NAMES {
            let form: Attention = name.parse().unwrap();
            let of = |(rows, threads)| form.parts(&(0..24), Launch { rows, threads });
            let moves = [(2, 1), (1, 2), (8, 4)].into_iter().any(|launch| of(launch) != of((1, 1)));
            assert_eq!(
                (moves, form.parts(&(0..24), Launch::default()).is_some()),
                (form.depends_on_launch(), form.is_cut()),
                "{name}"
            );
        }
    }

    #[test]
    fn an_exponential_is_a_number_and_a_power() {
        for step in -4000..=4000_i16 {
            let x = f32::from(step) * 0.02;
            let (rest, power) = without_power(x);
            assert!(rest.abs() <= 0.3466, "{x}");
            let left = f64::from(x) - f64::from(power) * std::f64::consts::LN_2;
            assert!((f64::from(rest) - left).abs() <= f64::from(f32::EPSILON) / 8.0, "{x}");
        }
        assert_eq!(times_power(1.25, -3.0), 0.15625);
        assert_eq!(times_power(1.0, -149.0).to_bits(), 1);
        assert_eq!(times_power(1.0, f32::NEG_INFINITY), 0.0);
        let (rest, power) = without_power(f32::NEG_INFINITY);
        assert_eq!((rest, power), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert!(without_power(f32::INFINITY).0.is_nan());
        assert_eq!(without_power(1e30).0.abs(), 0.5);
    }
}
