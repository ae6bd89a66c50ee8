//! A ladder of formats, each narrower than the one before: at which width logits, tokens and texts begin to move.
//!
//! A sweep is an ordinary run under `replay`, so that every step reads the same tokens and all of them are compared. What is
//! here makes its matrix, and reads the steps in its report.

use serde::Serialize;

use crate::{
    cell::{Cell, Compute},
    name::named,
    numerics::precision::Precision,
    report::{CONFIDENCE, Report},
    stats::{Interval, proportion::Proportion},
};

/// What becomes narrower from step to step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Along {
    /// The fraction of a float whose exponents have 8 bits, which nothing scales.
    Mantissa,
    /// The exponent of such a float, with a fraction of 3 bits.
    Exponent,
    /// Integers of weights, in groups of 128 with a scale of f16.
    Bits,
    /// How many weights of 4 bits share a scale: more from step to step.
    Block,
    /// Scaled floats of weights and activations: every way to part 8 to 4 bits into exponent and fraction.
    Split,
}

named! {
    Along, "axis of a sweep":
    Mantissa = "mantissa",
    Exponent = "exponent",
    Bits = "bits",
    Block = "block",
    Split = "split",
}

/// Where the formats hold; everything else is in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Wherever a precision holds.
    All,
    /// The products with weights of every layer.
    Linear,
    /// Both products of attention.
    Attention,
    /// The product with the head.
    Head,
}

named! { Scope, "scope": All = "all", Linear = "linear", Attention = "attention", Head = "head" }

impl Along {
    /// Do its formats hold there? Codes are of weights in layers alone.
    pub fn holds_at(self, scope: Scope) -> bool {
        match self {
            Along::Mantissa | Along::Exponent => true,
            Along::Bits | Along::Block | Along::Split => matches!(scope, Scope::All | Scope::Linear),
        }
    }
}

/// A step of a ladder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What it is called.
    pub width: String,
    /// Its precision, as a matrix names it.
    pub precision: String,
}

/// The steps, from the widest to the narrowest.
pub fn ladder(along: Along, scope: Scope) -> Vec<Step> {
    let steps: Vec<(String, String)> = match along {
        Along::Mantissa => {
            (1..=16).rev().map(|bits| (format!("m{bits}"), format!("cast:e8m{bits}"))).collect()
        }
        Along::Exponent => {
            (2..=8).rev().map(|bits| (format!("e{bits}"), format!("cast:e{bits}m3"))).collect()
        }
        Along::Bits => {
            (2..=8).rev().map(|bits| (format!("int{bits}"), format!("scaled:w=int{bits}-f16-g128"))).collect()
        }
        Along::Block => ["g16", "g32", "g64", "g128", "channel", "tensor"]
            .map(|span| (span.to_owned(), format!("scaled:w=int4-f16-{span}")))
            .into(),
        Along::Split => (4..=8_u32)
            .rev()
            .flat_map(|bits| {
                (2..bits - 1).map(move |exponent| format!("e{exponent}m{}", bits - 1 - exponent))
            })
            .map(|float| {
                let scaled = format!("scaled:w={float}-f32-channel,a={float}-f32-token");
                (float, scaled)
            })
            .collect(),
    };
    let at = |precision: String| match scope {
        Scope::All => precision,
        Scope::Linear => format!("map:fp32;qkv,output,gate-up,down={precision}"),
        Scope::Attention => format!("map:fp32;scores,context={precision}"),
        Scope::Head => format!("map:fp32;head={precision}"),
    };
    steps.into_iter().map(|(width, precision)| Step { width, precision: at(precision) }).collect()
}

/// What is asked of every step.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The suites.
    pub suites: &'a [String],
    /// How many items of each.
    pub items: u64,
    /// How many tokens of an answer at most; as many as a suite says where there is none.
    pub max_new_tokens: Option<usize>,
    /// How many prompts share a call.
    pub batch: usize,
    /// How many of the best tokens are kept at each place: a divergence is told of these, and of all others together.
    pub candidates: usize,
}

/// The matrix whose cells are the steps, and whose reference has written what they read.
pub fn matrix(ladder: &[Step], asked: Asked<'_>) -> String {
    let Asked { suites, items, max_new_tokens, batch, candidates } = asked;
    let most = max_new_tokens.map_or_else(String::new, |most| format!("max-new-tokens = {most}\n"));
    let precisions: Vec<_> = ladder.iter().map(|step| &step.precision).collect();
    format!(
        "suites = {suites:?}\nitems  = {items}\n\n[generate]\nreplay = true\ncandidates = {candidates}\n{most}\n[reference]\nprecision = \
         \"fp32\"\norder     = \"exact\"\nbatch     = {batch}\n\n[matrix]\nprecision = {precisions:?}\norder     = \"sequential\"\nbatch     \
         = {batch}\n"
    )
}

/// What a step moves.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What it is called.
    pub width: String,
    /// Its precision.
    pub precision: String,
    /// The bytes of the weights; nothing where that is not known.
    pub weights: Option<u64>,
    /// The places whose logits are not those of the reference, to the last bit.
    pub logits: Proportion,
    /// The places where another token ranks first.
    pub tokens: Proportion,
    /// Their share of all such places, with a confidence of 95 %, as if places were independent.
    pub tokens_interval: Option<Interval>,
    /// The items in which some token does: their texts would be others.
    pub texts: Proportion,
    /// Their share of all such items, with a confidence of 95 %.
    pub texts_interval: Option<Interval>,
    /// The mean divergence from the reference, in nats: of the tokens that both kept, and of all others together.
    pub divergence: Option<f64>,
}

/// What every step moves.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sweep {
    /// What becomes narrower.
    pub along: Along,
    /// Where.
    pub scope: Scope,
    /// From the widest to the narrowest.
    pub rows: Vec<Row>,
}

/// On what something moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// Numbers.
    Logits,
    /// The tokens that rank first.
    Tokens,
    /// Whole answers.
    Texts,
}

impl Row {
    /// How many of all.
    pub fn of(&self, moved: Moved) -> Proportion {
        match moved {
            Moved::Logits => self.logits,
            Moved::Tokens => self.tokens,
            Moved::Texts => self.texts,
        }
    }
}

impl Sweep {
    /// The steps of a report, as far as they have run.
    pub fn of(report: &Report, along: Along, scope: Scope) -> Sweep {
        let moved = |same: Proportion| Proportion { hits: same.misses(), of: same.of };
        let rows = ladder(along, scope).into_iter().filter_map(|Step { width, precision }| {
            let wanted: Precision = precision.parse().ok()?;
            let is_wanted =
                |cell: Cell| matches!(cell.compute, Compute::Lab(own) if own.precision() == wanted);
            let row = report.cells.iter().find(|row| is_wanted(row.cell) && row.against.is_some())?;
            let against = row.against.as_ref()?;
            let (tokens, texts) = (moved(against.best?), moved(against.items.tokens?));
            Some(Row {
                width,
                precision,
                weights: row.cost.map(|cost| cost.weight_bytes),
                logits: moved(against.places?),
                tokens,
                tokens_interval: tokens.wilson(CONFIDENCE),
                texts,
                texts_interval: texts.wilson(CONFIDENCE),
                divergence: against.divergence,
            })
        });
        Sweep { along, scope, rows: rows.collect() }
    }

    /// The widest step that moves something, and the one before it, which does not.
    pub fn first(&self, moved: Moved) -> Option<(Option<&Row>, &Row)> {
        let at = self.rows.iter().position(|row| row.of(moved).hits > 0)?;
        Some((at.checked_sub(1).map(|before| &self.rows[before]), &self.rows[at]))
    }

    /// Of the formats of as many bits the one that is nearest to the reference, where a sweep parts bits.
    pub fn best_splits(&self) -> Vec<&Row> {
        let mut best: Vec<&Row> = Vec::new();
        for row in self.rows.iter().filter(|_| self.along == Along::Split) {
            let distance = |row: &Row| row.divergence.unwrap_or(f64::INFINITY);
            match best.iter_mut().find(|best| best.weights == row.weights) {
                Some(best) if distance(row) < distance(best) => *best = row,
                Some(_) => {}
                None => best.push(row),
            }
        }
        best
    }
}
