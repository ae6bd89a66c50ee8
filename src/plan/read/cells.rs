//! The cells that a matrix file means: the product of its axes, what is left out of it and what stands beside it.

use std::{collections::HashSet, num::NonZeroUsize, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, many, tables};
use crate::{
    cell::{AXES, Axis, Cell, Compute, ENGINES, EngineName, Name, Refusal, Setting},
    numerics::choice::{Choice, TopK},
    plan::{
        Generation,
        gate::Filter,
        shape::{self, all_of},
    },
};

/// More than anybody waits for.
const MOST_CELLS: usize = 100_000;

/// The values of the axes that a table names, with their places.
pub(super) type Axes = Vec<(Axis, Range<usize>, Vec<(Range<usize>, Setting)>)>;

/// Those that a table names, ours and then the declared ones.
fn axes(table: &DeTable<'_>, declared: &[Name]) -> Axes {
    let of_axis = |axis: Axis| {
        let value = table.get(axis.name())?;
        let settings = many(value).into_iter().filter_map(|value| {
            let setting = axis.parse(&shape::setting_text(axis, value.get_ref())?).ok()?;
            Some((value.span(), setting))
        });
        Some((axis, value.span(), settings.collect()))
    };
    let all = AXES.iter().map(|entry| entry.axis).chain(declared.iter().copied().map(Axis::Server));
    all.filter_map(of_axis).collect()
}

/// What an axis of draws is to a file that takes the best of all tokens.
fn of_the_best(axis: Axis) -> String {
    format!(
        "`{axis}` varies nothing where the best token is always taken: take it out, or let tokens be drawn with choice = \
         \"sampled\" in [generate]"
    )
}

impl Reader<'_, '_> {
    /// The values of every axis that the matrix names, and all combinations that it does not exclude.
    pub(super) fn matrix(&mut self, generation: &Generation) -> (Axes, Vec<Cell>) {
        let Some(matrix) = self.table.get("matrix").and_then(|value| value.get_ref().as_table()) else {
            self.problems.add(None, "`[matrix]` is missing: say what is varied, such as batch = [1, 8]");
            return (Vec::new(), Vec::new());
        };
        let mut axes = axes(matrix, &[]);
        let is_best = axes.iter().any(|(axis, _, settings)| {
            let takes_the_best = |(_, setting): &(_, Setting)| match setting {
                Setting::TopK(top_k) => top_k.is_some_and(TopK::takes_the_best),
                _ => false,
            };
            *axis == Axis::TopK && settings.iter().all(takes_the_best)
        });
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
            if axis.is_of_draws() {
                self.drawn(*axis, span, generation, is_best);
            }
        }
        let product = axes.iter().map(|(_, _, settings)| settings.len()).fold(1, usize::saturating_mul);
        if product > MOST_CELLS {
            let sentence =
                format!("these are more than {MOST_CELLS} cells: take values out, or make two files of it");
            self.problems.add(self.at("matrix"), sentence);
            return (axes, Vec::new());
        }
        let before = self.problems.count();
        let mut points: Vec<Vec<Setting>> = vec![Vec::new()];
        for (axis, _, settings) in &axes {
            let with_each = |point: &Vec<Setting>| {
                let longer = |(_, setting): &(_, Setting)| [&point[..], &[*setting]].concat();
                settings.iter().map(longer).collect::<Vec<_>>()
            };
            points = points.iter().flat_map(with_each).collect();
            // Next to the server that they belong to, so that it is started once for all cells that ask the same of it.
            if *axis == Axis::Engine {
                points =
                    points.iter().flat_map(|point| self.declared_by(point, MOST_CELLS / product)).collect();
            }
        }
        if points.len() > MOST_CELLS || self.problems.count() > before {
            return (axes, Vec::new());
        }
        let excluded: Vec<_> = tables(matrix.get("exclude"))
            .map(|(span, table)| (span, table, self::axes(table, self.declared)))
            .collect();
        // Which of them leave out what could not be a cell.
        let mut leaves_out = HashSet::new();
        let mut cells = Vec::new();
        for point in points {
            let names = |axes: &Axes| {
                let is_here = |setting: &(_, Setting)| point.contains(&setting.1);
                axes.iter().all(|(_, _, settings)| settings.iter().any(is_here))
            };
            let is_left_out = excluded.iter().position(|(_, _, axes)| !axes.is_empty() && names(axes));
            match (Cell::default().with(point.iter().copied()), is_left_out) {
                (Ok(cell), _) => cells.push(cell),
                (Err(_), Some(index)) => drop(leaves_out.insert(index)),
                (Err(refusal), None) => self.refuse(&refusal, None, &axes),
            }
        }
        // What an engine does not take makes no difference to it: one cell stands for all settings of ours.
        let mut seen = HashSet::new();
        cells.retain(|cell| seen.insert(*cell));
        for (axis, _, settings) in &axes {
            let is_taken = cells.iter().any(|cell| cell.compute.takes(*axis));
            if axis.is_of_draws() && !is_taken && !cells.is_empty() {
                let sentence = format!(
                    "no engine here takes a {axis}: take `{axis}` out, or name one that does, such as lab"
                );
                self.problems.add(matrix.get_key_value(axis.name()).map(|(name, _)| name.span()), sentence);
            }
            let is_alone = is_taken && matches!(axis, Axis::Neighbors | Axis::Arrival);
            let company = company(*axis, &cells);
            for (place, setting) in settings.iter().filter(|_| is_alone) {
                if !cells.iter().any(|cell| cell.get(*axis) == *setting) {
                    let sentence = format!(
                        "`{setting}` changes nothing where prompts are asked alone: set {company} = 2 or more, or take this out"
                    );
                    self.problems.add(place.clone(), sentence);
                }
            }
        }
        for (index, (span, table, _)) in excluded.into_iter().enumerate() {
            let filter = self.filter(table, &cells);
            let before = cells.len();
            cells.retain(|cell| !filter.matches(cell));
            if filter.0.is_empty() {
                self.problems.add(span, "this would exclude every cell: name axes and values");
            } else if cells.len() == before && !leaves_out.contains(&index) {
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

    /// Says where settings of a draw make no difference, or are told twice. `best` says whether [matrix]
    /// takes the best of one token always.
    fn drawn(&mut self, axis: Axis, span: &Range<usize>, generation: &Generation, best: bool) {
        let sentence = if generation.replay {
            format!(
                "under `replay` every cell reads what the reference wrote, so `{axis}` varies nothing: take it out, or take \
                 `replay` out"
            )
        } else if generation.choice == Choice::Greedy {
            of_the_best(axis)
        } else if self.chosen_by(axis) {
            format!("choice in [generate] says `{axis}` as well: take it out there, or take it out here")
        } else if axis != Axis::TopK && (best || generation.choice.takes_the_best()) {
            format!(
                "`{axis}` varies nothing where top-k is 1, so that the best token is always taken: set a higher one, or take \
                 `{axis}` out"
            )
        } else {
            return;
        };
        self.problems.add(span.clone(), sentence);
    }

    /// Does `[generate]` say how a token is drawn on this axis?
    fn chosen_by(&self, axis: Axis) -> bool {
        let table = self.table.get("generate").and_then(|value| value.get_ref().as_table());
        let choice = table.and_then(|table| super::text(table.get("choice")?)).unwrap_or_default();
        let mut parameters = choice.split([':', ',']);
        parameters.any(|part| part.split_once('=').is_some_and(|(name, _)| name == axis.name()))
    }

    /// A point that names an engine with all that the file declares for it, which makes so many at most.
    fn declared_by(&mut self, point: &[Setting], most: usize) -> Vec<Vec<Setting>> {
        let Some(Setting::Engine(EngineName::Server(server))) = point.last() else {
            return vec![point.to_vec()];
        };
        let place =
            self.table.get("matrix").and_then(|matrix| matrix.get_ref().get("engine")).map(Spanned::span);
        if !self.servers.contains_key(server) {
            // What is wrong with one that is there has been told.
            if self.table.get("engine").is_none_or(|engines| engines.get_ref().get(server.as_str()).is_none())
            {
                let sentence = format!("there is no server `{server}`: say what it is in [engine.{server}]");
                self.problems.add(place, sentence);
            }
            return Vec::new();
        }
        match self.combinations(*server, most) {
            Some(all) => all.into_iter().map(|settings| [point, &settings].concat()).collect(),
            None => {
                let sentence = format!(
                    "`server:{server}` would make these more than {MOST_CELLS} cells: take settings out of [engine.{server}.axes]"
                );
                self.problems.add(place, sentence);
                Vec::new()
            }
        }
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
    fn cell(&mut self, table: &DeTable<'_>, span: Range<usize>, base: Cell, generation: &Generation) -> Cell {
        let axes = axes(table, self.declared);
        let settings = axes.iter().flat_map(|(_, _, settings)| settings).map(|(_, setting)| *setting);
        let places: Axes = axes.iter().map(|(axis, ..)| (*axis, span.clone(), Vec::new())).collect();
        let cell = base.with(settings).unwrap_or_else(|refusal| {
            self.refuse(&refusal, None, &places);
            base
        });
        let cell = self.settled(cell, &span);
        if let Compute::Server(served) = cell.compute
            && !self.servers.contains_key(&served.server)
        {
            let sentence = format!("there is no server `{0}`: say what it is in [engine.{0}]", served.server);
            self.problems.add(span.clone(), sentence);
        }
        for (axis, place, settings) in &axes {
            if !cell.compute.takes(*axis) {
                let kind = cell.compute.entry().kind();
                let other =
                    ENGINES.iter().find(|entry| entry.takes(*axis)).map_or("server:NAME", |entry| entry.name);
                let sentence = format!(
                    "{kind} takes no {axis}: take `{axis}` out, or name an engine that does, such as {other}"
                );
                self.problems.add(place.clone(), sentence);
            } else if axis.is_of_draws() && *axis != Axis::Seed {
                let usual = cell.with([Cell::default().get(*axis)]).unwrap_or(cell);
                let is_varied =
                    self.table.get("matrix").is_some_and(|table| table.get_ref().get(axis.name()).is_some());
                let choice = |cell: Cell| cell.serving.choice(generation.choice);
                if generation.choice == Choice::Greedy {
                    self.problems.add(place.clone(), of_the_best(*axis));
                } else if !is_varied && choice(usual) == choice(cell) {
                    let sentence = format!("choice in [generate] says so already: take `{axis}` out");
                    self.problems.add(place.clone(), sentence);
                }
            } else if matches!(axis, Axis::Neighbors | Axis::Arrival)
                && settings.iter().any(|(_, setting)| cell.get(*axis) != *setting)
            {
                let company = company(*axis, &[cell]);
                let sentence = format!(
                    "a prompt that is asked alone has no neighbors: set {company} = 2 or more here, or take `{axis}` out"
                );
                self.problems.add(place.clone(), sentence);
            }
        }
        self.possible(&[cell], &places);
        cell
    }

    pub(super) fn reference(&mut self, matrix: &Axes, generation: &Generation) -> Option<Cell> {
        let value = self.table.get("reference")?;
        let table = value.get_ref().as_table()?;
        if let Some(seed) = table.get(Axis::Seed.name())
            && matrix.iter().any(|(axis, ..)| *axis == Axis::Seed)
        {
            let sentence = "every cell is compared with the reference under its own seed, so that it runs under all of them: take `seed` out";
            self.problems.add(seed.span(), sentence);
        }
        let first = matrix.iter().filter_map(|(_, _, settings)| settings.first());
        // What cannot be is told of the matrix itself.
        let base = Cell::default().with(first.map(|(_, setting)| *setting)).unwrap_or_default();
        Some(self.cell(table, value.span(), base, generation))
    }

    pub(super) fn cells(
        &mut self,
        reference: Option<Cell>,
        product: Vec<Cell>,
        beside: &mut Vec<Cell>,
        generation: &Generation,
    ) -> Vec<Cell> {
        let mut cells: Vec<Cell> = reference.into_iter().collect();
        cells.extend(product.into_iter().filter(|cell| Some(*cell) != reference));
        let matrix = self.table.get("matrix").and_then(|value| value.get_ref().as_table());
        for (span, table) in tables(matrix.and_then(|matrix| matrix.get("include"))) {
            let base = reference.or(cells.first().copied()).unwrap_or_default();
            let cell = self.cell(table, span.clone(), base, generation);
            if cells.contains(&cell) {
                self.problems.add(span, format!("{cell} is in the matrix already: take this one out"));
            } else {
                cells.push(cell);
                beside.push(cell);
            }
        }
        if let Some(reference) = reference
            && !reference.serving.choice(generation.choice).takes_the_best()
        {
            // Each cell is compared with one that draws by the same noise.
            let mut seen = HashSet::new();
            let under_their_seeds = cells.iter().map(|cell| reference.under_seed(cell.serving.seed));
            let mut others: Vec<_> = under_their_seeds.filter(|cell| seen.insert(*cell)).collect();
            others.retain(|other| !cells.contains(other));
            cells.splice(1..1, others.iter().copied());
            beside.extend(others);
        }
        cells
    }

    /// The cells that a table is about; every value that it names must come up in one.
    pub(super) fn filter(&mut self, table: &DeTable<'_>, cells: &[Cell]) -> Filter {
        let mut filter = Vec::new();
        for (axis, _, settings) in axes(table, self.declared) {
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
}

/// By what those of these cells that take an axis of company have some.
fn company(axis: Axis, cells: &[Cell]) -> String {
    let of =
        |company: &Axis| cells.iter().any(|cell| cell.compute.takes(axis) && cell.compute.takes(*company));
    let company = [Axis::Batch, Axis::Concurrency].into_iter().filter(of);
    company.map(Axis::name).collect::<Vec<_>>().join(" or ")
}
