//! Gates against evidence that is made for the purpose: every limit just kept and just broken, and everything that nobody
//! can tell.

use crate::world::{
    Made, World,
    cases::{drawn_made, drawn_world},
};
use proptest::prelude::*;
use reprocheck::{
    cell::{Axis, Cell},
    digest::Digest,
    stats::proportion::Proportion,
    trace::{History, Launches, Sight},
    verdict::{Outcome, baseline::Baseline, judge, worst},
};

fn same() -> Made {
    (vec![(1, 0), (2, 0)], 1)
}

/// Another thing in the second cell's trace, on the first so many items.
fn other(count: u64, made: Made) -> impl Fn(usize, u64) -> Made {
    move |trace, item| if trace == 1 && item < count { made.clone() } else { same() }
}

fn threads(cell: &Cell) -> usize {
    cell.get(Axis::Threads).to_string().parse().unwrap()
}

fn batch(limit: &str) -> World {
    World::new(&format!("[matrix]\nbatch = [1, 2]\n[[gate]]\nvary = \"batch\"\n{limit}\n"))
}

fn against(limit: &str) -> World {
    World::new(&format!(
        "[reference]\norder = \"exact\"\n[matrix]\nprecision = \"fp32\"\n[[gate]]\nagainst = \"reference\"\n{limit}\n"
    ))
}

#[test]
fn a_level_is_required_of_every_item() {
    let bits = (vec![(1, 0), (2, 9)], 1);
    let tokens = (vec![(1, 0), (3, 9)], 1);
    let answers = (vec![(1, 0), (3, 9)], 2);
    for (made, [of_bits, of_tokens, of_answers]) in [
        (same(), [Outcome::Pass; 3]),
        (bits, [Outcome::Fail, Outcome::Pass, Outcome::Pass]),
        (tokens, [Outcome::Fail, Outcome::Fail, Outcome::Pass]),
        (answers, [Outcome::Fail; 3]),
    ] {
        let found =
            |level: &str| batch(&format!("require = \"{level}\"")).outcome(50, other(1, made.clone()));
        assert_eq!([found("bits"), found("tokens"), found("answers")], [of_bits, of_tokens, of_answers]);
        let diverges = batch("expect = \"diverges\"").outcome(50, other(1, made.clone()));
        assert_eq!(diverges, if of_bits == Outcome::Fail { Outcome::Pass } else { Outcome::Fail });
    }
}

#[test]
fn shares_and_lengths_hold_at_their_limit_and_fail_beyond() {
    let flipped = (vec![(1, 0), (3, 9)], 2);
    for (limit, made) in [("max-flip-rate", flipped.clone()), ("max-divergence-rate", (flipped.0, 1))] {
        let found = |count| against(&format!("{limit} = \"4%\"")).outcome(50, other(count, made.clone()));
        assert_eq!([0, 2, 3].map(found), [Outcome::Pass, Outcome::Pass, Outcome::Fail], "{limit}");
    }
    let found = |least| {
        against(&format!("min-first-divergence = {least}")).outcome(50, other(1, (vec![(1, 0), (3, 9)], 1)))
    };
    assert_eq!([1, 2].map(found), [Outcome::Pass, Outcome::Fail]);
}

// scipy.stats.binom.sf([0, 1, 2, 3], 50, 0.02) is 0.64, 0.26, 0.078 and 0.018: of 50 items with 2 rows each, 4 are too many at 95 %.
#[test]
fn rows_may_be_farther_apart_as_often_as_a_share_of_them_explains() {
    // One item has two tokens whose logits are 1 apart, 2^23 steps, and the other one ranks first.
    let far = (vec![(1, 0), (3, 9)], 1);
    let found = |limit: &str, count| against(limit).outcome(50, other(count, far.clone()));
    for limit in ["logit-difference", "ulp", "kl"] {
        let most = |most: &str| format!("max-{limit} = {most}");
        let (within, below) = match limit {
            "logit-difference" => ("1", "0.999"),
            "ulp" => ("8388608", "8388607"),
            _ => ("0.6", "0.01"),
        };
        assert_eq!(found(&most(within), 50), Outcome::Pass, "{limit}");
        assert_eq!([0, 1].map(|count| found(&most(below), count)), [Outcome::Pass, Outcome::Fail], "{limit}");
        let exceeding = format!("{}\nexceeding = 0.01", most(below));
        assert_eq!([3, 4].map(|count| found(&exceeding, count)), [Outcome::Pass, Outcome::Fail], "{limit}");
    }
    assert_eq!([3, 4].map(|count| found("max-rank-flips = \"1%\"", count)), [Outcome::Pass, Outcome::Fail]);
    // Four limits are four tests, of which each is asked for more.
    let all = "max-logit-difference = 0.5\nmax-ulp = 9\nmax-kl = 0\nmax-rank-flips = 0.01\nexceeding = 0.01";
    assert_eq!([4, 5].map(|count| found(all, count)), [Outcome::Pass, Outcome::Fail]);
    let (outcome, sentence) = ruled(&against("max-ulp = 8\nexceeding = 0.01"), other(9, far.clone()));
    assert_eq!(outcome, Outcome::Fail);
    assert_eq!(
        sentence,
        "rows of lab/fp32/sequential/t1/b1 and lab/fp32/exact/t1/b1 are farther apart than 8 steps of f32 in a logit in 9 of 9 items, where \
         0.2 are to be expected (p 5.12e-16)"
    );
    // Where not all logits are seen nothing says that no row exceeds it.
    let mut world = against("max-ulp = 8");
    world.sights = vec![Sight::Logits, Sight::Top];
    assert_eq!(world.outcome(9, |_, _| same()), Outcome::Unknown);
}

#[test]
fn a_loss_of_accuracy_holds_fails_or_cannot_be_told() {
    let wrong = (vec![(1, 0), (3, 9)], 2);
    let found = |items, lost| {
        let rulings = against("max-accuracy-drop = \"5pp\"").rulings(items, other(lost, wrong.clone()));
        (rulings[0].outcome, rulings[0].findings.first().map(|finding| finding.sentence.clone()))
    };
    assert_eq!(found(400, 2).0, Outcome::Pass);
    assert_eq!(found(400, 80).0, Outcome::Fail);
    let (outcome, sentence) = found(20, 1);
    assert_eq!(outcome, Outcome::Undecided);
    let sentence = sentence.unwrap();
    assert!(sentence.contains("1 items lost and 0 gained of 20, a drop of 5.00 pp"), "{sentence}");
    assert_eq!(found(0, 0).0, Outcome::Unknown, "nothing was compared");
}

#[test]
fn a_loss_in_one_cluster_says_less_than_one_in_many() {
    let wrong = (vec![(1, 0), (3, 9)], 2);
    let mut world = against("max-accuracy-drop = \"5pp\"");
    assert_eq!(world.outcome(400, other(8, wrong.clone())), Outcome::Pass);
    world.cluster = Some(20);
    let ruling = &world.rulings(400, other(8, wrong))[0];
    assert_eq!(ruling.outcome, Outcome::Undecided);
    let sentence = &ruling.findings[0].sentence;
    assert!(
        sentence.contains("8 items lost and 0 gained of 400 (in 20 clusters, design effect 8.1)"),
        "{sentence}"
    );
}

#[test]
fn a_loss_in_one_suite_is_found_beside_suites_that_lose_nothing() {
    let wrong = (vec![(1, 0), (3, 9)], 2);
    let lost = |trace, item| if item % 2 == 0 { other(60, wrong.clone())(trace, item) } else { same() };
    let mut world = against("max-accuracy-drop = \"6pp\"");
    let rulings = world.rulings(400, lost);
    assert_eq!(rulings[0].outcome, Outcome::Undecided);
    world.suites = 2;
    let ruling = &world.rulings(400, lost)[0];
    assert_eq!(ruling.outcome, Outcome::Fail);
    let sentence = &ruling.findings[0].sentence;
    assert!(
        sentence.contains(" in m0: 30 items lost and 0 gained of 200") && sentence.contains("among 3 tests"),
        "{sentence}"
    );
}

#[test]
fn among_many_cells_a_loss_that_would_fail_by_itself_may_be_chance() {
    let wrong = (vec![(1, 0), (3, 9)], 2);
    let outcome = |precisions: &str| {
        let world = World::new(&format!(
            "[reference]\norder = \"exact\"\n[matrix]\nprecision = [{precisions}]\n\
             [[gate]]\nagainst = \"reference\"\nmax-accuracy-drop = \"5pp\"\n"
        ));
        let ruling =
            world.rulings(400, |trace, item| if trace == 1 && item < 31 { wrong.clone() } else { same() });
        (ruling[0].outcome, ruling[0].findings[0].sentence.clone())
    };
    assert_eq!(outcome("\"bf16\"").0, Outcome::Fail);
    let (outcome, sentence) =
        outcome("\"bf16\", \"fp16\", \"fp32\", \"layercast\", \"int8\", \"w8a8\", \"lmul\"");
    assert_eq!(outcome, Outcome::Undecided);
    assert!(
        sentence.contains("by itself that would be too much, and among 7 tests it may be chance"),
        "{sentence}"
    );
}

#[test]
fn what_has_not_run_is_unknown_and_never_a_pass() {
    for missing in 0..2 {
        for mut world in
            [batch("require = \"bits\""), batch("expect = \"diverges\""), against("max-flip-rate = 0.5")]
        {
            world.traces[missing] = None;
            let rulings = world.rulings(9, |_, _| same());
            assert_eq!(rulings[0].outcome, Outcome::Unknown);
            let sentence = format!("{} has left nothing to compare", world.plan.cells[missing]);
            assert_eq!(rulings[0].findings[0].sentence, sentence);
        }
    }
}

#[test]
fn an_axis_that_made_no_difference_to_what_ran_proves_nothing() {
    for axis in [
        "batch = [1, 2]",
        "threads = [1, 2]",
        "prefill-chunk = [1, 2]",
        "grouping = [\"in-order\", \"by-length\"]",
    ] {
        let name = axis.split(' ').next().unwrap();
        let mut world =
            World::new(&format!("[matrix]\n{axis}\n[[gate]]\nvary = \"{name}\"\nrequire = \"bits\"\n"));
        assert_eq!(world.outcome(9, |_, _| same()), Outcome::Pass, "{name}");
        world.launches[1] = world.launches[0].clone();
        assert_eq!(world.outcome(9, |_, _| same()), Outcome::Unknown, "{name}");
        // What differs all the same has been seen.
        assert_eq!(world.outcome(9, other(1, (vec![(1, 9)], 1))), Outcome::Fail, "{name}");
    }
    // How a token is drawn is nothing to a cell that takes the best.
    let drawn = |top_k: &str, vary: &str| {
        World::new(&format!(
            "[generate]\nchoice = \"sampled\"\n[matrix]\ntop-k = [1, 20]\ntemperature = [0.6, 1.0]\nseed = [0, 1]\n\
             [[gate]]\nwhere = {{ top-k = {top_k} }}\nvary = {vary}\nrequire = \"bits\"\n"
        ))
    };
    for vary in ["\"seed\"", "\"temperature\"", "[\"seed\", \"temperature\"]"] {
        assert_eq!(drawn("20", vary).outcome(9, |_, _| same()), Outcome::Pass, "{vary}");
        let rulings = drawn("1", vary).rulings(9, |_, _| same());
        assert_eq!(rulings[0].outcome, Outcome::Unknown, "{vary}");
        let sentence = &rulings[0].findings[0].sentence;
        assert!(
            sentence.contains("was not exercised: the best token was taken, whatever it says"),
            "{sentence}"
        );
    }
    assert_eq!(drawn("[1, 20]", "\"top-k\"").outcome(9, |_, _| same()), Outcome::Pass);
    // Other cells of the group do not stand in for those that were to vary.
    let mut world = World::new(
        "[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n[[gate]]\nvary = [\"batch\", \"threads\"]\nrequire = \"bits\"\n",
    );
    world.launches.iter_mut().for_each(|launches| launches.threads = Some(1));
    let rulings = world.rulings(9, |_, _| same());
    assert_eq!(rulings[0].outcome, Outcome::Unknown);
    assert!(
        rulings[0].findings[0].sentence.starts_with("`threads` was not exercised: no call was worth sharing")
    );
    // One group that was tested carries the gate, and the report says which was not.
    let mut world = World::new(
        "[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n[[gate]]\nvary = \"threads\"\nrequire = \"bits\"\n",
    );
    let [one, other] = [0, 1].map(|at| {
        world
            .plan
            .cells
            .iter()
            .position(|cell| cell.serving.batch.get() == 1 && threads(cell) == at + 1)
            .unwrap()
    });
    world.launches[other].threads = world.launches[one].threads;
    let rulings = world.rulings(9, |_, _| same());
    assert_eq!((rulings[0].outcome, rulings[0].notes.len()), (Outcome::Pass, 1));
    assert!(
        rulings[0].notes[0].starts_with("in 1 of 2 groups `threads` made no difference"),
        "{:?}",
        rulings[0].notes
    );
}

#[test]
fn the_worst_ruling_is_the_verdict() {
    assert!(
        Outcome::Pass < Outcome::Undecided
            && Outcome::Undecided < Outcome::Unknown
            && Outcome::Unknown < Outcome::Fail
    );
    assert_eq!(worst(&[]), Outcome::Unknown, "where nothing is asked, nothing is proven");
    let world = World::new(
        "[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n[[gate]]\nname = \"a\"\nvary = \"batch\"\nrequire = \"bits\"\n[[gate]]\nname = \
         \"b\"\nvary = \"threads\"\nexpect = \"diverges\"\n",
    );
    let rulings = world.rulings(9, |_, _| same());
    assert_eq!(
        rulings.iter().map(|ruling| ruling.outcome).collect::<Vec<_>>(),
        [Outcome::Pass, Outcome::Fail]
    );
    assert_eq!((rulings[0].held, rulings[0].comparisons), (2, 2));
    assert_eq!((rulings[1].held, rulings[1].comparisons), (0, 2));
    assert_eq!(worst(&rulings), Outcome::Fail);
}

#[test]
fn each_axis_is_judged_alone() {
    let world = World::new("[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n");
    // A larger batch has other logits, threads change nothing.
    let cells = world.plan.cells.clone();
    let evidence = world.evidence(10, |trace, item| {
        let moved = cells[trace].serving.batch.get() == 2 && item == 4;
        if moved { (vec![(1, 0), (2, 9)], 1) } else { same() }
    });
    let found = evidence.attributions();
    assert_eq!(found.iter().map(|found| found.axis).collect::<Vec<_>>(), [Axis::Threads, Axis::Batch]);
    let agree = |at: usize| found[at].agree.into_values();
    assert_eq!((found[0].pairs, found[0].exercised, agree(0)), (2, Some(2), [2, 2, 2].map(Some)));
    assert_eq!((found[1].pairs, found[1].exercised, agree(1)), (2, Some(2), [0, 2, 2].map(Some)));
    assert_eq!(found[1].places, Some(Proportion { hits: 38, of: 40 }));
    assert_eq!(found[1].items.bits, Some(Proportion { hits: 18, of: 20 }));
    assert_eq!((found[0].first, found[1].first.is_some()), (None, true));
}

#[test]
fn what_stands_beside_the_matrix_belongs_to_no_precision() {
    let world = World::new(
        "[reference]\norder = \"exact\"\n[matrix]\nprecision = [\"fp32\", \"bf16\"]\nbatch = [1, 2]\ninclude = [{ batch = 4 }]\n",
    );
    let evidence = world.evidence(4, |trace, item| (vec![(1, 0), (trace as u32, item as u8)], 1));
    let families: Vec<_> = evidence
        .families()
        .iter()
        .map(|family| (family.precision.to_string(), family.cells().len()))
        .collect();
    assert_eq!(families, [("fp32".to_owned(), 2), ("bf16".to_owned(), 2)]);
    let spread = evidence.families()[0].spread(0.95);
    let agreement = spread.agreement.map(Option::unwrap);
    assert_eq!(
        (agreement.tokens.unstable, spread.divergence_index),
        (Proportion { hits: 4, of: 4 }, Some(1.0))
    );
    assert_eq!((agreement.answers.unstable.hits, spread.deviation_of_accuracy), (0, Some(0.0)));
}

#[test]
fn what_is_drawn_stands_beside_what_is_drawn_under_the_same_seed() {
    let world =
        drawn_world(&["[[gate]]\nagainst = \"reference\"\nwhere = { batch = 1 }\nrequire = \"tokens\"\n"]);
    let made = drawn_made(&world);
    // Every seed has texts of its own, and every cell those of the reference under its seed.
    let rulings = world.rulings(40, &made);
    assert_eq!((rulings[0].outcome, rulings[0].comparisons), (Outcome::Pass, 8));
    let evidence = world.evidence(40, &made);
    let families: Vec<_> = evidence.families().iter().map(|family| family.cells()[0].drawing()).collect();
    assert_eq!(families, ["T0.6", "T1"]);
    for family in evidence.families() {
        assert_eq!(family.cells().len(), 8);
        let spread = family.spread(0.95);
        // Of 160 draws one is another one in the second configuration: after a token, and wrong for right.
        let agreement = spread.agreement.map(Option::unwrap);
        assert_eq!(agreement.tokens.unstable, Proportion { hits: 1, of: 160 });
        assert_eq!((agreement.answers.unstable.hits, spread.divergence_index), (1, Some(1.0)));
        assert_eq!(spread.accuracy, Proportion { hits: 100 + 99, of: 320 });
        let deviation = 1.0 / 160.0 / 2.0_f64.sqrt();
        assert!((spread.deviation_of_accuracy.unwrap() - deviation).abs() < 1e-15, "{spread:?}");
        let draws = family.draws().unwrap();
        assert_eq!((draws.seeds(), draws.sizes()), (4, vec![1, 2, 4]));
        assert_eq!(draws.passes().deviation(), spread.deviation_of_accuracy);
        // The draw moves twenty items by 3 of 12 pairs of seeds, and one more in one of two configurations.
        let floor = ((2.0 * 20.0 + 1.0) * 3.0 / 12.0 / (2.0 * 40.0) / 160.0_f64).sqrt();
        assert!((draws.passes().deviation_of_draws().unwrap() - floor).abs() < 1e-15);
        let [one, other] = draws.configurations() else { panic!("{draws:?}") };
        assert_eq!(other.cell.to_string(), format!("lab/bf16/sequential/t1/b2/{}", other.cell.drawing()));
        assert_eq!([1, 2, 4].map(|k| one.pass_at(k).unwrap()), [0.625, 0.75, 1.0]);
        assert_eq!([1, 4].map(|k| one.majority_at(k).unwrap()), [0.625, 0.5]);
        assert_eq!((other.pass_at(1), other.pass_at(4)), (Some(99.0 / 160.0), Some(1.0)));
    }
    // A configuration that is not there under every seed is counted, and in no number.
    let mut world = drawn_world(&[]);
    let gone: Cell = "lab/bf16/sequential/t1/b2/T1/s3".parse().unwrap();
    let at = world.plan.cells.iter().position(|cell| *cell == gone).unwrap();
    world.traces[at] = None;
    let evidence = world.evidence(40, drawn_made(&world));
    let family = &evidence.families()[1];
    let draws = family.draws().unwrap();
    assert_eq!((family.cells().len(), draws.configurations().len(), draws.left_out()), (7, 1, 1));
    assert_eq!(family.spread(0.95).accuracy, Proportion { hits: 100, of: 160 });
    // One seed is no sample.
    assert!(batch("require = \"bits\"").evidence(9, |_, _| same()).families()[0].draws().is_none());
}

/// The outcome of a gate over what is drawn, and what its first finding says.
fn drawn(gate: &str, made: impl Fn(&World, usize, u64) -> Made) -> (Outcome, String) {
    let world = drawn_world(&["[[gate]]\n", gate]);
    let ruling = world.rulings(40, |trace, item| made(&world, trace, item)).remove(0);
    let sentence = ruling.findings.first().map_or_else(String::new, |finding| finding.sentence.clone());
    (ruling.outcome, sentence)
}

#[test]
fn pass_at_1_deviates_between_configurations_by_what_a_gate_lets_it() {
    let made = |world: &World, trace: usize, item: u64| drawn_made(world)(trace, item);
    // One answer of 160 is another in one of two configurations: 100 / 160 / sqrt(2) = 0.442 pp.
    let within = |most: &str| drawn(&format!("vary = \"batch\"\nmax-pass-std = \"{most}\"\n"), made);
    assert_eq!(within("0.45pp").0, Outcome::Pass);
    let (outcome, sentence) = within("0.44pp");
    assert_eq!(outcome, Outcome::Fail);
    assert_eq!(
        sentence,
        "pass@1 of 2 configurations deviates by 0.442 pp, where 0.44 pp may be: from 61.88 % of \
         lab/bf16/sequential/t1/b2/T0.6 to 62.50 % of lab/bf16/sequential/t1/b1/T0.6"
    );
}

#[test]
fn a_loss_of_pass_at_k_is_shown_ruled_out_or_undecided() {
    let made = |world: &World, trace: usize, item: u64| drawn_made(world)(trace, item);
    let gate =
        |most: &str, k: u64| format!("against = \"reference\"\nmax-pass-drop = \"{most}\"\npass-at = {k}\n");
    // As much as 6.5 pp may hide in 40 items, whatever is seen of them.
    assert_eq!(drawn(&gate("9pp", 1), made).0, Outcome::Pass);
    let (outcome, sentence) = drawn(&gate("6pp", 1), made);
    assert_eq!(outcome, Outcome::Undecided);
    assert!(
        sentence.contains("a drop of 0.00 pp in pass@1, and at 95 % confidence up to 6.55 pp"),
        "{sentence}"
    );
    // A third of the items is lost in the second configuration under all seeds but one, which pass@4 does not see.
    let lost = |world: &World, trace: usize, item: u64| {
        let serving = world.plan.cells[trace].serving;
        let is_lost = serving.batch.get() == 2 && item.is_multiple_of(3) && serving.seed != item % 4;
        (vec![(1 + u32::from(is_lost), 0)], if is_lost { 2 } else { 1 })
    };
    let (outcome, sentence) = drawn(&gate("5pp", 1), lost);
    assert_eq!(outcome, Outcome::Fail);
    // 14 of 40 items, each under 3 of 4 seeds. All temperatures draw the same, and so two pairs are two facts and not four.
    assert!(sentence.starts_with("lab/bf16/sequential/t1/b2/T0.6 against "), "{sentence}");
    assert!(sentence.contains(": a drop of 26.25 pp in pass@1, at least "), "{sentence}");
    assert!(
        sentence.contains(" at 95 % confidence among 2 such comparisons, where 5 pp may be lost"),
        "{sentence}"
    );
    assert_eq!(drawn(&gate("9pp", 4), lost).0, Outcome::Pass);
    // Among cells that stand beside each other the first is what the others are held against.
    let within = "vary = \"batch\"\nmax-pass-drop = \"5pp\"\n";
    assert_eq!(drawn(within, lost).0, Outcome::Fail);
    // What has not run under every seed has no pass@k.
    let mut world = drawn_world(&["[[gate]]\n", within]);
    let gone: Cell = "lab/bf16/sequential/t1/b2/T1/s3".parse().unwrap();
    let at = world.plan.cells.iter().position(|cell| *cell == gone).unwrap();
    world.traces[at] = None;
    let ruling = world.rulings(40, drawn_made(&world)).remove(0);
    assert_eq!(ruling.findings[0].outcome, Outcome::Unknown);
    assert!(
        ruling.findings[0].sentence.starts_with("lab/bf16/sequential/t1/b2/T1 has not run under every seed")
    );
}

#[test]
fn cells_that_are_alike_to_the_last_bit_are_one_test_of_a_gate() {
    // The third cell leaves the trace of the second, and the fourth that of the first.
    let tests = |traces: [usize; 4]| {
        let mut world = World::new(
            "[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n[[gate]]\nvary = [\"batch\", \"threads\"]\nmax-accuracy-drop = \"5pp\"\n",
        );
        world.traces = traces.map(Some).to_vec();
        let ruling = world.rulings(200, other(40, (vec![(1, 0), (3, 9)], 2))).remove(0);
        assert_eq!((ruling.outcome, ruling.comparisons), (Outcome::Fail, 3));
        ruling.findings[0].sentence.clone()
    };
    assert!(tests([0, 1, 2, 3]).ends_with(" among 3 tests)"), "{}", tests([0, 1, 2, 3]));
    assert!(!tests([0, 1, 1, 0]).contains(" tests"), "{}", tests([0, 1, 1, 0]));
}

#[test]
fn equal_traces_are_one_and_are_compared_all_the_same() {
    let mut world = batch("require = \"bits\"");
    world.traces[1] = Some(0);
    let rulings = world.rulings(9, |_, _| same());
    assert_eq!((rulings[0].outcome, rulings[0].comparisons, rulings[0].held), (Outcome::Pass, 1, 1));
}

#[test]
fn an_axis_has_moved_what_differs_on_it_alone() {
    let mut world = World::new("[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n");
    let alike = world.launches[0].clone();
    world.launches.fill(alike);
    let moved = |world: &World| {
        let evidence = world.evidence(3, |trace, _| (vec![(1, trace as u8)], 1));
        [Axis::Batch, Axis::Threads].map(|axis| evidence.exercised(axis, &world.plan.cells))
    };
    let by = |world: &mut World, trace: &dyn Fn(usize, usize) -> usize| {
        let trace = |cell: &Cell| trace(cell.serving.batch.get(), threads(cell));
        world.traces = world.plan.cells.iter().map(|cell| Some(trace(cell))).collect();
    };
    by(&mut world, &|batch, _| batch);
    assert_eq!(moved(&world), [Some(true), Some(false)]);
    by(&mut world, &|_, threads| threads);
    assert_eq!(moved(&world), [Some(false), Some(true)]);
    // The last cell alone is another: from two neighbors, on one axis each.
    by(&mut world, &|batch, threads| batch * threads / 4);
    assert_eq!(moved(&world), [Some(true), Some(true)]);
    world.traces[0] = None;
    assert_eq!(moved(&world), [None, None]);
}

#[test]
fn another_engine_on_two_machines_proves_nothing_and_the_lab_does() {
    let gate = "threads = [1, 2]\n[[gate]]\nvary = \"threads\"\nrequire = \"bits\"\n";
    for (engine, elsewhere) in [("candle", Outcome::Unknown), ("lab", Outcome::Pass)] {
        let mut world = World::new(&format!("[matrix]\nengine = \"{engine}\"\nprecision = \"fp32\"\n{gate}"));
        assert_eq!(world.outcome(5, |_, _| same()), Outcome::Pass, "{engine}");
        world.elsewhere = vec![1];
        assert_eq!(world.outcome(5, |_, _| same()), elsewhere, "{engine}");
        // Not even what differs: it may be the machine that moved it.
        let moved = world.rulings(5, other(1, (vec![(1, 0), (3, 9)], 2)));
        let expected = if engine == "lab" { Outcome::Fail } else { Outcome::Unknown };
        assert_eq!(worst(&moved), expected, "{engine}");
    }
}

#[test]
fn a_server_may_say_something_else_of_itself_under_other_settings_and_another_one_may_too() {
    let servers = "[engine.a]\ndialect = \"llama.cpp\"\ncommand = [\"x\", \"{port}\", \"{kv}\"]\n[engine.a.axes]\nkv = [1, 2]\n\
                   [engine.b]\ndialect = \"vllm\"\nurl = \"http://127.0.0.1:1\"\n\
                   [engine.c]\ndialect = \"vllm\"\nurl = \"http://127.0.0.1:2\"\n";
    for (matrix, vary, expected) in [
        ("engine = \"server:a\"\n", "kv", Outcome::Pass),
        ("engine = \"server:b\"\nconcurrency = [1, 2]\n", "concurrency", Outcome::Unknown),
        ("engine = [\"server:b\", \"server:c\"]\n", "engine", Outcome::Pass),
    ] {
        let gate = format!("[[gate]]\nvary = \"{vary}\"\nrequire = \"tokens\"\n");
        let mut world = World::new(&format!("{servers}[matrix]\n{matrix}{gate}"));
        world.configured = vec![1];
        assert_eq!(world.outcome(5, |_, _| same()), expected, "{vary}");
        // Another machine is no setting, and it is part of what another server is.
        world.elsewhere = vec![1];
        let on_another = if vary == "engine" { Outcome::Pass } else { Outcome::Unknown };
        assert_eq!(world.outcome(5, |_, _| same()), on_another, "{vary}");
    }
}

#[test]
fn two_names_of_one_format_of_keys_and_values_are_not_exercised() {
    let not_exercised = "`kv-format` was not exercised: these names stand for one format";
    for (precision, kv, sentence) in [
        ("bf16", "same\", \"bf16", not_exercised),
        ("map:bf16;down@1=fp16", "same\", \"bf16", not_exercised),
        // In one layer they are one format, in others they are not.
        ("map:bf16;@1=fp16", "same\", \"bf16", ""),
        ("bf16", "same\", \"fp8", ""),
        ("bf16", "bfp12:64\", \"bfp12:64,k-sort", ""),
    ] {
        let gate = "[[gate]]\nvary = \"kv-format\"\nrequire = \"bits\"\n";
        let mut world =
            World::new(&format!("[matrix]\nprecision = \"{precision}\"\nkv-format = [\"{kv}\"]\n{gate}"));
        let (outcome, found) = ruled(&world, |_, _| same());
        assert_eq!(outcome == Outcome::Pass, sentence.is_empty(), "{kv}: {found}");
        assert!(found.starts_with(sentence), "{kv}: {found}");
        // What differs by nothing else has made a difference.
        world.traces = vec![Some(0), Some(1)];
        assert_eq!(ruled(&world, other(1, (vec![(1, 0), (3, 9)], 2))).0, Outcome::Fail, "{kv}");
    }
}

#[test]
fn a_degree_is_exercised_under_every_order_and_a_reduction_where_it_makes_another_sum() {
    let idle = "`reduce` was not exercised: two ranks add the same two parts, and one adds none";
    for (matrix, vary, sentence) in [
        ("order = \"exact\"\ntp = [1, 2]", "tp", ""),
        ("order = \"pairwise\"\ntp = [2, 4]", "tp", ""),
        ("tp = 2\nreduce = [\"tree\", \"ring\", \"one-shot\"]", "reduce", idle),
        ("tp = 2\nreduce = [\"ring\", \"ring:bf16\"]", "reduce", ""),
        ("tp = 3\nreduce = [\"tree\", \"one-shot\"]", "reduce", ""),
    ] {
        let gate = format!("[[gate]]\nvary = \"{vary}\"\nrequire = \"bits\"\n");
        let mut world = World::new(&format!("[matrix]\n{matrix}\n{gate}"));
        let (outcome, found) = ruled(&world, |_, _| same());
        assert_eq!(outcome == Outcome::Pass, sentence.is_empty(), "{matrix}: {found}");
        assert!(found.starts_with(sentence), "{matrix}: {found}");
        world.traces = vec![Some(0), Some(1), Some(0)];
        assert_eq!(ruled(&world, other(1, (vec![(1, 0), (3, 9)], 2))).0, Outcome::Fail, "{matrix}");
    }
}

#[test]
fn functions_are_exercised_where_the_model_calls_another_one() {
    let gate = "[[gate]]\nvary = \"functions\"\nrequire = \"bits\"\n";
    let mut world = World::new(&format!("[matrix]\nfunctions = [\"exact\", \"libm\"]\n{gate}"));
    let (outcome, found) = ruled(&world, |_, _| same());
    assert_eq!(outcome, Outcome::Unknown);
    let idle = "`functions` was not exercised: whatever this model calls is one function under these names";
    assert!(found.starts_with(idle), "{found}");
    world.launches[1].functions = Some(Digest::of(b"libm"));
    assert_eq!(ruled(&world, |_, _| same()).0, Outcome::Pass);
}

#[test]
fn attention_is_exercised_where_a_call_cuts_keys_otherwise() {
    let gate = "[[gate]]\nvary = \"attention\"\nrequire = \"bits\"\n";
    let mut world = World::new(&format!(
        "[matrix]\norder = \"pairwise\"\nattention = [\"split-kv:2\", \"split-kv:rows\"]\n{gate}"
    ));
    let mut launched = |rows: [Option<usize>; 2]| {
        for launches in &mut world.launches {
            [launches.prefill_rows, launches.decode_rows] = rows;
        }
        ruled(&world, |_, _| same())
    };
    let (outcome, found) = launched([Some(2), Some(2)]);
    assert_eq!(outcome, Outcome::Unknown);
    let idle = "`attention` was not exercised: these names stand for as many parts in every call";
    assert!(found.starts_with(idle), "{found}");
    assert_eq!(launched([Some(2), Some(3)]).0, Outcome::Pass);
    assert_eq!(launched([Some(9), Some(2)]).0, Outcome::Pass);
    // Calls that nobody tells of prove nothing.
    assert_eq!(launched([None, Some(2)]).0, Outcome::Unknown);
}

#[test]
fn threads_are_exercised_where_attention_follows_them() {
    let gate = "[[gate]]\nvary = \"threads\"\nrequire = \"bits\"\n";
    let ruled_with = |attention: &str| {
        let mut world =
            World::new(&format!("[matrix]\nthreads = [1, 2]\nattention = \"{attention}\"\n{gate}"));
        world.launches.iter_mut().for_each(|launches| launches.threads = Some(1));
        ruled(&world, |_, _| same()).0
    };
    assert_eq!(ruled_with("split-kv:threads"), Outcome::Pass);
    assert_eq!(ruled_with("split-kv:rows"), Outcome::Unknown);
}

#[test]
fn what_was_read_before_is_exercised_where_anything_was() {
    let nothing = History::default();
    let cases = [
        (
            "cache",
            "\"off\", \"warm:16\"",
            History { cached: 16, ..nothing },
            "as much of every prompt was read",
        ),
        ("verify", "\"off\", 3", History { rejected: 3, ..nothing }, "no token was drafted"),
        (
            "rebuild",
            "\"off\", \"decode:8\"",
            History { rebuilt: 9, ..nothing },
            "no answer was long enough for it",
        ),
    ];
    for (axis, settings, history, idle) in cases {
        let gate = format!("[[gate]]\nvary = \"{axis}\"\nrequire = \"bits\"\n");
        let mut world = World::new(&format!("[matrix]\nbatch = 4\n{axis} = [{settings}]\n{gate}"));
        world.launches[1] = world.launches[0].clone();
        let (outcome, found) = ruled(&world, |_, _| same());
        assert_eq!(outcome, Outcome::Unknown, "{axis}");
        assert!(found.starts_with(&format!("`{axis}` was not exercised: {idle}")), "{found}");
        world.launches[1].history = Some(history);
        assert_eq!(ruled(&world, |_, _| same()).0, Outcome::Pass, "{axis}");
    }
    // Neighbors are what the cell says, where there are any.
    let gate = "[[gate]]\nvary = \"neighbors\"\nrequire = \"bits\"\n";
    let world = World::new(&format!("[matrix]\nbatch = 4\nneighbors = [\"copies\", \"noise:1\"]\n{gate}"));
    assert_eq!(ruled(&world, |_, _| same()).0, Outcome::Pass);
}

#[test]
fn cells_that_keep_keys_and_values_otherwise_are_a_family_and_a_cost_of_their_own() {
    let world = World::new(
        "[matrix]\nprecision = \"bf16\"\nkv-format = [\"same\", \"int4\"]\norder = [\"sequential\", \"pairwise\"]\n",
    );
    let report = world.report(3, |_, _| same());
    let rows = report.precisions.iter().map(|row| (row.precision.as_str(), row.cells));
    assert_eq!(rows.collect::<Vec<_>>(), [("bf16", 2), ("bf16/kv:int4", 2)]);
}

/// The only gate's outcome, and the worst that it found.
fn ruled(world: &World, made: impl Fn(usize, u64) -> Made) -> (Outcome, String) {
    let rulings = world.rulings(9, made);
    let found = rulings[0].findings.first();
    (rulings[0].outcome, found.map_or_else(String::new, |finding| finding.sentence.clone()))
}

#[test]
fn what_is_not_seen_is_never_equal_and_what_is_seen_to_differ_is_other() {
    let bits = (vec![(1, 0), (2, 9)], 1);
    let below = (vec![(1, 0), (2, 1)], 1);
    let tokens = (vec![(1, 0), (3, 9)], 1);
    let (pass, fail, unknown) = (Outcome::Pass, Outcome::Fail, Outcome::Unknown);
    // Of what is the same, of what differs below the best, of other bits and of other tokens.
    for (sight, limit, expected) in [
        (Sight::Text, "require = \"bits\"", [unknown, unknown, unknown, fail]),
        (Sight::Text, "require = \"tokens\"", [unknown, unknown, unknown, fail]),
        (Sight::Text, "require = \"text\"", [pass, pass, pass, fail]),
        (Sight::Text, "require = \"answers\"", [pass; 4]),
        (Sight::Text, "expect = \"diverges\"", [unknown, unknown, unknown, pass]),
        (Sight::Text, "max-divergence-rate = \"5%\"", [unknown, unknown, unknown, fail]),
        (Sight::Tokens, "require = \"bits\"", [unknown, unknown, unknown, fail]),
        (Sight::Tokens, "require = \"tokens\"", [pass, pass, pass, fail]),
        (Sight::Tokens, "expect = \"diverges\"", [unknown, unknown, unknown, pass]),
        (Sight::Tokens, "min-first-divergence = 2", [pass, pass, pass, fail]),
        (Sight::Tokens, "max-divergence-rate = \"5%\"", [pass, pass, pass, fail]),
        (Sight::Tokens, "max-flip-rate = \"5%\"", [pass; 4]),
        (Sight::Tokens, "require = \"top\"", [unknown, unknown, unknown, fail]),
        (Sight::Top, "require = \"top\"", [pass, pass, fail, fail]),
        (Sight::Top, "require = \"bits\"", [unknown, unknown, fail, fail]),
        (Sight::Top, "require = \"tokens\"", [pass, pass, pass, fail]),
        (Sight::Top, "expect = \"diverges\"", [unknown, unknown, pass, pass]),
    ] {
        let mut world = batch(limit);
        world.sights = vec![sight; 2];
        let found = [same(), below.clone(), bits.clone(), tokens.clone()]
            .map(|made| world.outcome(9, other(1, made)));
        assert_eq!(found, expected, "{sight:?} {limit}");
        // It takes both to see.
        if limit.contains("bits") {
            world.sights[0] = Sight::Logits;
            assert_eq!(world.outcome(9, |_, _| same()), unknown, "{sight:?}");
        }
    }
    let mut world = batch("require = \"bits\"");
    let shows = |world: &World| ruled(world, |_, _| same()).1;
    world.sights[0] = Sight::Tokens;
    assert_eq!(shows(&world), "lab/fp32/sequential/t1/b1 shows tokens alone, not all logits: require tokens");
    world.sights = vec![Sight::Text, Sight::Logits];
    assert_eq!(shows(&world), "lab/fp32/sequential/t1/b1 shows text alone: require text");
    // Tokens that were made of a text are not compared with tokens that were chosen.
    let mut mixed = batch("require = \"tokens\"");
    mixed.sights = vec![Sight::Text, Sight::Tokens];
    let (outcome, sentence) = ruled(&mixed, |_, _| same());
    assert_eq!(outcome, unknown);
    assert_eq!(
        sentence,
        "lab/fp32/sequential/t1/b1 shows text alone, which other tokens may make too: require text"
    );
    world.sights = vec![Sight::Top; 2];
    assert_eq!(
        shows(&world),
        "lab/fp32/sequential/t1/b2 shows the best log-probabilities, not all logits: require tokens"
    );
    // Tokens that were given are the same in every cell, whatever it would have chosen.
    for (limit, sight, expected) in [
        ("require = \"tokens\"", Sight::Tokens, unknown),
        ("require = \"tokens\"", Sight::Top, pass),
        ("min-first-divergence = 2", Sight::Tokens, unknown),
        ("max-divergence-rate = \"5%\"", Sight::Tokens, unknown),
        ("require = \"answers\"", Sight::Tokens, pass),
    ] {
        let mut world = batch(limit);
        world.replayed = true;
        world.sights = vec![sight; 2];
        assert_eq!(world.outcome(9, |_, _| same()), expected, "{limit} {sight:?}");
    }
}

#[test]
fn whether_an_axis_was_exercised_cannot_be_told_where_an_engine_does_not_say_what_its_calls_were() {
    let untold = Launches::default();
    for axis in [
        "batch = [1, 2]",
        "threads = [1, 2]",
        "prefill-chunk = [1, 2]",
        "grouping = [\"in-order\", \"by-length\"]",
    ] {
        let name = axis.split(' ').next().unwrap();
        let mut world =
            World::new(&format!("[matrix]\n{axis}\n[[gate]]\nvary = \"{name}\"\nrequire = \"bits\"\n"));
        world.launches[1] = untold.clone();
        let sentence = format!(
            "whether `{name}` made a difference cannot be told: lab does not say what its calls were"
        );
        assert_eq!(ruled(&world, |_, _| same()), (Outcome::Unknown, sentence));
        // What differs all the same has been seen.
        assert_eq!(world.rulings(9, other(1, (vec![(1, 9)], 1)))[0].findings.len(), 1, "{name}");
        let evidence = world.evidence(9, |_, _| same());
        assert_eq!(evidence.attributions()[0].exercised, None, "{name}");
    }
    // One number that differs settles it, and one that is the same does not.
    let mut world = batch("require = \"bits\"");
    world.launches = vec![Launches { prefill_rows: Some(1), ..untold.clone() }; 2];
    assert_eq!(world.outcome(9, |_, _| same()), Outcome::Unknown);
    world.launches[1].prefill_rows = Some(2);
    assert_eq!(world.outcome(9, |_, _| same()), Outcome::Pass);
}

#[test]
fn copies_of_one_prompt_that_differ_break_what_the_best_numbers_must_be_whichever_was_kept() {
    let world = |limit: &str, unlike_copies| {
        let mut world = batch(limit);
        world.sights = vec![Sight::Top; 2];
        world.unlike_copies = vec![0, unlike_copies];
        world
    };
    assert_eq!(world("require = \"top\"", 0).outcome(9, |_, _| same()), Outcome::Pass);
    assert_eq!(world("require = \"tokens\"", 2).outcome(9, |_, _| same()), Outcome::Pass);
    let (outcome, sentence) = ruled(&world("require = \"top\"", 2), |_, _| same());
    assert_eq!(outcome, Outcome::Fail);
    let said = "lab/fp32/sequential/t1/b2 answered copies of one prompt with other tokens or other numbers of the best on 2 of 9 items";
    assert_eq!(sentence, said);
}

#[test]
fn a_baseline_holds_as_far_as_both_it_and_the_run_show() {
    let world = |level: &str, sight| {
        let gate = format!("[matrix]\nbatch = 1\n[[gate]]\nagainst = \"baseline\"\nrequire = \"{level}\"\n");
        let mut world = World::new(&gate);
        world.sights = vec![sight];
        world
    };
    let moved = |tokens: &[(u32, u8)]| (tokens.to_vec(), 1);
    for (level, sights, made, expected) in [
        ("bits", [Sight::Logits; 2], same(), Outcome::Pass),
        ("bits", [Sight::Logits; 2], moved(&[(1, 0), (2, 9)]), Outcome::Fail),
        ("bits", [Sight::Logits, Sight::Tokens], same(), Outcome::Unknown),
        ("bits", [Sight::Tokens, Sight::Logits], same(), Outcome::Unknown),
        ("bits", [Sight::Top; 2], same(), Outcome::Unknown),
        ("bits", [Sight::Tokens; 2], moved(&[(1, 0), (3, 9)]), Outcome::Fail),
        ("tokens", [Sight::Logits, Sight::Tokens], same(), Outcome::Pass),
        ("tokens", [Sight::Tokens; 2], moved(&[(1, 0), (3, 9)]), Outcome::Fail),
        ("answers", [Sight::Tokens; 2], same(), Outcome::Pass),
    ] {
        let [then, now] = sights.map(|sight| world(level, sight));
        let baseline = Baseline::of("m", &then.evidence(9, |_, _| same()));
        let rulings = judge(&now.plan.gates, &now.evidence(9, |_, _| made.clone()), Some(&baseline));
        assert_eq!(rulings[0].outcome, expected, "{level} {sights:?}: {:?}", rulings[0].findings);
        if expected == Outcome::Unknown {
            let what = if sights[0] < sights[1] { "what was approved of " } else { "" };
            let sentence = format!("{what}lab/fp32/sequential/t1/b1 shows ");
            assert!(rulings[0].findings[0].sentence.starts_with(&sentence), "{:?}", rulings[0].findings);
        }
        let digests = baseline.cells.values().next().unwrap().digests;
        assert_eq!(digests.bits.is_some(), sights[0] == Sight::Logits);
    }
    let file =
        serde_json::to_string(&Baseline::of("m", &world("bits", Sight::Top).evidence(1, |_, _| same())));
    let file = file.unwrap();
    assert!(Baseline::read(&file).is_ok(), "{file}");
    for (form, reader) in [("1", "reprocheck 0.1.0"), ("9", "a later version")] {
        let error = Baseline::read(&file.replace("\"form\":2", &format!("\"form\":{form}"))).unwrap_err();
        let sentence =
            format!("is a baseline of form {form}, which {reader} reads, and this version reads form 2");
        assert_eq!(error.to_string(), sentence);
    }
    // Form 1, as it was.
    let old = r#"{"form":1,"model":"m","about":"","cells":{"lab/fp32/exact/t1/b1":{"bits":"","tokens":""}}}"#;
    assert!(Baseline::read(old).unwrap_err().to_string().contains("this version reads form 2"));
}

/// Every kind of gate.
const GATES: &str = r#"
[[gate]]
name = "bits within"
vary = ["batch", "threads"]
require = "bits"
[[gate]]
name = "tokens within"
vary = "batch"
require = "tokens"
[[gate]]
name = "answers within"
vary = "threads"
require = "answers"
[[gate]]
name = "diverges within"
vary = "batch"
expect = "diverges"
[[gate]]
name = "drop within"
vary = "batch"
max-accuracy-drop = "5pp"
[[gate]]
name = "bits"
against = "reference"
require = "bits"
[[gate]]
name = "tokens"
against = "reference"
require = "tokens"
[[gate]]
name = "answers"
against = "reference"
require = "answers"
[[gate]]
name = "diverges"
against = "reference"
expect = "diverges"
[[gate]]
name = "drop"
against = "reference"
max-accuracy-drop = "60pp"
[[gate]]
name = "flips"
against = "reference"
max-flip-rate = "20%"
[[gate]]
name = "divergence"
against = "reference"
max-divergence-rate = "20%"
[[gate]]
name = "first"
against = "reference"
min-first-divergence = 2
[[gate]]
name = "bits as approved"
against = "baseline"
require = "bits"
[[gate]]
name = "tokens as approved"
against = "baseline"
require = "tokens"
[[gate]]
name = "answers as approved"
against = "baseline"
require = "answers"
"#;

/// What an output holds, of so many kinds: others below what the best log-probabilities tell, others that they tell, other
/// tokens at the second place or the first, and other answers, too. Equal logits choose equal tokens.
fn kind(kind: u8) -> Made {
    let (logits, answer): (&[u8], u8) = match kind {
        0 => (&[0, 1, 0], 1),
        1 => (&[0, 2, 0], 1),
        2 => (&[0, 8, 0], 1),
        3 => (&[8, 0], 2),
        _ => (&[0, 0, 0], 1),
    };
    (logits.iter().map(|logits| (1 + u32::from(logits / 8), *logits)).collect(), answer)
}

const SIGHTS: [Sight; 3] = [Sight::Tokens, Sight::Top, Sight::Logits];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A run whose engine shows less can never pass what it could not have been seen to pass.
    #[test]
    fn hiding_evidence_makes_any_outcome_unknown_and_none_another(
        kinds in prop::collection::vec(prop::collection::vec(0..30_u8, 4), 10),
        sees_logits: bool,
        sights in prop::collection::vec((0..2_usize, 0..3_usize), 10),
        launches in prop::collection::vec((0..2_usize, any::<bool>()), 5),
        replayed: bool,
    ) {
        let mut world = World::new(&format!(
            "[reference]\norder = \"exact\"\n[matrix]\nprecision = \"fp32\"\nbatch = [1, 2]\nthreads = [1, 2]\n{GATES}"
        ));
        prop_assert_eq!(world.plan.cells.len(), 5);
        world.replayed = replayed;
        for (at, (alike, _)) in launches.iter().enumerate() {
            world.launches[at] = world.launches[at * alike].clone();
        }
        // The first half is the run, and the second what was approved before.
        let outcomes = |world: &mut World, sights: &dyn Fn(usize) -> Sight| {
            let mut part = |first: usize| {
                world.sights = (0..5).map(|at| sights(first + at)).collect();
                world.evidence(4, |trace, item| kind(kinds[first + trace][item as usize]))
            };
            let (baseline, run) = (Baseline::of("m", &part(5)), part(0));
            let rulings = judge(&world.plan.gates, &run, Some(&baseline));
            rulings.into_iter().map(|ruling| (ruling.gate, ruling.outcome)).collect::<Vec<_>>()
        };
        // Either all logits are seen or none: those of the one cell say nothing beside the log-probabilities of another, which
        // would if they were hidden.
        let level = |at: usize| if sees_logits { 2 } else { sights[at].0 };
        let seen = |at: usize| SIGHTS[level(at)];
        let full = outcomes(&mut world, &seen);
        for (at, (_, hidden)) in launches.iter().enumerate() {
            if *hidden {
                world.launches[at] = Launches { tree: world.launches[at].tree, ..Launches::default() };
            }
        }
        let hidden = |at: usize| SIGHTS[level(at).min(sights[at].1)];
        for ((gate, was), (_, is)) in full.into_iter().zip(outcomes(&mut world, &hidden)) {
            prop_assert!(is == was || is == Outcome::Unknown, "{}: {} became {}", gate, was, is);
            let is_blind = |from: usize| (from..from + 5).all(|at| hidden(at) < Sight::Logits);
            if gate.contains("bits") && (is_blind(0) || gate.contains("approved") && is_blind(5)) {
                prop_assert_ne!(is, Outcome::Pass, "{}", gate);
            }
        }
    }
}
