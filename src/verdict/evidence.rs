//! What is compared with what, and what came out: filled item by item, so that it grows with the cells and not with the
//! items.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    cell::{AXES, Axis, Cell, EngineName, Setting},
    compare::{Level, Output, Spread, Spreads, Tally},
    digest::Digest,
    engine::environment::Environment,
    plan::gate::groups,
    record::About,
    stats::proportion::Proportion,
    suite::question::Question,
    trace::Launches,
};

/// A cell that has run.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// Which.
    pub cell: Cell,
    /// The number of its trace: equal traces have one.
    pub trace: usize,
    /// One value for all its tokens and logits.
    pub root: Digest,
    /// The launches that really ran.
    pub launches: Launches,
    /// Where.
    pub environment: Environment,
}

/// What is compared, and what came out.
pub struct Evidence {
    /// The plan's cells, in their order.
    plan: Vec<Cell>,
    reference: Option<Cell>,
    known: HashMap<Cell, Known>,
    /// What a baseline must agree on beside the cells.
    identity: Digest,
    traces: Vec<Summary>,
    /// By the numbers of their traces.
    tallies: BTreeMap<(usize, usize), Tally>,
    families: Vec<Family>,
}

/// One trace by itself.
#[derive(Default)]
pub struct Summary {
    /// Right answers of each suite.
    pub suites: BTreeMap<String, Proportion>,
    /// How many tokens were chosen.
    pub tokens: u64,
    levels: [Sha256; 3],
}

impl Summary {
    /// Right answers of all suites.
    pub fn accuracy(&self) -> Proportion {
        self.suites.values().copied().sum()
    }

    /// One value for all that counts on a level.
    pub fn level(&self, level: Level) -> Digest {
        Digest(self.levels[level as usize].clone().finalize().into())
    }

    fn add(&mut self, question: &Question, output: &Output<'_>) {
        let right = Proportion { hits: output.correct.into(), of: 1 };
        let suite = self.suites.entry(question.suite.clone()).or_default();
        *suite = *suite + right;
        self.tokens += output.tokens.len() as u64;
        let [bits, tokens, answers] = &mut self.levels;
        bits.update(output.root.0);
        tokens.update((output.tokens.len() as u64).to_le_bytes());
        for token in output.tokens {
            tokens.update(token.id.to_le_bytes());
        }
        // No text has the length that stands for no answer.
        let answer = output.answer.unwrap_or_default();
        answers.update(output.answer.map_or(u64::MAX, |answer| answer.len() as u64).to_le_bytes());
        answers.update(answer);
    }
}

/// All cells of one engine in one precision: what the LayerCast paper calls configurations.
pub struct Family {
    /// Who computes.
    pub engine: EngineName,
    /// In which precision, where the engine takes one.
    pub precision: Setting,
    /// Its cells, and the number of each one's trace.
    cells: Vec<Cell>,
    traces: Vec<usize>,
    spread: Spread,
    suites: BTreeMap<String, Spread>,
}

impl Family {
    /// Its cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
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
    /// In how many pairs the launch, as it was recorded, made a difference.
    pub exercised: usize,
    /// How many pairs agree on all bits, on all tokens, on all answers.
    pub agree: [usize; 3],
    /// Comparable places with the same logits, over all pairs.
    pub places: Proportion,
    /// Items with the same bits, with the same tokens, and with the same answers, over all pairs.
    pub items: [Proportion; 3],
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
            reference: *reference,
            known,
            identity,
            traces: (0..traces).map(|_| Summary::default()).collect(),
            tallies: BTreeMap::new(),
            families: Vec::new(),
        };
        evidence.families = evidence.lay_families(beside);
        let mut pairs: Vec<(Cell, Cell)> = Vec::new();
        for axis in AXES.iter().map(|entry| entry.axis) {
            pairs.extend(evidence.lines(axis));
        }
        for gate in gates {
            let groups = gate.groups(plan);
            pairs.extend(groups.iter().flat_map(|group| group[1..].iter().map(|cell| (group[0], *cell))));
        }
        pairs.extend(reference.iter().flat_map(|reference| plan.iter().map(|cell| (*reference, *cell))));
        for (one, other) in pairs {
            if let (Some(one), Some(other)) = (evidence.known(one), evidence.known(other)) {
                evidence.tallies.insert((one.trace, other.trace), Tally::default());
            }
        }
        evidence
    }

    fn lay_families(&self, beside: &[Cell]) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        let product = self.plan.iter().filter(|cell| !beside.contains(cell));
        for known in product.filter_map(|cell| self.known(*cell)) {
            let engine = known.cell.compute.engine();
            let precision = known.cell.get(Axis::Precision);
            let found =
                families.iter_mut().find(|family| (family.engine, family.precision) == (engine, precision));
            match found {
                Some(family) => {
                    family.cells.push(known.cell);
                    family.traces.push(known.trace);
                }
                None => families.push(Family {
                    engine,
                    precision,
                    cells: vec![known.cell],
                    traces: vec![known.trace],
                    spread: Spread::default(),
                    suites: BTreeMap::new(),
                }),
            }
        }
        families
    }

    /// The pairs that differ on one axis alone: the first of each line with every other.
    fn lines(&self, axis: Axis) -> Vec<(Cell, Cell)> {
        let lines = groups(&self.plan, &[axis]);
        lines.iter().flat_map(|line| line[1..].iter().map(|cell| (line[0], *cell))).collect()
    }

    /// Adds an item: what every trace holds of it, in the order of their numbers. Items come in their order.
    pub fn add(&mut self, question: &Question, outputs: &[Output<'_>]) {
        for (summary, output) in self.traces.iter_mut().zip(outputs) {
            summary.add(question, output);
        }
        for ((one, other), tally) in &mut self.tallies {
            tally.add(question, outputs[*one], outputs[*other]);
        }
        for family in &mut self.families {
            let of_cells: Vec<_> = family.traces.iter().map(|trace| outputs[*trace]).collect();
            family.spread.add(&of_cells);
            family.suites.entry(question.suite.clone()).or_default().add(&of_cells);
        }
    }

    /// The plan's cells, in their order.
    pub fn plan(&self) -> &[Cell] {
        &self.plan
    }

    /// What all cells are compared with.
    pub fn reference(&self) -> Option<Cell> {
        self.reference
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
        self.tallies.get(&(self.known(one)?.trace, self.known(other)?.trace))
    }

    /// Did the axis make a difference to what these cells ran? Nothing where not all have run.
    pub fn exercised(&self, axis: Axis, cells: &[Cell]) -> Option<bool> {
        let known: Option<Vec<_>> = cells.iter().map(|cell| self.known(*cell)).collect();
        let known = known?;
        // Whatever the launches say: what differs by nothing else has made a difference.
        let mut bits: HashMap<Vec<Setting>, Digest> = HashMap::new();
        let mut moved = |one: &Known| {
            let others = AXES.iter().map(|entry| entry.axis).filter(|other| *other != axis);
            let others = others.map(|other| one.cell.get(other)).collect();
            let of_one = self.summary(one).level(Level::Bits);
            *bits.entry(others).or_insert(of_one) != of_one
        };
        Some(launched_otherwise(axis, &known) || known.iter().any(|one| moved(one)))
    }

    /// All cells of every precision.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// What each axis alone moves, for those that vary.
    pub fn attributions(&self) -> Vec<Attribution> {
        let of_axis = |axis: Axis| {
            let pairs = self.lines(axis);
            let mut attribution = Attribution {
                axis,
                pairs: 0,
                exercised: 0,
                agree: [0; 3],
                places: Proportion::default(),
                items: [Proportion::default(); 3],
                first: None,
            };
            let mut has_text = false;
            for (one, other) in pairs {
                let Some(tally) = self.tally(one, other) else { continue };
                attribution.pairs += 1;
                attribution.exercised += usize::from(self.exercised(axis, &[one, other]) == Some(true));
                attribution.places = attribution.places + tally.places;
                for (at, level) in Level::ALL.into_iter().enumerate() {
                    attribution.agree[at] += usize::from(tally.agreeing(level).misses() == 0);
                    attribution.items[at] = attribution.items[at] + tally.agreeing(level);
                }
                let parts = [tally.first().is_some(), tally.tokens.misses() > 0];
                if parts[0] && attribution.first.is_none() || parts[1] && !has_text {
                    attribution.first = Some([one, other]);
                }
                has_text |= parts[1];
            }
            attribution
        };
        let all = AXES.iter().map(|entry| of_axis(entry.axis));
        all.filter(|attribution| attribution.pairs > 0).collect()
    }
}

/// Do the launches on record say that the axis made a difference to what these cells ran?
fn launched_otherwise(axis: Axis, cells: &[&Known]) -> bool {
    match axis {
        // An order may follow the threads that were asked for, whether or not all had work.
        Axis::Threads => differ(cells, |launches| (launches.threads, launches.tree)),
        // Two names may stand for one tree.
        Axis::Order => differ(cells, |launches| launches.tree),
        Axis::Batch => differ(cells, |launches| (launches.prefill_rows, launches.decode_rows)),
        Axis::PrefillChunk => differ(cells, |launches| launches.chunks),
        Axis::Grouping => differ(cells, |launches| launches.groups),
        // Who computes, in which precision and with which noise is what the cell says; a repeat is a run of its own.
        Axis::Engine | Axis::Precision | Axis::Seed | Axis::Repeat => true,
    }
}

fn differ<T: PartialEq>(cells: &[&Known], of: impl Fn(&Launches) -> T) -> bool {
    cells.iter().any(|known| of(&known.launches) != of(&cells[0].launches))
}
