//! A draw: the highest of all kept logits over temperature plus noise, the Gumbel way to sample a softmax.

use pulp::{Arch, Simd, WithSimd};

use super::{
    Place, Sampling,
    ranking::{Candidate, LANES, Scan, sum_of_weights, weight},
};
use crate::numerics::random::{halves, open_unit, philox};

/// One draw among these logits.
pub(super) fn draw(sampling: &Sampling, logits: &[f32], best: Candidate, place: Place) -> u32 {
    let mut draw = Draw {
        highest: best.logit,
        inverse_temperature: 1.0 / f64::from(sampling.temperature()),
        key: halves(sampling.seed),
        place,
        winner: best.token,
        score: f64::NEG_INFINITY,
    };
    // First, because most others fall short of it.
    draw.offer(best, draw.noise(best.token));
    match draw.kept(sampling, logits) {
        None => Arch::new().dispatch(OfferingAll { draw: &mut draw, logits }),
        Some(kept) => {
            kept.into_iter().for_each(|candidate| draw.offer(candidate, draw.noise(candidate.token)))
        }
    }
    draw.winner
}

struct Draw {
    highest: f32,
    inverse_temperature: f64,
    key: [u32; 2],
    place: Place,
    /// The best so far, and its score.
    winner: u32,
    score: f64,
}

impl Draw {
    /// How far below the highest logit this one lies, over the temperature.
    #[inline(always)]
    fn scaled(&self, logit: f32) -> f64 {
        // In `f64` before the difference, which is exact there for all but the farthest.
        let difference = if logit == self.highest { 0.0 } else { f64::from(logit) - f64::from(self.highest) };
        difference * self.inverse_temperature
    }

    /// The random bits of a token at this place.
    #[inline(always)]
    fn noise(&self, token: u32) -> u64 {
        let [low, high] = halves(self.place.item);
        let [a, b, ..] = philox([token, self.place.position, low, high], self.key);
        u64::from(b) << 32 | u64::from(a)
    }

    /// The tokens left by top-k and top-p; none for all of them.
    fn kept(&self, sampling: &Sampling, logits: &[f32]) -> Option<Vec<Candidate>> {
        /// How many of a long tail to look at first.
        const HEAD: usize = 64;
        let most = sampling.top_k().map_or(logits.len(), |k| k.get().min(logits.len()));
        let all = most == logits.len();
        if all && sampling.top_p() == 1.0 {
            return None;
        }
        let scan = Scan::new(logits);
        let mut kept = scan.best(if all { HEAD.min(most) } else { most });
        if sampling.top_p() == 1.0 {
            return Some(kept);
        }
        let exponent = |logit| self.scaled(logit) as f32;
        let total = if all {
            sum_of_weights(logits, exponent)
        } else {
            let logits: Vec<_> = kept.iter().map(|candidate| candidate.logit).collect();
            sum_of_weights(&logits, exponent)
        };
        let enough = f64::from(sampling.top_p()) * total;
        loop {
            let mut better = 0.0;
            let nucleus = kept.iter().take_while(|candidate| {
                let within = better < enough;
                better += f64::from(weight(exponent(candidate.logit)));
                within
            });
            let nucleus = nucleus.count();
            if nucleus < kept.len() || kept.len() == most {
                kept.truncate(nucleus);
                return Some(kept);
            }
            kept = scan.best((8 * kept.len()).min(most));
        }
    }

    /// Lets a candidate with this noise compete.
    #[inline(always)]
    fn offer(&mut self, candidate: Candidate, noise: u64) {
        let scaled = self.scaled(candidate.logit);
        if scaled + most_gumbel(noise) < self.score {
            return;
        }
        let score = scaled + gumbel(noise);
        if score > self.score || score == self.score && candidate.token < self.winner {
            (self.winner, self.score) = (candidate.token, score);
        }
    }
}

/// Lets every token compete. The loops over lanes, which are compiled once for each instruction set, only
/// leave out what would lose.
struct OfferingAll<'a> {
    draw: &'a mut Draw,
    logits: &'a [f32],
}

impl WithSimd for OfferingAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let OfferingAll { draw, logits } = self;
        for (first, logits) in (0..).step_by(LANES).zip(logits.chunks(LANES)) {
            let mut noise = [0; LANES];
            for (lane, noise) in noise.iter_mut().enumerate() {
                *noise = draw.noise(first + lane as u32);
            }
            let reaches = |(logit, noise): (&f32, &u64)| {
                u64::from(draw.scaled(*logit) + most_gumbel(*noise) >= draw.score)
            };
            // A sum, not `any`, which stops early and so stays scalar.
            if logits.iter().zip(&noise).map(reaches).sum::<u64>() > 0 {
                for ((token, &logit), noise) in (first..).zip(logits).zip(noise) {
                    draw.offer(Candidate { token, logit }, noise);
                }
            }
        }
    }
}

/// Noise of the Gumbel distribution, from 52 of these bits.
fn gumbel(bits: u64) -> f64 {
    // libm is written in plain `f64` arithmetic: the same bits on every machine.
    -libm::log(-libm::log(open_unit(bits)))
}

/// A bound above it that needs no logarithm: -ln(-ln(u)) < -ln(1-u), and 1-u begins with so many zeros.
#[inline(always)]
fn most_gumbel(bits: u64) -> f64 {
    // The integer that `open_unit` makes of the bits, subtracted from 2^53, and 11 bits to the left.
    let complement = !bits | 1 << 11;
    // A little more than ln(2), so that no rounding matters.
    0.7 * f64::from(complement.leading_zeros() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::{kernel::Isa, random::Stream};

    fn draw() -> Draw {
        Draw {
            highest: 2.0,
            inverse_temperature: 1.0,
            key: [1, 2],
            place: Place { item: 3, position: 4 },
            winner: 0,
            score: f64::NEG_INFINITY,
        }
    }

    #[test]
    fn the_bound_lies_above_the_noise_and_not_far() {
        let mut stream = Stream::new(0, 0);
        let mut all = vec![0, 1, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, !(1 << 12), !(1 << 63)];
        all.extend((0..64).map(|shift| u64::MAX >> shift));
        all.extend((0..64).map(|shift| u64::MAX << shift));
        all.extend((0..100_000).map(|_| stream.bits()));
        for bits in all {
            let (noise, most) = (gumbel(bits), most_gumbel(bits));
            assert!(noise.is_finite() && noise < most, "{bits:#x}: {noise} and {most}");
            // Where the noise is high, which is where it matters, by a little more than the last leading bit.
            assert!(noise < 3.0 || most < 1.02 * noise + 0.75, "{bits:#x}: {noise} and {most}");
        }
    }

    #[test]
    fn of_equal_scores_the_lower_token_wins() {
        let candidates = [4, 9].map(|token| Candidate { token, logit: 1.0 });
        for order in [[0, 1], [1, 0]] {
            let mut draw = draw();
            for at in order {
                draw.offer(candidates[at], 12345 << 20);
            }
            assert_eq!(draw.winner, 4);
        }
    }

    #[test]
    fn every_instruction_set_finds_the_same_winner() {
        let mut stream = Stream::new(2, 0);
        for len in [1, 63, 64, 65, 1000] {
            let logits: Vec<_> = (0..len).map(|_| (5.0 * stream.unit() - 3.0) as f32).collect();
            let mut plain = draw();
            for (token, &logit) in (0..).zip(&logits) {
                let noise = plain.noise(token);
                plain.offer(Candidate { token, logit }, noise);
            }
            for isa in Isa::available() {
                let mut draw = draw();
                isa.dispatch(OfferingAll { draw: &mut draw, logits: &logits });
                assert_eq!((draw.winner, draw.score), (plain.winner, plain.score), "{isa}, {len}");
            }
        }
    }
}
