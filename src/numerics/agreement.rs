//! How nearly one computes what another engine showed: in how many of the bits of an `f32` their numbers agree.

use super::{
    NAN,
    apart::{Row, apart, steps},
    canonical,
    choice::Candidate,
    total::{Mean, mean},
};

/// The bits of an `f32` that say how large it is within its power of two, the leading one included.
pub const BITS: f64 = f32::MANTISSA_DIGITS as f64;

/// What numbers are shown of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Their logits.
    Logits,
    /// Their log-probabilities.
    LogProbabilities,
}

impl Kind {
    /// In how many bits two numbers agree: 24 - log2(1 + s), where s is how many steps of `f32` lie between them. These are all 24
    /// if they are the same, 23 if they are neighbors, and none if they are 2^24 steps apart or more. A log-probability comes of a
    /// sum over all tokens, whose rounding does not shrink where the number nears nought: its steps are those of a number of
    /// its size, and of 1 where it is smaller.
    pub fn bits(self, one: f32, other: f32) -> f64 {
        let steps = match self {
            _ if !one.is_finite() || !other.is_finite() => return 0.0,
            Kind::Logits => steps(one, other) as f64,
            Kind::LogProbabilities => {
                let size = one.abs().max(1.0);
                let step = f64::from(size.next_up()) - f64::from(size);
                (f64::from(one) - f64::from(other)).abs() / step
            }
        };
        (BITS - libm::log2(1.0 + steps)).max(0.0)
    }

    /// Are they the same number? Of logits all bits are compared; log-probabilities may be less than a step apart, because
    /// nobody says by which formula an engine computes them.
    pub fn is_same(self, one: f32, other: f32) -> bool {
        match self {
            Kind::Logits => canonical(one).to_bits() == canonical(other).to_bits(),
            Kind::LogProbabilities => self.bits(one, other) > BITS - 1.0,
        }
    }

    /// In how many the numbers of one list agree with those of another, on average; in none where there are none.
    pub fn mean_bits(self, one: &[f32], other: &[f32]) -> f64 {
        mean(one.iter().zip(other).map(|(one, other)| self.bits(*one, *other))).unwrap_or(0.0)
    }
}

/// How nearly logits that are computed here give what was shown, over many places.
#[derive(Clone, Debug)]
pub struct Agreement {
    kind: Kind,
    theirs: Vec<f32>,
    ours: Vec<f32>,
    same: u64,
    divergence: Mean,
    is_infinite: bool,
}

impl Agreement {
    /// With numbers of this kind, over no places yet.
    pub fn new(kind: Kind) -> Agreement {
        let (theirs, ours) = (Vec::new(), Vec::new());
        Agreement { kind, theirs, ours, same: 0, divergence: Mean::default(), is_infinite: false }
    }

    /// Compares a place: the best tokens of it with what is shown of them, and all logits that are computed here. A
    /// log-probability is computed in `f64` and rounded once. What is shown as minus infinity may be a floor, and is left out.
    pub fn add(&mut self, best: &[Candidate], logits: &[f32]) {
        let is_possible = logits.iter().all(|logit| !logit.is_nan() && *logit < f32::INFINITY);
        let shift = match self.kind {
            Kind::LogProbabilities if is_possible => Row::Logits(logits).excess(),
            _ => 0.0,
        };
        let finite = best.iter().filter(|candidate| candidate.logit.is_finite());
        let theirs: Vec<f32> = finite.clone().map(|candidate| candidate.logit).collect();
        // Of a token that is not known here there is no number.
        let logit = |token: u32| logits.get(token as usize).copied().unwrap_or(NAN);
        let ours: Vec<f32> =
            finite.map(|candidate| (f64::from(logit(candidate.token)) - shift) as f32).collect();
        let is_same = theirs.iter().zip(&ours).all(|(theirs, ours)| self.kind.is_same(*theirs, *ours));
        self.same += u64::from(is_same && !ours.is_empty());
        if !is_possible || ours.iter().any(|ours| ours.is_nan()) {
            self.is_infinite = true;
        } else if !ours.is_empty() {
            let divergence = apart(Row::Logits(&theirs), Row::Logits(&ours), 0).divergence;
            self.is_infinite |= divergence.is_infinite();
            self.divergence.add(divergence);
        }
        self.theirs.extend(theirs);
        self.ours.extend(ours);
    }

    /// The numbers that are computed here, as many as were compared.
    pub fn ours(&self) -> &[f32] {
        &self.ours
    }

    /// The places at which all numbers are the same.
    pub fn same(&self) -> u64 {
        self.same
    }

    /// In how many bits numbers agree, on average.
    pub fn bits(&self) -> f64 {
        self.kind.mean_bits(&self.theirs, &self.ours)
    }

    /// The mean divergence from what was shown, in nats, as if there were no tokens but those that are shown; nothing where it is
    /// infinite.
    pub fn divergence(&self) -> Option<f64> {
        self.divergence.round().filter(|_| !self.is_infinite)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::elementary::exp64, *};

    fn agreement(kind: Kind, best: &[(u32, f32)], logits: &[f32]) -> Agreement {
        let best: Vec<_> = best.iter().map(|&(token, logit)| Candidate { token, logit }).collect();
        let mut agreement = Agreement::new(kind);
        agreement.add(&best, logits);
        agreement
    }

    #[test]
    fn neighbors_agree_in_a_bit_less_than_all_and_what_is_far_apart_in_none() {
        for (theirs, ours, bits) in [
            (3.0_f32, 3.0_f32, 24.0),
            (3.0, 3.0_f32.next_up(), 23.0),
            (-3.0, f32::from_bits((-3.0_f32).to_bits() + 3), 22.0),
            (3.0, f32::from_bits(3.0_f32.to_bits() + 1023), 14.0),
            (3.0, -3.0, 0.0),
            (3.0, NAN, 0.0),
            (3.0, f32::INFINITY, 0.0),
        ] {
            let found = agreement(Kind::Logits, &[(1, theirs)], &[0.0, ours]);
            assert!((found.bits() - bits).abs() < 1e-12, "{theirs} {ours}: {}", found.bits());
            assert_eq!((found.ours().len(), found.same()), (1, u64::from(bits == 24.0)));
            assert_eq!(found.divergence().is_none(), !ours.is_finite());
        }
    }

    #[test]
    fn log_probabilities_are_held_against_those_of_all_logits() {
        // By Python's math: the logarithm of 1 + e + 1/e.
        let exact = |logit: f64| (logit - 1.407_605_964_444_380_4) as f32;
        let all = [(1, exact(1.0)), (0, exact(0.0)), (2, exact(-1.0))];
        let found = agreement(Kind::LogProbabilities, &all, &[0.0, 1.0, -1.0]);
        assert_eq!((found.ours().len(), found.same(), found.bits()), (3, 1, 24.0));
        assert!(found.divergence().unwrap() < 1e-12);
        // Near nought a step is that of 1, whatever those of the number are, and less than one is the same.
        for (steps, same) in [(1.01, 0), (0.5, 1), (3.0, 0)] {
            let log = -2.061_153_6e-9 - steps * f32::EPSILON;
            let found = agreement(Kind::LogProbabilities, &[(1, log)], &[0.0, 20.0]);
            let bits = 24.0 - libm::log2(1.0 + f64::from(steps));
            assert!((found.bits() - bits).abs() < 1e-6, "{}", found.bits());
            assert_eq!(found.same(), same, "{steps}");
        }
    }

    #[test]
    fn a_floor_and_a_token_that_is_not_known_prove_nothing() {
        let found = agreement(Kind::LogProbabilities, &[(1, f32::NEG_INFINITY)], &[0.0, 1.0]);
        assert_eq!((found.ours().len(), found.same(), found.bits(), found.divergence()), (0, 0, 0.0, None));
        let found = agreement(Kind::LogProbabilities, &[(7, -1.0)], &[0.0, 1.0]);
        assert_eq!((found.ours().len(), found.same(), found.bits(), found.divergence()), (1, 0, 0.0, None));
    }

    #[test]
    fn logits_and_log_probabilities_of_one_distribution_diverge_alike() {
        let ours = [0.1, 0.9, -1.0];
        let logits = agreement(Kind::Logits, &[(1, 1.0), (0, 0.0)], &ours).divergence().unwrap();
        let shift = Row::Logits(&[0.0, 1.0, -1.0]).excess() as f32;
        let logs = [(1, 1.0 - shift), (0, -shift)];
        let logs = agreement(Kind::LogProbabilities, &logs, &ours).divergence().unwrap();
        // Of two tokens alone, by hand.
        let [p, q] = [1.0, 0.8].map(|apart| 1.0 / (1.0 + exp64(-apart)));
        let exact = p * libm::log(p / q) + (1.0 - p) * libm::log((1.0 - p) / (1.0 - q));
        assert!((logits - exact).abs() < 1e-7 && (logs - exact).abs() < 1e-7, "{logits} {logs} {exact}");
    }
}
