//! What surrounds cells and is not the same for all that are compared: whatever they differ by may come from it.

use super::{Change, Report, Stated, Surrounding, words::plural};
use crate::{
    cell::Cell,
    engine::environment::{Differing, ENGINE, Environment, stated},
    record::About,
    verdict::evidence::Known,
};

/// What a matrix file says of a server, or a script, by its digest.
const DECLARED: &str = "what is declared of it";
const MODEL: &str = "model";

/// What a person is told of it before anything else.
pub(crate) struct Told {
    /// The engine.
    pub(crate) engine: String,
    /// A sentence for each engine.
    pub(crate) sentence: String,
    /// What differs around its cells.
    pub(crate) lines: Vec<String>,
    /// May it move a bit of them?
    pub(crate) may_move: bool,
}

/// May a difference of these facts move a bit of these cells? The bits of a pinned engine are the same on every machine.
fn may_move<'w>(mut cells: impl Iterator<Item = Cell>, mut what: impl Iterator<Item = &'w str>) -> bool {
    cells.any(|cell| !cell.compute.entry().pinned)
        || what.any(|what| [ENGINE, DECLARED, MODEL].contains(&what))
}

/// What follows from that.
fn so(may_move: bool) -> &'static str {
    if may_move { "and any other difference may come from that:" } else { "which moves no bit of them:" }
}

/// The sentence above what differs around two cells.
pub(crate) fn sentence_of_two(cells: [Cell; 2], differing: &Differing) -> String {
    let what = differing.iter().map(|(what, _)| what.as_str());
    format!("The surroundings of the two differ, {}", so(may_move(cells.into_iter(), what)))
}

/// In what the surroundings of two cells differ, each of a run of its own or of one: where they ran, and what was declared of
/// their engines.
pub(crate) fn differences(runs: [&About; 2], cells: [Cell; 2], environments: [&Environment; 2]) -> Differing {
    let mut differing = Environment::differences(environments);
    let declared = [0, 1].map(|at| {
        let digest = runs[at].scripts.get(&cells[at].compute.engine().to_string());
        digest.map(|digest| format!("{:.12}", digest.to_string()))
    });
    // Of two engines that is no change of one.
    if declared[0] != declared[1] && cells[0].compute.engine() == cells[1].compute.engine() {
        differing.push((DECLARED.to_owned(), declared));
    }
    let models = runs.map(|run| Some(format!("{} ({:.12})", run.model.name, run.model.digest.to_string())));
    if runs[0].model.digest != runs[1].model.digest {
        differing.push((MODEL.to_owned(), models));
    }
    differing
}

impl Surrounding {
    /// Of all cells of one run. The bits of a pinned engine are the same everywhere.
    pub(super) fn of(known: &[&Known]) -> Vec<Surrounding> {
        let mut found: Vec<Surrounding> = Vec::new();
        let mut engines: Vec<(String, Vec<&Known>)> = Vec::new();
        for known in known.iter().filter(|known| !known.cell.compute.entry().pinned) {
            let engine = known.cell.compute.engine().to_string();
            match engines.iter_mut().find(|(other, _)| *other == engine) {
                Some((_, cells)) => cells.push(known),
                None => engines.push((engine, vec![known])),
            }
        }
        for (engine, cells) in engines {
            let first = &cells[0].environment;
            let mut names: Vec<String> = Vec::new();
            for (name, _) in
                cells.iter().flat_map(|known| Environment::differences([first, &known.environment]))
            {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            // The engine stands first, and then each fact in the order of names.
            names.sort_by_key(|name| (name != ENGINE, name.clone()));
            found.extend(names.into_iter().map(|what| {
                let mut values: Vec<Stated> = Vec::new();
                for known in &cells {
                    let value = known.environment.says(&what);
                    match values.iter_mut().find(|stated| stated.value == value) {
                        Some(stated) => stated.cells.push(known.cell),
                        None => values.push(Stated { value, cells: vec![known.cell] }),
                    }
                }
                Surrounding { engine: engine.clone(), what, values }
            }));
        }
        found
    }
}

impl Change {
    /// Of all these cells, which have run in both.
    pub(super) fn of(reports: [&Report; 2], cells: impl Iterator<Item = Cell>) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for cell in cells {
            let environments = reports.map(|report| {
                let row = report.cells.iter().find(|row| row.cell == cell)?;
                report.environments.get(row.environment)
            });
            let [Some(before), Some(after)] = environments else { continue };
            let engine = cell.compute.engine().to_string();
            for (what, [before, after]) in
                differences(reports.map(|report| &report.run), [cell; 2], [before, after])
            {
                // It is one for the whole run.
                if what == MODEL {
                    continue;
                }
                let change = Change { engine: engine.clone(), what, before, after, cells: 1 };
                match changes.iter_mut().find(|other| Change { cells: 1, ..(**other).clone() } == change) {
                    Some(other) => other.cells += 1,
                    None => changes.push(change),
                }
            }
        }
        let mut engines: Vec<String> = changes.iter().map(|change| change.engine.clone()).collect();
        engines.dedup();
        let order = |change: &Change| engines.iter().position(|engine| *engine == change.engine);
        changes.sort_by_key(order);
        changes
    }
}

/// What is to be told of the surroundings before anything else: engine by engine.
pub(crate) fn told(report: &Report) -> Vec<Told> {
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |engine: &str, line: String| match told.last_mut() {
        Some((last, lines)) if *last == engine => lines.push(line),
        _ => told.push((engine.to_owned(), vec![line])),
    };
    let of_engine = |engine: &str| {
        let engine = engine.to_owned();
        report.cells.iter().filter(move |row| row.cell.compute.engine().to_string() == engine)
    };
    let Some(before) = &report.before else {
        for Surrounding { engine, what, values } in &report.surroundings {
            let values: Vec<_> = values
                .iter()
                .map(|Stated { value, cells }| format!("{} ({})", stated(value.as_deref()), some(cells)))
                .collect();
            add(engine, format!("{what}: {}", values.join(", ")));
        }
        let tell = |(engine, lines)| Told {
            sentence: format!(
                "Not all cells of {engine} have the same surroundings, and what sets them apart may come from that:"
            ),
            engine,
            lines,
            may_move: true,
        };
        return told.into_iter().map(tell).collect();
    };
    for Change { engine, what, before, after, cells } in &before.surroundings {
        let all = of_engine(engine).count();
        let part = if *cells < all {
            format!(" ({cells} of {})", plural(all as u64, "cell"))
        } else {
            String::new()
        };
        add(engine, format!("{what}: {} -> {}{part}", stated(before.as_deref()), stated(after.as_deref())));
    }
    let tell = |(engine, lines): (String, Vec<String>)| {
        let cells = of_engine(&engine).map(|row| row.cell);
        let changes = before.surroundings.iter().filter(|change| change.engine == engine);
        let may_move = may_move(cells, changes.map(|change| change.what.as_str()));
        let sentence = format!("The surroundings of the cells of {engine} have changed, {}", so(may_move));
        Told { engine, sentence, lines, may_move }
    };
    told.into_iter().map(tell).collect()
}

/// The same, a line for each engine.
pub(crate) fn lines(report: &Report) -> Vec<String> {
    let all = told(report).into_iter().filter(|told| told.may_move);
    all.map(|Told { sentence, lines, .. }| format!("{sentence} {}", lines.join("; "))).collect()
}

/// Cells, by the first of them.
pub(crate) fn some(cells: &[Cell]) -> String {
    match cells {
        [] => "no cell".to_owned(),
        [cell] => cell.to_string(),
        [first, ..] => format!("{} from {first} on", plural(cells.len() as u64, "cell")),
    }
}
