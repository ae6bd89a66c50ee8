//! What a matrix file means: suites, cells and gates, or everything that is wrong with it.

pub mod cluster;
pub mod gate;
pub mod keys;
mod read;
pub mod references;
pub mod shape;

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    cluster::Cluster,
    gate::{Comparison, Gate},
    references::References,
};
use crate::{
    cell::{Cell, Name},
    engine::{script::Script, server::Server},
    numerics::choice::Choice,
    source::Problems,
    suite::{Suite, style::Style},
};

/// What is to run, and what must hold.
pub struct Plan {
    /// The model, if the file names one.
    pub model: Option<String>,
    /// The suites, in their order.
    pub suites: Vec<Asked>,
    /// How prompts are continued.
    pub generation: Generation,
    /// What all cells are compared with, each under its own seed.
    pub reference: Option<Cell>,
    /// Every cell once: the reference under every seed, then the matrix in the order of its axes, then what was included.
    pub cells: Vec<Cell>,
    /// Those of them that stand beside the product of the axes: what was included, and a reference that is no part of it.
    pub beside: Vec<Cell>,
    /// What must hold.
    pub gates: Vec<Gate>,
    /// Is the cause looked for why the first two cells part that do? No part of what a run is known by.
    pub bisect: bool,
    /// Are faults seeded after it, and the gates asked of each? No part of what a run is known by.
    pub selftest: bool,
    /// What a part of it asks a scheduler for. No part of what a run is known by.
    pub cluster: Cluster,
    /// What scripted engines answer, by the names of their files, which lie beside the matrix file.
    pub scripts: BTreeMap<Name, Script>,
    /// What the file says of servers, by their names.
    pub servers: BTreeMap<Name, Server>,
}

/// A suite, and how it is asked.
pub struct Asked {
    /// Which.
    pub suite: Suite,
    /// How many items.
    pub items: u64,
    /// The seed that they are drawn by.
    pub item_seed: u64,
    /// In which style; whatever suits the model where there is none.
    pub style: Option<Style>,
    /// How many solved examples stand before each.
    pub shots: usize,
}

/// How prompts are continued.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// How many tokens may follow; as many as a suite says where there is none.
    pub max_new_tokens: Option<usize>,
    /// How a token is chosen; its seed is the cell's.
    pub choice: Choice,
    /// How many of the best tokens are kept with their logits.
    pub candidates: usize,
    /// Do cells read what the reference wrote, and not what they wrote themselves?
    pub replay: bool,
}

impl Plan {
    /// Reads a matrix file: `text`, which lies at `path`, under one of its profiles.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn read(path: &Path, text: &str, profile: Option<&str>) -> Result<Plan, Problems> {
        read::plan(path, text, profile)
    }

    /// The suites themselves, in their order.
    pub fn made_of(&self) -> impl Iterator<Item = &Suite> {
        self.suites.iter().map(|asked| &asked.suite)
    }

    /// Items, and tokens that may follow them, of one cell.
    pub fn cost(&self) -> (u64, u64) {
        let items = self.suites.iter().map(|asked| asked.items);
        let tokens = self.suites.iter().map(|asked| asked.items.saturating_mul(self.most_tokens(asked)));
        (items.fold(0, u64::saturating_add), tokens.fold(0, u64::saturating_add))
    }

    /// How many tokens all cells may have an engine choose, those of neighbors that nobody reads included.
    pub fn most_tokens_of_all(&self) -> u64 {
        let (_, tokens) = self.cost();
        let of_cell = |cell: &Cell| tokens.saturating_mul(cell.serving.answers() as u64);
        self.cells.iter().map(of_cell).fold(0, u64::saturating_add)
    }

    /// How many tokens may follow one of a suite's prompts, whatever style it is asked in.
    pub fn most_tokens(&self, asked: &Asked) -> u64 {
        let styles = asked.suite.styles();
        let limits = styles.into_iter().filter(|style| asked.style.is_none_or(|only| only == *style));
        let most = limits.filter_map(|style| asked.suite.limits.of(style)).max().unwrap_or_default();
        self.generation.max_new_tokens.unwrap_or(most) as u64
    }

    /// How many pairs of cells a gate compares; against a baseline, how many cells.
    pub fn comparisons(&self, gate: &Gate) -> usize {
        match gate.comparison {
            Comparison::Within(_) => gate.groups(&self.cells).iter().map(|group| group.len() - 1).sum(),
            Comparison::Reference => {
                let references = self.references();
                let about = |cell: &&Cell| !references.has(**cell) && gate.filter.matches(cell);
                self.cells.iter().filter(about).count()
            }
            Comparison::Baseline => self.cells.iter().filter(|cell| gate.filter.matches(cell)).count(),
        }
    }

    /// What its cells are compared with.
    pub fn references(&self) -> References {
        References::among(self.reference, &self.cells)
    }
}
