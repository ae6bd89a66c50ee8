//! How a report is made of the evidence of a run.

use std::collections::BTreeMap;

use super::{
    Against, CONFIDENCE, CellRow, CourseRow, First, Missing, PrecisionRow, Report, Surrounding, SurvivalRow,
    Trees, data::FORM, words::plural,
};
use crate::{
    cell::{self, Cell, Compute},
    compare::{ByLevel, Course, Divergence, Level, Tally},
    numerics::order::{Launch, Order},
    record::{About, PROGRAM},
    stats::survival::Step,
    trace::Launches,
    verdict::{
        self, Outcome, Ruling,
        baseline::Baseline,
        evidence::{Attribution, Evidence, Known},
    },
};

impl CourseRow {
    /// Of all these cells; nothing without outputs, or where not all tokens are told.
    pub(super) fn pooled<'t>(tallies: impl IntoIterator<Item = &'t Tally>) -> Option<CourseRow> {
        let (mut cells, mut outputs, mut course) = (0, 0, Course::default());
        for tally in tallies {
            tally.agreeing(Level::Tokens)?;
            (cells, outputs) = (cells + 1, outputs + tally.items());
            course.pool(&tally.course);
        }
        if outputs == 0 {
            return None;
        }
        let survival = course.survival();
        let of_one_cell = |step: &Step| {
            let log_variance = step.log_variance.map(|variance| variance * cells as f64);
            Step { log_variance, ..*step }.interval(CONFIDENCE)
        };
        let rows = survival.steps.iter().map(|step| SurvivalRow {
            tokens: step.time,
            at_risk: step.at_risk,
            part: step.events,
            share: step.survival,
            interval: of_one_cell(step),
        });
        Some(CourseRow {
            cells,
            outputs,
            survival: rows.collect(),
            median: survival.first_time_at_most(0.5),
            drift: course.drift,
            margins: course.margins.to_vec(),
        })
    }
}

impl Against {
    /// What two cells differ by.
    pub fn new(tally: &Tally) -> Against {
        Against {
            items: ByLevel::of(|level| tally.agreeing(level)),
            places: tally.places.told(),
            best: tally.best.told(),
            drift: tally.drift,
            median_first_divergence: tally.course.survival().first_time_at_most(0.5),
            paired: tally.paired,
            difference: tally.paired.interval(CONFIDENCE),
            p_value: tally.paired.p_value(),
            suites: tally.suites.clone(),
        }
    }
}

impl Report {
    /// What the evidence of a run amounts to. `text` is the text of a token.
    pub fn new(
        about: &About,
        missing: Vec<Missing>,
        evidence: &Evidence,
        baseline: Option<&Baseline>,
        text: &dyn Fn(u32) -> String,
    ) -> Report {
        let rulings = verdict::judge(&about.gates, evidence, baseline);
        let known: Vec<_> = evidence.plan().iter().filter_map(|cell| evidence.known(*cell)).collect();
        let mut environments: Vec<_> = known.iter().map(|known| known.environment.clone()).collect();
        environments.sort();
        environments.dedup();
        let surroundings = Surrounding::of(&known);
        let axes = evidence.attributions();
        let first = first(&rulings, evidence, &axes);
        let cells: Vec<_> = known
            .iter()
            .map(|known| {
                let summary = evidence.summary(known);
                let reference = evidence.reference().filter(|reference| *reference != known.cell);
                let tally = reference.and_then(|reference| evidence.tally(reference, known.cell));
                CellRow {
                    cell: known.cell,
                    environment: environments.binary_search(&known.environment).unwrap_or_default(),
                    sight: known.sight,
                    root: known.root,
                    launches: known.launches.clone(),
                    tokens: summary.tokens,
                    accuracy: summary.accuracy(),
                    interval: summary.accuracy().wilson(CONFIDENCE),
                    suites: summary.suites.clone(),
                    against: tally.map(Against::new),
                }
            })
            .collect();
        let course = |cells: &[Cell]| {
            let reference = evidence.reference()?;
            let others = cells.iter().filter(|cell| **cell != reference);
            let tallies: Option<Vec<_>> = others.map(|cell| evidence.tally(reference, *cell)).collect();
            CourseRow::pooled(tallies?)
        };
        let precisions = evidence.families().iter().map(|family| PrecisionRow {
            engine: family.engine.to_string(),
            precision: family.precision.to_string(),
            cells: family.cells().len(),
            course: course(family.cells()),
            all: family.spread(CONFIDENCE),
            suites: family.suites(CONFIDENCE).map(|(suite, spread)| (suite.to_owned(), spread)).collect(),
        });
        let precisions = precisions.collect();
        // A gate that was judged on some cells alone has not been judged on all.
        let verdict = verdict::worst(&rulings);
        let verdict = if missing.is_empty() { verdict } else { verdict.max(Outcome::Unknown) };
        Report {
            form: FORM,
            program: PROGRAM.to_owned(),
            verdict,
            run: about.clone(),
            before: None,
            environments,
            surroundings,
            tokens: names_of(&rulings, first.as_ref(), text),
            rulings,
            first,
            axes,
            precisions,
            cells,
            missing,
        }
    }
}

/// The texts of all tokens that are named in what parts.
pub(super) fn names_of(
    rulings: &[Ruling],
    first: Option<&First>,
    text: &dyn Fn(u32) -> String,
) -> BTreeMap<u32, String> {
    let divergences = rulings.iter().flat_map(|ruling| &ruling.findings);
    let divergences = divergences.filter_map(|finding| finding.first.as_ref());
    let divergences = divergences.chain(first.map(|first| &first.divergence));
    let tokens = divergences.flat_map(|divergence| &divergence.sides).flat_map(|side| {
        side.token.into_iter().chain(side.candidates.iter().map(|candidate| candidate.token))
    });
    tokens.map(|token| (token, text(token))).collect()
}

/// What to look at first: what the worst gate found, or what one axis alone does, the least expected axis first, or the
/// first cell that is not the reference. Of each, other texts come before other logits.
fn first(rulings: &[Ruling], evidence: &Evidence, axes: &[Attribution]) -> Option<First> {
    let mut findings: Vec<_> = rulings.iter().flat_map(|ruling| &ruling.findings).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.outcome));
    let mut found = findings.iter().filter_map(|finding| Some((finding.cells?, finding.first.clone()?)));
    let alone: Vec<_> = axes.iter().rev().flat_map(|attribution| attribution.first).collect();
    let reference = evidence.reference().into_iter();
    let beside = reference.flat_map(|reference| evidence.plan().iter().map(move |cell| [reference, *cell]));
    let divergence =
        |[one, other]: [Cell; 2]| Some(([one, other], evidence.tally(one, other)?.first()?.clone()));
    let is_text = |(_, divergence): &([Cell; 2], Divergence)| {
        let [one, other] = &divergence.sides;
        one.token != other.token
    };
    let of_pairs = |pairs: Vec<[Cell; 2]>| {
        let parted: Vec<_> = pairs.into_iter().filter_map(divergence).collect();
        parted.iter().find(|parted| is_text(parted)).or(parted.first()).cloned()
    };
    let (cells, divergence) =
        found.next().or_else(|| of_pairs(alone)).or_else(|| of_pairs(beside.collect()))?;
    let [one, other] = cells;
    let axes = cell::axes(&cells).into_iter().filter(|axis| one.get(*axis) != other.get(*axis)).collect();
    let trees = trees(cells.map(|cell| evidence.known(cell)), divergence.place);
    Some(First { cells, axes, divergence, trees, cause: None })
}

/// How two cells add as few terms as show that they add them otherwise, in the calls that chose the token of this place.
fn trees(cells: [Option<&Known>; 2], place: usize) -> Option<Trees> {
    let launched = |known: &Known| {
        let Launches { prefill_rows, decode_rows, .. } = known.launches;
        let rows = if place == 0 { prefill_rows } else { decode_rows };
        let Compute::Lab(numerics) = known.cell.compute else { return None };
        let launch = Launch { rows: rows?.max(1), threads: numerics.threads().get() };
        Some((numerics.order(), launch))
    };
    let [one, other] = cells;
    Trees::of([launched(one?)?, launched(other?)?])
}

impl Trees {
    /// By which trees these orders add as few terms as show that they add them otherwise, if so few do.
    pub fn of(both: [(Order, Launch); 2]) -> Option<Trees> {
        /// More are not read.
        const TERMS: [usize; 6] = [4, 6, 8, 12, 16, 20];
        TERMS.into_iter().find_map(|terms| {
            let trees = both.map(|(order, launch)| order.tree(terms, launch).to_string());
            let orders = both.map(|(order, Launch { rows, threads })| match order.depends_on_launch() {
                true => format!(
                    "{order} in calls of {} on {}",
                    plural(rows as u64, "row"),
                    plural(threads as u64, "thread")
                ),
                false => order.to_string(),
            });
            (trees[0] != trees[1]).then_some(Trees { terms, orders, trees })
        })
    }
}
