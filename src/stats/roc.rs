//! How well a number tells rows of one kind from those of another: the area below the ROC curve of one row, and of the mean of many.

use std::num::NonZeroU64;

use crate::numerics::random::Stream;

/// How likely a number of these positives is larger than one of these negatives; equal ones count for half (Mann and Whitney). Nothing
/// where one of both is empty.
pub fn auc(negatives: &[f64], positives: &[f64]) -> Option<f64> {
    let mut sorted = negatives.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    // Twice as many as each positive exceeds.
    let twice = |positive: &f64| {
        let below = sorted.partition_point(|negative| negative < positive);
        let up_to = sorted.partition_point(|negative| negative <= positive);
        (below + up_to) as u64
    };
    let pairs = 2 * negatives.len() as u64 * positives.len() as u64;
    (pairs > 0).then(|| positives.iter().map(twice).sum::<u64>() as f64 / pairs as f64)
}

/// Of the ROC curve: for each of these shares of false alarms, which share of the positives lies above the number that at most such a
/// share of the negatives exceeds.
pub fn detected(negatives: &[f64], positives: &[f64], false_alarms: &[f64]) -> Vec<f64> {
    let mut sorted = negatives.to_vec();
    sorted.sort_unstable_by(|one, other| other.total_cmp(one));
    let above = |share: f64| {
        let threshold = sorted.get((share * sorted.len() as f64) as usize);
        let hits =
            positives.iter().filter(|positive| threshold.is_none_or(|threshold| *positive > threshold));
        hits.count() as f64 / positives.len().max(1) as f64
    };
    false_alarms.iter().map(|share| above(*share)).collect()
}

/// How often a mean is drawn of either kind.
pub const DRAWS: u64 = 256;
/// How often all clusters are drawn again, for an interval.
const AGAIN: usize = 64;

/// Rows of settings, each of which has the same clusters in the same order.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Of each cluster of each setting, what its first rows add up to: of none, of one, and so on.
    sums: Vec<Vec<Vec<f64>>>,
}

impl Rows {
    /// Adds a setting by the rows of its clusters, of which none is empty.
    pub fn add<'r>(&mut self, clusters: impl IntoIterator<Item = &'r [f64]>) {
        let sums = |rows: &[f64]| {
            let sums = rows.iter().scan(0.0, |sum, row| {
                *sum += row;
                Some(*sum)
            });
            [0.0].into_iter().chain(sums).collect()
        };
        self.sums.push(clusters.into_iter().map(sums).collect());
    }

    /// The mean of so many rows of one setting: of clusters that are drawn, each in a row, from anywhere in it.
    fn mean(&self, rows: u64, clusters: &[usize], stream: &mut Stream) -> f64 {
        let mut draw = |of: usize| NonZeroU64::new(of as u64).map_or(0, |of| stream.below(of) as usize);
        let setting = &self.sums[draw(self.sums.len())];
        let (mut left, mut sum) = (rows as usize, 0.0);
        while left > 0 {
            let sums = &setting[clusters[draw(clusters.len())]];
            let taken = left.min(sums.len() - 1);
            let from = draw(sums.len() - taken);
            sum += sums[from + taken] - sums[from];
            left -= taken;
        }
        sum / rows as f64
    }

    /// How many rows a setting has.
    pub fn count(&self) -> u64 {
        let of = |setting: &Vec<Vec<f64>>| setting.iter().map(|sums| sums.len() as u64 - 1).sum();
        self.sums.first().map_or(0, of)
    }
}

/// The numbers of rows for which it is asked how well their mean tells: 1, 2, 3, 5, 7, 10, 20 and so on.
pub fn sizes(most: u64) -> impl Iterator<Item = u64> {
    let tens = (0..19).map(|power| 10_u64.pow(power));
    tens.flat_map(|ten| [1, 2, 3, 5, 7].map(|size| size * ten)).take_while(move |size| *size <= most)
}

/// How well the mean of so many rows tells the two kinds apart: the area below its ROC curve, by means that are drawn.
pub fn auc_of_means(
    negatives: &Rows,
    positives: &Rows,
    rows: u64,
    clusters: &[usize],
    stream: &mut Stream,
) -> f64 {
    let mut means = |of: &Rows| (0..DRAWS).map(|_| of.mean(rows, clusters, stream)).collect::<Vec<_>>();
    let (negatives, positives) = (means(negatives), means(positives));
    auc(&negatives, &positives).unwrap_or(0.5)
}

/// After how many rows their mean tells the kinds apart so well: the first of [`sizes`] at which it does, and at the next, up to the rows
/// there are.
pub fn until(
    negatives: &Rows,
    positives: &Rows,
    wanted: f64,
    clusters: &[usize],
    stream: &mut Stream,
) -> Option<u64> {
    let mut before = None;
    for rows in sizes(positives.count()) {
        let tells = auc_of_means(negatives, positives, rows, clusters, stream) >= wanted;
        if tells && before.is_some() {
            return before;
        }
        before = tells.then_some(rows);
    }
    before
}

/// The middle share of what [`until`] says of other clusters, drawn from these: an end is nothing where no number of rows was enough.
pub fn redrawn_until(
    negatives: &Rows,
    positives: &Rows,
    wanted: f64,
    clusters: usize,
    confidence: f64,
    stream: &mut Stream,
) -> [Option<u64>; 2] {
    let Some(bound) = NonZeroU64::new(clusters as u64) else { return [None; 2] };
    let mut found: Vec<u64> = (0..AGAIN)
        .map(|_| {
            let drawn: Vec<usize> = (0..clusters).map(|_| stream.below(bound) as usize).collect();
            until(negatives, positives, wanted, &drawn, stream).unwrap_or(u64::MAX)
        })
        .collect();
    found.sort_unstable();
    let beyond = ((1.0 - confidence) / 2.0 * AGAIN as f64) as usize;
    [found[beyond], found[AGAIN - 1 - beyond]].map(|rows| Some(rows).filter(|rows| *rows < u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // sklearn.metrics.roc_auc_score([0] * 6 + [1] * 5, [0, 0, 1, 2, 2, 3, 1, 2, 2, 4, 5])
    #[test]
    fn the_area_is_that_of_scikit_learn_where_numbers_tie() {
        let (negatives, positives) = ([0.0, 0.0, 1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 2.0, 4.0, 5.0]);
        assert_eq!(auc(&negatives, &positives), Some(0.75));
        assert_eq!(auc(&negatives, &negatives), Some(0.5));
        assert_eq!(auc(&[], &positives), None);
        // None of the negatives exceeds 3, one of them 2 and 2, and three exceed 1.
        assert_eq!(detected(&negatives, &positives, &[0.0, 0.2, 0.5]), [0.4, 0.4, 0.8]);
    }

    /// Rows between 0 and 1, and some more.
    fn rows(settings: usize, more: f64, stream: &mut Stream) -> Rows {
        let mut rows = Rows::default();
        for _ in 0..settings {
            let clusters: Vec<Vec<f64>> =
                (0..40).map(|_| (0..25).map(|_| stream.unit() + more).collect()).collect();
            rows.add(clusters.iter().map(Vec::as_slice));
        }
        rows
    }

    #[test]
    fn more_rows_tell_a_smaller_shift() {
        let mut stream = Stream::new(3, 0);
        let clusters: Vec<usize> = (0..40).collect();
        let negatives = rows(3, 0.0, &mut stream);
        let mut told = |more: f64| {
            let positives = rows(1, more, &mut stream);
            until(&negatives, &positives, 0.999, &clusters, &mut stream)
        };
        // The deviation of a row is 1/√12. Means of n rows are told apart so well where the shift is 3.09 √2 of theirs, which is at n = 5,
        // 20, 80 and more rows than there are; a few more where rows are drawn from 40 clusters.
        assert_eq!(told(1.0), Some(1));
        let tells = [0.56, 0.28, 0.14].map(|more| told(more).unwrap());
        assert!(
            (3..=10).contains(&tells[0]) && (10..=50).contains(&tells[1]) && (50..=200).contains(&tells[2]),
            "{tells:?}"
        );
        assert_eq!(told(0.0), None);
    }

    #[test]
    fn an_interval_holds_what_it_is_about() {
        let mut stream = Stream::new(5, 0);
        let (negatives, positives) = (rows(3, 0.0, &mut stream), rows(1, 0.28, &mut stream));
        let [low, high] = redrawn_until(&negatives, &positives, 0.999, 40, 0.95, &mut stream);
        assert!(low <= Some(20) && high >= Some(20) && high < Some(100), "{low:?} {high:?}");
        assert_eq!(redrawn_until(&negatives, &negatives, 0.999, 40, 0.95, &mut stream), [None; 2]);
        assert_eq!(sizes(25).collect::<Vec<_>>(), [1, 2, 3, 5, 7, 10, 20]);
    }
}
