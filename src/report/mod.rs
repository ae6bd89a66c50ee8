//! The result of a run as data: everything that is written down of it is a function of one [`Report`].

pub mod before;
pub mod csv;
mod escape;
pub(crate) mod figure;
pub mod github;
pub mod html;
pub mod junit;
pub mod lm_eval;
pub mod markdown;
pub mod sarif;
mod tables;
pub mod text;

use std::{collections::BTreeMap, str::FromStr};

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::Serialize;
use serde_json::{Value, json};

use self::{
    before::Before,
    text::{grouped, plural},
};
use crate::{
    cell::{AXES, Axis, Cell, Compute},
    compare::{Course, Divergence, Drift, Level, MARGINS, Spreads, Tally},
    digest::Digest,
    engine::environment::Environment,
    json_float,
    name::{did_you_mean, nearest},
    numerics::order::Launch,
    plan::Generation,
    record::{About, PROGRAM},
    stats::{Interval, paired::Paired, proportion::Proportion, survival::Step},
    trace::Launches,
    verdict::{
        self, Outcome, Ruling,
        baseline::Baseline,
        evidence::{Attribution, Evidence, Known},
    },
};

/// Of its form.
const FORM: u32 = 2;
/// Of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// A way to write a report down: a row of [`FORMATS`].
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// The file that it goes to, or the folder of its files.
    pub file: &'static str,
    /// For whom it is, in one sentence.
    pub sentence: &'static str,
    /// What writes it.
    pub written: Written,
}

/// What writes a format.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    /// One text.
    Text(fn(&Report) -> String),
    /// Several files: the name of each, and its text.
    Files(fn(&Report) -> Vec<(String, String)>),
    /// Files with every sample of the run, which no report holds: [`crate::run::export`] writes them.
    Samples,
}

/// Every way to write a report down.
pub const FORMATS: &[Format] = &[
    Format {
        name: "text",
        file: "report.txt",
        sentence: "for a person at a terminal",
        written: Written::Text(text::report),
    },
    Format {
        name: "json",
        file: "report.json",
        sentence: "all of it, for a program; `reprocheck schema report` says what it holds",
        written: Written::Text(Report::json),
    },
    Format {
        name: "markdown",
        file: "report.md",
        sentence: "for the summary of a job, or a comment on a pull request",
        written: Written::Text(markdown::report),
    },
    Format {
        name: "html",
        file: "report.html",
        sentence: "a page with its figures in one file, without scripts",
        written: Written::Text(html::page),
    },
    Format {
        name: "svg",
        file: "report.figures",
        sentence: "each figure of the page as a file of its own",
        written: Written::Files(html::figures),
    },
    Format {
        name: "junit",
        file: "report.junit.xml",
        sentence: "a test case for each gate, for the dashboard of a CI",
        written: Written::Text(junit::report),
    },
    Format {
        name: "sarif",
        file: "report.sarif",
        sentence: "a result for each finding, for code scanning",
        written: Written::Text(sarif::report),
    },
    Format {
        name: "github",
        file: "report.annotations.txt",
        sentence: "workflow commands that point into the matrix file: print them in a job",
        written: Written::Text(github::annotations),
    },
    Format {
        name: "csv",
        file: "report.csv",
        sentence: "a line for each cell, for a spreadsheet",
        written: Written::Text(csv::cells),
    },
    Format {
        name: "lm-eval",
        file: "report.lm-eval",
        sentence: "the results and samples of each cell, as lm-evaluation-harness logs them",
        written: Written::Samples,
    },
];

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let names = FORMATS.iter().map(|format| format.name);
        let found = FORMATS.iter().find(|format| format.name == name);
        found.copied().ok_or_else(|| {
            // `md` is no word near `markdown`, but how its file ends.
            let ends = FORMATS.iter().find(|format| format.file.ends_with(&format!(".{name}")));
            let near = did_you_mean(nearest(name, names.clone()).or(ends.map(|format| format.name)));
            format!(
                "there is no format `{name}`: {near}write one of {}",
                names.collect::<Vec<_>>().join(", ")
            )
        })
    }
}

/// What a run says: what held, and where and how far the cells of its matrix came apart.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The number of this form. It is raised whenever a field is added, taken away or renamed, or comes to mean something
    /// else; new names of engines, precisions, orders and axes come without that.
    #[schemars(extend("const" = FORM))]
    pub form: u32,
    /// The program that wrote this, and its version.
    pub program: String,
    /// The worst outcome of all gates; unknown where there are none, and no better than unknown where a cell is missing.
    pub verdict: Outcome,
    /// What ran.
    pub run: About,
    /// The run that it is held against, where two are compared: then a cell stands beside what it was, and not beside the
    /// reference.
    pub before: Option<Before>,
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
    /// Every cell that has not run, and why.
    pub missing: Vec<Missing>,
    /// The texts of all tokens that are named in what parts, by their numbers.
    pub tokens: BTreeMap<u32, String>,
}

/// Where two cells first part.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct First {
    /// The two cells.
    pub cells: [Cell; 2],
    /// The axes on which they differ.
    pub axes: Vec<Axis>,
    /// Where and how they part.
    pub divergence: Divergence,
    /// How they add the same terms, where they add them otherwise.
    pub trees: Option<Trees>,
}

/// In which order two cells add the same terms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Trees {
    /// How many terms are added: as few as show it.
    pub terms: usize,
    /// The orders, and the calls that they follow where they follow any.
    pub orders: [String; 2],
    /// In each, which terms are added first: every number is a term.
    pub trees: [String; 2],
}

/// All cells of one engine in one precision.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PrecisionRow {
    /// Who computes.
    #[schemars(regex(pattern = Axis::Engine.whole_pattern()))]
    pub engine: String,
    /// In which precision.
    #[schemars(regex(pattern = Axis::Precision.whole_pattern()))]
    pub precision: String,
    /// How many cells there are.
    pub cells: usize,
    /// How far they are apart on all items.
    pub all: Spreads,
    /// How far they are apart on the items of each suite, by its name.
    pub suites: BTreeMap<String, Spreads>,
    /// How outputs come apart from those of the reference along their tokens, over all cells; nothing without a reference.
    pub course: Option<CourseRow>,
}

/// A precision under the name that stands beside its numbers.
pub(crate) struct Family<'r> {
    pub(crate) name: String,
    pub(crate) row: &'r PrecisionRow,
    /// What it was before.
    pub(crate) was: Option<&'r PrecisionRow>,
}

/// How outputs come apart along their tokens.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct CourseRow {
    /// How many cells were compared. All of them answer the same items, so more of them tell nothing more about others:
    /// intervals are those of one cell.
    pub cells: usize,
    /// How many outputs were compared, over all cells.
    pub outputs: u64,
    /// What share is still the same, at the places where that changes.
    pub survival: Vec<SurvivalRow>,
    /// After how many tokens half of all outputs have parted; nothing where fewer do.
    pub median: Option<u64>,
    /// How far logits are apart at each place: before any token, after one, and so on.
    pub drift: Vec<Drift>,
    /// Where the reference's margin lay in a range, at how many places another token came to rank first: below 0.01, from
    /// there to 0.03, to 0.1, to 0.3, to 1, to 3, and from 3 up.
    // The ranges between `MARGINS`.
    #[schemars(length(equal = MARGINS.len() + 1))]
    pub margins: Vec<Proportion>,
}

/// The share of outputs that are still the same.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SurvivalRow {
    /// After so many tokens.
    pub tokens: u64,
    /// How many outputs had not parted or ended before.
    pub at_risk: u64,
    /// How many outputs part here.
    pub part: u64,
    /// The share that does not part here or before, by the estimate of Kaplan and Meier.
    #[schemars(range(min = 0, max = 1))]
    pub share: f64,
    /// The interval of the share, with a confidence of 95 %, for as many outputs as one cell has; nothing where none are left.
    pub interval: Option<Interval>,
}

impl CourseRow {
    /// Of all these cells; nothing without outputs.
    fn pooled<'t>(tallies: impl IntoIterator<Item = &'t Tally>) -> Option<CourseRow> {
        let (mut cells, mut outputs, mut course) = (0, 0, Course::default());
        for tally in tallies {
            (cells, outputs) = (cells + 1, outputs + tally.bits.of);
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

/// A cell that has run.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct CellRow {
    /// Which cell.
    pub cell: Cell,
    /// One value for all its tokens and logits: equal in two cells if and only if all of these are.
    pub root: Digest,
    /// The launches that really ran.
    pub launches: Launches,
    /// How many tokens it chose.
    pub tokens: u64,
    /// How many answers are right.
    pub accuracy: Proportion,
    /// Where its accuracy lies among all questions that might have been asked, with a confidence of 95 %; nothing without
    /// items.
    pub interval: Option<Interval>,
    /// How many answers are right in each suite, by its name.
    pub suites: BTreeMap<String, Proportion>,
    /// The cell beside the reference, or beside what it was; nothing for the reference itself, and without one that has run.
    pub against: Option<Against>,
}

/// A cell beside the reference, or beside what it was.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Against {
    /// Items with the same bits, with the same tokens, and with the same answers.
    pub items: [Proportion; 3],
    /// Comparable places with the same logits.
    pub places: Proportion,
    /// Places at which both rank the same token first.
    pub best: Proportion,
    /// The largest difference of a logit before tokens part.
    #[serde(with = "json_float")]
    #[schemars(schema_with = "json_float::schema")]
    pub drift: f32,
    /// After how many tokens half of all outputs have parted; nothing where fewer do.
    pub median_first_divergence: Option<u64>,
    /// What was lost and gained.
    pub paired: Paired,
    /// The interval of the accuracy less that of the reference, with a confidence of 95 %; nothing without items.
    pub difference: Option<Interval>,
    /// How likely losses and gains at least as uneven are by chance: McNemar's exact test.
    #[schemars(range(min = 0, max = 1))]
    pub p_value: f64,
    /// What was lost and gained in each suite, by its name.
    pub suites: BTreeMap<String, Paired>,
}

/// A cell that has not run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// Which cell.
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
            tokens: names_of(&rulings, first.as_ref(), text),
            rulings,
            first,
            axes,
            precisions,
            cells,
            missing,
        }
    }

    /// What every cell stands beside, by its name.
    pub(crate) fn beside(&self) -> Option<String> {
        match &self.before {
            Some(_) => Some(text::standard(self).to_owned()),
            None => self.run.reference.map(|reference| reference.to_string()),
        }
    }

    /// All precisions by their names, those of the run before just ahead of what they are now, if
    /// they are not what they were.
    pub(crate) fn families(&self) -> Vec<Family<'_>> {
        let Some(before) = &self.before else {
            let families = self.precisions.iter();
            return families.map(|row| Family { name: text::name(row), row, was: None }).collect();
        };
        let mut families = Vec::new();
        for row in &self.precisions {
            let name = text::name(row);
            let was = before.precisions.iter().find(|was| text::name(was) == name);
            if was.is_some_and(|was| (&was.all, &was.suites) == (&row.all, &row.suites)) {
                families.push(Family { name, row, was });
                continue;
            }
            families.extend(was.map(|row| Family { name: format!("{name} before"), row, was: None }));
            families.push(Family { name: format!("{name} after"), row, was });
        }
        families
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

    /// The JSON Schema of [`Report::json`], draft 2020-12: every field that it names must be there, and no other may.
    pub fn schema() -> Value {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with_transform(RecursiveTransform(plain));
        let mut schema = settings.into_generator().into_root_schema_for::<Report>();
        schema.insert("title".to_owned(), json!(format!("report of reprocheck, form {FORM}")));
        schema.to_value()
    }
}

/// Takes out of a schema what only Rust means, and closes its objects.
fn plain(schema: &mut Schema) {
    // The width of a number in memory.
    schema.remove("format");
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        // Where a line of the source ends.
        *description = description.replace('\n', " ");
    }
}

/// The texts of all tokens that are named in what parts.
fn names_of(
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

/// What a run depends on, each under its name.
fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let About { matrix, profile, model, questions, items, vocabulary, generation, reference, .. } =
        &report.run;
    let named = |what: Option<String>| what.unwrap_or_else(|| "none".to_owned());
    let Generation { max_new_tokens, choice, candidates, replay } = generation;
    vec![
        ("program", report.program.clone()),
        ("matrix", matrix.clone()),
        ("profile", named(profile.clone())),
        ("reference", named(reference.map(|reference| reference.to_string()))),
        (
            "model",
            format!("{} ({}, {} parameters)", model.name, model.architecture, grouped(model.parameters)),
        ),
        ("origin of the model", model.origin.clone()),
        ("digest of the model", model.digest.to_string()),
        ("items", grouped(*questions)),
        ("digest of the items", items.to_string()),
        ("digest of the vocabulary", named(vocabulary.map(|digest| digest.to_string()))),
        (
            "tokens that may follow",
            max_new_tokens.map_or("as many as a suite says".to_owned(), |most| grouped(most as u64)),
        ),
        ("choice of a token", choice.to_string()),
        ("candidates that are kept", candidates.to_string()),
        ("cells read what the reference wrote", if *replay { "yes" } else { "no" }.to_owned()),
    ]
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
    let axes = axes.filter(|axis| one.get(*axis) != other.get(*axis)).collect();
    let trees = trees(cells.map(|cell| evidence.known(cell)), divergence.place);
    Some(First { cells, axes, divergence, trees })
}

/// How two cells add as few terms as show that they add them otherwise, in the calls that chose the token of this place.
fn trees(cells: [Option<&Known>; 2], place: usize) -> Option<Trees> {
    /// More are not read.
    const TERMS: [usize; 6] = [4, 6, 8, 12, 16, 20];
    let launched = |known: &Known| {
        let Launches { prefill_rows, decode_rows, .. } = known.launches;
        let rows = if place == 0 { prefill_rows } else { decode_rows };
        let Compute::Lab(numerics) = known.cell.compute else { return None };
        let launch = Launch { rows: rows?.max(1), threads: numerics.threads().get() };
        Some((numerics.order(), launch))
    };
    let [one, other] = cells;
    let both = [launched(one?)?, launched(other?)?];
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
