//! Gates against evidence that is made for the purpose: every limit just kept and just broken, and everything that nobody
//! can tell.

use crate::world::{Made, World};
use reprocheck::{
    plan::axis::Axis,
    stats::proportion::Proportion,
    verdict::{Outcome, worst},
};

fn same() -> Made {
    (vec![(1, 0), (2, 0)], 1)
}

/// Another thing in the second cell's trace, on the first so many items.
fn other(count: u64, made: Made) -> impl Fn(usize, u64) -> Made {
    move |trace, item| if trace == 1 && item < count { made.clone() } else { same() }
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
    // Other cells of the group do not stand in for those that were to vary.
    let mut world = World::new(
        "[matrix]\nbatch = [1, 2]\nthreads = [1, 2]\n[[gate]]\nvary = [\"batch\", \"threads\"]\nrequire = \"bits\"\n",
    );
    world.launches.iter_mut().for_each(|launches| launches.threads = 1);
    let rulings = world.rulings(9, |_, _| same());
    assert_eq!(rulings[0].outcome, Outcome::Unknown);
    assert!(
        rulings[0].findings[0]
            .sentence
            .starts_with("`threads` did not really vary: no call was worth sharing")
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
            .position(|cell| cell.batch.get() == 1 && cell.threads.get() == at + 1)
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
        let moved = cells[trace].batch.get() == 2 && item == 4;
        if moved { (vec![(1, 0), (2, 9)], 1) } else { same() }
    });
    let found = evidence.attributions();
    assert_eq!(found.iter().map(|found| found.axis).collect::<Vec<_>>(), [Axis::Threads, Axis::Batch]);
    assert_eq!((found[0].pairs, found[0].exercised, found[0].agree), (2, 2, [2, 2, 2]));
    assert_eq!((found[1].pairs, found[1].exercised, found[1].agree), (2, 2, [0, 2, 2]));
    assert_eq!(found[1].places, Proportion { hits: 38, of: 40 });
    assert_eq!(found[1].items[0], Proportion { hits: 18, of: 20 });
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
    assert_eq!((spread.tokens.unstable, spread.divergence_index), (Proportion { hits: 4, of: 4 }, Some(1.0)));
    assert_eq!((spread.answers.unstable.hits, spread.deviation_of_accuracy), (0, Some(0.0)));
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
        let trace = |cell: &reprocheck::plan::axis::Cell| trace(cell.batch.get(), cell.threads.get());
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
