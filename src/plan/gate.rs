//! What must hold, as a matrix file says it: which cells are compared, and within which limits.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, json};

use crate::cell::{AXES, Axis, Cell, Setting};
use crate::compare::Level;

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
    /// They do not agree on their bits.
    Diverges,
    /// Accuracy falls by less than this.
    AccuracyDrop {
        /// A part of all items.
        most: f64,
        /// The confidence of the one-sided bound of the fall.
        confidence: f64,
    },
    /// At most this share of the items turns from right to wrong or back.
    FlipRate(f64),
    /// At most this share of the items has another text.
    DivergenceRate(f64),
    /// No text parts before so many tokens were equal.
    FirstDivergence(u64),
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
        })
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
        let mut table: BTreeMap<String, Vec<String>> = BTreeMap::deserialize(deserializer)?;
        let mut filter = Vec::new();
        for entry in AXES {
            let Some(texts) = table.remove(entry.name) else { continue };
            let settings = texts.iter().map(|text| entry.axis.parse(text)).collect::<Result<_, _>>();
            filter.push((entry.axis, settings.map_err(de::Error::custom)?));
        }
        match table.into_keys().next() {
            Some(name) => Err(de::Error::custom(format!("there is no axis `{name}`"))),
            None => Ok(Filter(filter)),
        }
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
    let mut groups: Vec<Vec<Cell>> = Vec::new();
    let mut numbers: HashMap<Vec<Setting>, usize> = HashMap::new();
    for cell in cells {
        let kept = AXES.iter().map(|entry| entry.axis).filter(|axis| !vary.contains(axis));
        let number = *numbers.entry(kept.map(|axis| cell.get(axis)).collect()).or_insert(groups.len());
        if number == groups.len() {
            groups.push(Vec::new());
        }
        groups[number].push(*cell);
    }
    groups
}
