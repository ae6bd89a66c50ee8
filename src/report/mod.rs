//! The result of a run as data: everything that is written down of it is a function of one [`Report`].

pub mod csv;
mod escape;
pub(crate) mod figure;
pub mod github;
pub mod html;
pub mod junit;
pub mod markdown;
pub mod sarif;
pub mod text;

use std::{collections::BTreeMap, str::FromStr};

use serde::Serialize;

use crate::{
    compare::{Course, Divergence, Drift, Level, Spreads, Tally},
    engine::environment::Environment,
    numerics::{did_you_mean, json_float, nearest},
    plan::axis::{AXES, Axis, Cell},
    record::{About, PROGRAM},
    stats::{Interval, paired::Paired, proportion::Proportion},
    trace::{Digest, Launches},
    verdict::{
        self, Outcome, Ruling,
        baseline::Baseline,
        evidence::{Attribution, Evidence},
    },
};

/// Of its form.
const FORM: u32 = 1;
/// Of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// A way to write a report down: a row of [`FORMATS`].
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// The file that it goes to.
    pub file: &'static str,
    /// For whom it is, in one sentence.
    pub sentence: &'static str,
    /// Writes it.
    pub render: fn(&Report) -> String,
}

/// Every way to write a report down.
pub const FORMATS: &[Format] = &[
    Format { name: "text", file: "report.txt", sentence: "for a person at a terminal", render: text::report },
    Format { name: "json", file: "report.json", sentence: "all of it, for a program", render: Report::json },
    Format {
        name: "markdown",
        file: "report.md",
        sentence: "for the summary of a job, or a comment on a pull request",
        render: markdown::report,
    },
    Format {
        name: "html",
        file: "report.html",
        sentence: "a page with its figures in one file, without scripts",
        render: html::page,
    },
    Format {
        name: "junit",
        file: "report.junit.xml",
        sentence: "a test case for each gate, for the dashboard of a CI",
        render: junit::report,
    },
    Format {
        name: "sarif",
        file: "report.sarif",
        sentence: "a result for each finding, for code scanning",
        render: sarif::report,
    },
    Format {
        name: "github",
        file: "report.annotations.txt",
        sentence: "workflow commands that point into the matrix file: print them in a job",
        render: github::annotations,
    },
    Format {
        name: "csv",
        file: "report.csv",
        sentence: "a line for each cell, for a spreadsheet",
        render: csv::cells,
    },
];

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let names = FORMATS.iter().map(|format| format.name);
        let found = FORMATS.iter().find(|format| format.name == name);
        found.copied().ok_or_else(|| {
            let near = did_you_mean(nearest(name, names.clone()));
            format!(
                "there is no format `{name}`: {near}write one of {}",
                names.collect::<Vec<_>>().join(", ")
            )
        })
    }
}

/// What a run says.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Of this value.
    pub form: u32,
    /// The program that wrote it.
    pub program: String,
    /// The worst ruling.
    pub verdict: Outcome,
    /// What ran.
    pub run: About,
    /// Where cells ran: one, unless shards were merged.
    pub environments: Vec<Environment>,
    /// What became of every gate.
    pub rulings: Vec<Ruling>,
    /// What to look at first, if anything parts.
    pub first: Option<First>,
    /// What each axis alone moves.
    pub axes: Vec<Attribution>,
    /// How far the cells of each precision are apart.
    pub precisions: Vec<PrecisionRow>,
    /// Every cell that has run.
    pub cells: Vec<CellRow>,
    /// Every cell that has not, and why.
    pub missing: Vec<Missing>,
    /// The texts of the tokens that are named above.
    pub tokens: BTreeMap<u32, String>,
}

/// Where two cells first part.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct First {
    /// The two.
    pub cells: [Cell; 2],
    /// In what they differ.
    pub axes: Vec<Axis>,
    /// Where, and how.
    pub divergence: Divergence,
}

/// All cells of one engine in one precision.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PrecisionRow {
    /// Who computes.
    pub engine: String,
    /// In which precision.
    pub precision: String,
    /// How many cells.
    pub cells: usize,
    /// On all items.
    pub all: Spreads,
    /// On those of each suite.
    pub suites: BTreeMap<String, Spreads>,
    /// How outputs come apart from those of the reference along their tokens, over all cells; nothing without a reference.
    pub course: Option<CourseRow>,
}

/// How outputs come apart along their tokens.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CourseRow {
    /// How many outputs were compared.
    pub outputs: u64,
    /// What share is still the same, at the places where that changes.
    pub survival: Vec<SurvivalRow>,
    /// After how many tokens half of all outputs have parted.
    pub median: Option<u64>,
    /// How far logits are apart at each place.
    pub drift: Vec<Drift>,
    /// Where a margin lay in a range, how often another token came to rank first: ranges begin below 0.01, and end above
    /// 3, see [`MARGINS`](crate::compare::MARGINS).
    pub margins: Vec<Proportion>,
}

/// The share of outputs that are still the same.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SurvivalRow {
    /// After so many tokens.
    pub tokens: u64,
    /// Outputs that had not parted or ended before.
    pub at_risk: u64,
    /// Those that part here.
    pub part: u64,
    /// The share that does not part here or before.
    pub share: f64,
    /// Where that lies.
    pub interval: Option<Interval>,
}

impl CourseRow {
    fn new(outputs: u64, course: &Course) -> CourseRow {
        let survival = course.survival();
        let rows = survival.steps.iter().map(|step| SurvivalRow {
            tokens: step.time,
            at_risk: step.at_risk,
            part: step.events,
            share: step.survival,
            interval: step.interval(CONFIDENCE),
        });
        CourseRow {
            outputs,
            survival: rows.collect(),
            median: survival.first_time_at_most(0.5),
            drift: course.drift.clone(),
            margins: course.margins.to_vec(),
        }
    }
}

/// A cell that has run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CellRow {
    /// Which.
    pub cell: Cell,
    /// One value for all its tokens and logits.
    pub root: Digest,
    /// The launches that really ran.
    pub launches: Launches,
    /// How many tokens it chose.
    pub tokens: u64,
    /// How many answers are right.
    pub accuracy: Proportion,
    /// Where its accuracy lies among all questions that might have been asked.
    pub interval: Option<Interval>,
    /// The same for each suite.
    pub suites: BTreeMap<String, Proportion>,
    /// Beside the reference.
    pub against: Option<Against>,
}

/// A cell beside the reference.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Against {
    /// Items with the same bits, tokens and answers.
    pub items: [Proportion; 3],
    /// Comparable places with the same logits.
    pub places: Proportion,
    /// Places at which both rank the same token first.
    pub best: Proportion,
    /// The largest difference of a logit before tokens part.
    #[serde(with = "json_float")]
    pub drift: f32,
    /// After how many tokens half of all outputs have parted.
    pub median_first_divergence: Option<u64>,
    /// What was lost and gained.
    pub paired: Paired,
    /// The difference in accuracy.
    pub difference: Option<Interval>,
    /// McNemar's exact test.
    pub p_value: f64,
    /// What was lost and gained in each suite.
    pub suites: BTreeMap<String, Paired>,
}

/// A cell that has not run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Missing {
    /// Which.
    pub cell: Cell,
    /// Why, in a sentence.
    pub reason: String,
}

impl Against {
    /// What two cells differ by.
    pub fn new(tally: &Tally) -> Against {
        Against {
            items: Level::ALL.map(|level| tally.agreeing(level)),
            places: tally.places,
            best: tally.best,
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
            let (mut outputs, mut course) = (0, Course::default());
            for cell in cells.iter().filter(|cell| **cell != reference) {
                let tally = evidence.tally(reference, *cell)?;
                outputs += tally.bits.of;
                course.pool(&tally.course);
            }
            (outputs > 0).then(|| CourseRow::new(outputs, &course))
        };
        let precisions = evidence.families().iter().map(|family| PrecisionRow {
            engine: family.engine.to_string(),
            precision: family.precision.to_string(),
            cells: family.cells().len(),
            course: course(family.cells()),
            all: family.spread(),
            suites: family.suites().map(|(suite, spread)| (suite.to_owned(), spread)).collect(),
        });
        let precisions = precisions.collect();
        // A gate that was judged on some cells alone has not been judged on all.
        let verdict = verdict::worst(&rulings);
        let verdict = if missing.is_empty() { verdict } else { verdict.max(Outcome::Unknown) };
        let divergences = rulings.iter().flat_map(|ruling| &ruling.findings);
        let divergences = divergences.filter_map(|finding| finding.first.as_ref());
        let divergences = divergences.chain(first.iter().map(|first| &first.divergence));
        let tokens = divergences.flat_map(|divergence| &divergence.sides).flat_map(|side| {
            side.token.into_iter().chain(side.candidates.iter().map(|candidate| candidate.token))
        });
        let tokens = tokens.map(|token| (token, text(token))).collect();
        Report {
            form: FORM,
            program: PROGRAM.to_owned(),
            verdict,
            run: about.clone(),
            environments,
            rulings,
            first,
            axes,
            precisions,
            cells,
            missing,
            tokens,
        }
    }

    /// What keeps the verdict from a pass where no gate does: what is judged gate by gate would look like one.
    pub(crate) fn beyond_gates(&self) -> Option<String> {
        let told = self.rulings.iter().any(|ruling| ruling.outcome != Outcome::Pass);
        (self.verdict != Outcome::Pass && !told).then(|| text::sentence(self))
    }

    /// The rulings, the worst first; of equally bad ones in the order of their gates.
    pub(crate) fn worst_first(&self) -> Vec<&Ruling> {
        let mut rulings: Vec<_> = self.rulings.iter().collect();
        rulings.sort_by_key(|ruling| std::cmp::Reverse(ruling.outcome));
        rulings
    }

    /// All of it as JSON.
    pub fn json(&self) -> String {
        let mut json =
            serde_json::to_string_pretty(self).expect("a report holds nothing that JSON has no form for");
        json.push('\n');
        json
    }
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
    let axes = AXES.iter().map(|entry| entry.axis);
    Some(First { cells, axes: axes.filter(|axis| one.get(*axis) != other.get(*axis)).collect(), divergence })
}
