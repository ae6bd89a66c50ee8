//! From the text of a matrix file to the plan that it means, in passes, each of which tells all that it finds: what is no
//! TOML, what has no meaning or another form, and what does not fit together.

mod cells;
mod gates;
mod maps;
mod servers;
mod suites;

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Generation, Plan,
    cluster::Cluster,
    keys::FILE,
    shape::{self, all_of},
};
use crate::{
    cell::{Cell, Compute, Name},
    engine::{script::Script, server::Server},
    name::{did_you_mean, nearest},
    numerics::choice::Choice,
    source::Problems,
};

/// How many of the best tokens are kept where nothing is said.
const CANDIDATES: usize = 5;

pub(super) fn plan(path: &Path, text: &str, profile: Option<&str>) -> Result<Plan, Problems> {
    let mut problems = Problems::new(&path.display().to_string(), text);
    let (file, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.add(
            error.span(),
            format!("{}: see https://toml.io for the form of such a file", error.message()),
        );
    }
    let mut problems = problems.none()?;
    let mut file = file.into_inner();
    let folder = path.parent().unwrap_or(Path::new(""));
    maps::in_their_words(&mut file, folder, &mut problems);
    let mut problems = problems.none()?;
    let declared = servers::declared(&file);
    FILE.check(&file, &declared, &mut problems);
    let mut problems = problems.none()?;
    let merged = under_profile(file, profile, &mut problems);
    let mut problems = problems.none()?;
    let plan = Reader {
        table: &merged,
        folder,
        declared: &declared,
        servers: BTreeMap::new(),
        problems: &mut problems,
    }
    .plan();
    problems.none()?;
    Ok(plan)
}

/// The file's table with what a profile, and those that it inherits from, say instead.
fn under_profile<'a>(mut file: DeTable<'a>, profile: Option<&str>, problems: &mut Problems) -> DeTable<'a> {
    let profiles = match file.remove("profile").map(Spanned::into_inner) {
        Some(DeValue::Table(profiles)) => profiles,
        _ => DeTable::new(),
    };
    let names: Vec<&str> = profiles.keys().map(|name| name.get_ref().as_ref()).collect();
    let known = || match names[..] {
        [] => "the file has none: write [profile.NAME]".to_owned(),
        _ => all_of("there are", &names),
    };
    // Every profile is followed to its end: one that leads nowhere is wrong whether or not it is asked for.
    let follow = |first: &str, problems: &mut Problems| {
        let mut chain: Vec<&str> = Vec::new();
        let mut next = profiles.get_key_value(first);
        while let Some((name, table)) = next {
            chain.push(name.get_ref());
            let Some(parent) = table.get_ref().as_table().and_then(|table| table.get("inherits")) else {
                break;
            };
            let DeValue::String(text) = parent.get_ref() else { break };
            next = profiles.get_key_value(text.as_ref());
            if chain.contains(&text.as_ref()) {
                problems.add(
                    parent.span(),
                    format!(
                        "profiles inherit in a circle, {} → {text}: take one `inherits` out",
                        chain.join(" → ")
                    ),
                );
                break;
            }
            if next.is_none() {
                let near = did_you_mean(nearest(text, names.iter().copied()));
                problems.add(parent.span(), format!("there is no profile `{text}`: {near}{}", known()));
            }
        }
        chain.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for name in &names {
        follow(name, problems);
    }
    let Some(profile) = profile else { return file };
    let mut chain = follow(profile, problems);
    if chain.is_empty() {
        let near = did_you_mean(nearest(profile, names.iter().copied()));
        problems.add(None, format!("there is no profile `{profile}`: {near}{}", known()));
    }
    // The farthest ancestor first.
    chain.reverse();
    for name in chain {
        if let Some(DeValue::Table(table)) = profiles.get(name.as_str()).map(|table| table.get_ref().clone())
        {
            merge(&mut file, table);
        }
    }
    file
}

/// Tables are merged, gates by their names; anything else is replaced.
fn merge<'a>(to: &mut DeTable<'a>, from: DeTable<'a>) {
    for (name, value) in from {
        match (to.get_mut(name.get_ref().as_ref()).map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(to)), DeValue::Table(_)) => {
                if let DeValue::Table(from) = value.into_inner() {
                    merge(to, from);
                }
            }
            (Some(DeValue::Array(to)), DeValue::Array(_)) if name.get_ref() == "gate" => {
                if let DeValue::Array(from) = value.into_inner() {
                    for gate in from {
                        let named = |gate: &Spanned<DeValue<'_>>| {
                            text(gate.get_ref().get("name")?).map(str::to_owned)
                        };
                        match to.iter_mut().find(|old| named(old).is_some() && named(old) == named(&gate)) {
                            Some(old) => *old = gate,
                            None => to.push(gate),
                        }
                    }
                }
            }
            _ => {
                to.insert(name, value);
            }
        }
    }
}

fn text<'v>(value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
    value.get_ref().as_str()
}

/// Does a flag say yes?
fn is_set(table: &DeTable<'_>, name: &str) -> bool {
    table.get(name).is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true)))
}

/// A list, or the one value as a list of one.
fn many<'v, 'a>(value: &'v Spanned<DeValue<'a>>) -> Vec<&'v Spanned<DeValue<'a>>> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    }
}

fn tables<'v, 'a>(
    value: Option<&'v Spanned<DeValue<'a>>>,
) -> impl Iterator<Item = (Range<usize>, &'v DeTable<'a>)> {
    let list = value.map(many).unwrap_or_default().into_iter();
    list.filter_map(|value| Some((value.span(), value.get_ref().as_table()?)))
}

/// Reads a table whose form is right.
struct Reader<'r, 'a> {
    table: &'r DeTable<'a>,
    folder: &'r Path,
    /// The axes of servers.
    declared: &'r [Name],
    servers: BTreeMap<Name, Server>,
    problems: &'r mut Problems,
}

impl Reader<'_, '_> {
    fn plan(mut self) -> Plan {
        let suites = self.suites();
        let generation = self.generation();
        self.servers = self.servers();
        let (matrix, product) = self.matrix(&generation);
        let reference = self.reference(&matrix, &generation);
        let mut beside: Vec<Cell> = reference.into_iter().filter(|cell| !product.contains(cell)).collect();
        let cells = self.cells(reference, product, &mut beside, &generation);
        self.draws_of_servers(&cells, &generation);
        let gates = self.gates(reference.is_some(), &cells, &generation);
        let model = self.table.get("model").and_then(text).map(str::to_owned);
        let scripts = self.scripts(&cells);
        let cluster = self.cluster();
        let [bisect, selftest] = ["bisect", "selftest"].map(|flag| is_set(self.table, flag));
        Plan {
            model,
            suites,
            generation,
            reference,
            cells,
            beside,
            gates,
            bisect,
            selftest,
            cluster,
            scripts,
            servers: self.servers,
        }
    }

    /// No server is asked to draw.
    fn draws_of_servers(&mut self, cells: &[Cell], generation: &Generation) {
        let is_server = |cell: &&Cell| matches!(cell.compute, Compute::Server(_));
        let Some(cell) = cells.iter().find(is_server).filter(|_| !generation.choice.takes_the_best()) else {
            return;
        };
        let sentence = format!(
            "{} would draw in a way of its own, so none is asked to: write choice = \"greedy\" in [generate], or leave servers out",
            cell.compute.engine()
        );
        self.problems.add(self.at("generate"), sentence);
    }

    /// The scripts of all cells, each read once.
    fn scripts(&mut self, cells: &[Cell]) -> BTreeMap<Name, Script> {
        let mut scripts = BTreeMap::new();
        for cell in cells {
            let Compute::Script(name) = cell.compute else { continue };
            if scripts.contains_key(&name) {
                continue;
            }
            match Script::open(self.folder, name) {
                Ok(script) => {
                    scripts.insert(name, script);
                }
                Err(problems) => self.problems.add(self.at("matrix"), problems.to_string()),
            }
        }
        scripts
    }

    fn generation(&self) -> Generation {
        let empty = DeTable::new();
        let table = self.table.get("generate").and_then(|value| value.get_ref().as_table()).unwrap_or(&empty);
        let number = |name: &str| shape::count(table.get(name)?.get_ref()).map(|number| number as usize);
        let choice = table.get("choice").and_then(text).and_then(|choice| shape::choice(choice).ok());
        Generation {
            max_new_tokens: number("max-new-tokens"),
            choice: choice.unwrap_or(Choice::Greedy),
            candidates: number("candidates").unwrap_or(CANDIDATES),
            replay: is_set(table, "replay"),
        }
    }

    fn cluster(&self) -> Cluster {
        let Some(table) = self.table.get("cluster").and_then(|value| value.get_ref().as_table()) else {
            return Cluster::default();
        };
        let text = |name: &str| table.get(name).and_then(text);
        let number = |name: &str| shape::count(table.get(name)?.get_ref());
        Cluster {
            queue: text("queue").map(str::to_owned),
            memory: text("memory").and_then(|memory| memory.parse().ok()),
            time: text("time").and_then(|time| time.parse().ok()),
            cpus: number("cpus"),
            parts: number("parts"),
        }
    }

    fn at(&self, name: &str) -> Option<Range<usize>> {
        self.table.get(name).map(Spanned::span)
    }
}
