//! One run held against another: what became of each cell, what tells those that changed, and which gates are worse.

use crate::world::{Made, World};
use reprocheck::{
    cell::Axis,
    compare::Level,
    report::{
        Report,
        text::{self, Look},
    },
    trace::Sight,
    verdict::Outcome,
};

const MATRIX: &str = "[matrix]\nprecision = [\"fp32\", \"bf16\"]\nbatch = [1, 8]\n";
const GATE: &str = "[[gate]]\nname = \"batches\"\nvary = \"batch\"\nrequire = \"bits\"\n";

fn world() -> World {
    World::new(&(MATRIX.to_owned() + GATE))
}

fn same(_: usize, _: u64) -> Made {
    (vec![(1, 0), (2, 0)], 1)
}

/// The cells with a batch of 8 have other logits on the first items, and others and other tokens on the very first.
fn batch_moves(trace: usize, item: u64) -> Made {
    match (trace % 2, item) {
        (1, 0) => (vec![(1, 0), (3, 9)], 2),
        (1, 1..3) => (vec![(1, 0), (2, 9)], 1),
        _ => same(trace, item),
    }
}

fn change(level: Level, before: impl Fn(usize, u64) -> Made, after: impl Fn(usize, u64) -> Made) -> Report {
    world().change(&world(), 10, level, before, after)
}

#[test]
fn a_run_is_as_it_was_beside_itself() {
    let report = change(Level::Bits, batch_moves, batch_moves);
    assert_eq!(report.verdict, Outcome::Pass, "{:?}", report.rulings);
    assert_eq!(report.first, None);
    let before = report.before.as_ref().unwrap();
    assert_eq!((before.others.len(), before.verdicts), (0, [Outcome::Fail; 2]));
    // The gate does not hold now, and did not before.
    assert_eq!(report.rulings[1].notes, ["it was fail before, too"]);
    assert!(
        text::report(&report).starts_with("PASS: the bits of 4 cells are what they were\n"),
        "{}",
        text::report(&report)
    );
}

#[test]
fn what_changed_is_named_and_so_is_what_tells_it_from_the_rest() {
    let report = change(Level::Bits, same, batch_moves);
    assert_eq!(report.verdict, Outcome::Fail);
    let [cells, gate] = &report.rulings[..] else { panic!("{:?}", report.rulings) };
    assert_eq!((cells.comparisons, cells.held, cells.findings.len()), (4, 2, 2));
    assert_eq!(
        cells.findings[0].sentence,
        "lab/fp32/sequential/t1/b8 has other bits than before on 3 of 10 items"
    );
    assert!(gate.findings[0].sentence.starts_with("it was pass before, and is fail now: "), "{gate:?}");
    let first = report.first.as_ref().unwrap();
    assert_eq!(first.cells[0], first.cells[1]);
    assert_eq!((first.divergence.item, first.divergence.place), (0, 1));
    let before = report.before.as_ref().unwrap();
    let of_batch: Vec<_> = before.settings.iter().filter(|row| row.axis == Axis::Batch).collect();
    assert_eq!(of_batch.len(), 2);
    let agree = |at: usize| of_batch[at].agree.into_values();
    assert_eq!((agree(0), agree(1), of_batch[1].cells), ([2, 2, 2].map(Some), [0, 0, 0].map(Some), 2));
    let shown = text::report(&report);
    assert!(
        shown.starts_with("FAIL: 2 of 4 cells have other bits than before, 1 of 1 gate is worse\n"),
        "{shown}"
    );
    assert!(shown.contains("\nThe cells with other bits are those with batch 8.\n"), "{shown}");
    assert!(shown.contains("  A  lab/fp32/sequential/t1/b8 before\n  B  lab/fp32/sequential/t1/b8 after\n"));
    let against = report.cells[1].against.as_ref().unwrap();
    assert_eq!((against.paired.lost, against.paired.gained, against.items.bits.unwrap().hits), (1, 0, 7));
}

#[test]
fn a_lower_level_lets_other_bits_pass_and_no_gate_that_is_worse() {
    let only_bits = |trace: usize, item: u64| match batch_moves(trace, item) {
        (tokens, 1) => (tokens, 1),
        _ => same(trace, item),
    };
    let mut worlds = [world(), world()];
    assert_eq!(change(Level::Tokens, same, only_bits).verdict, Outcome::Fail, "the gate is worse");
    worlds.iter_mut().for_each(|world| world.plan.gates.clear());
    let [before, after] = &worlds;
    for (level, verdict) in
        [(Level::Bits, Outcome::Fail), (Level::Tokens, Outcome::Pass), (Level::Answers, Outcome::Pass)]
    {
        assert_eq!(before.change(after, 10, level, same, only_bits).verdict, verdict, "{level}");
    }
}

#[test]
fn a_gate_that_holds_again_is_a_note_and_one_that_another_matrix_has_is_not_compared() {
    let report = change(Level::Answers, batch_moves, batch_moves);
    assert_eq!(report.rulings.len(), 2);
    let better = change(Level::Bits, batch_moves, same);
    assert_eq!(better.rulings[1].outcome, Outcome::Pass);
    assert_eq!(better.rulings[1].notes, ["it was fail before, and is pass now"]);
    let mut after = world();
    after.plan.gates[0].name = "another".to_owned();
    let report = world().change(&after, 10, Level::Bits, same, batch_moves);
    assert_eq!(report.rulings.len(), 1);
    assert_eq!(
        report.rulings[0].notes,
        ["the gate batches is in the run before alone", "the gate another is in the run after alone"]
    );
    // Another line of the file is no other gate.
    after = world();
    after.plan.gates[0].line += 7;
    assert_eq!(world().change(&after, 10, Level::Bits, same, same).rulings.len(), 2);
}

#[test]
fn a_cell_that_has_run_in_one_alone_is_missing() {
    let mut after = world();
    after.traces[3] = None;
    let report = world().change(&after, 10, Level::Bits, same, same);
    assert_eq!(report.verdict, Outcome::Unknown);
    assert_eq!(report.missing.len(), 1);
    assert_eq!(report.missing[0].reason, "it is in the other run alone");
    let shown = text::report(&report);
    assert!(
        shown.starts_with(
            "UNKNOWN: the bits of 3 cells are what they were, 1 of 1 gate is worse, 1 cell is not in both\n"
        ),
        "{shown}"
    );
    let other = World::new("[matrix]\nprecision = \"fp16\"\n");
    let nothing = world().change(&other, 10, Level::Bits, same, same);
    assert_eq!((nothing.verdict, nothing.missing.len(), nothing.cells.len()), (Outcome::Unknown, 5, 0));
    assert!(
        text::report(&nothing).starts_with("UNKNOWN: no cell has run in both, 5 cells are not in both\n")
    );
}

#[test]
fn what_the_runs_say_of_themselves_is_compared() {
    let mut after = world();
    after.name = "another".to_owned();
    let report = world().change(&after, 10, Level::Bits, same, same);
    let others = &report.before.as_ref().unwrap().others;
    let names: Vec<_> = others.iter().map(|other| other.what.as_str()).collect();
    assert_eq!(names, ["matrix", "model"]);
    assert_eq!((others[0].before.as_str(), others[0].after.as_str()), ("m.toml", "another.toml"));
}

#[test]
fn cells_are_alike_only_if_they_have_become_alike_from_the_same() {
    // All have the same bits now, and two had others.
    let mut after = world();
    after.traces = vec![Some(0); 4];
    let shown = text::report(&world().change(&after, 10, Level::Bits, batch_moves, same));
    let rows: Vec<_> = shown.lines().filter(|line| line.starts_with("lab/")).collect();
    assert_eq!(rows.len(), 2, "{shown}");
    assert!(rows.iter().all(|row| row.split_whitespace().nth(1) == Some("2")), "{shown}");
}

#[test]
fn accuracy_stands_beside_what_it_was() {
    let shown = text::report(&change(Level::Bits, same, batch_moves));
    let lines: Vec<_> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for begin in ["fp32 before 2 2 100 % 0.000", "fp32 after 2 2 95.0 %"] {
        assert!(lines.iter().any(|line| line.starts_with(begin)), "{begin} in {shown}");
    }
}

#[test]
fn a_missing_cell_is_no_pass_even_where_no_gate_speaks() {
    let mut worlds = [world(), world()];
    worlds.iter_mut().for_each(|world| world.plan.gates.clear());
    worlds[1].traces[3] = None;
    let [before, after] = &worlds;
    let report = before.change(after, 10, Level::Bits, same, same);
    assert_eq!(report.rulings.iter().map(|ruling| ruling.outcome).collect::<Vec<_>>(), [Outcome::Pass]);
    assert_eq!(report.verdict, Outcome::Unknown);
}

#[test]
fn a_setting_of_which_some_cells_changed_and_some_did_not_tells_nothing() {
    let one_of_four = |trace: usize, item: u64| batch_moves(usize::from(trace == 1), item);
    let report = change(Level::Bits, same, one_of_four);
    assert_eq!(report.rulings[0].findings.len(), 1);
    assert!(!text::report(&report).contains("The cells with other bits are"), "{}", text::report(&report));
}

#[test]
fn a_wide_terminal_sees_more_columns_and_a_narrow_one_shorter_names() {
    let matrix = "[reference]\norder = \"exact\"\n[matrix]\nprecision = [\"layercast\", \"cast:e4m3\"]\n\
                  order = \"pairwise\"\nbatch = [128, 256]\nprefill-chunk = 1024\n";
    let report = World::new(matrix).report(10, batch_moves);
    for width in [80, 104, 200] {
        let shown = text::shown(&report, Look { width, ..Look::PLAIN });
        let longest = shown.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(width), "{width}: {shown}");
        assert_eq!(shown.contains("95 % interval"), width == 200, "{width}: {shown}");
        let (_, cells) = shown.split_once("\nCells, the worst first\n").unwrap();
        assert_eq!(cells.contains("\nlab/cast:e4m3/pairwise/t1/b256/c1024 "), width > 80, "{shown}");
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let told = flat.contains("The names leave out what all have in common: lab/t1/c1024.");
        assert_eq!(told, width == 80, "{shown}");
        assert!(!shown.contains('\u{1b}'));
    }
    let colored = text::shown(&report, Look { color: true, ..Look::PLAIN });
    assert!(colored.starts_with("\u{1b}[1m\u{1b}[35mUNKNOWN\u{1b}[0m: "), "{colored}");
}

#[test]
fn what_is_not_seen_is_not_as_it_was() {
    let mut worlds = [world(), world()];
    worlds[1].sights[3] = Sight::Tokens;
    worlds.iter_mut().for_each(|world| world.plan.gates.clear());
    let [before, after] = &worlds;
    let report = before.change(after, 10, Level::Bits, same, same);
    assert_eq!(report.verdict, Outcome::Unknown);
    let cells = &report.rulings[0];
    assert_eq!((cells.held, cells.findings.len()), (3, 1));
    assert_eq!(
        cells.findings[0].sentence,
        "lab/bf16/sequential/t1/b8 after shows tokens alone, not all logits: require tokens"
    );
    let shown = text::report(&report);
    let begin = "UNKNOWN: whether the bits of 1 cell are what they were cannot be told\n";
    assert!(shown.starts_with(begin), "{shown}");
    let of_batch: Vec<_> = report.before.as_ref().unwrap().settings.iter().collect();
    assert!(of_batch.iter().any(|row| row.agree.bits.is_none() && row.agree.tokens == Some(row.cells)));
    assert_eq!(before.change(after, 10, Level::Tokens, same, same).verdict, Outcome::Pass);
    // Other tokens are other bits, whatever is seen.
    assert_eq!(before.change(after, 10, Level::Bits, same, batch_moves).rulings[0].findings.len(), 2);
}
