//! What several drawn answers amount to: against the published estimator, every subset written out, and simulation.

use std::num::NonZeroU64;

use num_rational::BigRational;
use proptest::{collection::vec, prelude::*};
use reprocheck::{
    numerics::random::Stream,
    stats::{
        ballot::{Drawn, FirstToEnd, best_at, first_to_end, majority_at},
        coverage::{Gain, PowerLaw, exact_pass_at, interval_of_pass_at, pass_at},
        passes::Passes,
        proportion::Proportion,
    },
};

#[track_caller]
fn close(value: f64, expected: f64, tolerance: f64) {
    assert!((value - expected).abs() <= tolerance, "{value} for {expected}");
}

fn right(hits: u64, of: u64) -> Proportion {
    Proportion { hits, of }
}

/// The mean over all ways to take `k` of the numbers below `n`, in their order.
fn over_subsets(n: usize, k: usize, value: impl Fn(&[usize]) -> f64) -> f64 {
    let taken = |set: u32| (0..n).filter(|at| set >> at & 1 == 1).collect::<Vec<_>>();
    let sets: Vec<_> = (0..1_u32 << n).filter(|set| set.count_ones() as usize == k).collect();
    sets.iter().map(|set| value(&taken(*set))).sum::<f64>() / sets.len() as f64
}

// ------------------------------------------------------------------------------------------------------- coverage

#[test]
fn coverage_is_that_of_the_published_estimator() {
    // Listed in figure 3 of Chen et al., as a product that loses no digits.
    let published = |n: u64, c: u64, k: u64| {
        if n - c < k {
            return 1.0;
        }
        1.0 - (n - c + 1..=n).map(|of| 1.0 - k as f64 / of as f64).product::<f64>()
    };
    for n in [1, 2, 7, 16, 100, 200] {
        for c in [0, 1, 2, 5, 13, 99, 150].into_iter().filter(|c| *c <= n) {
            for k in [1, 2, 4, 10, 100].into_iter().filter(|k| *k <= n) {
                close(pass_at(&[right(c, n)], k).unwrap(), published(n, c, k), 1e-12);
            }
        }
    }
    // One problem of six answers, three of them right, which is the example of `human-eval`: there 0.4999999999999999.
    assert_eq!(pass_at(&[right(3, 6)], 1), Some(0.5));
}

#[test]
fn coverage_is_a_fraction_that_is_rounded_once() {
    // By Python's fractions.
    let items = [right(3, 16), right(1, 16), right(2, 64)];
    let exact = BigRational::new(47.into(), 144.into());
    assert_eq!((exact_pass_at(&items, 4), pass_at(&items, 4)), (Some(exact), Some(0.326_388_888_888_888_9)));
    assert_eq!(pass_at(&[right(5, 100)], 10), Some(0.416_247_633_073_848_1));
    assert_eq!(pass_at(&[right(1, 1000)], 500), Some(0.5));
}

#[test]
fn coverage_is_the_share_of_subsets_that_hold_a_right_answer() {
    for (n, c) in [(1, 0), (1, 1), (5, 2), (8, 3), (8, 8)] {
        for k in 1..=n {
            let hit = |taken: &[usize]| f64::from(u8::from(taken.iter().any(|at| *at < c)));
            close(pass_at(&[right(c as u64, n as u64)], k as u64).unwrap(), over_subsets(n, k, hit), 1e-12);
        }
    }
}

#[test]
fn what_is_not_there_has_no_coverage() {
    assert_eq!((pass_at(&[], 1), pass_at(&[right(0, 0)], 1)), (None, None));
    // One item has too few answers.
    assert_eq!(pass_at(&[right(4, 8), right(1, 3)], 4), None);
    assert_eq!(pass_at(&[right(4, 8), right(1, 3)], 0), Some(0.0));
    assert_eq!(interval_of_pass_at([(0, right(4, 8)), (1, right(1, 3))], 4, 0.95), None);
    assert_eq!(interval_of_pass_at::<u8>([], 1, 0.95), None);
}

#[test]
fn items_that_hang_together_are_drawn_together() {
    let items: Vec<_> = (0..40).map(|item| right(item % 9, 8)).collect();
    let alone =
        |items: &[Proportion]| interval_of_pass_at(items.iter().copied().enumerate(), 2, 0.95).unwrap();
    let (interval, estimate) = (alone(&items), pass_at(&items, 2).unwrap());
    assert!(interval.lower < estimate && estimate < interval.upper, "{interval:?} for {estimate}");
    // Four copies of each item tell no more than one of them, unless each is taken for an item of its own.
    let copies: Vec<_> = items.iter().flat_map(|item| [*item; 4]).collect();
    let grouped = copies.iter().enumerate().map(|(at, item)| (at / 4, *item));
    let grouped = interval_of_pass_at(grouped, 2, 0.95).unwrap();
    close(grouped.lower, interval.lower, 1e-12);
    close(grouped.upper, interval.upper, 1e-12);
    let width = |interval: reprocheck::stats::Interval| interval.upper - interval.lower;
    close(width(alone(&copies)) / width(interval), 0.5, 0.1);
    // In any order the same, and of a single group nothing is known.
    let reversed: Vec<_> = items.iter().rev().copied().collect();
    assert_eq!(alone(&reversed), interval);
    assert_eq!(interval_of_pass_at(items.iter().map(|item| ((), *item)), 2, 0.95), None);
}

#[test]
fn an_interval_of_coverage_holds_what_it_is_about_nearly_as_often_as_it_says() {
    let mut stream = Stream::new(13, 0);
    // An item's rate is uniform, so one of two draws covers 2/3 in the mean.
    let held = (0..200).filter(|_| {
        let items: Vec<_> = (0..50_u64)
            .map(|item| {
                let rate = stream.unit();
                (item, Proportion::count(&[(); 6].map(|()| stream.unit() < rate)))
            })
            .collect();
        let interval = interval_of_pass_at(items, 2, 0.95).unwrap();
        (interval.lower..=interval.upper).contains(&(2.0 / 3.0))
    });
    let held = held.count();
    assert!((178..=199).contains(&held), "{held} of 200");
}

#[test]
fn a_power_law_is_found_again_and_what_it_leaves_is_told() {
    let law = |k: u64| (-1.7 * (k as f64).powf(-0.45)).exp();
    let ks = [1, 2, 4, 8, 16, 64];
    let fit = PowerLaw::fit(ks.map(|k| (k, law(k)))).unwrap();
    close(fit.a, -1.7, 1e-12);
    close(fit.b, -0.45, 1e-12);
    assert!(fit.residuals.iter().all(|(_, residual)| residual.abs() < 1e-13), "{fit:?}");
    close(fit.at(1000), law(1000), 1e-12);
    // Another one through points off the law: what is left is what was seen less the law.
    let off = PowerLaw::fit(ks.map(|k| (k, law(k) + if k == 4 { 0.05 } else { 0.0 }))).unwrap();
    let (_, residual) = off.residuals[2];
    assert!(0.0 < residual && residual < 0.05, "{off:?}");
    close(residual, law(4) + 0.05 - off.at(4), 1e-15);
    // No line of least squares is nearer, on the scale that it is drawn on.
    let scale = |covered: f64| (-covered.ln()).ln();
    let apart = |a: f64, b: f64| {
        let at = |k: u64| (a * (k as f64).powf(b)).exp();
        ks.iter()
            .map(|k| (scale(law(*k) + if *k == 4 { 0.05 } else { 0.0 }) - scale(at(*k))).powi(2))
            .sum::<f64>()
    };
    for (a, b) in [(1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)] {
        assert!(apart(off.a, off.b) < apart(off.a + a, off.b + b));
    }
    // Nothing and everything have no place on it.
    let more = PowerLaw::fit([(0, 0.5), (32, 1.0), (3, 0.0)].into_iter().chain(ks.map(|k| (k, law(k)))));
    assert_eq!(more, Some(fit));
    assert_eq!((PowerLaw::fit([]), PowerLaw::fit([(4, 0.5), (4, 0.6), (8, 1.0)])), (None, None));
}

#[test]
fn a_gain_of_pass_at_k_is_bounded_as_if_one_more_group_had_moved() {
    let gain = |items: &[[u64; 2]], k: u64| {
        let of = |(at, [there, here]): (usize, &[u64; 2])| (at, [right(*there, 4), right(*here, 4)]);
        Gain::of(items.iter().enumerate().map(of), k)
    };
    // 40 zeros and a one have the mean 1/41 and the standard error 1/41; Student's quantile of 5 % at 40 is 1.683851.
    let same = gain(&[[2, 2]; 40], 2).unwrap();
    assert_eq!(same.mean, 0.0);
    close(same.bounds(0.95).unwrap().upper, 2.683_851 / 41.0, 1e-7);
    close(same.bounds(0.95).unwrap().lower, -2.683_851 / 41.0, 1e-7);
    // Of 400 items half lose an answer of four: with two answers 5/6 becomes 1/2.
    let items: Vec<_> = (0..400).map(|at| [2, 2 - at % 2]).collect();
    let lost = gain(&items, 2).unwrap();
    close(lost.mean, -1.0 / 6.0, 1e-12);
    let bounds = lost.bounds(0.95).unwrap();
    let error = 1.0 / 6.0 / 20.0;
    close(bounds.lower, lost.mean - 1.65 * error, 0.6 * error);
    close(bounds.upper, lost.mean + 1.65 * error, 0.6 * error);
    // A single group, no item, fewer answers than k.
    assert_eq!(gain(&[[2, 1]], 1).unwrap().bounds(0.95), None);
    assert!(gain(&[], 1).is_none() && gain(&[[2, 1]], 5).is_none());
}

/// In how many of 400 runs the gain of `pass@1` lies above its lower bound of 95 %, and below its upper one. In so many clusters of
/// so many items each, one right answer of two is lost in so many of a hundred, or where the cluster is another one in so many.
fn held(clusters: u64, size: u64, rates: [u64; 2]) -> [u64; 2] {
    let mut stream = Stream::new(23, 0);
    let mut below = |bound: u64| stream.below(NonZeroU64::new(bound).unwrap());
    let truth = -((rates[0] + rates[1]) as f64) / 400.0;
    let mut held = [0; 2];
    for _ in 0..400 {
        let mut items = Vec::new();
        for cluster in 0..clusters {
            let rate = rates[below(2) as usize];
            items
                .extend((0..size).map(|_| (cluster, [right(1, 2), right(u64::from(below(100) >= rate), 2)])));
        }
        let bounds = Gain::of(items, 1).unwrap().bounds(0.95).unwrap();
        held[0] += u64::from(bounds.lower <= truth);
        held[1] += u64::from(bounds.upper >= truth);
    }
    held
}

#[test]
fn one_sided_bounds_of_a_gain_hold_what_they_promise() {
    // 95 % of 400 are 380, and two standard deviations of that 9. One more group widens them where there are few.
    for (clusters, size, rates) in [(40, 4, [10, 50]), (40, 1, [5, 5]), (200, 1, [20, 20]), (12, 8, [10, 50])]
    {
        let held = held(clusters, size, rates);
        assert!(held.iter().all(|held| *held >= 371), "{clusters} clusters of {size}: {held:?}");
    }
    // Of many groups they are as narrow as any.
    assert!(
        held(1000, 1, [20, 20]).iter().all(|held| (371..=392).contains(held)),
        "{:?}",
        held(1000, 1, [20, 20])
    );
}

// --------------------------------------------------------------------------------------------------------- ballots

/// Answers by number, where 0 is none; the even ones are right.
fn drawn(answers: &[(u8, u64, i8)]) -> Vec<Drawn<u8>> {
    let of = |&(answer, tokens, score): &(u8, u64, i8)| Drawn {
        answer: (answer > 0).then_some(answer),
        right: answer > 0 && answer % 2 == 0,
        tokens,
        log_probability: Some(f64::from(score)),
    };
    answers.iter().map(of).collect()
}

/// The share of the right ones among the answers that most of these give.
fn vote(taken: &[&Drawn<u8>]) -> f64 {
    let count = |answer: u8| taken.iter().filter(|drawn| drawn.answer == Some(answer)).count();
    let most = (1..=9).map(count).max().unwrap();
    let first: Vec<u8> = (1..=9).filter(|answer| most > 0 && count(*answer) == most).collect();
    first.iter().filter(|answer| *answer % 2 == 0).count() as f64 / first.len().max(1) as f64
}

/// The same where the earliest of the first answers is taken.
fn vote_of_the_first(taken: &[&Drawn<u8>]) -> f64 {
    let count = |answer: u8| taken.iter().filter(|drawn| drawn.answer == Some(answer)).count();
    let most = (1..=9).map(count).max().unwrap();
    let first = taken.iter().filter_map(|drawn| drawn.answer).find(|answer| count(*answer) == most);
    f64::from(u8::from(first.is_some_and(|answer| answer % 2 == 0)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn votes_are_those_over_every_subset(answers in vec((0..5_u8, 1..6_u64, -3..0_i8), 1..9)) {
        let item = drawn(&answers);
        let items = [&item[..]];
        for k in 1..=item.len() {
            let of = |taken: &[usize]| taken.iter().map(|at| &item[*at]).collect::<Vec<_>>();
            let majority = over_subsets(item.len(), k, |taken| vote(&of(taken)));
            close(majority_at(&items, k as u64).unwrap(), majority, 1e-12);
            let best = over_subsets(item.len(), k, |taken| {
                let taken = of(taken);
                let highest = taken.iter().filter_map(|drawn| drawn.log_probability).fold(f64::MIN, f64::max);
                let first: Vec<_> = taken.iter().filter(|drawn| drawn.log_probability == Some(highest)).collect();
                first.iter().filter(|drawn| drawn.right).count() as f64 / first.len() as f64
            });
            close(best_at(&items, k as u64).unwrap(), best, 1e-12);
            for voters in 1..=k {
                let ended = |taken: &[usize]| {
                    let mut taken = of(taken);
                    taken.sort_by_key(|drawn| drawn.tokens);
                    taken.truncate(voters);
                    taken
                };
                let right = over_subsets(item.len(), k, |taken| vote_of_the_first(&ended(taken)));
                let tokens = over_subsets(item.len(), k, |taken| (k as u64 * ended(taken)[voters - 1].tokens) as f64);
                let FirstToEnd { right: found, tokens: paid } = first_to_end(&items, voters as u64, k as u64).unwrap();
                close(found, right, 1e-12);
                close(paid, tokens, 1e-9);
            }
        }
    }
}

#[test]
fn one_answer_is_its_own_vote() {
    let items = [drawn(&[(2, 5, -1), (1, 3, -2), (0, 9, -1)]), drawn(&[(4, 5, -1), (4, 3, -2), (2, 9, -1)])];
    let rates: Vec<_> =
        items.iter().map(|item| right(item.iter().filter(|drawn| drawn.right).count() as u64, 3)).collect();
    let once = pass_at(&rates, 1);
    assert_eq!((majority_at(&items, 1), best_at(&items, 1)), (once, once));
    assert_eq!(first_to_end(&items, 1, 1), Some(FirstToEnd { right: once.unwrap(), tokens: 17.0 / 3.0 }));
    // Two right answers that are not alike share the votes for none of them.
    assert_eq!(majority_at(&items[1..], 3), Some(1.0));
    assert_eq!(majority_at(&[drawn(&[(2, 1, 0), (4, 1, 0), (1, 1, 0), (1, 1, 0)])], 4), Some(0.0));
}

#[test]
fn the_shortest_answers_cost_what_all_wait_for() {
    let item = drawn(&[(1, 90, 0), (2, 10, 0), (2, 20, 0), (3, 15, 0)]);
    // Of four the three shortest end after 20 tokens, and 2 has most of their votes.
    assert_eq!(first_to_end(&[&item[..]], 3, 4), Some(FirstToEnd { right: 1.0, tokens: 80.0 }));
    // Of the two shortest each has a vote, and 2 was there first.
    assert_eq!(first_to_end(&[&item[..]], 2, 4), Some(FirstToEnd { right: 1.0, tokens: 60.0 }));
    assert_eq!(first_to_end(&[&item[..]], 4, 4).unwrap().tokens, 360.0);
}

#[test]
fn more_voters_than_are_gone_through_are_drawn_and_the_same_every_time() {
    // Whoever answers is right, so that the vote is right where anybody answers: of 735,471 ways to take 8, as pass@8 counts.
    let item: Vec<_> = (0..24).map(|at| (if at % 12 == 0 { 2 } else { 0 }, at, 0)).collect();
    let item = drawn(&item);
    let found = first_to_end(&[&item[..]], 8, 8).unwrap();
    let exact = pass_at(&[right(2, 24)], 8).unwrap();
    // Five standard deviations of 1000 draws.
    close(found.right, exact, 5.0 * (exact * (1.0 - exact) / 1000.0_f64).sqrt());
    assert_ne!(found.right, exact);
    assert_eq!(first_to_end(&[&item[..]], 8, 8), Some(found));
    // What it costs is counted even so: the longest of 8 among 0 to 23, which is 8/9 of the way to 24 and 1 less.
    close(found.tokens, 8.0 * (8.0 * 25.0 / 9.0 - 1.0), 1e-9);
}

#[test]
fn nobody_elects_nothing() {
    let item = drawn(&[(2, 5, -1), (1, 3, -2)]);
    let items = [&item[..]];
    assert_eq!((majority_at(&items, 0), majority_at(&items, 3)), (None, None));
    assert_eq!((best_at(&items, 0), best_at(&items, 3)), (None, None));
    for (voters, k) in [(0, 1), (2, 1), (1, 3), (0, 0)] {
        assert_eq!(first_to_end(&items, voters, k), None, "{voters} of {k}");
    }
    let none: [Vec<Drawn<u8>>; 0] = [];
    assert_eq!((majority_at(&none, 1), best_at(&none, 1), first_to_end(&none, 1, 1)), (None, None, None));
    let silent = [drawn(&[(0, 5, -1), (0, 3, -2)])];
    assert_eq!((majority_at(&silent, 2), first_to_end(&silent, 2, 2).unwrap().right), (Some(0.0), 0.0));
    for unknown in [None, Some(f64::NAN)] {
        assert_eq!(best_at(&[vec![item[1], Drawn { log_probability: unknown, ..item[0] }]], 1), None);
    }
}

// -------------------------------------------------------------------------------------------- between configurations

const CONFIGURATIONS: usize = 6;
const SEEDS: usize = 8;
const ITEMS: usize = 30;
const TIMES: usize = 400;

fn seeds(seeds: usize) -> NonZeroU64 {
    NonZeroU64::new(seeds as u64).unwrap()
}

/// The means, over many runs, of the squares of the three deviations, and the variance of what the first configuration has
/// right; a run is what `right` says of each item's rate, drawn anew.
fn simulated(mut right: impl FnMut(f64, &mut Stream) -> Vec<bool>) -> [f64; 4] {
    let mut stream = Stream::new(17, 0);
    let mut squares = [0.0; 3];
    let mut rates = Vec::new();
    for _ in 0..TIMES {
        let mut passes = Passes::new(seeds(SEEDS));
        for item in 0..ITEMS {
            passes.add(&right((item as f64 + 0.5) / ITEMS as f64, &mut stream));
        }
        let deviations = [passes.deviation(), passes.deviation_of_draws(), passes.deviation_of_flips()];
        for (square, deviation) in squares.iter_mut().zip(deviations) {
            *square += deviation.unwrap().powi(2) / TIMES as f64;
        }
        rates.push(passes.rates().next().unwrap().rate().unwrap());
    }
    let mean = rates.iter().sum::<f64>() / TIMES as f64;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / (TIMES - 1) as f64;
    [squares[0], squares[1], squares[2], variance]
}

/// What the draw alone gives: the mean of p(1 - p) over the number of answers.
fn floor() -> f64 {
    let rate = |item: usize| (item as f64 + 0.5) / ITEMS as f64;
    let mean = (0..ITEMS).map(|item| rate(item) * (1.0 - rate(item))).sum::<f64>() / ITEMS as f64;
    mean / (SEEDS * ITEMS) as f64
}

#[test]
fn where_every_configuration_draws_by_itself_all_deviations_are_the_floor() {
    let all = simulated(|rate, stream| (0..CONFIGURATIONS * SEEDS).map(|_| stream.unit() < rate).collect());
    // Five standard deviations of a variance with 5 degrees of freedom, and with 399, over 400 runs; far less for the others.
    for (square, most) in all.into_iter().zip([0.16, 0.02, 0.02, 0.36]) {
        close(square / floor(), 1.0, most);
    }
}

#[test]
fn where_seeds_are_shared_the_floor_stays_and_flips_are_what_is_between() {
    const FLIPS: f64 = 0.02;
    let shared = |flips: f64| {
        simulated(move |rate, stream| {
            let first: Vec<_> = (0..SEEDS).map(|_| stream.unit() < rate).collect();
            let all = (0..CONFIGURATIONS).flat_map(|_| first.clone()).collect::<Vec<_>>();
            all.into_iter().map(|right| right ^ (stream.unit() < flips)).collect()
        })
    };
    let [between, draws, flips, variance] = shared(FLIPS);
    let expected = FLIPS * (1.0 - FLIPS) / (SEEDS * ITEMS) as f64;
    close(between / expected, 1.0, 0.16);
    close(flips / expected, 1.0, 0.05);
    // A flip brings p to p(1 - 2f) + f.
    let floor_of_flipped = floor() * (1.0 - 2.0 * FLIPS).powi(2) + expected;
    close(draws / floor_of_flipped, 1.0, 0.03);
    close(variance / floor_of_flipped, 1.0, 0.36);
    // Settings that make no difference at all.
    let [between, draws, flips, _] = shared(0.0);
    assert_eq!((between, flips), (0.0, 0.0));
    close(draws / floor(), 1.0, 0.03);
}

#[test]
fn settings_that_move_answers_the_same_way_move_the_mean_more_than_coins_would() {
    // One configuration of three loses an answer to every item.
    let mut passes = Passes::new(seeds(4));
    for _ in 0..25 {
        passes.add(
            &[[true, true, true, false], [true, true, true, false], [true, true, false, false]].concat(),
        );
    }
    let rates: Vec<_> = passes.rates().collect();
    assert_eq!(rates, [right(75, 100), right(75, 100), right(50, 100)]);
    close(passes.deviation().unwrap(), 0.25 / 3.0_f64.sqrt(), 1e-12);
    // Of four seeds one has a product of 2 out of 6 pairs.
    close(passes.deviation_of_flips().unwrap(), (2.0 / 6.0 / 4.0 / 100.0_f64).sqrt(), 1e-12);
    // Products of 3, 3 and 4 out of 12 pairs.
    close(passes.deviation_of_draws().unwrap(), (10.0 / 12.0 / 3.0 / 100.0_f64).sqrt(), 1e-12);
}

#[test]
fn a_single_seed_has_no_floor_and_a_single_configuration_no_deviation() {
    let mut passes = Passes::new(seeds(1));
    assert_eq!(
        (passes.deviation(), passes.deviation_of_draws(), passes.deviation_of_flips()),
        (None, None, None)
    );
    passes.add(&[true, false, true]);
    passes.add(&[true, true, true]);
    assert_eq!(passes.deviation_of_draws(), None);
    // With one seed it is what accuracies give.
    assert_eq!(passes.rates().map(|rate| rate.hits).collect::<Vec<_>>(), [2, 1, 2]);
    close(passes.deviation().unwrap(), 0.5 / 3.0_f64.sqrt(), 1e-12);
    let mut passes = Passes::new(seeds(2));
    passes.add(&[true, false]);
    assert_eq!((passes.deviation(), passes.deviation_of_flips()), (None, None));
    close(passes.deviation_of_draws().unwrap(), 0.5_f64.sqrt() / 2.0_f64.sqrt(), 1e-12);
}
