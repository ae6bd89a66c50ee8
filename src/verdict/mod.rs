//! Gates against evidence: what holds, what does not, and what nobody can tell.

pub mod baseline;
mod configurations;
pub mod draws;
mod drops;
pub mod evidence;
pub mod summary;

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use self::{
    baseline::{Approval, Baseline},
    drops::Drops,
    evidence::{Evidence, Known},
};
use crate::{
    cell::{Axis, Cell, Compute},
    compare::{Count, Divergence, Level, Tally},
    engine::environment::{ENGINE, Environment, MACHINE, stated},
    numerics::special::binomial_tail,
    plan::gate::{Comparison, Gate, Limit, apart},
    record::SelfTested,
    trace::Sight,
};

/// What became of a gate, from the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// There are too few items to tell.
    Undecided,
    /// The evidence is missing.
    Unknown,
    /// It does not hold.
    Fail,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Pass => "pass",
            Outcome::Undecided => "undecided",
            Outcome::Unknown => "unknown",
            Outcome::Fail => "fail",
        })
    }
}

/// What became of one gate.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Ruling {
    /// The name of the gate.
    pub gate: String,
    /// The line of the matrix file that it begins in; nothing where no file asked for it.
    pub line: Option<usize>,
    /// The worst outcome of its findings.
    pub outcome: Outcome,
    /// How many comparisons it made.
    pub comparisons: usize,
    /// How many of its comparisons hold.
    pub held: usize,
    /// What does not hold or cannot be told, the worst first.
    pub findings: Vec<Finding>,
    /// What a reader of a pass should know, in sentences.
    pub notes: Vec<String>,
}

/// One thing that does not hold, or cannot be told.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub outcome: Outcome,
    /// What does not hold or cannot be told, in a sentence.
    pub sentence: String,
    /// The cell that was compared with, and the one that was compared; nothing where it is not about two cells.
    pub cells: Option<[Cell; 2]>,
    /// Where the two first part, if they do. A gate shows that of 100 findings, the worst first, and a note says so where there are
    /// more.
    pub first: Option<Divergence>,
}

/// So many findings of a gate show where two cells part: prompt and texts of each are long.
const SHOWN: usize = 100;

/// Leaves out where cells part in all findings but the first of those that show it, and says so where there are more.
pub(crate) fn shorten(findings: &mut [Finding]) -> Option<String> {
    let parted: Vec<_> =
        findings.iter_mut().map(|finding| &mut finding.first).filter(|first| first.is_some()).collect();
    let all = parted.len();
    parted.into_iter().skip(SHOWN).for_each(|first| *first = None);
    (all > SHOWN).then(|| {
        format!(
            "of {all} findings {SHOWN} show where the two cells part: `reprocheck diff` shows it of any two"
        )
    })
}

impl Finding {
    fn unknown(sentence: impl Into<String>) -> Finding {
        Finding { outcome: Outcome::Unknown, sentence: sentence.into(), cells: None, first: None }
    }
}

/// Judges every gate, in their order.
pub fn judge(gates: &[Gate], evidence: &Evidence, baseline: Option<&Baseline>) -> Vec<Ruling> {
    gates.iter().map(|gate| rule(gate, evidence, baseline)).collect()
}

/// The worst of all rulings; without gates nothing was asked to hold, and so nobody can tell whether it does.
pub fn worst(rulings: &[Ruling]) -> Outcome {
    rulings.iter().map(|ruling| ruling.outcome).max().unwrap_or(Outcome::Unknown)
}

/// What a run says of its own gates, where faults were seeded under them: what they did not see then, they would not see now.
pub fn of_faults(tested: &SelfTested) -> Ruling {
    let (of, findings) = (tested.of as usize, tested.lacks.iter().map(Finding::unknown).collect::<Vec<_>>());
    Ruling {
        gate: "every seeded fault is seen".to_owned(),
        line: None,
        outcome: if findings.is_empty() { Outcome::Pass } else { Outcome::Unknown },
        comparisons: of,
        held: of - findings.len().min(of),
        findings,
        notes: Vec::new(),
    }
}

fn rule(gate: &Gate, evidence: &Evidence, baseline: Option<&Baseline>) -> Ruling {
    let mut bench =
        Bench { gate, evidence, comparisons: 0, held: 0, findings: Vec::new(), notes: Vec::new() };
    match &gate.comparison {
        Comparison::Within(vary) => bench.within(vary),
        Comparison::Reference => bench.against_reference(),
        Comparison::Baseline => bench.against_baseline(baseline),
    }
    if bench.comparisons == 0 && bench.findings.is_empty() {
        bench.findings.push(Finding::unknown("nothing was compared"));
    }
    // Stable, so that of equally bad ones the first cell comes first.
    bench.findings.sort_by_key(|finding| std::cmp::Reverse(finding.outcome));
    bench.notes.extend(shorten(&mut bench.findings));
    Ruling {
        gate: gate.name.clone(),
        line: Some(gate.line),
        outcome: bench.findings.first().map_or(Outcome::Pass, |finding| finding.outcome),
        comparisons: bench.comparisons,
        held: bench.held,
        findings: bench.findings,
        notes: bench.notes,
    }
}

/// One gate, while it is judged.
struct Bench<'a> {
    gate: &'a Gate,
    evidence: &'a Evidence,
    comparisons: usize,
    held: usize,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl<'a> Bench<'a> {
    fn within(&mut self, vary: &[Axis]) {
        let groups = self.gate.groups(self.evidence.plan());
        let groups: Vec<_> = groups.into_iter().filter(|group| group.len() > 1).collect();
        let pairs = groups.iter().flat_map(|group| group[1..].iter().map(|cell| [group[0], *cell]));
        self.pairs(&pairs.collect::<Vec<_>>());
        // What differs has varied, and what should and does not has failed already.
        if self.gate.limits.contains(&Limit::Diverges) {
            return;
        }
        for axis in vary {
            let varying: Vec<_> = groups
                .iter()
                .filter(|group| group.iter().any(|cell| cell.get(*axis) != group[0].get(*axis)))
                .collect();
            let told: Vec<_> = varying.iter().map(|group| self.evidence.exercised(*axis, group)).collect();
            let untold = varying.iter().find_map(|group| self.evidence.untold(*axis, group));
            if let (Some(cell), false) = (untold, told.contains(&Some(true))) {
                let engine = cell.compute.engine();
                self.findings.push(Finding::unknown(format!(
                    "whether `{axis}` made a difference cannot be told: {engine} does not say what its calls were"
                )));
                continue;
            }
            let idle: Vec<_> = varying
                .iter()
                .zip(&told)
                .filter(|(_, told)| **told == Some(false))
                .map(|(group, _)| group)
                .collect();
            if idle.is_empty() {
                continue;
            }
            let first = idle[0][0];
            if idle.len() == varying.len() {
                self.findings.push(Finding::unknown(format!(
                    "`{axis}` was not exercised: {} ({}); {}",
                    idle_sentence(*axis),
                    example(&idle[0][..]),
                    idle_way_out(*axis)
                )));
            } else {
                self.notes.push(format!(
                    "in {} of {} groups `{axis}` made no difference to what ran, such as that of {first}",
                    idle.len(),
                    varying.len()
                ));
            }
        }
    }

    fn against_reference(&mut self) {
        let pairs = self.evidence.plan().iter().filter(|cell| self.gate.filter.matches(cell));
        let pairs = pairs.filter_map(|cell| Some([self.evidence.references().of(*cell)?, *cell]));
        self.pairs(&pairs.collect::<Vec<_>>());
    }

    fn against_baseline(&mut self, baseline: Option<&Baseline>) {
        let Some(baseline) = baseline else {
            let sentence = "there is no baseline to hold it against: name one with --baseline, made by `reprocheck approve`";
            return self.findings.push(Finding::unknown(sentence));
        };
        if let Some(difference) = baseline.differs_from(self.evidence) {
            return self.findings.push(Finding::unknown(format!(
                "the baseline is about something else: {difference}; approve a run of this matrix, or name another baseline"
            )));
        }
        for &cell in self.evidence.plan() {
            if !self.gate.filter.matches(&cell) {
                continue;
            }
            self.comparisons += 1;
            let levels = self.gate.limits.iter().filter_map(|limit| match limit {
                Limit::Require(level) => Some(*level),
                _ => None,
            });
            let level = levels.min().unwrap_or(Level::Bits);
            let (outcome, sentence) = match self.evidence.known(cell) {
                None => (Outcome::Unknown, format!("{cell} has left nothing to compare")),
                Some(known) => match baseline.compare(self.evidence, known) {
                    Approval::New => {
                        (Outcome::Unknown, format!("the baseline does not have {cell}: approve this run"))
                    }
                    Approval::Elsewhere => (
                        Outcome::Unknown,
                        format!(
                            "{cell} was approved on another machine or version of its engine: approve it here"
                        ),
                    ),
                    Approval::Beside { same, sights } => match same[level] {
                        Some(true) => (Outcome::Pass, String::new()),
                        Some(false) => {
                            (Outcome::Fail, format!("{cell} has other {level} than were approved"))
                        }
                        None => (Outcome::Unknown, untold_since(cell, sights, level)),
                    },
                },
            };
            if outcome == Outcome::Pass {
                self.held += 1;
            } else {
                self.findings.push(Finding { outcome, sentence, cells: None, first: None });
            }
        }
    }

    fn pairs(&mut self, pairs: &[[Cell; 2]]) {
        self.configurations();
        if self.gate.limits.iter().all(Limit::is_of_configurations) {
            return;
        }
        let drops = Drops::of(self.gate, self.evidence, pairs);
        let of_rows = self.gate.limits.iter().filter(|limit| limit.is_of_rows()).count();
        for [one, other] in pairs {
            self.pair(*one, *other, &drops, of_rows * pairs.len());
        }
    }

    /// Compares two cells under every limit. So many tests of rows does the gate make.
    fn pair(&mut self, one: Cell, other: Cell, drops: &Drops, tests: usize) {
        self.comparisons += 1;
        for cell in [one, other] {
            if self.evidence.known(cell).is_none() {
                self.findings.push(Finding::unknown(format!("{cell} has left nothing to compare")));
                return;
            }
        }
        let known = [one, other].map(|cell| self.evidence.known(cell));
        if let [Some(a), Some(b)] = known
            && is_elsewhere(a, b)
        {
            let both = [a, b].map(|known| &known.environment);
            let differ = Environment::differences(both).into_iter().map(|(what, both)| {
                let [here, there] = &both;
                format!("{what}: {} and {}", stated(here.as_deref()), stated(there.as_deref()))
            });
            let differ = differ.collect::<Vec<_>>().join("; ");
            return self.findings.push(Finding::unknown(format!(
                "{one} and {other} did not run in the same surroundings ({differ}), which may be what moved: run both in one"
            )));
        }
        let tally = self.evidence.tally(one, other).filter(|tally| tally.items() > 0);
        let (Some(traces), Some(tally)) = (self.evidence.traces(one, other), tally) else {
            self.findings.push(Finding::unknown(format!("{one} and {other} have no items to compare")));
            return;
        };
        if tally.answered.hits == 0 && self.gate.limits.iter().any(Limit::needs_answers) {
            return self.findings.push(Finding::unknown(no_answer(one, other)));
        }
        let sights = [one, other].map(|cell| self.evidence.known(cell).map(|known| known.sight));
        // Of two that show as little the sentence names the second, which is not the one that others are held against.
        let blind = if sights[0] < sights[1] { one } else { other };
        let sight = sights.into_iter().flatten().min().unwrap_or(Sight::Tokens);
        let untold = |level: Level| (Outcome::Unknown, untold(&blind.to_string(), sight, level));
        let unlike = [one, other].into_iter().find_map(|cell| {
            let count = self.evidence.known(cell)?.unlike_copies;
            let of = tally.items();
            (count > 0).then(|| {
                format!(
                    "{cell} answered copies of one prompt with other tokens or other numbers of the best on {count} of {of} items"
                )
            })
        });
        let failed = self.gate.limits.iter().filter_map(|limit| {
            let is_top = *limit == Limit::Top;
            let of_copies = || unlike.clone().filter(|_| is_top).map(|sentence| (Outcome::Fail, sentence));
            breaks(*limit, tally, [one, other], (traces, drops, tests), &untold).or_else(of_copies)
        });
        let Some((outcome, sentence)) = failed.max_by_key(|(outcome, _)| *outcome) else {
            self.held += 1;
            return;
        };
        let first = tally.first().cloned();
        self.findings.push(Finding { outcome, sentence, cells: Some([one, other]), first });
    }
}

/// Why nothing can be said of what is right.
fn no_answer(one: Cell, other: Cell) -> String {
    format!("no answer was found in any text of {one} and {other}: let more tokens follow")
}

/// Did one of two cells run somewhere else, so far as no setting of theirs says so? The bits of a pinned engine are the same
/// everywhere; those of another one depend on where it ran.
fn is_elsewhere(one: &Known, other: &Known) -> bool {
    let (a, b) = (&one.environment, &other.environment);
    match (one.cell.compute, other.cell.compute) {
        (one, other) if one.entry().pinned || other.entry().pinned => false,
        (one, other) if one.engine() != other.engine() => false,
        // What a server says of itself follows its settings; its version and its machine do not.
        (Compute::Server(one), Compute::Server(other)) if one.settings != other.settings => {
            std::iter::once(ENGINE).chain(MACHINE).any(|what| a.says(what) != b.says(what))
        }
        _ => a != b,
    }
}

/// Why a level cannot be told of a cell, and what can.
pub(crate) fn untold(cell: &str, sight: Sight, level: Level) -> String {
    match level {
        Level::Bits => {
            let (not, way_out) = match sight {
                Sight::Text => ("", "require text"),
                Sight::Tokens => (", not all logits", "require tokens"),
                _ => ("", "require tokens"),
            };
            format!("{cell} shows {sight}{not}: {way_out}")
        }
        Level::Tokens if sight == Sight::Text => {
            format!("{cell} shows {sight}, which other tokens may make too: require text")
        }
        _ => format!(
            "{cell} was given its tokens, and does not show which it would have chosen: require answers"
        ),
    }
}

/// The same of a cell beside what was approved of it.
fn untold_since(cell: Cell, [then, now]: [Sight; 2], level: Level) -> String {
    if then < now {
        untold(&format!("what was approved of {cell}"), then, level)
    } else {
        untold(&cell.to_string(), now, level)
    }
}

/// In which way two cells break a limit, if they do, or why that cannot be told.
fn breaks(
    limit: Limit,
    tally: &Tally,
    [one, other]: [Cell; 2],
    (traces, drops, tests): ((usize, usize), &Drops, usize),
    untold: &dyn Fn(Level) -> (Outcome, String),
) -> Option<(Outcome, String)> {
    let fail = |sentence: String| Some((Outcome::Fail, sentence));
    let rate = |hits: u64, of: u64| hits as f64 / of as f64;
    match limit {
        Limit::Require(level) => match tally.agrees(level) {
            Some(true) => None,
            None => Some(untold(level)),
            Some(false) => {
                let (items, others) = (tally.items(), tally.levels[level].other);
                fail(format!("{other} has other {level} than {one} on {others} of {items} items"))
            }
        },
        Limit::Top => match tally.tops.all() {
            Some(true) => None,
            None => Some((
                Outcome::Unknown,
                format!(
                    "{other} or {one} does not show the numbers of the best at every place: require tokens"
                ),
            )),
            Some(false) => {
                let (items, others) = (tally.items(), tally.tops.other);
                fail(format!(
                    "{other} has other tokens or other numbers of the best than {one} on {others} of {items} items"
                ))
            }
        },
        Limit::Text => match tally.texts.all() {
            Some(true) => None,
            None => Some((
                Outcome::Unknown,
                format!("{other} or {one} was given its text and has written none: require answers"),
            )),
            Some(false) => {
                let (items, others) = (tally.items(), tally.texts.other);
                fail(format!("{other} has another text than {one} on {others} of {items} items"))
            }
        },
        Limit::Diverges => match tally.agrees(Level::Bits) {
            Some(false) => None,
            None => Some(untold(Level::Bits)),
            Some(true) => fail(format!(
                "{other} has the bits of {one} on all {} items, and should have others",
                tally.items()
            )),
        },
        Limit::AccuracyDrop { most, confidence } => drops.breaks(traces, [one, other], most, confidence),
        Limit::PassDrop { .. } | Limit::PassDeviation(_) => None,
        Limit::FlipRate(most) => {
            let flips = tally.change().counts.flips();
            (rate(flips.hits, flips.of) > most).then_some(())?;
            fail(format!(
                "{other} and {one} differ in what is right on {} of {} items, where {:.2} % may be",
                flips.hits,
                flips.of,
                100.0 * most
            ))
        }
        Limit::DivergenceRate(most) => {
            let (Count { other: others, untold: unseen, .. }, of) = (tally.levels.tokens, tally.items());
            if rate(others, of) > most {
                return fail(format!(
                    "{other} has other tokens than {one} on {others} of {of} items, where {:.2} % may be",
                    100.0 * most
                ));
            }
            (rate(others + unseen, of) > most).then(|| untold(Level::Tokens))
        }
        Limit::FirstDivergence(least) => {
            if let Some(first) = tally.course.first_part().filter(|first| *first < least) {
                return fail(format!(
                    "{other} parts from {one} after {first} tokens, where the first {least} must be equal"
                ));
            }
            (tally.levels.tokens.untold > 0).then(|| untold(Level::Tokens))
        }
        Limit::Rows { measure, most, exceeding } => {
            let (items, rows) = (tally.items(), tally.places.of());
            let (beyond, unseen) = tally.beyond(measure, most).unwrap_or((0, items));
            // However rows of an item hang together: at most so many items, in the mean, have a row that exceeds it.
            let expected = rate(rows, items) * exceeding;
            let chance = if beyond == 0 { 1.0 } else { binomial_tail(beyond, items, expected.min(1.0)) };
            if chance <= (1.0 - CONFIDENCE) / tests.max(1) as f64 {
                let may = if exceeding == 0.0 {
                    "where none may be".to_owned()
                } else {
                    format!("where {:.1} are to be expected (p {chance:.2e})", expected * items as f64)
                };
                return fail(format!(
                    "rows of {other} and {one} are farther apart than {} in {beyond} of {items} items, {may}",
                    apart(measure, most)
                ));
            }
            (unseen > 0).then(|| untold(Level::Bits))
        }
    }
}

/// Of the tests of rows.
const CONFIDENCE: f64 = 0.95;

fn example(group: &[Cell]) -> String {
    match group {
        [first, .., last] => format!("as between {first} and {last}"),
        _ => String::new(),
    }
}

/// What it means that an axis was not exercised.
fn idle_sentence(axis: Axis) -> &'static str {
    match axis {
        Axis::Threads => "no call was worth sharing, so one thread did all the work",
        Axis::Batch => "no call had more rows for it",
        Axis::PrefillChunk => "no prompt was long enough to be read in parts",
        Axis::Grouping => "the same prompts shared their calls",
        Axis::Concurrency => "the server decoded as many rows at a time",
        Axis::Neighbors | Axis::Arrival => "under one setting or more the server decoded one row at a time",
        Axis::Cache => "as much of every prompt was read",
        Axis::Verify => "no token was drafted",
        Axis::Rebuild => "no answer was long enough for it",
        Axis::Order => "these names stand for one tree",
        Axis::KvFormat => "these names stand for one format",
        Axis::Attention => "these names stand for as many parts in every call",
        Axis::Reduce => "two ranks add the same two parts, and one adds none",
        Axis::Functions => "whatever this model calls is one function under these names",
        axis if axis.is_of_draws() => "the best token was taken, whatever it says",
        _ => "it made no difference to what ran",
    }
}

fn idle_way_out(axis: Axis) -> &'static str {
    match axis {
        Axis::Threads => "give it more to do: larger batches, longer prompts, a larger model",
        Axis::Batch => "ask more items of a suite than one batch holds",
        Axis::PrefillChunk => "set smaller chunks",
        Axis::Grouping => "set a batch or a concurrency above 1, and give a server slots for it",
        Axis::Concurrency | Axis::Neighbors | Axis::Arrival => {
            "give it slots for several prompts, and longer answers"
        }
        Axis::Cache => {
            "let a server's cache be on, and in the lab let prompts of a batch begin alike, in smaller pages"
        }
        Axis::Verify => "let more tokens follow",
        Axis::Rebuild => "let more tokens follow, or let it happen after fewer",
        Axis::Reduce => "set tp above 2, or let other formats be sent",
        axis if axis.is_of_draws() => "set top-k above 1",
        _ => "vary something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Side;

    #[test]
    fn a_hundred_findings_show_where_cells_part_and_a_note_counts_those_that_would() {
        let side = || Side {
            token: None,
            margin: None,
            candidates: Vec::new(),
            text: String::new(),
            answer: None,
            correct: false,
        };
        let first = Divergence {
            item: 0,
            suite: String::new(),
            id: String::new(),
            stratum: String::new(),
            prompt: String::new(),
            right: String::new(),
            place: 0,
            sides: [side(), side()],
            drift: None,
        };
        let shown = |parted: usize| {
            let with = || Finding { first: Some(first.clone()), ..Finding::unknown("") };
            // One that is not about two cells, and then those.
            let mut findings = vec![Finding::unknown("")];
            findings.resize_with(1 + parted, with);
            let note = shorten(&mut findings);
            let shown: Vec<_> = findings.iter().map(|finding| finding.first.is_some()).collect();
            assert!(!shown[0] && shown[1..].is_sorted_by(|a, b| a >= b));
            (shown.iter().filter(|is_shown| **is_shown).count(), note)
        };
        assert_eq!([0, 1, 100].map(shown), [(0, None), (1, None), (100, None)]);
        let note = "of 101 findings 100 show where the two cells part: `reprocheck diff` shows it of any two";
        assert_eq!(shown(101), (100, Some(note.to_owned())));
    }
}
