//! How a report is made of the evidence of a run.

use std::collections::BTreeMap;

use super::{
    Against, CONFIDENCE, CellRow, ChangeRow, ClosenessRow, ConfigurationRow, CourseRow, DigitRow, DigitsRow,
    DrawsRow, First, Missing, OutcomesRow, PrecisionRow, Report, SizeRow, StratumRow, SuiteRow, Surrounding,
    SurvivalRow, TransitionRow, Trees, data::FORM, words::plural,
};
use crate::{
    cell::{self, Cell, Compute},
    compare::{ByLevel, Course, Divergence, Level, Tally},
    numerics::{
        order::{Launch, Order},
        total::Mean,
    },
    record::{About, PROGRAM},
    stats::{paired::Change, proportion::Proportion, survival::Step},
    suite::{
        answer::{closeness::Closeness, product::Digit},
        score,
    },
    trace::Launches,
    verdict::{
        self, Outcome, Ruling,
        baseline::Baseline,
        draws::{Configuration, Draws},
        evidence::{Attribution, Evidence, Family, Known},
        summary::OfSuite,
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
        let change = tally.change();
        let changed = tally.outcomes.iter().map(|(reference, cell, items)| (*reference, *cell, items));
        let changed = changed.filter(|(reference, cell, _)| reference != cell);
        Against {
            items: ByLevel::of(|level| tally.agreeing(level)),
            places: tally.places.told(),
            best: tally.best.told(),
            drift: tally.drift,
            divergence: tally
                .divergence
                .as_ref()
                .and_then(Mean::round)
                .filter(|divergence| divergence.is_finite()),
            median_first_divergence: tally.course.survival().first_time_at_most(0.5),
            paired: change.counts,
            difference: change.interval(CONFIDENCE),
            p_value: change.p_value(),
            design_effect: change.design_effect(),
            odds: change.counts.odds(),
            odds_interval: change.odds_interval(CONFIDENCE),
            outcomes: changed
                .map(|(reference, cell, items)| TransitionRow { reference, cell, items })
                .collect(),
            suites: tally
                .suites
                .iter()
                .map(|(suite, pairs)| (suite.clone(), ChangeRow::of(&pairs.change())))
                .collect(),
        }
    }
}

impl SuiteRow {
    fn of(suite: &OfSuite) -> SuiteRow {
        let right = suite.right.sample();
        let digits = suite.digits;
        let share = |hits: u64, of: u64| Proportion { hits, of };
        let became = |outcome: score::Outcome| suite.outcomes.get(&outcome).copied().unwrap_or(0);
        let came = |label: Closeness| suite.closeness.get(&label).copied().unwrap_or(0);
        SuiteRow {
            right: right.proportion(),
            interval: right.interval(CONFIDENCE),
            design_effect: right.effect_of_clusters(),
            flexible: suite.flexible,
            whole_clusters: Some(suite.right.whole()).filter(|whole| whole.of > 0),
            strata: suite
                .strata
                .iter()
                .map(|(stratum, right)| StratumRow { stratum: stratum.clone(), right: *right })
                .collect(),
            outcomes: OutcomesRow {
                correct: became(score::Outcome::Correct),
                wrong: became(score::Outcome::Wrong),
                no_answer: became(score::Outcome::NoAnswer),
                truncated: became(score::Outcome::Truncated),
            },
            tokens: suite.tokens,
            closeness: suite.has_estimates.then(|| ClosenessRow {
                exact: came(Closeness::Exact),
                good: came(Closeness::Good),
                mild: came(Closeness::Mild),
                off: came(Closeness::Off),
            }),
            digits: (digits.items > 0).then(|| DigitsRow {
                exact: share(digits.exact, digits.items),
                matched: share(digits.matched, digits.of),
                length_error: digits.length_error as f64 / digits.items as f64,
            }),
        }
    }
}

impl ChangeRow {
    fn of(change: &Change) -> ChangeRow {
        let (paired, difference) = (change.counts, change.interval(CONFIDENCE));
        ChangeRow { paired, difference, p_value: change.p_value() }
    }
}

fn digits(family: &Family) -> Vec<DigitRow> {
    let rows = family.digits().iter().map(|(Digit { place, carry }, spread)| DigitRow {
        place: *place,
        carry: *carry,
        right: spread.right,
        unstable: spread.unstable,
    });
    rows.collect()
}

/// How many of the answers that end first vote: those of "Don't Overthink it" (Hassid et al., 2025).
const VOTERS: [u64; 2] = [1, 3];

impl DrawsRow {
    fn of(draws: &Draws) -> DrawsRow {
        let sizes = draws.sizes();
        let passes = draws.passes();
        let row = |(of, right): (&Configuration, Proportion)| {
            let row = |k: &u64| SizeRow {
                pass: of.pass_at(*k),
                interval: of.interval_of_pass_at(*k, CONFIDENCE),
                majority: of.majority_at(*k),
                best: of.best_at(*k),
                shortest: VOTERS.iter().filter_map(|m| Some((*m, of.first_to_end(*m, *k)?))).collect(),
            };
            ConfigurationRow {
                cell: of.cell,
                right,
                sizes: sizes.iter().map(|k| (*k, row(k))).collect(),
                law: of.law(&sizes),
            }
        };
        DrawsRow {
            seeds: draws.seeds(),
            deviation: passes.deviation(),
            deviation_of_draws: passes.deviation_of_draws(),
            deviation_of_flips: passes.deviation_of_flips(),
            configurations: draws.configurations().iter().zip(passes.rates()).map(row).collect(),
            left_out: draws.left_out(),
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
                let (right, suites) = (summary.right(), summary.suites.iter());
                let reference = evidence.references().of(known.cell);
                let tally = reference.and_then(|reference| evidence.tally(reference, known.cell));
                CellRow {
                    cell: known.cell,
                    environment: environments.binary_search(&known.environment).unwrap_or_default(),
                    sight: known.sight,
                    root: known.root,
                    launches: known.launches.clone(),
                    cost: known.cost,
                    tokens: summary.tokens,
                    accuracy: right.proportion(),
                    interval: right.interval(CONFIDENCE),
                    design_effect: right.effect_of_clusters(),
                    suites: suites.map(|(name, suite)| (name.clone(), SuiteRow::of(suite))).collect(),
                    against: tally.map(Against::new),
                }
            })
            .collect();
        let course = |cells: &[Cell]| {
            let beside = cells.iter().filter_map(|cell| Some((evidence.references().of(*cell)?, *cell)));
            let tallies: Option<Vec<_>> =
                beside.map(|(reference, cell)| evidence.tally(reference, cell)).collect();
            CourseRow::pooled(tallies?)
        };
        let precisions = evidence.families().iter().map(|family| PrecisionRow {
            engine: family.engine.to_string(),
            precision: family.precision.clone(),
            drawing: family.cells().first().map(Cell::drawing).unwrap_or_default(),
            draws: family.draws().map(DrawsRow::of),
            cells: family.cells().len(),
            distinct: family.distinct(),
            digits: digits(family),
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
            cut: evidence.cut(text),
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
/// first cell that is not the reference, or another draw. Of each, other texts come before other logits.
fn first(rulings: &[Ruling], evidence: &Evidence, axes: &[Attribution]) -> Option<First> {
    let mut findings: Vec<_> = rulings.iter().flat_map(|ruling| &ruling.findings).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.outcome));
    let mut found = findings.iter().filter_map(|finding| Some((finding.cells?, finding.first.clone()?)));
    let (drawn, alone): (Vec<_>, Vec<_>) =
        axes.iter().rev().partition(|attribution| attribution.axis.is_of_draws());
    let first = |of: Vec<&Attribution>| of.into_iter().filter_map(|attribution| attribution.first).collect();
    let beside = evidence.plan().iter().filter_map(|cell| Some([evidence.references().of(*cell)?, *cell]));
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
    let (cells, divergence) = found
        .next()
        .or_else(|| of_pairs(first(alone)))
        .or_else(|| of_pairs(beside.collect()))
        .or_else(|| of_pairs(first(drawn)))?;
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
