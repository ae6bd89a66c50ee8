//! The statistics against published examples, other people's implementations, and what must always be so.

use std::{fs, num::NonZeroU64, path::Path};

use proptest::{collection::vec, prelude::*};
use reprocheck::{
    numerics::{
        random::Stream,
        special::{
            binomial_quantile, binomial_tail, chi_square_tail, normal_quantile, normal_tail, one_minus_root,
            student_quantile, student_tail,
        },
    },
    stats::{
        Interval,
        clustered::{Clustered, Sample},
        paired::{Change, Paired, Pairs, Ruling, holm},
        proportion::Proportion,
        spread::{
            Correctness, agreement, deviation_of_lengths, deviation_of_probabilities, divergence_index,
            shared_prefix,
        },
        survival::Survival,
        transitions::Transitions,
    },
};
use serde::de::DeserializeOwned;

/// One table of `stats/expected.json`, which `stats/make_expected.py` wrote.
fn expected<T: DeserializeOwned>(table: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stats/expected.json");
    let mut tables: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let rows: Vec<T> = serde_json::from_value(tables[table].take()).unwrap();
    assert!(!rows.is_empty(), "{table}");
    rows
}

#[track_caller]
fn close(value: f64, expected: f64, tolerance: f64) {
    let scale = expected.abs().max(f64::MIN_POSITIVE);
    assert!(value == expected || (value - expected).abs() <= tolerance * scale, "{value} for {expected}");
}

/// Both went through some roundings and no special function.
const EXACT: f64 = 1e-12;
/// A special function is part of it.
const SPECIAL: f64 = 1e-9;

fn freedom(freedom: u64) -> NonZeroU64 {
    NonZeroU64::new(freedom).unwrap()
}

fn paired([both, lost, gained, neither]: [u64; 4]) -> Paired {
    Paired { both, lost, gained, neither }
}

/// Of items without clusters.
fn change(counts: [u64; 4]) -> Change {
    paired(counts).into()
}

/// To so many decimals, as print has it.
#[track_caller]
fn printed(interval: Option<Interval>, decimals: usize, expected: &str) {
    let Interval { lower, upper } = interval.unwrap();
    assert_eq!(format!("{lower:.decimals$} {upper:.decimals$}"), expected);
}

// Published examples.

#[test]
fn wilson_intervals_are_those_in_print() {
    // Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven methods",
    // 1998, table I, method 3.
    for (hits, of, expected) in [
        (81, 263, "0.2553 0.3662"),
        (15, 148, "0.0624 0.1605"),
        (0, 20, "0.0000 0.1611"),
        (1, 29, "0.0061 0.1718"),
    ] {
        printed(Proportion { hits, of }.wilson(0.95), 4, expected);
    }
}

#[test]
fn the_children_of_bentur_are_those_in_print() {
    // Airway hyper-responsiveness before and after a transplantation: Fagerland, Lydersen and Laake, "The
    // McNemar test for binary matched-pairs data", 2013 (p-values), and "Recommended tests and confidence
    // intervals for paired binomial proportions", 2014 (interval of the first less the second).
    let children = change([1, 7, 1, 12]);
    assert_eq!(children.p_value(), 0.0703125);
    printed(children.interval(0.95), 3, "-0.507 -0.026");
}

#[test]
fn split_flips_have_the_p_values_of_the_binomial() {
    for (lost, gained, expected) in [
        (5, 0, "0.0625"),
        (6, 0, "0.0312"),
        (7, 0, "0.0156"),
        (8, 0, "0.0078"),
        (9, 0, "0.0039"),
        (10, 0, "0.0020"),
        (8, 1, "0.0391"),
        (10, 2, "0.0386"),
        (13, 3, "0.0213"),
        (15, 5, "0.0414"),
    ] {
        assert_eq!(format!("{:.4}", change([90, lost, gained, 9]).p_value()), expected);
    }
}

#[test]
fn a_standard_error_has_one_item_less_below() {
    let proportion = Proportion::count(&[true, false, false, true, false]);
    assert_eq!((proportion.rate(), proportion.misses()), (Some(0.4), 3));
    assert_eq!(proportion.standard_error(), Some(0.06_f64.sqrt()));
}

#[test]
fn no_hits_are_bounded_by_the_rule_of_three() {
    for (of, expected) in [(200, "1.49"), (500, "0.60"), (1000, "0.30"), (2000, "0.15")] {
        let bound = Proportion { hits: 0, of }.upper_bound_of_none(0.95).unwrap();
        assert_eq!(format!("{:.2}", 100.0 * bound), expected);
        assert_eq!(Proportion { hits: of, of }.lower_bound_of_all(0.95), Some(1.0 - bound));
    }
}

#[test]
fn three_drugs_have_the_q_in_print() {
    // Agresti, "Categorical Data Analysis"; also the example of Cochran's Q of SAS' PROC FREQ: Q = 8.4706,
    // p = 0.0145.
    let patients = [
        ([1, 1, 1], 6),
        ([0, 1, 1], 2),
        ([1, 1, 0], 16),
        ([0, 1, 0], 4),
        ([1, 0, 1], 2),
        ([0, 0, 1], 6),
        ([1, 0, 0], 4),
        ([0, 0, 0], 6),
    ];
    let drug = |drug: usize| patients.iter().flat_map(move |(cured, count)| vec![cured[drug] == 1; *count]);
    let drugs: Vec<Vec<bool>> = (0..3).map(|number| drug(number).collect()).collect();
    let cochran = Correctness::count(&drugs).unwrap().cochran().unwrap();
    assert_eq!(format!("{:.4} {:.4}", cochran.q, cochran.p_value), "8.4706 0.0145");
}

#[test]
fn the_remissions_of_freireich_survive_as_in_print() {
    // 6-MP against leukemia, in weeks: Freireich 1963. The estimate is worked out in Kleinbaum and Klein,
    // "Survival Analysis: a Self-Learning Text".
    let text = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+";
    let time = |time: &str| (time.trim_end_matches('+').parse().unwrap(), !time.ends_with('+'));
    let curve = Survival::of(text.split(' ').map(time));
    let shares: Vec<_> =
        curve.steps.iter().map(|step| format!("{} {:.3}", step.time, step.survival)).collect();
    let expected = ["6 0.857", "7 0.807", "10 0.753", "13 0.690", "16 0.627", "22 0.538", "23 0.448"];
    assert_eq!(shares, expected);
    assert_eq!(curve.first_time_at_most(0.5), Some(23));
}

#[test]
fn holm_rejects_what_it_rejects_in_print() {
    // The example of Wikipedia's "Holm-Bonferroni method": the first and the last are rejected.
    let tests = holm(&[0.01, 0.04, 0.03, 0.005], 0.05);
    assert_eq!(tests.iter().map(|test| test.rejected).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(tests.iter().map(|test| test.adjusted).collect::<Vec<_>>(), [0.03, 0.06, 0.06, 0.02]);
}

// Other people's implementations.

#[test]
fn special_functions_are_those_of_others() {
    for (tail, z) in expected::<(f64, f64)>("normal_quantile") {
        close(normal_quantile(tail), z, SPECIAL);
        close(normal_tail(z), tail, SPECIAL);
    }
    for (tail, degrees, t) in expected::<(f64, u64, f64)>("student_quantile") {
        close(student_quantile(tail, freedom(degrees)), t, SPECIAL);
    }
    for (t, degrees, tail) in expected::<(f64, u64, f64)>("student_tail") {
        close(student_tail(t, freedom(degrees)), tail, 1e-11);
    }
    for (x, degrees, tail) in expected::<(f64, u64, f64)>("chi_square_tail") {
        close(chi_square_tail(x, freedom(degrees)), tail, 1e-11);
    }
    for (x, n, root) in expected::<(f64, u64, f64)>("one_minus_root") {
        close(one_minus_root(x, freedom(n)), root, EXACT);
    }
}

#[test]
fn wilson_intervals_are_those_of_statsmodels() {
    for (hits, of, level, lower, upper) in expected::<(u64, u64, f64, f64, f64)>("wilson") {
        let interval = Proportion { hits, of }.wilson(level).unwrap();
        // Its lower ends are differences, which leave something like 1e-17 of a 0.
        assert!((interval.lower - lower).abs() <= EXACT * lower + 1e-16, "{interval:?} for {lower}");
        close(interval.upper, upper, EXACT);
    }
}

#[derive(serde::Deserialize)]
struct PairedRow {
    counts: [u64; 4],
    difference: f64,
    p_value: f64,
    newcombe: [f64; 2],
    bounds: [f64; 2],
}

#[test]
fn paired_tests_and_intervals_are_those_of_others() {
    for row in expected::<PairedRow>("paired") {
        let counts = change(row.counts);
        assert_eq!(counts.counts.difference(), Some(row.difference), "{counts:?}");
        // Both sides are fractions that were rounded once.
        close(counts.p_value(), row.p_value, f64::EPSILON);
        for (interval, [lower, upper]) in
            [(counts.interval(0.95).unwrap(), row.newcombe), (counts.bounds(0.95).unwrap(), row.bounds)]
        {
            close(interval.lower, lower, EXACT);
            close(interval.upper, upper, EXACT);
        }
    }
}

#[derive(serde::Deserialize)]
struct HolmRow {
    p: Vec<f64>,
    adjusted: Vec<f64>,
    rejected: Vec<bool>,
}

#[test]
fn holm_is_that_of_statsmodels() {
    for row in expected::<HolmRow>("holm") {
        for (test, (adjusted, rejected)) in
            holm(&row.p, 0.05).iter().zip(row.adjusted.iter().zip(row.rejected))
        {
            close(test.adjusted, *adjusted, EXACT);
            assert_eq!(test.rejected, rejected, "{:?}", row.p);
        }
    }
}

#[derive(serde::Deserialize)]
struct ClusteredRow {
    values: Vec<i8>,
    ids: Vec<u32>,
    mean: f64,
    standard_error: f64,
    design_effect: Option<f64>,
    as_far: u64,
    of: u64,
}

#[test]
fn clustered_errors_are_those_of_statsmodels() {
    for row in expected::<ClusteredRow>("clustered") {
        let clustered: Clustered<_> = row.ids.iter().copied().zip(row.values).collect();
        let sample = clustered.sample();
        close(sample.mean().unwrap(), row.mean, EXACT);
        close(sample.standard_error().unwrap(), row.standard_error, EXACT);
        if let Some(effect) = row.design_effect {
            close(sample.design_effect().unwrap(), effect, EXACT);
        }
        close(sample.p_value(), row.as_far as f64 / row.of as f64, EXACT);
    }
}

#[derive(serde::Deserialize)]
struct InClusters {
    reference: Vec<u8>,
    cell: Vec<u8>,
    ids: Vec<u32>,
    wilson: [f64; 2],
    newcombe: [f64; 2],
}

#[test]
fn intervals_in_clusters_are_those_of_others_with_robust_variances() {
    for row in expected::<InClusters>("in_clusters") {
        let right: Clustered<_> = row.ids.iter().copied().zip(row.cell.iter().copied()).collect();
        let mut pairs = Pairs::default();
        for ((reference, cell), id) in row.reference.iter().zip(&row.cell).zip(&row.ids) {
            pairs.include(Some(&id.to_string()), (*reference == 1, *cell == 1));
        }
        let found = [right.sample().interval(0.95), pairs.change().interval(0.95)];
        for (interval, [lower, upper]) in found.into_iter().zip([row.wilson, row.newcombe]) {
            let interval = interval.unwrap();
            close(interval.lower, lower, SPECIAL);
            close(interval.upper, upper, SPECIAL);
        }
    }
}

#[test]
fn odds_lie_in_the_exact_interval_of_scipy() {
    for (hits, of, share, tail) in expected::<(u64, u64, f64, f64)>("binomial_tail") {
        close(binomial_tail(hits, of, share), tail, SPECIAL);
        if (1e-9..1.0 - 1e-9).contains(&tail) {
            close(binomial_quantile(hits, of, tail), share, SPECIAL);
        }
    }
    for (lost, gained, lower, upper) in expected::<(u64, u64, f64, Option<f64>)>("odds") {
        let change = change([7, lost, gained, 5]);
        let found = change.odds_interval(0.95).unwrap();
        close(found.lower, lower, SPECIAL);
        assert_eq!(found.upper.is_some(), upper.is_some());
        found.upper.into_iter().zip(upper).for_each(|(found, upper)| close(found, upper, SPECIAL));
        assert_eq!(change.counts.odds(), (lost > 0).then(|| gained as f64 / lost as f64));
    }
}

/// Questions in clusters: each cluster is as hard as it is, and a change turns some clusters more than others.
fn draw_in_clusters(stream: &mut Stream, clusters: usize, of_each: u64) -> (Clustered<u64>, Pairs) {
    let (mut right, mut pairs) = (Clustered::default(), Pairs::default());
    for cluster in 0..clusters as u64 {
        let (hard, turns) = (stream.unit(), 0.4 * stream.unit());
        for _ in 0..=stream.below(freedom(2 * of_each - 1)) {
            let reference = stream.unit() < hard;
            let cell = reference && stream.unit() >= turns;
            right.add(Some(cluster), cell.into());
            pairs.include(Some(&cluster.to_string()), (reference, cell));
        }
    }
    (right, pairs)
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures stand in docs/verdicts.md")]
fn intervals_over_clusters_cover_what_those_over_items_do_not() {
    // Of 2,000 draws, those whose interval holds the mean of all that could be drawn.
    let inside = |interval: Option<Interval>, mean: f64| {
        interval.is_some_and(|interval| (interval.lower..=interval.upper).contains(&mean))
    };
    for (clusters, of_each) in [(12, 8), (40, 8), (100, 20)] {
        let mut stream = Stream::new(7, clusters as u64);
        let (mut held, mut by_items) = ([0; 2], [0; 2]);
        // A half is right in the reference; turns take a fifth of that.
        let (right, change) = (0.5 * 0.8, -0.5 * 0.2);
        for _ in 0..2000 {
            let (rights, pairs) = draw_in_clusters(&mut stream, clusters, of_each);
            let (sample, pairs) = (rights.sample(), pairs.change());
            held[0] += u32::from(inside(sample.interval(0.95), right));
            held[1] += u32::from(inside(pairs.interval(0.95), change));
            by_items[0] += u32::from(inside(sample.proportion().wilson(0.95), right));
            by_items[1] += u32::from(inside(Change::from(pairs.counts).interval(0.95), change));
        }
        println!("{clusters} clusters of about {of_each}: {held:?}, by items {by_items:?}, of 2000");
        assert!(held.iter().all(|held| (1860..=1940).contains(held)), "{clusters} of {of_each}: {held:?}");
        assert!(by_items.iter().all(|held| *held < 1860), "{clusters} of {of_each}: {by_items:?}");
    }
}

#[derive(serde::Deserialize)]
struct CellsRow {
    right: Vec<String>,
    lengths: Vec<Vec<u64>>,
    deviation: f64,
    range: f64,
    q: f64,
    p_value: f64,
    unstable: u64,
    alike: u64,
    pairs: u64,
    deviation_of_lengths: f64,
}

#[test]
fn the_spread_of_cells_is_that_of_others() {
    for row in expected::<CellsRow>("cells") {
        let right = |cell: &String| cell.bytes().map(|digit| digit == b'1').collect::<Vec<_>>();
        let cells: Vec<_> = row.right.iter().map(right).collect();
        let correctness = Correctness::count(&cells).unwrap();
        close(correctness.deviation().unwrap(), row.deviation, EXACT);
        close(correctness.range().unwrap(), row.range, EXACT);
        let cochran = correctness.cochran().unwrap();
        close(cochran.q, row.q, EXACT);
        close(cochran.p_value, row.p_value, SPECIAL);
        let agreement = agreement(&cells).unwrap();
        let items = cells[0].len() as u64;
        assert_eq!(agreement.unstable, Proportion { hits: row.unstable, of: items });
        assert_eq!(agreement.pairs, Proportion { hits: row.alike, of: row.pairs });
        close(deviation_of_lengths(&row.lengths).unwrap().unwrap(), row.deviation_of_lengths, EXACT);
    }
}

/// Time, number at risk, events, survival, and its interval.
type StepRow = (u64, u64, u64, f64, Option<[f64; 2]>);

#[derive(serde::Deserialize)]
struct SurvivalRow {
    times: Vec<(u64, bool)>,
    steps: Vec<StepRow>,
    median: Option<u64>,
}

#[test]
fn survival_is_that_of_lifelines() {
    for row in expected::<SurvivalRow>("survival") {
        let curve = Survival::of(row.times);
        assert_eq!(curve.steps.len(), row.steps.len());
        for (step, (time, at_risk, events, survival, interval)) in curve.steps.iter().zip(row.steps) {
            assert_eq!((step.time, step.at_risk, step.events), (time, at_risk, events));
            close(step.survival, survival, EXACT);
            assert_eq!(step.interval(0.95).is_some(), interval.is_some());
            if let (Some(found), Some([lower, upper])) = (step.interval(0.95), interval) {
                close(found.lower, lower, SPECIAL);
                close(found.upper, upper, SPECIAL);
            }
        }
        assert_eq!(curve.first_time_at_most(0.5), row.median);
    }
}

// What does not exist is nothing, and what did not vary is exactly 0.

#[test]
fn nothing_has_no_statistics() {
    let nothing = Proportion::default();
    assert_eq!((nothing.rate(), nothing.standard_error(), nothing.wilson(0.95)), (None, None, None));
    assert_eq!((nothing.upper_bound_of_none(0.95), nothing.lower_bound_of_all(0.95)), (None, None));
    assert_eq!(Proportion { hits: 1, of: 1 }.standard_error(), None);
    let pairs = Change::default();
    assert_eq!((pairs.counts.difference(), pairs.counts.odds(), pairs.interval(0.95)), (None, None, None));
    assert_eq!((pairs.p_value(), pairs.p_value_of_loss(0.0), pairs.odds_interval(0.95)), (1.0, 1.0, None));
    assert_eq!(holm(&[], 0.05), []);
    let clustered = Sample::default();
    assert_eq!((clustered.mean(), clustered.standard_error(), clustered.interval(0.95)), (None, None, None));
    let one: Clustered<_> = [("a", true), ("a", false)].into_iter().collect();
    let one = one.sample();
    assert_eq!((one.mean(), one.standard_error(), one.interval(0.95)), (Some(0.5), None, None));
    assert_eq!((one.design_effect(), one.p_value()), (None, 1.0));
    for cells in [vec![], vec![vec![]], vec![vec![], vec![]]] {
        let correctness = Correctness::count(&cells).unwrap();
        assert_eq!((correctness.deviation(), correctness.range()), (None, None));
        assert_eq!(correctness.cochran(), None);
        assert_eq!(agreement(&cells).unwrap().pairs.rate(), None);
    }
    assert_eq!(Correctness::count(&[[true]]).unwrap().deviation(), None);
    assert_eq!(deviation_of_lengths(&[[1]]), Ok(None));
    assert_eq!(divergence_index(&[(7, false)]), None);
    assert_eq!(deviation_of_probabilities(&[(1, [[0.5]])]), None);
    assert_eq!(deviation_of_probabilities(&[(0, [[0.5], [0.25]])]), None);
    let curve = Survival::of([]);
    assert_eq!((curve.at(9), curve.first_time_at_most(0.9)), (1.0, None));
}

#[test]
fn cells_with_unequal_items_are_refused() {
    let sentence = "cell 1 has 1 items and cell 0 has 2: give every cell the same items";
    let (two, one): (&[bool], &[bool]) = (&[true, false], &[true]);
    assert_eq!(Paired::count(two, one).unwrap_err().to_string(), sentence);
    assert_eq!(Correctness::count(&[two, one]).unwrap_err().to_string(), sentence);
    assert_eq!(agreement(&[two, one]).unwrap_err().to_string(), sentence);
    assert_eq!(deviation_of_lengths(&[&[1, 2][..], &[1]]).unwrap_err().to_string(), sentence);
}

#[test]
fn equal_cells_have_a_deviation_of_exactly_zero() {
    let (first, second) = ([true, false, true], [true, true, false]);
    let correctness = Correctness::count(&[first, second, first]).unwrap();
    assert_eq!((correctness.deviation(), correctness.range()), (Some(0.0), Some(0.0)));
    assert_eq!(deviation_of_lengths(&[[7, u64::MAX]; 3]), Ok(Some(0.0)));
    assert_eq!(deviation_of_probabilities(&[(3, [[0.1, 0.999_999_9, 1e-6]; 5])]), Some(0.0));
}

#[test]
fn no_flips_still_leave_an_interval_and_a_bound() {
    for counts in [[200, 0, 0, 0], [0, 0, 0, 200], [100, 0, 0, 100], [1, 0, 0, 199], [1, 0, 0, 0]] {
        let interval = change(counts).interval(0.95).unwrap();
        assert!(interval.lower < 0.0 && 0.0 < interval.upper, "{counts:?}: {interval:?}");
        assert!(paired(counts).flips().upper_bound_of_none(0.95).unwrap() > 0.0);
    }
}

#[test]
fn a_margin_is_kept_or_missed_or_there_are_too_few_items() {
    let rule = |counts| change(counts).non_inferiority(0.01, 0.95);
    assert_eq!(rule([1900, 5, 6, 89]).ruling, Ruling::Holds);
    assert_eq!(rule([1800, 60, 6, 134]).ruling, Ruling::Fails);
    assert_eq!(rule([1900, 5, 6, 89]).items_to_decide, None);
    let nothing = change([0; 4]).non_inferiority(0.01, 0.95);
    assert_eq!((nothing.ruling, nothing.bounds, nothing.items_to_decide), (Ruling::Undecided, None, None));
    // A difference of just the margin: no number of items tells on which side of it the truth lies.
    let margin = rule([90, 3, 2, 5]);
    assert_eq!((margin.ruling, margin.items_to_decide), (Ruling::Undecided, None));
    for counts in [[90, 1, 1, 8], [90, 3, 0, 7], [50, 0, 0, 0], [80, 5, 7, 8]] {
        let undecided = rule(counts);
        assert_eq!(undecided.ruling, Ruling::Undecided, "{counts:?}");
        let items = counts.iter().sum::<u64>();
        let times = undecided.items_to_decide.unwrap() / items;
        assert_ne!(rule(counts.map(|count| count * times)).ruling, Ruling::Undecided, "{counts:?}");
        assert_eq!(rule(counts.map(|count| count * (times - 1))).ruling, Ruling::Undecided, "{counts:?}");
    }
}

#[test]
fn what_only_the_reference_has_is_lost() {
    let reference = [true, true, true, true, true, true, false, false, false, false];
    let cell = [true, true, true, false, false, false, true, true, false, false];
    let counts = Paired::count(&reference, &cell).unwrap();
    assert_eq!(counts, paired([3, 3, 2, 2]));
    assert_eq!(counts.difference(), Some(-0.1));
    assert_eq!((counts.reference().hits, counts.cell().hits, counts.flips().rate()), (6, 5, Some(0.5)));
}

#[test]
fn strata_are_pooled_by_their_counts() {
    let pooled: Paired = [paired([10, 1, 2, 3]), paired([5, 4, 0, 1])].into_iter().sum();
    assert_eq!(pooled, paired([15, 5, 2, 4]));
    assert_eq!(pooled.reference() + pooled.cell(), Proportion { hits: 37, of: 52 });
    assert_eq!(pooled.difference(), Some(-3.0 / 26.0));
}

#[test]
fn outputs_part_where_any_two_of_them_do() {
    let outputs: [&[u32]; 3] = [&[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 2, 9, 4]];
    assert_eq!(shared_prefix(&outputs), (2, true));
    assert_eq!(shared_prefix(&outputs[..2]), (3, true));
    assert_eq!(shared_prefix(&outputs[..1]), (4, false));
    assert_eq!(shared_prefix(&[&[1, 2][..], &[1, 2, 3]]), (2, true));
    assert_eq!(shared_prefix(&[&[1, 2, 3][..], &[1, 2]]), (2, true));
    assert_eq!(shared_prefix(&[&[1][..], &[2]]), (0, true));
    assert_eq!(shared_prefix(&[[7, 7], [7, 7]]), (2, false));
    assert_eq!(shared_prefix::<u32>(&[[0; 0]; 2]), (0, false));
    assert_eq!(divergence_index(&[(2, true), (9, false), (5, true)]), Some(3.5));
}

#[test]
fn probabilities_spread_by_position_then_by_item() {
    // Deviations of 0.5 / sqrt 2 and 0, and of 0.25 / sqrt 2. What comes after the outputs part has no say,
    // nor has an item whose outputs part at once.
    let items = [
        (2, [vec![0.5, 1.0, 0.3], vec![1.0, 1.0]]),
        (1, [vec![0.25, 0.9], vec![0.5, 0.1]]),
        (0, [vec![0.1], vec![0.2]]),
    ];
    close(deviation_of_probabilities(&items).unwrap(), 0.25 / 2.0_f64.sqrt(), f64::EPSILON);
    // The smallest steps count.
    let above = 1e-6_f32.next_up();
    let deviation = deviation_of_probabilities(&[(1, [[1e-6], [above]])]).unwrap();
    close(deviation, f64::from(above - 1e-6) / 2.0_f64.sqrt(), f64::EPSILON);
}

#[test]
fn those_that_get_out_of_sight_count_until_then() {
    let curve = Survival::of([(3, false), (3, true), (0, true), (5, false)]);
    let steps: Vec<_> = curve.steps.iter().map(|step| (step.time, step.at_risk, step.events)).collect();
    assert_eq!(steps, [(0, 4, 1), (3, 3, 1)]);
    assert_eq!([0, 2, 3, 9].map(|time| curve.at(time)), [0.75, 0.75, 0.5, 0.5]);
    close(curve.steps[0].variance(), 0.75 * 0.25 / 4.0, EXACT);
    let gone = Survival::of([(1, true)]);
    assert_eq!((gone.at(0), gone.at(1), gone.steps[0].interval(0.95)), (1.0, 0.0, None));
}

#[test]
fn transitions_are_counted_and_kept_in_order() {
    let pairs = [("wrong", "right"), ("right", "right"), ("right", "none"), ("right", "right")];
    let transitions: Transitions<_> = pairs.into_iter().collect();
    let found: Vec<_> = transitions.iter().collect();
    assert_eq!(found, [(&"right", &"none", 1), (&"right", &"right", 2), (&"wrong", &"right", 1)]);
}

// What must always be so.

fn counts() -> impl Strategy<Value = Paired> {
    let count = || prop_oneof![Just(0), 0..30_u64, 0..3000_u64];
    [count(), count(), count(), count()].prop_map(paired)
}

proptest! {
    #[test]
    fn an_interval_holds_the_estimate_and_mirrors_the_pairs(counts in counts(), level in 0.5..0.999_f64) {
        prop_assume!(counts.items() > 0);
        let change = Change::from(counts);
        let interval = change.interval(level).unwrap();
        let difference = counts.difference().unwrap();
        prop_assert!(-1.0 <= interval.lower && interval.upper <= 1.0, "{interval:?}");
        prop_assert!(interval.lower <= difference && difference <= interval.upper, "{interval:?}");
        prop_assert!(interval.lower < interval.upper, "{interval:?}");
        let swapped = Change::from(Paired { lost: counts.gained, gained: counts.lost, ..counts });
        let mirrored = swapped.interval(level).unwrap();
        prop_assert_eq!((mirrored.lower, mirrored.upper), (-interval.upper, -interval.lower));
        prop_assert_eq!(swapped.p_value(), change.p_value());
        let bounds = change.bounds(level).unwrap();
        prop_assert!(interval.lower <= bounds.lower && bounds.upper <= interval.upper);
    }

    #[test]
    fn a_wilson_interval_holds_the_rate_and_is_never_a_point(a in 0..5000_u64, b in 0..5000_u64) {
        prop_assume!(a + b > 0);
        let proportion = Proportion { hits: a, of: a + b };
        let (interval, rate) = (proportion.wilson(0.95).unwrap(), proportion.rate().unwrap());
        prop_assert!(0.0 <= interval.lower && interval.lower <= rate, "{interval:?}");
        prop_assert!(rate <= interval.upper && interval.upper <= 1.0, "{interval:?}");
        prop_assert!(interval.lower < interval.upper, "{interval:?}");
    }

    #[test]
    fn a_loss_is_below_the_margin_where_its_p_value_is_small(counts in counts(), margin in 0.0..0.3_f64) {
        prop_assume!(counts.items() > 0);
        let change = Change::from(counts);
        let p_value = change.p_value_of_loss(margin);
        prop_assert!((0.0..=1.0).contains(&p_value), "{p_value}");
        for confidence in [0.9, 0.95, 0.99] {
            let fails = change.non_inferiority(margin, confidence).ruling == Ruling::Fails;
            // Next to the level itself the last digits decide.
            let is_near = (p_value / (1.0 - confidence) - 1.0).abs() < 1e-6;
            prop_assert!(is_near || fails == (p_value < 1.0 - confidence), "{p_value} at {confidence}: {fails}");
        }
    }

    #[test]
    fn holm_is_monotone_and_ties_agree(mut p_values in vec(0.0..1.0_f64, 1..20), again in 0..20_usize) {
        p_values.push(p_values[again % p_values.len()]);
        let tests = holm(&p_values, 0.05);
        for (a, &p) in p_values.iter().enumerate() {
            prop_assert!(p <= tests[a].adjusted && tests[a].adjusted <= 1.0);
            for (b, &q) in p_values.iter().enumerate() {
                prop_assert!(p > q || tests[a].adjusted <= tests[b].adjusted);
                prop_assert!(p != q || tests[a] == tests[b]);
            }
        }
    }

    #[test]
    fn items_may_come_in_any_order(items in vec((0..4_u8, any::<bool>(), any::<bool>()), 2..40)) {
        let gain = |(a, b): (bool, bool)| i64::from(b) - i64::from(a);
        let forward: Clustered<_> = items.iter().map(|&(cluster, a, b)| (cluster, gain((a, b)))).collect();
        let backward: Clustered<_> = items.iter().rev().map(|&(cluster, a, b)| (cluster, gain((a, b)))).collect();
        prop_assert_eq!(&forward, &backward);
        // Clusters of one item each are no clusters.
        let single: Clustered<_> =
            items.iter().enumerate().map(|(at, &(_, a, b))| (at, gain((a, b)))).collect();
        let (reference, cell): (Vec<_>, Vec<_>) = items.iter().map(|&(_, a, b)| (a, b)).unzip();
        let pairs = Paired::count(&reference, &cell).unwrap();
        let single = single.sample();
        prop_assert_eq!(single.mean(), pairs.difference());
        prop_assert!(single.design_effect().is_none_or(|effect| effect == 1.0));
        prop_assert!(single.effect_of_clusters().is_none());
        prop_assert_eq!(single.p_value(), Change::from(pairs).p_value());
    }

    #[test]
    fn two_cells_agree_where_no_item_flips(items in vec((any::<bool>(), any::<bool>()), 1..60)) {
        let (reference, cell): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let pairs = Paired::count(&reference, &cell).unwrap();
        let agreement = agreement(&[&reference, &cell]).unwrap();
        prop_assert_eq!(agreement.unstable, pairs.flips());
        prop_assert_eq!(agreement.pairs.misses(), pairs.flips().hits);
        let correctness = Correctness::count(&[&reference, &cell]).unwrap();
        let difference = pairs.difference().unwrap().abs();
        prop_assert_eq!(correctness.range(), Some(difference));
        close(correctness.deviation().unwrap(), difference / 2.0_f64.sqrt(), EXACT);
        // With two cells, Q is the statistic of McNemar.
        let gain = pairs.gained as f64 - pairs.lost as f64;
        let flips = pairs.flips().hits;
        let statistic = (flips > 0).then(|| gain * gain / flips as f64);
        prop_assert_eq!(correctness.cochran().map(|test| test.q), statistic);
    }

    #[test]
    fn a_deviation_does_not_depend_on_where_lengths_begin(
        lengths in vec(vec(0..1000_u64, 3), 2..6), start in 0..u64::MAX / 2,
    ) {
        let moved: Vec<Vec<u64>> =
            lengths.iter().map(|cell| cell.iter().map(|length| length + start).collect()).collect();
        prop_assert_eq!(deviation_of_lengths(&lengths), deviation_of_lengths(&moved));
    }

    #[test]
    fn survival_only_ever_falls(times in vec((0..50_u64, any::<bool>()), 0..60)) {
        let curve = Survival::of(times.iter().copied());
        prop_assert!(curve.steps.windows(2).all(|pair| pair[0].survival > pair[1].survival));
        let mut reversed = times.clone();
        reversed.reverse();
        prop_assert_eq!(&Survival::of(reversed), &curve);
        for step in &curve.steps {
            prop_assert!(0.0 <= step.survival && step.survival < 1.0);
            if let Some(interval) = step.interval(0.95) {
                prop_assert!(0.0 <= interval.lower && interval.lower < step.survival);
                prop_assert!(step.survival < interval.upper && interval.upper <= 1.0);
            }
        }
        if times.iter().all(|(_, event)| *event) && !times.is_empty() {
            // With nothing out of sight it is the share of those that last longer.
            let longer = times.iter().filter(|(time, _)| *time > 20).count();
            prop_assert_eq!(curve.at(20), longer as f64 / times.len() as f64);
        }
    }
}

#[test]
fn a_mean_of_as_many_others_lies_where_it_is_expected() {
    let mut stream = Stream::new(31, 0);
    // Outcomes of one item hang together: each item has a rate of its own.
    let mut sample = |items: usize, most: f64| -> Sample {
        let outcomes = (0..items).flat_map(|item| {
            let rate = most * stream.unit();
            (0..40).map(|_| (item, i64::from(stream.unit() < rate))).collect::<Vec<_>>()
        });
        outcomes.collect::<Clustered<_>>().sample()
    };
    for (items, most) in [(4, 0.2), (8, 0.05), (8, 0.4), (24, 0.02), (60, 0.9)] {
        let held = (0..2000).filter(|_| {
            let expected = sample(items, most).expected(0.95).unwrap();
            let other = sample(items, most).mean().unwrap();
            (expected.lower..=expected.upper).contains(&other)
        });
        let held = held.count();
        assert!((1860..=1995).contains(&held), "{held} of 2000 with {items} items up to {most}");
    }
    let of_one: Clustered<_> = [(0, 1), (0, 0)].into_iter().collect();
    assert_eq!(of_one.sample().expected(0.95), None);
    // That nothing was seen does not mean that nothing will be.
    let none: Clustered<_> = (0..8).flat_map(|item| (0..40).map(move |_| (item, 0))).collect();
    let Interval { lower, upper } = none.sample().expected(0.95).unwrap();
    assert!(lower == 0.0 && (0.01..0.05).contains(&upper), "{lower} to {upper}");
}
