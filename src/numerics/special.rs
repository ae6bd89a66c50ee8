//! The functions behind intervals and tests, in `f64`, with the same bits on every machine.
//!
//! Logarithms, exponentials, `erfc` and the logarithm of the gamma function are those of `libm`, which is
//! plain Rust; everything else is arithmetic in a written order. Tails have relative errors below 1e-11.

use std::{f64::consts::PI, num::NonZeroU64};

/// The natural logarithm.
pub fn log(x: f64) -> f64 {
    libm::log(x)
}

/// The exponential.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// The probability that a standard normal variable exceeds `z`.
pub fn normal_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / 2.0_f64.sqrt())
}

/// What a standard normal variable exceeds with probability `tail`; 0 where that is a half or more.
pub fn normal_quantile(tail: f64) -> f64 {
    invert(normal_tail, tail)
}

/// The probability that a variable of Student's distribution exceeds `t`, which is not negative.
pub fn student_tail(t: f64, freedom: NonZeroU64) -> f64 {
    let freedom = freedom.get() as f64;
    let odds = t * t / freedom;
    if odds.is_infinite() {
        return 0.0;
    }
    // Half the regularized incomplete beta function at x with a and 1/2. Neither x nor its complement is a
    // difference.
    let (a, b, x, complement) = (freedom / 2.0, 0.5, 1.0 / (1.0 + odds), odds / (1.0 + odds));
    let front = libm::exp(-a * libm::log1p(odds)) * (complement / PI).sqrt() * half_step_of_gamma(a) / 2.0;
    // On the other side of the mean the fraction converges slowly, and the mirrored one fast.
    if x < (a + 1.0) / (a + b + 2.0) {
        front / (a * beta_fraction(a, b, x))
    } else {
        0.5 - front / (b * beta_fraction(b, a, complement))
    }
}

/// What a variable of Student's distribution exceeds with probability `tail`; 0 where that is a half or more.
pub fn student_quantile(tail: f64, freedom: NonZeroU64) -> f64 {
    invert(|t| student_tail(t, freedom), tail)
}

/// The probability that a variable of the chi-square distribution exceeds `x`, which is not negative.
pub fn chi_square_tail(x: f64, freedom: NonZeroU64) -> f64 {
    // The upper incomplete gamma function steps from s to s + 1 by the term h^s e^-h / gamma(s + 1), up from
    // where it is elementary. All terms are positive. Each is formed on its own, so that none is lost because
    // the first one underflows.
    let half = x / 2.0;
    if half <= 0.0 || half.is_infinite() {
        return if half <= 0.0 { 1.0 } else { 0.0 };
    }
    let (first, mut tail) = match freedom.get() % 2 {
        0 => (0.0, 0.0),
        _ => (0.5, libm::erfc(half.sqrt())),
    };
    for step in 0..freedom.get() / 2 {
        let s = first + step as f64;
        tail += libm::exp(s * libm::log(half) - half - libm::lgamma(s + 1.0));
    }
    tail.min(1.0)
}

/// The probability of at least `hits` of `of` tries, each of which hits with probability `share`.
pub fn binomial_tail(hits: u64, of: u64, share: f64) -> f64 {
    let (log, log_of_rest) = (libm::log(share), libm::log1p(-share));
    let choices = |hit: f64| {
        libm::lgamma(of as f64 + 1.0) - libm::lgamma(hit + 1.0) - libm::lgamma(of as f64 - hit + 1.0)
    };
    // Where nothing is left over a probability of 0 does no harm, and its logarithm would.
    let power = |exponent: f64, log: f64| if exponent == 0.0 { 0.0 } else { exponent * log };
    let term = |hit: u64| {
        let hit = hit as f64;
        libm::exp(choices(hit) + power(hit, log) + power(of as f64 - hit, log_of_rest))
    };
    (hits..=of).rev().map(term).sum::<f64>().min(1.0)
}

/// The share at which at least `hits` of `of` tries are as likely as `tail`.
pub fn binomial_quantile(hits: u64, of: u64, tail: f64) -> f64 {
    // More hits are more likely at higher shares.
    1.0 - invert(|rest| binomial_tail(hits, of, 1.0 - rest.min(1.0)), tail)
}

/// How likely each number of `next` more values exceeds the one of `of` that `above` of them exceed, from none up, where all are
/// drawn alike: C(x + above, x) C(of - above - 1 + next - x, next - x) / C(of + next, next), whatever they are drawn from.
pub fn exceedances(above: u64, of: u64, next: u64) -> impl Iterator<Item = f64> {
    let choices = |from: u64, few: u64| {
        libm::lgamma(from as f64 + 1.0)
            - libm::lgamma(few as f64 + 1.0)
            - libm::lgamma((from - few) as f64 + 1.0)
    };
    let below = of.saturating_sub(above + 1);
    (0..=next).map(move |x| {
        libm::exp(
            choices(x + above, x) + choices(below + next - x, next - x)
                - choices(above + 1 + below + next, next),
        )
    })
}

/// 1 less the `n`-th root of `x`: how likely a thing may be at most, if a probability of `x` is to remain
/// that it never happens in `n` tries.
pub fn one_minus_root(x: f64, n: NonZeroU64) -> f64 {
    -libm::expm1(libm::log(x) / n.get() as f64)
}

/// The interval around a share between 0 and 1 whose logarithm may be off by `error`, drawn on the scale of
/// log(-log(share)): neither end leaves the interval from 0 to 1.
pub fn log_log_interval(share: f64, error: f64) -> [f64; 2] {
    let log = libm::log(share);
    [1.0, -1.0].map(|side| libm::exp(log * libm::exp(side * error / -log)))
}

/// The smallest number, not negative, whose tail is at most `tail`.
fn invert(function: impl Fn(f64) -> f64, tail: f64) -> f64 {
    // The bits of numbers that are not negative are in their order, so halving the bits ends at the number
    // itself: no starting value, no derivative, and always the same steps.
    let (mut low, mut high) = (0, f64::MAX.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        if function(f64::from_bits(middle)) > tail { low = middle + 1 } else { high = middle }
    }
    f64::from_bits(low)
}

/// gamma(a + 1/2) / gamma(a).
fn half_step_of_gamma(a: f64) -> f64 {
    if a < 100.0 {
        libm::exp(libm::lgamma(a + 0.5) - libm::lgamma(a))
    } else {
        // The difference of two large logarithms would be lost; this series ends below 1e-15.
        let u = 1.0 / a;
        let series = -21.0 / 32768.0 + u * (-399.0 / 262144.0);
        a.sqrt() * (1.0 + u * (-1.0 / 8.0 + u * (1.0 / 128.0 + u * (5.0 / 1024.0 + u * series))))
    }
}

/// The continued fraction 1 + d1/(1 + d2/(1 + ...)) of the incomplete beta function, from its far end.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let pairs = 60 + (3.0 * a.max(b).sqrt()) as u64;
    let mut fraction = 1.0;
    for pair in (0..=pairs).rev() {
        let m = pair as f64;
        let (even, odd) = (a + 2.0 * m, a + 2.0 * m + 1.0);
        // d(2m + 2), then d(2m + 1).
        fraction = 1.0 + (m + 1.0) * (b - m - 1.0) * x / (odd * (odd + 1.0)) / fraction;
        fraction = 1.0 - (a + m) * (a + b + m) * x / (even * odd) / fraction;
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU64 = NonZeroU64::MIN;

    fn close(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 1e-13, "{value} for {expected}");
    }

    #[test]
    fn quantiles_known_in_closed_form_are_met() {
        // Student's distribution with one degree of freedom is Cauchy's, whose quarter lies at 1.
        close(student_quantile(0.25, ONE), 1.0);
        close(student_quantile(1.0 / 6.0, ONE), 3.0_f64.sqrt());
        // With two, the tail at t is 1/2 - t / (2 sqrt(2 + t t)).
        close(student_quantile(0.25, NonZeroU64::new(2).unwrap()), (2.0_f64 / 3.0).sqrt());
        close(normal_quantile(0.025), 1.959_963_984_540_054);
    }

    #[test]
    fn a_quantile_is_finite_for_every_tail() {
        for tail in [0.0, -1.0, f64::MIN_POSITIVE] {
            assert!(normal_quantile(tail).is_finite() && student_quantile(tail, ONE).is_finite(), "{tail}");
        }
        for tail in [0.5, 1.0, f64::NAN] {
            assert_eq!((normal_quantile(tail), student_quantile(tail, ONE)), (0.0, 0.0), "{tail}");
        }
    }

    #[test]
    fn a_chi_square_of_nothing_is_exceeded_for_sure() {
        for freedom in 1..10 {
            let freedom = NonZeroU64::new(freedom).unwrap();
            assert_eq!(chi_square_tail(0.0, freedom), 1.0);
            assert_eq!(chi_square_tail(f64::INFINITY, freedom), 0.0, "{freedom}");
        }
        close(chi_square_tail(3.0, NonZeroU64::new(2).unwrap()), libm::exp(-1.5));
        // Where e^-h alone is 0.
        let tail = chi_square_tail(4000.0, NonZeroU64::new(4000).unwrap());
        assert!((tail - 0.497_026_451_555_797_5).abs() < 1e-12, "{tail}");
    }

    #[test]
    fn roots_of_many_tries_keep_their_digits() {
        close(one_minus_root(0.05, ONE), 0.95);
        close(one_minus_root(0.05, NonZeroU64::new(1_000_000_000_000).unwrap()), 2.995_732_273_549_5e-12);
    }
}
