//! How far apart two rows of logits are: in steps of `f32`, in log-probabilities, and as distributions.
//!
//! A row is what an engine shows after some tokens: all logits, all log-probabilities, or the best of these. Logits of two
//! engines may differ by a constant and mean the same, so everything but the steps is measured on log-probabilities, in
//! `f64`. A log-probability of minus infinity may be a floor, below which a server shows nothing: it is never compared.

use super::{canonical, choice::Candidate, elementary::exp64};

/// What an engine shows of what may follow. No number is NaN or plus infinity.
#[derive(Clone, Copy, Debug)]
pub enum Row<'r> {
    /// All logits, by the numbers of their tokens.
    Logits(&'r [f32]),
    /// All log-probabilities, by the numbers of their tokens.
    LogProbabilities(&'r [f32]),
    /// The best log-probabilities, the best first.
    Top(&'r [Candidate]),
}

/// The token of the largest of several numbers, and the number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Most<T> {
    /// How large.
    pub value: T,
    /// Of which token.
    pub token: u32,
}

/// How far the row of one engine is from the row of another.
#[derive(Clone, PartialEq, Debug)]
pub struct Apart {
    /// Are all numbers that both show the same, bit for bit?
    pub same: bool,
    /// The most steps of `f32` between two numbers of a token; nothing where one row is in logits and the other is not.
    pub steps: Option<Most<u64>>,
    /// The largest difference of two log-probabilities of a token.
    pub difference: Most<f64>,
    /// The Kullback-Leibler divergence of the other from the one, in nats, as distributions: whatever the probabilities that
    /// are shown of all tokens sum to. Where a row shows the best alone it is that of
    /// the tokens that both show and of all others taken together, which is at most that of all.
    pub divergence: f64,
    /// How much more likely the best token of the one is than its second, in nats, where both are seen.
    pub margin: Option<f64>,
    /// The best token of the one, and that of the other.
    pub best: [u32; 2],
    /// By how much more log-probability the other gives the token that followed; nothing where one does not show it.
    pub given: Option<f64>,
}

impl Apart {
    /// Do both rank the same token first?
    pub fn flips(&self) -> bool {
        self.best[0] != self.best[1]
    }

    /// Could differences of this size have put another token first? Two tokens may come nearer by twice the largest of them.
    pub fn might_flip(&self) -> bool {
        self.flips() || self.margin.is_some_and(|margin| margin <= 2.0 * self.difference.value)
    }
}

impl<'r> Row<'r> {
    /// By how much its numbers are more than log-probabilities whose probabilities sum to 1. An engine that sums them in `f32`
    /// shows some that do not.
    pub(super) fn excess(self) -> f64 {
        match self {
            Row::Logits(all) | Row::LogProbabilities(all) => {
                let highest = f64::from(all.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let mut sum = 0.0;
                for &number in all {
                    sum += exp64(f64::from(number) - highest);
                }
                highest + libm::log(sum)
            }
            Row::Top(_) => 0.0,
        }
    }

    fn get(self, token: u32) -> Option<f32> {
        match self {
            Row::Logits(all) | Row::LogProbabilities(all) => all.get(token as usize).copied(),
            Row::Top(best) => best.iter().find(|best| best.token == token).map(|best| best.logit),
        }
    }

    fn is_logits(self) -> bool {
        matches!(self, Row::Logits(_))
    }

    /// The best, and the second best if it is seen: of equal ones the lower token.
    fn best(self) -> [Option<Candidate>; 2] {
        let mut best = [None::<Candidate>; 2];
        for one in self.candidates() {
            let is_before =
                |other: Option<Candidate>| other.is_none_or(|other| one.best_first(&other).is_lt());
            if is_before(best[0]) {
                best = [Some(one), best[0]];
            } else if is_before(best[1]) {
                best[1] = Some(one);
            }
        }
        best
    }

    fn candidates(self) -> impl Iterator<Item = Candidate> + use<'r> {
        let (all, best) = match self {
            Row::Logits(all) | Row::LogProbabilities(all) => (all, &[][..]),
            Row::Top(best) => (&[][..], best),
        };
        let all = all.iter().zip(0..).map(|(&logit, token)| Candidate { token, logit });
        all.chain(best.iter().copied())
    }
}

/// How far the row of one engine is from the row of another, after the same tokens. `given` is the token that
/// followed. Both have the same vocabulary, and show something.
pub fn apart(one: Row<'_>, other: Row<'_>, given: u32) -> Apart {
    let excesses = [one.excess(), other.excess()];
    // Log-probabilities count as they are shown.
    let shifts = [0, 1].map(|side| if [one, other][side].is_logits() { excesses[side] } else { 0.0 });
    let has_steps = one.is_logits() == other.is_logits();
    let mut apart = Apart {
        same: has_steps,
        steps: has_steps.then_some(Most { value: 0, token: given }),
        difference: Most { value: 0.0, token: given },
        divergence: 0.0,
        margin: None,
        best: [given; 2],
        given: None,
    };
    // What the tokens that both show have of all probability.
    let (mut shown, mut is_whole) = ([0.0; 2], true);
    // A row of the best is short, so it leads.
    let (leading, led) = if matches!(one, Row::Top(_)) { (one, other) } else { (other, one) };
    for Candidate { token, logit } in leading.candidates() {
        let Some(led) = led.get(token) else {
            // Another token among the best is another order of them.
            (apart.same, is_whole) = (false, false);
            continue;
        };
        let numbers = if matches!(one, Row::Top(_)) { [logit, led] } else { [led, logit] };
        apart.same &= canonical(numbers[0]).to_bits() == canonical(numbers[1]).to_bits();
        let less = |by: [f64; 2]| [0, 1].map(|side| f64::from(numbers[side]) - by[side]);
        let ([p, q], normal) = (less(shifts), less(excesses));
        let weights = normal.map(|log| if log < -690.0 { 0.0 } else { exp64(log) });
        (shown[0], shown[1]) = (shown[0] + weights[0], shown[1] + weights[1]);
        let is_floor = |side: usize| numbers[side] == f32::NEG_INFINITY && ![one, other][side].is_logits();
        if is_floor(0) || is_floor(1) {
            continue;
        }
        apart.divergence += weighed(weights, normal[0] - normal[1]);
        let difference = if numbers == [f32::NEG_INFINITY; 2] { 0.0 } else { (p - q).abs() };
        if difference > apart.difference.value {
            apart.difference = Most { value: difference, token };
        }
        if token == given {
            apart.given = Some(q - p);
        }
        if let Some(most) = &mut apart.steps {
            let steps = steps(numbers[0], numbers[1]);
            if steps > most.value {
                *most = Most { value: steps, token };
            }
        }
    }
    if matches!(one, Row::Top(_)) || matches!(other, Row::Top(_)) {
        is_whole = false;
    }
    if !is_whole {
        let rest = shown.map(|shown| (1.0 - shown).max(0.0));
        // What is left of 1 after so many roundings says nothing.
        if rest.iter().all(|&rest| rest > 1e-9) {
            apart.divergence += weighed(rest, libm::log(rest[0]) - libm::log(rest[1]));
        }
    }
    let [first, second] = one.best();
    if let Some(first) = first {
        apart.best[0] = first.token;
        let margin = |second: Candidate| {
            if first.logit == second.logit { 0.0 } else { f64::from(first.logit) - f64::from(second.logit) }
        };
        apart.margin = second.map(margin);
    }
    if let [Some(first), _] = other.best() {
        apart.best[1] = first.token;
    }
    apart
}

/// By what factor a probability is off whose logarithm is off by so much.
pub fn factor(difference: f64) -> f64 {
    exp64(difference.abs())
}

/// What a token adds to an estimate of the divergence of another engine from the one that chose it, where the other gives
/// it so much more log-probability: e^d - 1 - d.
pub fn estimate(difference: f64) -> f64 {
    weighed([1.0, exp64(difference)], -difference)
}

/// A token's part of the divergence, where its log-probabilities differ by so much: p (e^-d - 1 + d). It differs from p d
/// by q - p, of which the sum over all tokens is nought, and is never negative: so nothing is lost of a divergence that is
/// small.
fn weighed([p, q]: [f64; 2], d: f64) -> f64 {
    match () {
        () if p == 0.0 => q,
        () if q == 0.0 => f64::INFINITY,
        // The first terms of its series, where the formula would cancel.
        () if d.abs() < 1e-3 => p * d * d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0 - d / 120.0))),
        () => q - p + p * d,
    }
}

/// How many steps of `f32` lie between two numbers; none between minus zero and zero.
pub(crate) fn steps(a: f32, b: f32) -> u64 {
    let place = |x: f32| {
        let size = i64::from(x.to_bits() & 0x7FFF_FFFF);
        if x.is_sign_negative() { -size } else { size }
    };
    place(a).abs_diff(place(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(best: &[(u32, f32)]) -> Vec<Candidate> {
        best.iter().map(|&(token, logit)| Candidate { token, logit }).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    // The numbers below were computed in 50 digits by mpmath 1.3.

    #[test]
    fn a_divergence_is_that_of_the_two_distributions() {
        let (a, b) = ([1.0, 2.0, -3.0, 0.5], [1.5, 1.0, -2.0, 0.0]);
        let found = apart(Row::Logits(&a), Row::Logits(&b), 1);
        close(found.divergence, DIVERGENCE);
        // So it is after a constant is added to one of them, which is not the same row.
        let moved = b.map(|logit| logit + 4.0);
        let moved = apart(Row::Logits(&a), Row::Logits(&moved), 1);
        close(moved.divergence, DIVERGENCE);
        assert!(!moved.same && (moved.difference.value - found.difference.value).abs() < 1e-12);
        assert_eq!(
            (found.best, found.margin, found.flips(), found.might_flip()),
            ([1, 0], Some(1.0), true, true)
        );
        close(found.given.unwrap(), GIVEN);
    }

    const DIVERGENCE: f64 = 0.228_271_425_639_216_47;
    const GIVEN: f64 = -0.651_905_394_936_616_4;

    #[test]
    fn probabilities_that_do_not_sum_to_one_differ_and_their_distributions_do_not() {
        let logits = [1.0, 2.0, -3.0, 0.5];
        let shift = Row::Logits(&logits).excess();
        let off = logits.map(|logit| (f64::from(logit) - shift + 1e-3) as f32);
        let found = apart(Row::Logits(&logits), Row::LogProbabilities(&off), 0);
        assert!((found.given.unwrap() - 1e-3).abs() < 1e-6 && (found.difference.value - 1e-3).abs() < 1e-6);
        assert!(found.divergence < 1e-12, "{}", found.divergence);
    }

    #[test]
    fn one_step_in_one_number_is_seen_and_named() {
        let a: Vec<f32> = (0..1000).map(|token| (token * 7919 % 1009) as f32 * 0.017 - 9.0).collect();
        let mut b = a.clone();
        b[421] = b[421].next_up();
        let found = apart(Row::Logits(&a), Row::Logits(&b), 3);
        assert!(!found.same && !found.flips() && !found.might_flip());
        assert_eq!(found.steps, Some(Most { value: 1, token: 421 }));
        // Of a change of one part in 10^7 no digit of the divergence is lost: it is p d^2 / 2, less the square of p d.
        let d = f64::from(b[421]) - f64::from(a[421]);
        let p = exp64(f64::from(a[421]) - Row::Logits(&a).excess());
        let expected = p * (1.0 - p) * d * d / 2.0;
        assert!((found.divergence - expected).abs() < 1e-3 * expected, "{} {expected}", found.divergence);
        let same = apart(Row::Logits(&a), Row::Logits(&a), 3);
        assert!(same.same && same.divergence == 0.0 && same.difference.value == 0.0 && !same.might_flip());
    }

    #[test]
    fn minus_zero_is_another_bit_and_no_step() {
        let found = apart(Row::Logits(&[0.0, 1.0]), Row::Logits(&[-0.0, 1.0]), 0);
        assert!(!found.same);
        assert_eq!(found.steps.unwrap().value, 0);
        assert_eq!(steps(-f32::from_bits(1), f32::from_bits(2)), 3);
    }

    #[test]
    fn the_best_alone_bound_the_divergence_of_all_from_below() {
        let (a, b) = ([1.0, 2.0, -3.0, 0.5], [1.5, 1.0, -2.0, 0.0]);
        let shown = |row: &[f32; 4], tokens: [u32; 2]| {
            let shift = Row::Logits(row).excess();
            top(&tokens.map(|token| (token, (f64::from(row[token as usize]) - shift) as f32)))
        };
        let (best, others) = (shown(&a, [1, 0]), shown(&b, [0, 1]));
        for (one, other) in [
            (Row::Top(&best), Row::Top(&others)),
            (Row::Logits(&a), Row::Top(&others)),
            (Row::Top(&best), Row::Logits(&b)),
        ] {
            let found = apart(one, other, 1);
            let expected = 0.220_616_205_750_746_97;
            assert!((found.divergence - expected).abs() < 1e-6, "{}", found.divergence);
            assert_eq!(found.best, [1, 0]);
            assert_eq!(found.steps.is_some(), one.is_logits() == other.is_logits());
        }
        // Another token among the best is another row.
        let (one, other) = (top(&[(1, -0.5), (2, -1.0)]), top(&[(1, -0.5), (3, -1.0)]));
        assert!(!apart(Row::Top(&one), Row::Top(&other), 1).same);
        assert!(apart(Row::Top(&one), Row::Top(&one), 1).same);
        assert_eq!(apart(Row::Top(&one), Row::Top(&one), 3).given, None);
    }

    #[test]
    fn what_no_token_can_be_is_one_thing_in_logits_and_a_floor_in_log_probabilities() {
        let never = f32::NEG_INFINITY;
        let masked = apart(Row::Logits(&[0.0, never]), Row::Logits(&[0.0, 0.0]), 0);
        assert_eq!((masked.difference.value, masked.difference.token), (f64::INFINITY, 1));
        close(masked.divergence, std::f64::consts::LN_2);
        let back = apart(Row::Logits(&[0.0, 0.0]), Row::Logits(&[0.0, never]), 0);
        assert_eq!(back.divergence, f64::INFINITY);
        let both = apart(Row::Logits(&[0.0, never]), Row::Logits(&[0.0, never]), 0);
        assert!(both.same && both.difference.value == 0.0 && both.divergence == 0.0);
        let floor = apart(Row::LogProbabilities(&[0.0, never]), Row::LogProbabilities(&[0.0, -20.0]), 0);
        assert!(!floor.same && floor.difference.value == 0.0);
    }
}
