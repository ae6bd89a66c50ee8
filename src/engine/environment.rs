//! Who answered, and where: it moves no bit of a pinned engine, and any bit of another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts,
    fmt, fs,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::numerics::kernel::Isa;

/// Of candle, as `Cargo.lock` has it; a test compares.
pub(super) const CANDLE: &str = "0.11.1";

/// What its engine is called among its facts.
pub(crate) const ENGINE: &str = "engine";

/// What a machine is told by, among the facts of an engine that computes on it.
pub(crate) const MACHINE: [&str; 3] = ["built for", "processor", "widest vectors"];

/// Who answered, and where: what the bits of an engine that is not pinned may depend on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The engine and its version, such as `candle 0.11.1`.
    pub engine: String,
    /// What else is known of it, each by its name, such as the processor.
    pub facts: BTreeMap<String, String>,
}

impl Environment {
    /// An engine that computes on this machine, with what only it knows of itself.
    pub(super) fn here(
        engine: String,
        facts: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Environment {
        let machine =
            [Some(format!("{}-{}", consts::ARCH, consts::OS)), processor(), Some(Isa::best().to_string())];
        let machine = MACHINE.into_iter().zip(machine).filter_map(|(name, fact)| Some((name, fact?)));
        let facts = machine.chain(facts).map(|(name, fact)| (name.to_owned(), fact)).collect();
        Environment { engine, facts }
    }
}

impl Environment {
    /// With what else is known of it.
    pub(super) fn with(mut self, facts: BTreeMap<String, String>) -> Environment {
        self.facts.extend(facts);
        self
    }

    /// What it says under a name.
    pub(crate) fn says(&self, name: &str) -> Option<String> {
        if name == ENGINE { Some(self.engine.clone()) } else { self.facts.get(name).cloned() }
    }

    /// Both, where something ran in two: a fact of which they say two things says both.
    #[must_use]
    pub(crate) fn joined(&self, other: &Environment) -> Environment {
        let mut both = self.clone();
        for (name, fact) in &other.facts {
            let known = both.facts.entry(name.clone()).or_insert_with(|| fact.clone());
            if !known.split(" and ").any(|one| one == fact) {
                known.push_str(" and ");
                known.push_str(fact);
            }
        }
        both
    }

    /// What is known of it beside its engine.
    pub fn facts(&self) -> String {
        let facts: Vec<_> = self.facts.iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
        facts.join(", ")
    }
}

/// The most memory that this process has had at once, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// What of two environments is not the same: its name, and what each says of it.
pub type Differing = Vec<(String, [Option<String>; 2])>;

impl Environment {
    /// Where two differ: the engine first, and then what is known of it by its names.
    pub fn differences(both: [&Environment; 2]) -> Differing {
        let engine = both.map(|environment| Some(environment.engine.clone()));
        let names: BTreeSet<_> = both.iter().flat_map(|environment| environment.facts.keys()).collect();
        let facts = names
            .into_iter()
            .map(|name| (name.clone(), both.map(|environment| environment.facts.get(name).cloned())));
        let all = std::iter::once((ENGINE.to_owned(), engine)).chain(facts);
        all.filter(|(_, [one, other])| one != other).collect()
    }
}

/// What is known of a fact, or that nothing is.
pub(crate) fn stated(value: Option<&str>) -> &str {
    value.unwrap_or("not told")
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.engine, self.facts())
    }
}

/// The processor's name, where the system tells.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_candle_is_the_one_that_is_built() {
        let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        for part in ["core", "nn", "transformers"] {
            assert!(lock.contains(&format!("name = \"candle-{part}\"\nversion = \"{CANDLE}\"\n")), "{part}");
        }
    }
}
