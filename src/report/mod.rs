//! The result of a run as data: everything that is written down of it is a function of one [`Report`].

pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    compare::{Divergence, Level, Spreads, Tally},
    engine::environment::Environment,
    numerics::json_float,
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
            median_first_divergence: tally.survival().first_time_at_most(0.5),
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
        let known: Vec<_> = evidence.plan().into_iter().filter_map(|cell| evidence.known(cell)).collect();
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
        let precisions = evidence.families().iter().map(|family| PrecisionRow {
            engine: family.engine.to_string(),
            precision: family.precision.to_string(),
            cells: family.cells(),
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
    let beside =
        reference.flat_map(|reference| evidence.plan().into_iter().map(move |cell| [reference, cell]));
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
