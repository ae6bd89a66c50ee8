//! A limit that few rows exceed, where rows come in clusters that hang together: an order statistic, what it guarantees, and how many of
//! other rows will exceed it.
//!
//! Of `n` rows drawn one by one, `k` lie above a value that a share `p` of all rows exceeds with a binomial probability. So the value that
//! `k` of them exceed is exceeded by at most `p` of all rows, with a confidence of 95 %, where at most `k` of `n` had a probability of at
//! most 5 % (Clopper and Pearson, turned around as Woodruff did). Rows of a cluster tell less than as many that are drawn one by one: they
//! count as fewer by the design effect, as Korn and Graubard have it. That cannot be seen at a limit that next to no row exceeds, so it is
//! the largest of those at the rarest values where it can, and where too few clusters tell even that, a cluster counts as one row.

use super::{Interval, clustered::Sample};
use crate::numerics::special::{binomial_tail, exceedances, one_minus_root};

/// Of how many clusters some row has to lie above a value, so that it tells how far rows hang together there.
const ENOUGH: usize = 10;
/// So many values are asked, each of which is exceeded half as often as the one before.
const VALUES: usize = 3;

/// A limit, and what it rests on.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Limit {
    /// The least value of which it is known, with that confidence, that at most such a share of all rows exceeds it.
    pub limit: f64,
    /// The share: the one that was asked for, or a larger one where so few rows cannot tell so little.
    pub rate: f64,
    /// Where the value lies that exactly that share exceeds; each end is passed over with what the confidence leaves open.
    pub interval: Interval,
    /// How many rows of how many clusters it comes from.
    pub rows: u64,
    /// How many clusters.
    pub clusters: u64,
    /// As how many rows that are drawn one by one these count.
    pub worth: u64,
    /// How many of these may lie above it.
    pub above: u64,
}

/// The least value that at most a share `rate` of all rows exceeds, with this confidence, by those of several clusters. Nothing without rows.
pub fn limit(clusters: &[Vec<f64>], rate: f64, confidence: f64) -> Option<Limit> {
    let mut sorted: Vec<f64> = clusters.iter().flatten().copied().collect();
    sorted.sort_unstable_by(|one, other| other.total_cmp(one));
    let rows = sorted.len() as u64;
    let last = rows.checked_sub(1)?;
    let effect = effect(clusters, &sorted, rate);
    let worth = ((rows as f64 / effect) as u64).max(1);
    let open = 1.0 - confidence;
    // What is left open that so few have so many above, and what is that they have so few.
    let few = |above: u64, rate: f64| binomial_tail(worth - above, worth, 1.0 - rate) <= open;
    let rate = if few(0, rate) { rate } else { one_minus_root(open, std::num::NonZeroU64::new(worth)?) };
    let above = (1..worth).take_while(|above| few(*above, rate)).last().unwrap_or(0);
    let many =
        (above + 1..=worth).find(|hits| 1.0 - binomial_tail(worth + 1 - hits, worth, 1.0 - rate) <= open);
    let place = |hits: u64| ((hits as f64 * effect) as u64).min(last) as usize;
    let limit = sorted[place(above)];
    let lower = sorted[place(many.unwrap_or(worth))];
    Some(Limit {
        limit,
        rate,
        interval: Interval { lower, upper: limit },
        rows,
        clusters: clusters.len() as u64,
        worth,
        above,
    })
}

/// As how many rows of a cluster one that is drawn by itself counts, far out.
fn effect(clusters: &[Vec<f64>], sorted: &[f64], rate: f64) -> f64 {
    let beyond = |value: f64| clusters.iter().map(move |rows| (beyond(rows, value), rows.len() as u64));
    // From the rarest up.
    let shares =
        std::iter::successors(Some(rate), |share| Some(2.0 * share)).take_while(|share| *share <= 0.5);
    let seen = shares.filter_map(|share| {
        let value = *sorted.get((share * sorted.len() as f64) as usize)?;
        let seen = beyond(value).filter(|(hits, _)| *hits > 0).count();
        (seen >= ENOUGH).then(|| Sample::of_hits(beyond(value)))
    });
    let none = Sample::of_hits(clusters.iter().map(|rows| (0, rows.len() as u64)));
    let effects = seen.take(VALUES).filter_map(|sample| Some(sample.worth(1)?.effect));
    effects.max_by(f64::total_cmp).or_else(|| Some(none.worth(1)?.effect)).unwrap_or(sorted.len() as f64)
}

/// How many of these lie above a value.
pub fn beyond(rows: &[f64], value: f64) -> u64 {
    rows.iter().filter(|row| **row > value).count() as u64
}

impl Limit {
    /// Which share of so many other rows mostly exceeds the limit, whatever rows are like: between two numbers of them with such a
    /// probability (the exceedances of Gumbel and von Schelling).
    pub fn expected(&self, rows: u64, probability: f64) -> Interval {
        let next = ((rows as f64 * self.worth as f64 / self.rows as f64) as u64).max(1);
        let (mut below, mut lower) = (0.0, None);
        for (hits, likely) in (0_u64..).zip(exceedances(self.above, self.worth, next)) {
            below += likely;
            if lower.is_none() && below > (1.0 - probability) / 2.0 {
                lower = Some(hits);
            }
            if below >= (1.0 + probability) / 2.0 || hits == next {
                let share = |hits: u64| hits as f64 / next as f64;
                return Interval { lower: share(lower.unwrap_or(0)), upper: share(hits) };
            }
        }
        Interval { lower: 0.0, upper: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::Stream;

    /// Rows that are 1, 2, 3, …, each in a cluster of its own.
    fn alone(rows: u64) -> Vec<Vec<f64>> {
        (1..=rows).map(|row| vec![row as f64]).collect()
    }

    // For n = 29956, 47437, 62956, 77535 is scipy 1.x's binom.cdf(k, n, 1e-4) at most 0.05 for the first time, with k = 0, 1, 2, 3. For
    // n = 100000, binom.cdf(4, n, 1e-4) is the last such, and binom.sf(16 - 1, n, 1e-4) the first.
    #[test]
    fn a_rate_is_told_from_as_many_rows_as_the_rule_of_three_asks_and_no_fewer() {
        let few = limit(&alone(29_955), 1e-4, 0.95).unwrap();
        assert!(few.rate > 1e-4 && few.rate < 1.001e-4 && few.limit == 29_955.0);
        let enough = limit(&alone(29_956), 1e-4, 0.95).unwrap();
        assert_eq!((enough.rate, enough.above, enough.limit), (1e-4, 0, 29_956.0));
        assert_eq!(limit(&[], 1e-4, 0.95), None);
    }

    #[test]
    fn the_limit_is_the_lowest_rank_that_holds() {
        for (rows, above) in [(47_436, 0), (47_437, 1), (62_955, 1), (62_956, 2), (77_534, 2), (77_535, 3)] {
            let found = limit(&alone(rows), 1e-4, 0.95).unwrap();
            assert_eq!((found.rate, found.above), (1e-4, above), "{rows}");
            // So many are larger, and one more would be too many.
            assert_eq!(found.limit, (rows - above) as f64);
        }
        let found = limit(&alone(100_000), 1e-4, 0.95).unwrap();
        assert_eq!(found.interval, Interval { lower: 100_000.0 - 16.0, upper: 100_000.0 - 4.0 });
        assert_eq!((found.rows, found.clusters, found.worth), (100_000, 100_000, 100_000));
    }

    // scipy.stats.betabinom(50, 3 + 1, 100 - 3).pmf([0, 1, 2, 3]), and betabinom(30000, 5 + 1, 30000 - 5).ppf([0.025, 0.975])
    #[test]
    fn what_exceeds_the_limit_elsewhere_is_spread_as_exceedances_are() {
        let likely: Vec<f64> = exceedances(3, 100, 50).take(4).collect();
        let expected = [
            0.193_542_535_824_414_6,
            0.265_126_761_403_307_9,
            0.223_986_401_875_208_68,
            0.149_324_267_916_805_36,
        ];
        for (likely, expected) in likely.iter().zip(expected) {
            assert!((likely - expected).abs() < 1e-10, "{likely} {expected}");
        }
        let found = Limit { above: 5, ..limit(&alone(30_000), 1e-3, 0.95).unwrap() };
        assert_eq!(found.expected(30_000, 0.95), Interval { lower: 1.0 / 3e4, upper: 14.0 / 3e4 });
    }

    /// Rows of clusters, each near to a number of its own, which is drawn between 0 and 1.
    fn together(clusters: usize, stream: &mut Stream) -> Vec<Vec<f64>> {
        (0..clusters)
            .map(|_| {
                let own = stream.unit();
                (0..20).map(|_| own + 1e-3 * stream.unit()).collect()
            })
            .collect()
    }

    #[test]
    fn a_limit_is_too_low_as_seldom_as_it_says_even_where_rows_hang_together() {
        let mut stream = Stream::new(7, 0);
        let tries = 400;
        let found: Vec<Limit> =
            (0..tries).map(|_| limit(&together(500, &mut stream), 0.02, 0.95).unwrap()).collect();
        // Of numbers between 0 and 1, with next to nothing added, a share of 1 - x exceeds x.
        let low = found.iter().filter(|found| 1.0 - found.limit > 0.02 + 1e-3).count();
        assert!(low <= 32, "{low} of {tries} are too low, where 20 and a few may be");
        assert!(
            found.iter().all(|found| found.rate == 0.02 && found.worth < 1000),
            "20 rows tell what one does"
        );
        // And it is no higher than it must be.
        assert!(found.iter().all(|found| found.limit < 0.9999));
    }

    #[test]
    fn few_clusters_that_tell_nothing_count_as_so_many_rows() {
        let clusters: Vec<Vec<f64>> = (0..5).map(|cluster| vec![f64::from(cluster); 1000]).collect();
        let found = limit(&clusters, 1e-4, 0.95).unwrap();
        assert_eq!((found.worth, found.limit), (5, 4.0));
        // scipy.stats.beta.ppf(0.95, 1, 5)
        assert!((found.rate - 0.450_719_7).abs() < 1e-6, "{}", found.rate);
    }
}
