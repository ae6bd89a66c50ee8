//! Reports of every verdict, and one of texts that mean harm: what every format is held against.

use reprocheck::{
    compare::Level,
    report::{Missing, Report, Stated, Surrounding},
    trace::{Launches, Sight},
    verdict::Outcome,
};

use super::{Made, World};

/// Whatever might mean something to whoever shows it.
pub(crate) const WICKED: &str = "<script>alert(1)</script>|a`b``c```d]]>&amp;😀\u{202e}\u{1b}[31m\0\r\n\r\n::error::x%0A=cmd()@team #1 \
                      [x](http://a.b) ![y](z) www.a.b me@a.b **b** $x$ :+1: \u{2028}\u{feff}\u{ffff}\\";

const PAIR: &str = "[reference]\norder = \"exact\"\n[matrix]\nprecision = [\"fp32\", \"bf16\"]\n";
pub(crate) const BITS: &str = "[[gate]]\nname = \"bits\"\nagainst = \"reference\"\nrequire = \"bits\"\n";
pub(crate) const DROP: &str =
    "[[gate]]\nname = \"accuracy\"\nagainst = \"reference\"\nmax-accuracy-drop = \"5pp\"\n";

fn same() -> Made {
    (vec![(1, 0), (2, 0)], 1)
}

/// The last cell writes something else on the first so many items.
pub(crate) fn other(count: u64) -> impl Fn(usize, u64) -> Made {
    move |trace, item| if trace == 2 && item < count { (vec![(1, 0), (3, 9)], 2) } else { same() }
}

pub(crate) fn world(gates: &[&str]) -> World {
    let mut world = World::new(&(PAIR.to_owned() + &gates.concat()));
    world.text = "1 and 2".to_owned();
    world
}

fn passing() -> Report {
    // All share one trace.
    let mut world = world(&[BITS, DROP]);
    world.traces = vec![Some(0); 3];
    world.report(400, other(0))
}

pub(crate) fn failing() -> Report {
    world(&[DROP, BITS]).report(400, other(3))
}

fn undecided() -> Report {
    world(&[DROP]).report(20, other(1))
}

fn unknown() -> Report {
    let mut world = world(&[BITS, DROP]);
    world.traces[2] = None;
    world.report(20, other(0))
}

fn empty() -> Report {
    let mut world = World::new("[matrix]\nbatch = 1\n");
    (world.plan.reference, world.plan.cells, world.plan.gates) = (None, vec![], vec![]);
    (world.traces, world.launches) = (vec![], vec![]);
    world.report(0, other(0))
}

fn one_cell() -> Report {
    World::new("[matrix]\nbatch = 1\n").report(3, other(0))
}

/// A run of another model, held against the one before.
fn changed() -> Report {
    let mut after = world(&[DROP, BITS]);
    after.name = "another".to_owned();
    // One of its cells elsewhere than before.
    after.elsewhere = vec![2];
    world(&[DROP, BITS]).change(&after, 400, Level::Bits, other(0), other(3))
}

/// Two configurations at each of two temperatures, and what each draws under four seeds: an item is right under one of them, or
/// under all, and the seed decides every text. The batch moves one answer.
pub(crate) fn drawn_world(gates: &[&str]) -> World {
    World::new(
        &("[generate]\nchoice = \"sampled\"\n[reference]\norder = \"exact\"\n[matrix]\nprecision = \"bf16\"\ntemperature = [0.6, \
           1.0]\nbatch = [1, 2]\nseed = [0, 1, 2, 3]\n"
            .to_owned()
            + &gates.concat()),
    )
}

pub(crate) fn drawn_made(world: &World) -> impl Fn(usize, u64) -> Made {
    let cells = world.plan.cells.clone();
    move |trace, item| {
        let serving = cells[trace].serving;
        let is_right = item % 2 == 0 || item / 2 % 4 == serving.seed;
        let is_moved = serving.batch.get() == 2 && (item, serving.seed) == (0, 1);
        (vec![(10 + serving.seed as u32, 0), (is_moved.into(), 0)], if is_right && !is_moved { 1 } else { 2 })
    }
}

fn drawn() -> Report {
    let world = drawn_world(&[DROP]);
    world.report(40, drawn_made(&world))
}

/// Every text that comes from outside.
pub(crate) fn wicked() -> Report {
    let mut world = world(&[BITS, DROP]);
    world.text = WICKED.to_owned();
    world.name = WICKED.to_owned();
    for gate in &mut world.plan.gates {
        gate.name = WICKED.to_owned();
    }
    let mut report = world.report(20, other(1));
    let cell = report.cells[0].cell;
    let value = Some(WICKED.to_owned());
    report.surroundings = vec![Surrounding {
        engine: WICKED.to_owned(),
        what: WICKED.to_owned(),
        values: vec![Stated { value, cells: vec![cell] }, Stated { value: None, cells: Vec::new() }],
    }];
    report.run.profile = Some(WICKED.to_owned());
    report.run.model.origin = format!("{WICKED}!");
    report.run.model.architecture = WICKED.to_owned();
    report.missing = vec![Missing { cell, reason: WICKED.to_owned() }];
    for ruling in &mut report.rulings {
        ruling.notes = vec![WICKED.to_owned()];
        for finding in &mut ruling.findings {
            finding.sentence = WICKED.to_owned();
        }
    }
    let divergence = &mut report.first.as_mut().unwrap().divergence;
    divergence.stratum = WICKED.to_owned();
    divergence.right = WICKED.to_owned();
    for side in &mut divergence.sides {
        side.answer = Some(WICKED.to_owned());
    }
    report
}

/// Cells of engines that show less than the reference, one of which does not tell what its calls were.
fn blind() -> Report {
    let mut world = world(&[BITS, DROP]);
    world.sights = vec![Sight::Logits, Sight::Tokens, Sight::Top];
    world.launches[1] = Launches::default();
    world.report(400, other(3))
}

/// Every case by its name, with its verdict.
pub(crate) fn every() -> [(&'static str, Outcome, Report); 10] {
    [
        ("passing", Outcome::Pass, passing()),
        ("failing", Outcome::Fail, failing()),
        ("undecided", Outcome::Undecided, undecided()),
        ("unknown", Outcome::Unknown, unknown()),
        ("empty", Outcome::Unknown, empty()),
        ("one-cell", Outcome::Unknown, one_cell()),
        ("changed", Outcome::Fail, changed()),
        ("drawn", Outcome::Undecided, drawn()),
        ("wicked", Outcome::Fail, wicked()),
        ("blind", Outcome::Fail, blind()),
    ]
}
