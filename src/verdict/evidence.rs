//! What is compared with what, and what came out: filled item by item, so that it grows with the cells and not with the
//! items.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    draws::{Configuration, Draws},
    summary::Summary,
};
use crate::{
    cell::{Axis, Cell, Compute, EngineName, Setting, axes},
    compare::{Beyond, ByLevel, Count, Level, Output, Spread, Spreads, Tally},
    digest::Digest,
    engine::environment::Environment,
    model::Cost,
    numerics::{
        at::{At, Step},
        choice::{Drawing, TopK},
        order::Launch,
        total::Mean,
    },
    plan::{
        gate::{Limit, groups},
        references::References,
    },
    record::About,
    stats::proportion::Proportion,
    suite::{
        answer::product::{Digit, Product},
        cut::Cut,
        question::Question,
    },
    trace::{Launches, Sight},
};

/// A cell that has run.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// Which.
    pub cell: Cell,
    /// The number of its trace: equal traces have one.
    pub trace: usize,
    /// One value for all its tokens, and for what is seen of what they were chosen from.
    pub root: Digest,
    /// How much its engine showed.
    pub sight: Sight,
    /// The launches that ran.
    pub launches: Launches,
    /// How many prompts had a copy beside them that was answered otherwise.
    pub unlike_copies: u64,
    /// Where.
    pub environment: Environment,
    /// What its precision costs, where that is known.
    pub cost: Option<Cost>,
}

/// What is compared, and what came out.
pub struct Evidence {
    /// The plan's cells, in their order.
    plan: Vec<Cell>,
    references: References,
    known: HashMap<Cell, Known>,
    /// What a baseline must agree on beside the cells.
    identity: Digest,
    traces: Vec<Summary>,
    /// By the numbers of their traces.
    tallies: BTreeMap<(usize, usize), Tally>,
    families: Vec<Family>,
    /// What the references draw that are in no family.
    beside: Vec<Family>,
    /// The tokens of the first questions that ask how numbers are cut.
    cut: Vec<Vec<u32>>,
}

/// The suite whose questions ask how a tokenizer cuts numbers, and so many of these tell it.
const CUTS: (&str, usize) = ("tok_chunk", 16);

/// All cells of one engine in one precision that draw alike: what the LayerCast paper calls configurations, each of which runs
/// once under every seed.
pub struct Family {
    /// Who computes.
    pub engine: EngineName,
    /// What it is called, as a cell says it.
    pub precision: String,
    /// What its draws do otherwise than the run says.
    pub drawing: Drawing,
    /// Its cells.
    cells: Vec<Cell>,
    /// Under every seed the number of each configuration's trace, in one order.
    traces: Vec<Vec<usize>>,
    draws: Option<Draws>,
    spread: Spread,
    suites: BTreeMap<String, Spread>,
    digits: BTreeMap<Digit, DigitSpread>,
}

/// How the cells of a family write one digit of products.
#[derive(Clone, Copy, Default)]
pub struct DigitSpread {
    /// How often it is right, over all cells.
    pub right: Proportion,
    /// For how many products some cells have it right and others do not.
    pub unstable: Proportion,
}

impl Family {
    /// Its cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// How many configurations left other traces behind: those that are alike to the last bit under every seed are one.
    pub fn distinct(&self) -> usize {
        let count = self.traces.first().map_or(0, Vec::len);
        let under_seeds = |at: usize| self.traces.iter().map(|traces| traces[at]).collect::<Vec<_>>();
        (0..count).map(under_seeds).collect::<BTreeSet<_>>().len()
    }

    /// The digits of products, where any are asked for, by their places and by what is carried into them.
    pub fn digits(&self) -> &BTreeMap<Digit, DigitSpread> {
        &self.digits
    }

    fn add_digits(&mut self, product: &Product, outputs: &[Output<'_>]) {
        let mut counts: BTreeMap<Digit, u64> = BTreeMap::new();
        for output in outputs {
            for (digit, is_right) in product.right(output.answer) {
                *counts.entry(digit).or_default() += u64::from(is_right);
            }
        }
        let of = outputs.len() as u64;
        for (digit, hits) in counts {
            let DigitSpread { right, unstable } = self.digits.entry(digit).or_default();
            *right = *right + Proportion { hits, of };
            *unstable = *unstable + Proportion { hits: u64::from(0 < hits && hits < of), of: 1 };
        }
    }

    /// What they draw, where there are several seeds.
    pub fn draws(&self) -> Option<&Draws> {
        self.draws.as_ref()
    }

    /// On all items, with intervals of this confidence.
    pub fn spread(&self, confidence: f64) -> Spreads {
        self.spread.read(confidence)
    }

    /// On those of each suite.
    pub fn suites(&self, confidence: f64) -> impl Iterator<Item = (&str, Spreads)> {
        self.suites.iter().map(move |(suite, spread)| (suite.as_str(), spread.read(confidence)))
    }
}

/// What an axis alone moves: the cells that differ in nothing else, each compared with the first of them.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Attribution {
    /// Which axis.
    pub axis: Axis,
    /// How many pairs of cells were compared.
    pub pairs: usize,
    /// In how many pairs the launch, as it was recorded, made a difference; nothing where that is not told of each pair.
    pub exercised: Option<usize>,
    /// How many pairs agree on all items, for each level; nothing where that is not told of each pair.
    pub agree: ByLevel<Option<usize>>,
    /// Comparable places with the same logits, over all pairs; nothing where that is not told of each place.
    pub places: Option<Proportion>,
    /// The items that agree on each level, over all pairs; nothing where that is not told of each item.
    pub items: ByLevel<Option<Proportion>>,
    /// The first pair whose tokens part, or else whose logits do; nothing where none do.
    pub first: Option<[Cell; 2]>,
}

impl Evidence {
    /// Lays out what is compared. `identity` is what a baseline must agree on beside the cells.
    pub fn new(about: &About, known: Vec<Known>, identity: Digest) -> Evidence {
        let About { cells: plan, beside, reference, gates, .. } = about;
        let known: HashMap<Cell, Known> = known.into_iter().map(|known| (known.cell, known)).collect();
        let traces = known.values().map(|known| known.trace + 1).max().unwrap_or(0);
        let mut evidence = Evidence {
            plan: plan.clone(),
            references: References::among(*reference, plan),
            known,
            identity,
            traces: (0..traces).map(|_| Summary::default()).collect(),
            tallies: BTreeMap::new(),
            families: Vec::new(),
            beside: Vec::new(),
            cut: Vec::new(),
        };
        let beside: HashSet<&Cell> = beside.iter().collect();
        let (beside, product): (Vec<Cell>, Vec<Cell>) = plan.iter().partition(|cell| beside.contains(cell));
        evidence.families = evidence.lay_families(&product);
        evidence.beside = evidence.lay_families(&beside);
        evidence.beside.retain(|family| family.draws.is_some());
        let mut pairs: Vec<(Cell, Cell)> = Vec::new();
        let axes = axes(plan);
        for axis in &axes {
            pairs.extend(lines(plan, *axis));
        }
        for gate in gates {
            for group in gate.groups(plan) {
                // What tells whether an axis of the gate was exercised.
                pairs.extend(axes.iter().flat_map(|axis| lines(&group, *axis)));
                pairs.extend(group[1..].iter().map(|cell| (group[0], *cell)));
            }
        }
        let mut beyond = Vec::new();
        for limit in gates.iter().flat_map(|gate| &gate.limits) {
            if let Limit::Rows { measure, most, .. } = *limit
                && !beyond.contains(&Beyond::new(measure, most))
            {
                beyond.push(Beyond::new(measure, most));
            }
        }
        let references: Vec<_> =
            plan.iter().filter_map(|cell| Some((evidence.references.of(*cell)?, *cell))).collect();
        let pairs = pairs.into_iter().map(|pair| (pair, false));
        for ((one, other), is_reference) in pairs.chain(references.into_iter().map(|pair| (pair, true))) {
            if let (Some(one), Some(other)) = (evidence.known(one), evidence.known(other)) {
                let tally = evidence.tallies.entry((one.trace, other.trace)).or_default();
                tally.beyond.clone_from(&beyond);
                if is_reference {
                    tally.divergence = Some(Mean::default());
                }
            }
        }
        evidence
    }

    fn lay_families(&self, cells: &[Cell]) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for known in cells.iter().filter_map(|cell| self.known(*cell)) {
            let engine = known.cell.compute.engine();
            let precision = known.cell.precision();
            let drawing = known.cell.serving.drawing;
            let found = families.iter_mut().find(|family| {
                (family.engine, &family.precision, family.drawing) == (engine, &precision, drawing)
            });
            match found {
                Some(family) => family.cells.push(known.cell),
                None => families.push(Family {
                    engine,
                    precision,
                    drawing,
                    cells: vec![known.cell],
                    traces: Vec::new(),
                    draws: None,
                    spread: Spread::default(),
                    suites: BTreeMap::new(),
                    digits: BTreeMap::new(),
                }),
            }
        }
        for family in &mut families {
            let (configurations, traces) = by_seed(&family.cells, |cell| Some(self.known(cell)?.trace));
            let all: HashSet<Cell> = family.cells.iter().map(|cell| cell.under_seed(0)).collect();
            let left_out = all.len() - configurations.len();
            family.draws = Draws::new(configurations, traces.len(), left_out as u64);
            family.traces = traces;
        }
        families
    }

    /// Adds an item: what every trace holds of it, in the order of their numbers. Items come in their order.
    pub fn add(&mut self, question: &Question, outputs: &[Output<'_>]) {
        for (summary, output) in self.traces.iter_mut().zip(outputs) {
            summary.add(question, output);
        }
        for ((one, other), tally) in &mut self.tallies {
            tally.add(question, outputs[*one], outputs[*other]);
        }
        let (suite, enough) = CUTS;
        if question.suite == suite && self.cut.len() < enough {
            self.cut.push(question.tokens.clone());
        }
        let product = Product::asked(&question.prompt, &question.answer);
        for family in self.families.iter_mut().chain(&mut self.beside) {
            // What is drawn by the same noise stands beside each other, so that what moves it is not the draw.
            let of_seed =
                |traces: &Vec<usize>| traces.iter().map(|trace| outputs[*trace]).collect::<Vec<_>>();
            let under_seeds: Vec<_> = family.traces.iter().map(of_seed).collect();
            // What is drawn for one item hangs together.
            let drawn = family.draws.as_ref().map(|_| question.itself());
            let cluster = question.cluster().or(drawn);
            let of_suite = family.suites.entry(question.suite.clone()).or_default();
            for of_cells in &under_seeds {
                family.spread.add(cluster.clone(), of_cells);
                of_suite.add(cluster.clone(), of_cells);
            }
            for of_cells in &under_seeds {
                if let Some(product) = &product {
                    family.add_digits(product, of_cells);
                }
            }
            if let Some(draws) = &mut family.draws {
                draws.add(question, &under_seeds);
            }
        }
    }

    /// The plan's cells, in their order.
    pub fn plan(&self) -> &[Cell] {
        &self.plan
    }

    /// What cells are compared with.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// What a baseline must agree on beside the cells.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// What is known of a cell, if it has run.
    pub fn known(&self, cell: Cell) -> Option<&Known> {
        self.known.get(&cell)
    }

    /// What a cell did by itself.
    pub fn summary(&self, known: &Known) -> &Summary {
        &self.traces[known.trace]
    }

    /// Two cells beside each other, if they were laid out and have run.
    pub fn tally(&self, one: Cell, other: Cell) -> Option<&Tally> {
        self.tallies.get(&self.traces(one, other)?)
    }

    /// The numbers of their traces, if both have run.
    pub fn traces(&self, one: Cell, other: Cell) -> Option<(usize, usize)> {
        Some((self.known(one)?.trace, self.known(other)?.trace))
    }

    /// Did the axis make a difference to what these cells ran? Nothing where not all have run, or where their engines do not
    /// tell.
    pub fn exercised(&self, axis: Axis, cells: &[Cell]) -> Option<bool> {
        let known: Option<Vec<_>> = cells.iter().map(|cell| self.known(*cell)).collect();
        let known = known?;
        // Whatever the launches say: what differs by nothing else has made a difference.
        let differs = |(one, other)| self.tally(one, other)?.agrees(Level::Bits);
        if lines(cells, axis).into_iter().any(|pair| differs(pair) == Some(false)) {
            return Some(true);
        }
        launched_otherwise(axis, &known)
    }

    /// The first of these cells of which its engine does not tell what the axis did to its calls.
    pub fn untold(&self, axis: Axis, cells: &[Cell]) -> Option<Cell> {
        let mut known = cells.iter().filter_map(|cell| self.known(*cell));
        known.find(|known| launched_otherwise(axis, &[known]).is_none()).map(|known| known.cell)
    }

    /// How the model's tokenizer cuts numbers, where a suite asks for that and its questions tell. `text` is the text of a token.
    pub fn cut(&self, text: &dyn Fn(u32) -> String) -> Option<Cut> {
        // Between two questions every number ends.
        let texts =
            self.cut.iter().flat_map(|tokens| tokens.iter().map(|token| text(*token)).chain([String::new()]));
        Cut::of(texts.collect::<Vec<_>>().iter().map(String::as_str))
    }

    /// All cells of every precision.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// What the cells draw that differ from this one in their seed alone; nothing where there is one seed, or where one of them
    /// has not run under every seed.
    pub fn configuration(&self, cell: Cell) -> Option<&Configuration> {
        let drawn = self.families.iter().chain(&self.beside).filter_map(Family::draws);
        drawn.flat_map(Draws::configurations).find(|drawn| drawn.cell == cell.under_seed(0))
    }

    /// What each axis alone moves, for those that vary.
    pub fn attributions(&self) -> Vec<Attribution> {
        let of_axis = |axis: Axis| {
            let mut attribution = Attribution {
                axis,
                pairs: 0,
                exercised: Some(0),
                agree: ByLevel::of(|_| Some(0)),
                places: None,
                items: ByLevel::default(),
                first: None,
            };
            let (mut places, mut items) = (Count::default(), ByLevel::<Count>::default());
            let mut has_text = false;
            for (one, other) in lines(&self.plan, axis) {
                let Some(tally) = self.tally(one, other) else { continue };
                attribution.pairs += 1;
                let is_exercised = self.exercised(axis, &[one, other]);
                attribution.exercised = one_more(attribution.exercised, is_exercised);
                places = places + tally.places;
                for level in Level::ALL {
                    attribution.agree[level] = one_more(attribution.agree[level], tally.agrees(level));
                    items[level] = items[level] + tally.levels[level];
                }
                let parts = [tally.first().is_some(), tally.agrees(Level::Tokens) == Some(false)];
                if parts[0] && attribution.first.is_none() || parts[1] && !has_text {
                    attribution.first = Some([one, other]);
                }
                has_text |= parts[1];
            }
            Attribution { places: places.told(), items: items.map(Count::told), ..attribution }
        };
        let all = axes(&self.plan).into_iter().map(of_axis);
        all.filter(|attribution| attribution.pairs > 0).collect()
    }
}

/// The configurations that there are under all seeds, each as its cell under the seed 0, and under every seed what there is of
/// each.
fn by_seed<T>(cells: &[Cell], of: impl Fn(Cell) -> Option<T>) -> (Vec<Cell>, Vec<Vec<T>>) {
    let seed = |cell: &Cell| cell.serving.seed;
    let mut seeds: Vec<u64> = Vec::new();
    for cell in cells {
        if !seeds.contains(&seed(cell)) {
            seeds.push(seed(cell));
        }
    }
    let there: HashSet<Cell> = cells.iter().copied().collect();
    let is_everywhere = |cell: &&Cell| seeds.iter().all(|seed| there.contains(&cell.under_seed(*seed)));
    let mut seen = HashSet::new();
    let configurations = cells.iter().filter(is_everywhere).map(|cell| cell.under_seed(0));
    let configurations: Vec<Cell> = configurations.filter(|cell| seen.insert(*cell)).collect();
    let of_seed = |seed| configurations.iter().filter_map(|cell| of(cell.under_seed(seed))).collect();
    let under_seeds = seeds.into_iter().map(of_seed).collect();
    (configurations, under_seeds)
}

/// The pairs of these cells that differ on one axis alone: the first of each line with every other.
fn lines(cells: &[Cell], axis: Axis) -> Vec<(Cell, Cell)> {
    let lines = groups(cells, &[axis]);
    lines.iter().flat_map(|line| line[1..].iter().map(|cell| (line[0], *cell))).collect()
}

/// So many, and one more where it is so; nothing once it is not told.
pub(crate) fn one_more(count: Option<usize>, is_so: Option<bool>) -> Option<usize> {
    Some(count? + usize::from(is_so?))
}

/// Do the launches on record say that the axis made a difference to what these cells ran, or that it made none? Nothing
/// where they do not tell.
fn launched_otherwise(axis: Axis, cells: &[&Known]) -> Option<bool> {
    match axis {
        // An order may follow the threads that were asked for, whether or not all had work, and so may attention.
        Axis::Threads => either(
            differ(cells, |known| known.launches.threads),
            either(trees_differ(cells), attentions_differ(cells)),
        ),
        // Two names may stand for one tree.
        Axis::Order => trees_differ(cells),
        // Two names may stand for one function, or for two of which a model calls neither.
        Axis::Functions => differ(cells, |known| Some(known.launches.functions)),
        // Two names may stand for one format; sorted channels are added in another order.
        Axis::KvFormat => differ(cells, |known| {
            let Compute::Lab(numerics) = known.cell.compute else { return Some(None) };
            let kept_in = |layer| {
                [Step::Scores, Step::Context].map(|step| numerics.recipe(At::layer(layer, step)).weights)
            };
            let kept: Vec<_> = (0..=numerics.precision().alike_from()).map(kept_in).collect();
            Some(Some((kept, numerics.kv().sorts_keys())))
        }),
        // Two names may stand for as many parts.
        Axis::Attention => attentions_differ(cells),
        // Every degree is other launches, even where all of them add in one tree.
        Axis::Tp => differ(cells, |known| Some(known.cell.compute.parallel().ranks())),
        // Two ranks have one tree, whatever its name.
        Axis::Reduce => differ(cells, |known| Some(known.cell.compute.parallel().sum())),
        Axis::Batch => either(
            differ(cells, |known| known.launches.prefill_rows),
            differ(cells, |known| known.launches.decode_rows),
        ),
        Axis::PrefillChunk => differ(cells, |known| known.launches.chunks),
        // Whoever a server keeps apart is in no group, whatever it was asked together.
        Axis::Grouping => differ(&in_company(cells), |known| {
            known.launches.groups.filter(|_| company(known) != Company::Untold)
        }),
        // Whoever is asked one thing after the other decodes a row at a time, however many ask.
        Axis::Concurrency => differ(cells, |known| known.launches.decode_rows),
        // Who is beside a prompt, and since when, counts where anybody was. Whoever is asked alone is as the cell says.
        Axis::Neighbors | Axis::Arrival => {
            let is_alone = |known: &Known| known.cell.serving.company().get() == 1;
            let taken = cells.iter().copied().filter(|known| known.cell.compute.takes(axis));
            let told: Vec<_> =
                taken.filter(|known| is_alone(known) || company(known) != Company::None).collect();
            differ(&told, |known| {
                let is_told = is_alone(known) || company(known) == Company::Proven;
                is_told.then(|| known.cell.get(axis))
            })
        }
        // What was in a cache is not read again; in a batch that may leave the largest call as it was.
        Axis::Cache => either(
            differ(cells, |known| known.launches.prefill_rows),
            differ(cells, |known| Some(known.launches.history.map(|history| history.cached))),
        ),
        // However many of them stay.
        Axis::Verify => differ(cells, |known| {
            let drafted = known.launches.history.map(|history| history.accepted + history.rejected);
            Some((known.launches.decode_rows, drafted))
        }),
        Axis::Rebuild => differ(cells, |known| {
            let rebuilt = known.launches.history.map_or(0, |history| history.rebuilt);
            Some((rebuilt, Some(known.cell.serving.asking.rebuild).filter(|_| rebuilt > 0)))
        }),
        // How a token is drawn is nothing to a cell that takes the best.
        Axis::Temperature | Axis::TopP | Axis::TopK | Axis::Seed => differ(cells, |known| {
            let top_k = known.cell.serving.drawing.top_k;
            Some(if top_k.is_some_and(TopK::takes_the_best) {
                Setting::TopK(top_k)
            } else {
                known.cell.get(axis)
            })
        }),
        // Who computes, and in which precision, is what the cell says; a repeat is a run of its own.
        Axis::Engine | Axis::Precision | Axis::Repeat | Axis::Server(_) => Some(true),
    }
}

/// How attention was computed in the largest calls. An engine that has a way of its own is told by its name.
fn attentions_differ(cells: &[&Known]) -> Option<bool> {
    differ(cells, |known| {
        let Compute::Lab(numerics) = known.cell.compute else { return Some(None) };
        let attention = numerics.attention();
        let under = |rows: Option<usize>| {
            let launch = |rows: usize| Launch { rows: rows.max(1), threads: numerics.threads().get() };
            let fixed = (!attention.depends_on_launch()).then_some(attention);
            fixed.or_else(|| Some(attention.under(launch(rows?))))
        };
        let Launches { prefill_rows, decode_rows, .. } = known.launches;
        Some(Some([under(prefill_rows)?, under(decode_rows)?]))
    })
}

/// An engine that adds in an order of its own has no tree on record, and that is told.
fn trees_differ(cells: &[&Known]) -> Option<bool> {
    differ(cells, |known| Some(known.launches.tree))
}

/// Did the prompts of a cell have others beside them?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// Those that its engine was given share their calls, or its server decoded several rows at a time.
    Proven,
    /// Its server decoded one row at a time.
    None,
    /// Its server does not say.
    Untold,
}

fn company(known: &Known) -> Company {
    match (known.cell.compute, known.launches.decode_rows) {
        (Compute::Server(_), None) => Company::Untold,
        (Compute::Server(_), Some(..2)) => Company::None,
        _ => Company::Proven,
    }
}

/// Those of these cells whose prompts may have had company.
fn in_company<'k>(cells: &[&'k Known]) -> Vec<&'k Known> {
    cells.iter().copied().filter(|known| company(known) != Company::None).collect()
}

fn differ<T: PartialEq>(cells: &[&Known], of: impl Fn(&Known) -> Option<T>) -> Option<bool> {
    let all: Vec<_> = cells.iter().map(|known| of(known)).collect();
    let mut told = all.iter().flatten();
    let first = told.next();
    match told.any(|other| Some(other) != first) {
        true => Some(true),
        false => all.iter().all(Option::is_some).then_some(false),
    }
}

fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    if one == Some(true) || other == Some(true) { Some(true) } else { one.and(other) }
}
