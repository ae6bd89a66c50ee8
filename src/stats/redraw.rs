//! Items drawn again, with replacement and cluster by cluster, from those that there are: where a statistic would mostly lie had others been asked.

use std::num::NonZeroU64;

use super::Interval;
use crate::numerics::random::Stream;

/// How often as many items are drawn. The ends of an interval of 95 % then lie within a tenth of a standard error of those
/// that endless draws would give.
pub const DRAWS: usize = 1000;

/// The middle share of what `statistics` finds in each draw, to which the numbers of the drawn items are given. As many
/// clusters are drawn as there are, each with all of its items; an item that hangs together with no other is a cluster of
/// its own. A draw in which a statistic does not exist says nothing about it, and where it is the same in all of them there
/// is no interval: that nothing was seen to move does not mean that nothing can.
///
/// These are the bootstrap's percentiles. The draws are the same every time.
pub fn redrawn<const N: usize>(
    clusters: &[Vec<usize>],
    confidence: f64,
    mut statistics: impl FnMut(&[usize]) -> [Option<f64>; N],
) -> [Option<Interval>; N] {
    let mut found = [const { Vec::new() }; N];
    if let Some(bound) = NonZeroU64::new(clusters.len() as u64) {
        let mut stream = Stream::new(0, 0);
        let mut drawn = Vec::new();
        for _ in 0..DRAWS {
            drawn.clear();
            for _ in 0..bound.get() {
                drawn.extend(&clusters[stream.below(bound) as usize]);
            }
            for (found, value) in found.iter_mut().zip(statistics(&drawn)) {
                found.extend(value);
            }
        }
    }
    found.map(|mut found| {
        found.sort_by(f64::total_cmp);
        let beyond = ((1.0 - confidence) / 2.0 * found.len() as f64) as usize;
        let (lower, upper) = (*found.get(beyond)?, *found.iter().nth_back(beyond)?);
        (found.first() < found.last()).then_some(Interval { lower, upper })
    })
}
