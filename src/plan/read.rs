//! From the text of a matrix file to the plan that it means, in passes, each of which tells all that it finds: what is no
//! TOML, what has no meaning or another form, and what does not fit together.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    ops::Range,
    path::Path,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Asked, Generation, Plan,
    gate::{Comparison, Filter, Gate, LIMITS, Limit},
    keys::FILE,
    shape::{self, Form, all_of},
};
use crate::{
    cell::{AXES, Axis, Cell, Compute, Name, Refusal, Setting},
    engine::script::Script,
    name::{did_you_mean, nearest},
    numerics::choice::Choice,
    source::Problems,
    suite::{Suite, style::Style},
};

/// How many of the best tokens are kept where nothing is said.
const CANDIDATES: usize = 5;
/// More than anybody waits for.
const MOST_CELLS: usize = 100_000;
const MOST_ITEMS: u64 = 1_000_000;

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
    let file = file.into_inner();
    FILE.check(&file, &mut problems);
    let mut problems = problems.none()?;
    let merged = under_profile(file, profile, &mut problems);
    let mut problems = problems.none()?;
    let plan =
        Reader { table: &merged, folder: path.parent().unwrap_or(Path::new("")), problems: &mut problems }
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

/// What a table says of suites, if it says anything.
#[derive(Clone, Default)]
struct Asking<'v> {
    items: Option<(Range<usize>, Items<'v>)>,
    item_seed: Option<u64>,
    style: Option<(Range<usize>, Style)>,
    shots: Option<u64>,
}

#[derive(Clone, Copy)]
enum Items<'v> {
    Size(&'v str),
    Count(u64),
}

impl<'v> Asking<'v> {
    fn read(table: &'v DeTable<'_>) -> Asking<'v> {
        let number = |name: &str| shape::count(table.get(name)?.get_ref());
        Asking {
            items: table.get("items").and_then(|value| {
                let items =
                    text(value).map(Items::Size).or_else(|| shape::count(value.get_ref()).map(Items::Count));
                Some((value.span(), items?))
            }),
            item_seed: number("item-seed"),
            style: table.get("style").and_then(|value| Some((value.span(), text(value)?.parse().ok()?))),
            shots: number("shots"),
        }
    }

    fn or(self, other: &Asking<'v>) -> Asking<'v> {
        let other = other.clone();
        Asking {
            items: self.items.or(other.items),
            item_seed: self.item_seed.or(other.item_seed),
            style: self.style.or(other.style),
            shots: self.shots.or(other.shots),
        }
    }
}

/// Reads a table whose form is right.
struct Reader<'r, 'a> {
    table: &'r DeTable<'a>,
    folder: &'r Path,
    problems: &'r mut Problems,
}

/// The values of the axes that a table names, with their places.
type Axes = Vec<(Axis, Range<usize>, Vec<(Range<usize>, Setting)>)>;

fn axes(table: &DeTable<'_>) -> Axes {
    let of_axis = |axis: Axis| {
        let value = table.get(axis.entry().name)?;
        let settings = many(value).into_iter().filter_map(|value| {
            let setting = axis.parse(&shape::setting_text(value.get_ref())?).ok()?;
            Some((value.span(), setting))
        });
        Some((axis, value.span(), settings.collect()))
    };
    AXES.iter().filter_map(|entry| of_axis(entry.axis)).collect()
}

impl Reader<'_, '_> {
    fn plan(mut self) -> Plan {
        let suites = self.suites();
        let generation = self.generation();
        let (matrix, product) = self.matrix(&generation);
        let reference = self.reference(&matrix);
        let mut beside: Vec<Cell> = reference.into_iter().filter(|cell| !product.contains(cell)).collect();
        let cells = self.cells(reference, product, &mut beside);
        let gates = self.gates(reference.is_some(), &cells, &generation);
        let model = self.table.get("model").and_then(text).map(str::to_owned);
        let scripts = self.scripts(&cells);
        Plan { model, suites, generation, reference, cells, beside, gates, scripts }
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

    fn at(&self, name: &str) -> Option<Range<usize>> {
        self.table.get(name).map(Spanned::span)
    }

    // ------------------------------------------------------------------------------------------------------ suites

    fn suites(&mut self) -> Vec<Asked> {
        let general = Asking::read(self.table);
        let Some(list) = self.table.get("suites") else {
            self.problems.add(
                None,
                "`suites` is missing: name some, such as suites = [\"carry_chain\", \"mul_ladder\"]",
            );
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut suites = Vec::new();
        for entry in many(list) {
            let (name, own) = match entry.get_ref() {
                DeValue::Table(table) => (table.get("name").and_then(text), Asking::read(table)),
                _ => (text(entry), Asking::default()),
            };
            let Some(name) = name else { continue };
            let span = entry.span();
            // Paths begin at the file that names them.
            let is_path = name.contains(['/', '\\']);
            let place = if is_path { self.folder.join(name).display().to_string() } else { name.to_owned() };
            match Suite::open(&place) {
                Ok(suite) => {
                    if !seen.insert(suite.name.clone()) {
                        self.problems.add(span, format!("`{}` comes up twice: take one out", suite.name));
                    } else if let Some(asked) = self.asked(suite, span, own.or(&general)) {
                        suites.push(asked);
                    }
                }
                Err(error) => self.problems.add(span, error.to_string()),
            }
        }
        suites
    }

    fn asked(&mut self, suite: Suite, span: Range<usize>, asking: Asking<'_>) -> Option<Asked> {
        let items = match asking.items.clone() {
            None | Some((_, Items::Size("std"))) => suite.sizes.std,
            Some((_, Items::Size("quick"))) => suite.sizes.quick,
            Some((_, Items::Size(_))) => suite.sizes.full,
            Some((place, Items::Count(items))) => {
                let there_are = suite.count();
                if there_are.is_some_and(|there_are| there_are < items) {
                    let there_are = there_are.unwrap_or_default();
                    let sentence =
                        format!("`{}` has {there_are} items, not {items}: ask for fewer", suite.name);
                    self.problems.add(place, sentence);
                    return None;
                }
                items
            }
        };
        if items > MOST_ITEMS {
            let sentence =
                format!("{items} items are more than anybody waits for: ask for up to {MOST_ITEMS}");
            self.problems.add(asking.items.map_or(span, |(place, _)| place), sentence);
            return None;
        }
        let style = asking.style.map(|(place, style)| {
            if suite.limits.of(style).is_none() {
                let styles: Vec<_> = suite.styles().iter().map(ToString::to_string).collect();
                let names: Vec<_> = styles.iter().map(String::as_str).collect();
                // At the suite, if its own table does not say so: the file's style suits the others.
                let place = if span.contains(&place.start) { place } else { span };
                let sentence =
                    format!("`{}` is not asked in `{style}`: {}", suite.name, all_of("it is in", &names));
                self.problems.add(place, sentence);
            }
            style
        });
        Some(Asked {
            suite,
            items,
            item_seed: asking.item_seed.unwrap_or(0),
            style,
            shots: asking.shots.unwrap_or(0) as usize,
        })
    }

    fn generation(&mut self) -> Generation {
        let empty = DeTable::new();
        let table = self.table.get("generate").and_then(|value| value.get_ref().as_table()).unwrap_or(&empty);
        let number = |name: &str| shape::count(table.get(name)?.get_ref()).map(|number| number as usize);
        let choice = table.get("choice").and_then(text).and_then(|choice| shape::choice(choice).ok());
        Generation {
            max_new_tokens: number("max-new-tokens"),
            choice: choice.unwrap_or(Choice::Greedy),
            candidates: number("candidates").unwrap_or(CANDIDATES),
            replay: table
                .get("replay")
                .is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(true))),
        }
    }

    // ------------------------------------------------------------------------------------------------------- cells

    /// The values of every axis that the matrix names, and all combinations that it does not exclude.
    fn matrix(&mut self, generation: &Generation) -> (Axes, Vec<Cell>) {
        let Some(matrix) = self.table.get("matrix").and_then(|value| value.get_ref().as_table()) else {
            self.problems.add(None, "`[matrix]` is missing: say what is varied, such as batch = [1, 8]");
            return (Vec::new(), Vec::new());
        };
        let mut axes = axes(matrix);
        for (axis, span, settings) in &mut axes {
            // A number of runs, not the number of one.
            if let ([(place, Setting::Repeat(count))], Axis::Repeat) = (&settings[..], *axis)
                && !matches!(matrix.get("repeat").map(Spanned::get_ref), Some(DeValue::Array(_)))
            {
                let (place, count) = (place.clone(), *count);
                let repeat = |number| (place.clone(), Setting::Repeat(number));
                // One more than there may be says that there are too many.
                let count = count.get().min(MOST_CELLS + 1);
                *settings = (1..=count).filter_map(NonZeroUsize::new).map(repeat).collect();
            }
            let mut seen = HashSet::new();
            for (place, setting) in settings.iter().filter(|(_, setting)| !seen.insert(*setting)) {
                self.problems.add(place.clone(), format!("`{setting}` comes up twice: take one out"));
            }
            if *axis == Axis::Seed && generation.replay {
                self.problems.add(
                    span.clone(),
                    "under `replay` every cell reads what the reference wrote, so seeds vary nothing: take `seed` out, or take \
                     `replay` out",
                );
            } else if *axis == Axis::Seed && generation.choice.takes_the_best() {
                self.problems.add(
                    span.clone(),
                    "seeds vary nothing where the best token is always taken: take `seed` out, or let tokens be drawn with \
                     choice = \"sampled:temperature=0.8\" in [generate]",
                );
            }
        }
        let product = axes.iter().map(|(_, _, settings)| settings.len()).fold(1, usize::saturating_mul);
        if product > MOST_CELLS {
            let sentence =
                format!("these are more than {MOST_CELLS} cells: take values out, or make two files of it");
            self.problems.add(self.at("matrix"), sentence);
            return (axes, Vec::new());
        }
        let mut points: Vec<Vec<Setting>> = vec![Vec::new()];
        for (_, _, settings) in &axes {
            let with_each = |point: &Vec<Setting>| {
                let longer = |(_, setting): &(_, Setting)| [&point[..], &[*setting]].concat();
                settings.iter().map(longer).collect::<Vec<_>>()
            };
            points = points.iter().flat_map(with_each).collect();
        }
        let mut cells = Vec::new();
        for point in points {
            match Cell::default().with(point) {
                Ok(cell) => cells.push(cell),
                Err(refusal) => self.refuse(&refusal, None, &axes),
            }
        }
        // What an engine does not take makes no difference to it: one cell stands for all settings of ours.
        let mut seen = HashSet::new();
        cells.retain(|cell| seen.insert(*cell));
        for (span, table) in tables(matrix.get("exclude")) {
            let filter = self.filter(table, &cells);
            let before = cells.len();
            cells.retain(|cell| !filter.matches(cell));
            if filter.0.is_empty() {
                self.problems.add(span, "this would exclude every cell: name axes and values");
            } else if cells.len() == before {
                self.problems
                    .add(span, "this excludes nothing: no cell has all of these values; take it out");
            }
        }
        let span = self.at("matrix");
        if cells.is_empty() && self.problems.count() == 0 {
            self.problems.add(span, "every cell is excluded: leave one");
        }
        self.possible(&cells, &axes);
        (axes, cells)
    }

    /// What an engine cannot do is told before anything runs.
    fn possible(&mut self, cells: &[Cell], axes: &Axes) {
        for cell in cells {
            for refusal in cell.refusals() {
                self.refuse(&refusal, Some(cell), axes);
            }
        }
    }

    /// Says why a cell cannot be, where its setting stands.
    fn refuse(&mut self, refusal: &Refusal, cell: Option<&Cell>, axes: &Axes) {
        let place = axes.iter().find(|(other, ..)| *other == refusal.axis).map(|(_, span, settings)| {
            let found =
                settings.iter().find(|(_, other)| cell.is_some_and(|cell| cell.get(refusal.axis) == *other));
            found.map_or_else(|| span.clone(), |(span, _)| span.clone())
        });
        self.problems.add(place, refusal.sentence.clone());
    }

    /// A cell that differs from another as a table says.
    fn cell(&mut self, table: &DeTable<'_>, span: Range<usize>, base: Cell) -> Cell {
        let axes = axes(table);
        let settings = axes.iter().flat_map(|(_, _, settings)| settings).map(|(_, setting)| *setting);
        let places: Axes = axes.iter().map(|(axis, ..)| (*axis, span.clone(), Vec::new())).collect();
        let cell = base.with(settings).unwrap_or_else(|refusal| {
            self.refuse(&refusal, None, &places);
            base
        });
        for (axis, place, _) in &axes {
            let engine = cell.compute.entry();
            if !engine.takes(*axis) {
                let kind = engine.kind();
                let sentence = format!(
                    "{kind} takes no {axis}: take `{axis}` out, or name an engine that does, such as lab"
                );
                self.problems.add(place.clone(), sentence);
            }
        }
        self.possible(&[cell], &places);
        cell
    }

    fn reference(&mut self, matrix: &Axes) -> Option<Cell> {
        let value = self.table.get("reference")?;
        let table = value.get_ref().as_table()?;
        let first = matrix.iter().filter_map(|(_, _, settings)| settings.first());
        // What cannot be is told of the matrix itself.
        let base = Cell::default().with(first.map(|(_, setting)| *setting)).unwrap_or_default();
        Some(self.cell(table, value.span(), base))
    }

    fn cells(&mut self, reference: Option<Cell>, product: Vec<Cell>, beside: &mut Vec<Cell>) -> Vec<Cell> {
        let mut cells: Vec<Cell> = reference.into_iter().collect();
        cells.extend(product.into_iter().filter(|cell| Some(*cell) != reference));
        let matrix = self.table.get("matrix").and_then(|value| value.get_ref().as_table());
        for (span, table) in tables(matrix.and_then(|matrix| matrix.get("include"))) {
            let base = reference.or(cells.first().copied()).unwrap_or_default();
            let cell = self.cell(table, span.clone(), base);
            if cells.contains(&cell) {
                self.problems.add(span, format!("{cell} is in the matrix already: take this one out"));
            } else {
                cells.push(cell);
                beside.push(cell);
            }
        }
        cells
    }

    /// The cells that a table is about; every value that it names must come up in one.
    fn filter(&mut self, table: &DeTable<'_>, cells: &[Cell]) -> Filter {
        let mut filter = Vec::new();
        for (axis, _, settings) in axes(table) {
            let mut there_are: Vec<String> = cells.iter().map(|cell| cell.get(axis).to_string()).collect();
            let mut seen = HashSet::new();
            there_are.retain(|name| seen.insert(name.clone()));
            let names: Vec<_> = there_are.iter().map(String::as_str).collect();
            for (place, setting) in &settings {
                if !cells.is_empty() && !cells.iter().any(|cell| cell.get(axis) == *setting) {
                    let sentence =
                        format!("no cell has the {axis} `{setting}`: {}", all_of("there are", &names));
                    self.problems.add(place.clone(), sentence);
                }
            }
            filter.push((axis, settings.into_iter().map(|(_, setting)| setting).collect()));
        }
        Filter(filter)
    }

    // ------------------------------------------------------------------------------------------------------- gates

    fn gates(&mut self, has_reference: bool, cells: &[Cell], generation: &Generation) -> Vec<Gate> {
        let mut gates: Vec<Gate> = Vec::new();
        for (span, table) in tables(self.table.get("gate")) {
            let before = self.problems.count();
            let gate = self.gate(span.clone(), table, has_reference, cells);
            self.possible_under_replay(table, generation);
            if let Some(other) = gates.iter().find(|other| other.name == gate.name) {
                let sentence = format!(
                    "another gate is called `{}`, in line {}: call it otherwise",
                    gate.name, other.line
                );
                self.problems.add(table.get("name").map_or(span, Spanned::span), sentence);
            }
            if self.problems.count() == before {
                gates.push(gate);
            }
        }
        gates
    }

    fn gate(&mut self, span: Range<usize>, table: &DeTable<'_>, has_reference: bool, cells: &[Cell]) -> Gate {
        let before = self.problems.count();
        let filter = table.get("where").and_then(|value| value.get_ref().as_table());
        let filter = filter.map(|table| self.filter(table, cells)).unwrap_or_default();
        let comparison = self.comparison(&span, table, has_reference);
        let limits = self.limits(&span, table, &comparison);
        let named = table.get("name").and_then(text).map(str::to_owned);
        let name = named.unwrap_or_else(|| describe(&comparison, &limits));
        let gate = Gate { name, line: self.problems.line(span.start), filter, comparison, limits };
        if self.problems.count() > before || cells.is_empty() {
            return gate;
        }
        let about: Vec<_> = cells.iter().filter(|cell| gate.filter.matches(cell)).collect();
        let place = table.get("where").map_or(span, Spanned::span);
        if about.is_empty() {
            self.problems.add(place, "no cell has all of these values, so nothing is gated: name others");
            return gate;
        }
        // The reference is the first cell, if there is one.
        if gate.comparison == Comparison::Reference && about.iter().all(|cell| **cell == cells[0]) {
            self.problems
                .add(place, "only the reference has these values, so nothing is compared: name others");
            return gate;
        }
        if let Comparison::Within(vary) = &gate.comparison {
            let place = table.get("vary").map_or(place, Spanned::span);
            for axis in vary {
                let first = about[0].get(*axis);
                if about.iter().all(|cell| cell.get(*axis) == first) {
                    let sentence = format!(
                        "`{axis}` does not vary: all these cells have {first}; give [matrix] another value, or take it out"
                    );
                    self.problems.add(place.clone(), sentence);
                }
            }
            if gate.groups(cells).iter().all(|group| group.len() < 2) {
                self.problems.add(
                    place,
                    "no two of these cells differ on these axes alone, so nothing is compared: vary other axes",
                );
            }
        }
        gate
    }

    /// Whoever reads what the reference wrote has its answers, so nothing can be asked of them.
    fn possible_under_replay(&mut self, table: &DeTable<'_>, generation: &Generation) {
        if !generation.replay {
            return;
        }
        for (_, value, limit) in limits_of(table).filter(|(.., limit)| limit.needs_answers()) {
            let way_out = match limit {
                Limit::Require(_) => "require tokens or bits",
                _ => "take it out, or take `replay` out",
            };
            let sentence = format!(
                "under `replay` every cell has the answers of the reference, so this cannot fail: {way_out}"
            );
            self.problems.add(value.span(), sentence);
        }
    }

    fn comparison(&mut self, span: &Range<usize>, table: &DeTable<'_>, has_reference: bool) -> Comparison {
        let against = table.get("against");
        match (table.get("vary"), against.and_then(text)) {
            (Some(_), Some(_)) => {
                let place = against.map_or(span.clone(), Spanned::span);
                let sentence = "a gate compares cells with each other (`vary`) or with something else (`against`): take one \
                                of them out";
                self.problems.add(place, sentence);
                Comparison::Reference
            }
            (Some(vary), None) => {
                let names = many(vary)
                    .into_iter()
                    .filter_map(|value| Some((value.span(), Axis::named(text(value)?)?)));
                let mut axes: Vec<Axis> = Vec::new();
                for (place, axis) in names {
                    if axes.contains(&axis) {
                        self.problems.add(place, format!("`{axis}` comes up twice: take one out"));
                    }
                    axes.push(axis);
                }
                Comparison::Within(axes)
            }
            (None, Some("baseline")) => Comparison::Baseline,
            (None, Some(_)) => {
                if !has_reference {
                    let place = against.map_or(span.clone(), Spanned::span);
                    let sentence = "there is no reference: say which cell it is, such as [reference] with precision = \
                                    \"fp32\" and order = \"exact\"";
                    self.problems.add(place, sentence);
                }
                Comparison::Reference
            }
            (None, None) => {
                let sentence = "this gate compares nothing: let it `vary` axes, such as vary = [\"batch\"], or hold it \
                                `against` the reference";
                self.problems.add(span.clone(), sentence);
                Comparison::Reference
            }
        }
    }

    fn limits(&mut self, span: &Range<usize>, table: &DeTable<'_>, comparison: &Comparison) -> Vec<Limit> {
        let place = |name: &str| table.get(name).map_or(span.clone(), Spanned::span);
        let confidence = table.get("confidence").and_then(|value| shape::share(value.get_ref()));
        let mut is_used = false;
        let mut limits = Vec::new();
        for (entry, value, mut limit) in limits_of(table) {
            if let (Limit::AccuracyDrop { confidence: of, .. }, Some(asked)) = (&mut limit, confidence) {
                (*of, is_used) = (asked, true);
            }
            if matches!(entry.form, Form::Share) && shape::share(value.get_ref()) == Some(1.0) {
                let sentence =
                    format!("`{}` of all items holds whatever happens: set a lower limit", entry.name);
                self.problems.add(value.span(), sentence);
            }
            limits.push(limit);
        }
        if limits.is_empty() {
            let sentence = "this gate asks for nothing: let it `require` bits, tokens or answers, or set a limit such as \
                            max-accuracy-drop = \"1pp\"";
            self.problems.add(span.clone(), sentence);
        }
        if limits.contains(&Limit::Diverges) && limits.len() > 1 {
            let sentence = "a gate that expects cells to diverge sets no limit to that: make it two gates";
            self.problems.add(place("expect"), sentence);
        }
        if confidence.is_some() && !is_used {
            let sentence = "`confidence` belongs to `max-accuracy-drop`: set that, or take this out";
            self.problems.add(place("confidence"), sentence);
        }
        if confidence.is_some_and(|confidence| !(0.5..1.0).contains(&confidence)) {
            let sentence = "`confidence` lies from 50% up and below 100%: write for example \"95%\"";
            self.problems.add(place("confidence"), sentence);
        }
        if *comparison == Comparison::Baseline
            && !limits.iter().all(|limit| matches!(limit, Limit::Require(_)))
        {
            let sentence = "a baseline holds digests, so a gate against it can only `require` bits, tokens or answers: take \
                            the other limits out, or hold them against the reference";
            self.problems.add(place("against"), sentence);
        }
        limits
    }
}

/// The limits that a table sets, each with its key and with what sets it.
fn limits_of<'v, 'a>(
    table: &'v DeTable<'a>,
) -> impl Iterator<Item = (&'static shape::Key, &'v Spanned<DeValue<'a>>, Limit)> {
    LIMITS.iter().filter_map(|entry| {
        let value = table.get(entry.key.name)?;
        Some((&entry.key, value, (entry.read)(value.get_ref())?))
    })
}

/// What a gate without a name is called.
fn describe(comparison: &Comparison, limits: &[Limit]) -> String {
    let limits = limits.iter().map(Limit::name).collect::<Vec<_>>().join(", ");
    match comparison {
        Comparison::Within(axes) => {
            format!(
                "{limits} across {}",
                axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            )
        }
        Comparison::Reference => format!("{limits}, beside the reference"),
        Comparison::Baseline => format!("{limits}, as approved"),
    }
}
