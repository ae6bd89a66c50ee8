//! What must hold, as a matrix file says it: which cells are compared, and within which limits.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, json};

use toml::de::DeValue;

use super::shape::{Form, Key, count, key, number, share};
use crate::cell::{AXES, Axis, Cell, Setting, axes, server};
use crate::compare::{Level, Measure};

/// Something that must hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What a report calls it.
    pub name: String,
    /// The line of the matrix file that it begins in.
    pub line: usize,
    /// Which cells it is about.
    #[serde(rename = "where")]
    pub filter: Filter,
    /// What these are compared with.
    pub comparison: Comparison,
    /// What must be true of every comparison.
    pub limits: Vec<Limit>,
}

/// What cells are compared with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// With those that differ on these axes alone.
    Within(Vec<Axis>),
    /// With the reference.
    Reference,
    /// With their approved digests.
    Baseline,
}

/// What must be true of a comparison.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Both agree on this level.
    Require(Level),
    /// Both agree on every token, and on the numbers of the best ones at its place.
    Top,
    /// Both have the same text.
    Text,
    /// They do not agree on their bits.
    Diverges,
    /// Accuracy falls by less than this.
    AccuracyDrop {
        /// A part of all items.
        most: f64,
        /// The confidence of the one-sided bound of the fall.
        confidence: f64,
    },
    /// `pass@k`, over the seeds of a configuration, falls by less than this.
    PassDrop {
        /// Of how many answers one has to be right.
        k: u64,
        /// A part of all items.
        most: f64,
        /// The confidence of the one-sided bound of the fall.
        confidence: f64,
    },
    /// `pass@1` deviates by at most this from configuration to configuration.
    PassDeviation(f64),
    /// At most this share of the items turns from right to wrong or back.
    FlipRate(f64),
    /// At most this share of the items has another text.
    DivergenceRate(f64),
    /// No text parts before so many tokens were equal.
    FirstDivergence(u64),
    /// No larger share of the rows of logits is farther apart than arithmetic that may be chosen freely would leave them.
    Rows {
        /// By this measure.
        measure: Measure,
        /// So far.
        most: f64,
        /// So large a share; none may be where it is 0.
        exceeding: f64,
    },
}

/// A limit as a matrix file sets it: a row of [`LIMITS`].
pub struct LimitEntry {
    /// The key that sets it.
    pub key: Key,
    /// What a value of the key's form means.
    pub(super) read: fn(&DeValue<'_>) -> Option<Limit>,
}

/// Of the bound that a loss is held to, where a gate says nothing of it.
const CONFIDENCE: f64 = 0.95;

/// Less than bits, and more than tokens: what can be asked of a server that shows the best log-probabilities alone.
const TOP: &str = "top";
/// Less than tokens: what can be asked of a server that answers with nothing else.
const TEXT: &str = "text";

/// Every limit that a gate may set.
pub const LIMITS: &[LimitEntry] = &[
    LimitEntry {
        key: key("require", Form::Word(&["bits", TOP, "tokens", TEXT, "answers"]), "what must be equal"),
        read: |value| match value.as_str()? {
            TOP => Some(Limit::Top),
            TEXT => Some(Limit::Text),
            level => level.parse().ok().map(Limit::Require),
        },
    },
    LimitEntry {
        key: key("expect", Form::Word(&["diverges"]), "cells must differ: agreement fails"),
        read: |_| Some(Limit::Diverges),
    },
    LimitEntry {
        key: key(
            "max-accuracy-drop",
            Form::Share,
            "how much accuracy a cell may lose, by tests and an interval over pairs of answers",
        ),
        read: |value| share(value).map(|most| Limit::AccuracyDrop { most, confidence: CONFIDENCE }),
    },
    LimitEntry {
        key: key(
            "max-pass-drop",
            Form::Share,
            "how much of pass@k a configuration may lose, over all of its seeds; `pass-at` is k",
        ),
        read: |value| share(value).map(|most| Limit::PassDrop { k: 1, most, confidence: CONFIDENCE }),
    },
    LimitEntry {
        key: key(
            "max-pass-std",
            Form::Share,
            "how far pass@1, over all seeds, may deviate from configuration to configuration: Std@Pass@1",
        ),
        read: |value| share(value).map(Limit::PassDeviation),
    },
    LimitEntry {
        key: key("max-flip-rate", Form::Share, "which share of items may turn from right to wrong or back"),
        read: |value| share(value).map(Limit::FlipRate),
    },
    LimitEntry {
        key: key("max-divergence-rate", Form::Share, "which share of items may have another text"),
        read: |value| share(value).map(Limit::DivergenceRate),
    },
    LimitEntry {
        key: key("min-first-divergence", Form::Count(1), "how many tokens must be equal before a text parts"),
        read: |value| count(value).map(Limit::FirstDivergence),
    },
    LimitEntry {
        key: key(
            "max-logit-difference",
            Form::Number,
            "how far apart the logits of a token may be, of those that are kept; `exceeding` is for how many rows that may not hold",
        ),
        read: |value| rows(Measure::LogitDifference, number(value)?, 0.0),
    },
    LimitEntry {
        key: key("max-ulp", Form::Count(0), "the same in steps of f32"),
        read: |value| rows(Measure::Ulp, count(value)? as f64, 0.0),
    },
    LimitEntry {
        key: key("max-kl", Form::Number, "the same as a divergence of the rows, in nats"),
        read: |value| rows(Measure::Kl, number(value)?, 0.0),
    },
    LimitEntry {
        key: key("max-rank-flips", Form::Share, "in which share of the rows another token may rank first"),
        read: |value| rows(Measure::RankFlips, 0.0, share(value)?),
    },
];

fn rows(measure: Measure, most: f64, exceeding: f64) -> Option<Limit> {
    Some(Limit::Rows { measure, most, exceeding })
}

impl Limit {
    /// When it holds of two cells, in a sentence without its end.
    pub fn sentence(&self) -> String {
        match self {
            Limit::Require(level) => format!("both have the same {level} on every item"),
            Limit::Top => "both have the same tokens on every item, and the same numbers of the best ones at every place, as many as \
                           `candidates` says"
                .to_owned(),
            Limit::Text => "both have the same text on every item, whatever tokens it was made of".to_owned(),
            Limit::Diverges => {
                "they are seen to have other bits on at least one item: agreement fails".to_owned()
            }
            Limit::AccuracyDrop { most, confidence } => format!(
                "the loss of accuracy over all items is below {} % even at the far end of its interval (Newcombe's, one-sided, at \
                 {} % confidence, over pairs of answers to the same item). It fails if a test shows a larger loss, over all items \
                 or those of one suite; all tests of the gate are taken together (Holm). Else it is undecided, and the report \
                 says how many items would decide it",
                percent(*most),
                percent(*confidence)
            ),
            Limit::PassDrop { k, most, confidence } => format!(
                "pass@{k} over all seeds falls by less than {} % even at the far end of its interval (Student's over clusters, one-sided, \
                 at {} % confidence). It fails where a larger fall is beyond doubt among all configurations of the gate \
                 (Bonferroni), and else is undecided",
                percent(*most),
                percent(*confidence)
            ),
            Limit::PassDeviation(most) => format!(
                "pass@1 over all seeds deviates by at most {} pp from configuration to configuration",
                percent(*most)
            ),
            Limit::FlipRate(most) => {
                format!(
                    "at most {} % of the items turn from right to wrong or from wrong to right",
                    percent(*most)
                )
            }
            Limit::DivergenceRate(most) => {
                format!("at most {} % of the items have other tokens", percent(*most))
            }
            Limit::FirstDivergence(tokens) => format!("no output parts before {tokens} tokens were the same"),
            Limit::Rows { measure: Measure::RankFlips, exceeding, .. } => format!(
                "another token ranks first in no more rows of logits than a share of {exceeding} explains{IN_ITEMS}"
            ),
            Limit::Rows { measure, most, exceeding: 0.0 } => {
                format!("no row of logits is farther apart than {}", apart(*measure, *most))
            }
            Limit::Rows { measure, most, exceeding } => format!(
                "no more rows of logits are farther apart than {} than a share of {exceeding} explains{IN_ITEMS}",
                apart(*measure, *most)
            ),
        }
    }

    /// In a few words, for a gate without a name of its own.
    pub fn name(&self) -> String {
        match self {
            Limit::Require(level) => format!("the same {level}"),
            Limit::Top => "the same best numbers".to_owned(),
            Limit::Text => "the same text".to_owned(),
            Limit::Diverges => "other bits".to_owned(),
            Limit::AccuracyDrop { most, .. } => format!("at most {} pp less accuracy", percent(*most)),
            Limit::PassDrop { k, most, .. } => format!("at most {} pp less pass@{k}", percent(*most)),
            Limit::PassDeviation(most) => format!("pass@1 within a deviation of {} pp", percent(*most)),
            Limit::FlipRate(most) => format!("at most {} % flips", percent(*most)),
            Limit::DivergenceRate(most) => format!("at most {} % other texts", percent(*most)),
            Limit::FirstDivergence(1) => "the same first token".to_owned(),
            Limit::FirstDivergence(tokens) => format!("the same first {tokens} tokens"),
            Limit::Rows { measure: Measure::RankFlips, exceeding, .. } => {
                format!("at most {} % other first ranks", percent(*exceeding))
            }
            Limit::Rows { measure, most, .. } => format!("rows at most {} apart", apart(*measure, *most)),
        }
    }

    /// Does it ask for what cells answer, and so say nothing where they do not?
    pub fn needs_answers(&self) -> bool {
        match self {
            Limit::Require(level) => *level == Level::Answers,
            Limit::AccuracyDrop { .. }
            | Limit::PassDrop { .. }
            | Limit::PassDeviation(_)
            | Limit::FlipRate(_) => true,
            Limit::Top
            | Limit::Text
            | Limit::Diverges
            | Limit::DivergenceRate(_)
            | Limit::FirstDivergence(_)
            | Limit::Rows { .. } => false,
        }
    }

    /// Is it about every row of logits?
    pub fn is_of_rows(&self) -> bool {
        matches!(self, Limit::Rows { .. })
    }

    /// Is it about configurations, each under all of its seeds, and not about two cells?
    pub fn is_of_configurations(&self) -> bool {
        matches!(self, Limit::PassDrop { .. } | Limit::PassDeviation(_))
    }
}

/// How rows that may hang together are counted.
const IN_ITEMS: &str = ", by the items in which there is one: it fails where a binomial test at 95 %, all of the gate taken together \
                        (Bonferroni), shows more";

/// So far, by this measure.
pub(crate) fn apart(measure: Measure, most: f64) -> String {
    match measure {
        Measure::LogitDifference => format!("{most} in a logit"),
        Measure::Ulp => format!("{most} steps of f32 in a logit"),
        Measure::Kl => format!("{most} nats"),
        Measure::RankFlips => "another token in the first rank".to_owned(),
    }
}

/// Without the digits that only binary has: 0.07 is 7.
fn percent(share: f64) -> f64 {
    (1e8 * share).round() / 1e6
}

/// Cells that have, on each axis named, one of the values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter(pub Vec<(Axis, Vec<Setting>)>);

impl Filter {
    /// Is it one of them?
    pub fn matches(&self, cell: &Cell) -> bool {
        self.0.iter().all(|(axis, settings)| settings.contains(&cell.get(*axis)))
    }
}

/// As a table of axes, each with its settings as texts.
impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = |settings: &[Setting]| settings.iter().map(ToString::to_string).collect::<Vec<_>>();
        serializer.collect_map(self.0.iter().map(|(axis, settings)| (axis, texts(settings))))
    }
}

impl JsonSchema for Filter {
    fn schema_name() -> Cow<'static, str> {
        "Filter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let settings = |axis: Axis| json!({ "type": "string", "pattern": axis.whole_pattern() });
        let axes = AXES.iter().map(|entry| {
            let schema = json!({
                "description": format!("Settings of this axis: {}.", entry.sentence),
                "type": "array",
                "items": settings(entry.axis),
            });
            (entry.name.to_owned(), schema)
        });
        json_schema!({
            "description": "Cells that have, on each axis named, one of its settings.",
            "type": "object",
            "properties": axes.collect::<Map<_, _>>(),
            "patternProperties": { format!("^{}$", server::AXIS): { "type": "array", "items": { "type": "string" } } },
        })
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
        let mut table: BTreeMap<String, Vec<String>> = BTreeMap::deserialize(deserializer)?;
        let mut filter = Vec::new();
        // In the order in which a file is read: our own, then those of servers.
        let own: Vec<_> = AXES.iter().filter_map(|entry| table.remove_entry(entry.name)).collect();
        for (name, texts) in own.into_iter().chain(table) {
            let axis = Axis::recorded(&name);
            let axis = axis.ok_or_else(|| de::Error::custom(format!("there is no axis `{name}`")))?;
            let settings = texts.iter().map(|text| axis.parse(text)).collect::<Result<_, _>>();
            filter.push((axis, settings.map_err(de::Error::custom)?));
        }
        Ok(Filter(filter))
    }
}

impl Gate {
    /// The groups of cells that it compares, in the order of the cells: of each group the first is what the others are
    /// compared with. A group of one compares nothing.
    pub fn groups(&self, cells: &[Cell]) -> Vec<Vec<Cell>> {
        match &self.comparison {
            Comparison::Within(vary) => groups(cells.iter().filter(|cell| self.filter.matches(cell)), vary),
            _ => Vec::new(),
        }
    }
}

/// The groups of cells that differ on these axes alone, in the order of the cells.
pub fn groups<'c>(cells: impl IntoIterator<Item = &'c Cell>, vary: &[Axis]) -> Vec<Vec<Cell>> {
    let cells: Vec<Cell> = cells.into_iter().copied().collect();
    let kept: Vec<Axis> = axes(&cells).into_iter().filter(|axis| !vary.contains(axis)).collect();
    let mut groups: Vec<Vec<Cell>> = Vec::new();
    let mut numbers: HashMap<Vec<Setting>, usize> = HashMap::new();
    for cell in cells {
        let kept = kept.iter();
        let number = *numbers.entry(kept.map(|axis| cell.get(*axis)).collect()).or_insert(groups.len());
        if number == groups.len() {
            groups.push(Vec::new());
        }
        groups[number].push(cell);
    }
    groups
}
