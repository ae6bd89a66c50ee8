//! What is known of a run: what it is about, and what became of each cell.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cause::Cause,
    cell::Cell,
    digest::Digest,
    engine::environment::Environment,
    model::Cost,
    plan::{Generation, gate::Gate},
    suite::style::Style,
    trace::Launches,
};

/// The program, whose every version may make other bits.
pub const PROGRAM: &str = concat!("reprocheck ", env!("CARGO_PKG_VERSION"));

/// What a run is about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The matrix file, as it was named.
    pub matrix: String,
    /// The profile, if one was asked for.
    pub profile: Option<String>,
    /// Who answers.
    pub model: Model,
    /// What is asked.
    pub suites: Vec<Asked>,
    /// How many questions there are.
    pub questions: u64,
    /// The digest of the file of all questions.
    pub items: Digest,
    /// The digest of the file of all tokens' texts; nothing where the model has no tokenizer.
    pub vocabulary: Option<Digest>,
    /// How prompts are continued.
    pub generation: Generation,
    /// What all cells are compared with, if the matrix names one.
    pub reference: Option<Cell>,
    /// Every cell, in the order of the plan.
    pub cells: Vec<Cell>,
    /// The cells that stand beside the product of the axes.
    pub beside: Vec<Cell>,
    /// The digest of every script, by the name of its file, and of what the matrix file says of every server, by its engine.
    pub scripts: BTreeMap<String, Digest>,
    /// What must hold.
    pub gates: Vec<Gate>,
}

/// A part of a run that several machines share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// What the others need before they begin: the reference, whose tokens they read.
    Reference,
    /// One of so many, counted from 1.
    Of(usize, usize),
}

/// How the name of the folder of a part begins.
pub(crate) const PART: &str = "part-";

impl Part {
    /// The name of its folder, which lies in that of the run.
    pub fn folder(self) -> String {
        match self {
            Part::Reference => format!("{PART}reference"),
            Part::Of(part, of) => format!("{PART}{part}-of-{of}"),
        }
    }
}

impl From<Part> for String {
    fn from(part: Part) -> String {
        part.to_string()
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Part, String> {
        text.parse()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Reference => f.write_str("reference"),
            Part::Of(part, of) => write!(f, "{part}/{of}"),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let numbers = || {
            let (part, of) = text.split_once('/')?;
            let (part, of) = (part.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&part).then_some(Part::Of(part, of))
        };
        let part = if text == "reference" { Some(Part::Reference) } else { numbers() };
        part.ok_or_else(|| format!("`{text}` is not a part: write 1/3 for the first of three, or reference"))
    }
}

/// What a part of a run took, which no digest and no report holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Took {
    /// From the opening of its folder to the end of its last cell, all tries together.
    pub milliseconds: u64,
    /// How many items were answered in that time.
    pub items: u64,
    /// The most memory that the process had at once, where the system tells.
    pub peak_bytes: Option<u64>,
}

/// A model, as it answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What the user called it.
    pub name: String,
    /// Where its files were.
    pub origin: String,
    /// The architecture that its files name.
    pub architecture: String,
    /// How many weights it has.
    pub parameters: u64,
    /// The digest of all its files.
    pub digest: Digest,
}

/// A suite, as it was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The name of the suite.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// How many of its items were asked.
    pub items: u64,
    /// The seed that its items were drawn by.
    pub item_seed: u64,
    /// The style in which its items were put.
    pub style: Style,
    /// How many solved examples stand before each item.
    pub shots: usize,
}

/// A cell that is done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Which.
    pub cell: Cell,
    /// Its trace.
    pub trace: Digest,
    /// Of the tree over its items: equal in two cells if and only if all tokens and logits are.
    pub root: Digest,
    /// The launches that ran.
    pub launches: Launches,
    /// How many prompts had a copy beside them that was answered otherwise: with other tokens, or other numbers of the best.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub unlike_copies: u64,
    /// Where.
    pub environment: Environment,
    /// What its precision costs, where its engine keeps the weights of a model that are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What no digest and no report holds.
    pub elapsed: Elapsed,
}

/// Why two cells part, as it was found out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// The two.
    pub cells: [Cell; 2],
    /// Their traces.
    pub traces: [Digest; 2],
    /// The number of the item in which they part.
    pub item: u64,
    /// How many tokens they have in common there.
    pub place: usize,
    /// Why.
    pub cause: Cause,
}

/// What the gates of a run see of seeded faults, as it was found out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTested {
    /// Of what the run is about, its gates among it: under others nothing is known of faults.
    pub about: Digest,
    /// How many faults were tried.
    pub of: u64,
    /// What its gates do not see, a sentence for each fault that the observer of the fault did not.
    pub lacks: Vec<String>,
}

impl About {
    /// The digest of all of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("nothing in it has no form in JSON"))
    }
}

fn is_nought(count: &u64) -> bool {
    *count == 0
}

/// What became of a cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// It is done.
    Done(Box<Done>),
    /// Its engine could not, as it will not the next time.
    Failed(Box<Failed>),
}

/// A cell whose engine could not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Which.
    pub cell: Cell,
    /// What the engine said.
    pub sentence: String,
}

impl Record {
    /// Which cell it is about.
    pub fn cell(&self) -> Cell {
        match self {
            Record::Done(done) => done.cell,
            Record::Failed(failed) => failed.cell,
        }
    }
}

/// How long a cell took.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elapsed {
    /// From the first prompt to the trace on disk.
    pub milliseconds: u64,
    /// The tokens that were chosen in that time.
    pub tokens: u64,
}

impl About {
    /// One value for all that decides what an engine is asked.
    pub fn work(&self) -> Digest {
        let work = (self.model.digest, self.items, self.vocabulary, &self.generation, &self.scripts);
        Digest::of(&serde_json::to_vec(&work).expect("values are JSON"))
    }

    /// What another run does otherwise, if anything. What must hold does not count: it is judged afterwards.
    pub fn difference(&self, new: &About) -> Option<String> {
        let two = |what: &str, old: String, new: String| Some(format!("{what} {old}, not {new}"));
        if self.model.digest != new.model.digest {
            let short = |model: &Model| format!("{} ({:.12})", model.name, model.digest.to_string());
            return two("its model is", short(&self.model), short(&new.model));
        }
        if self.suites != new.suites {
            let names = |about: &About| {
                let names = about.suites.iter().map(|asked| format!("{} of {}", asked.items, asked.name));
                names.collect::<Vec<_>>().join(", ")
            };
            return match (names(self), names(new)) {
                (old, new) if old == new => Some("it asks the same suites in another way".to_owned()),
                (old, new) => two("it asks", old, new),
            };
        }
        if self.generation != new.generation {
            let all = |about: &About| {
                let Generation { max_new_tokens, choice, candidates, replay } = &about.generation;
                let most = max_new_tokens.map_or("as a suite says".to_owned(), |most| most.to_string());
                format!("(max-new-tokens {most}, choice {choice}, candidates {candidates}, replay {replay})")
            };
            return two("it continues prompts", all(self), all(new));
        }
        if self.items != new.items || self.questions != new.questions || self.vocabulary != new.vocabulary {
            return Some("its questions differ, or their tokens do".to_owned());
        }
        let other = |(name, digest): &(&String, &Digest)| self.scripts.get(*name) != Some(*digest);
        if let Some((name, _)) = new.scripts.iter().find(other) {
            let what =
                if name.starts_with("server:") { "what the matrix file says of" } else { "the script" };
            return Some(format!("{what} {name} has been changed"));
        }
        let named = |cell: Option<Cell>| cell.map_or("missing".to_owned(), |cell| cell.to_string());
        if self.reference != new.reference {
            return two("its reference is", named(self.reference), named(new.reference));
        }
        let only = |one: &About, other: &About| {
            let others: HashSet<&Cell> = other.cells.iter().collect();
            one.cells.iter().copied().find(|cell| !others.contains(cell))
        };
        match (only(self, new), only(new, self)) {
            (Some(cell), _) => Some(format!("its matrix has the cell {cell}, and this one does not")),
            (None, Some(cell)) => Some(format!("its matrix has no cell {cell}, and this one has")),
            (None, None) if self.cells != new.cells || self.beside != new.beside => {
                Some("its cells come in another order".to_owned())
            }
            (None, None) => None,
        }
    }
}
