//! The fast twin: the definition's bits, on vectors, by as many threads as asked for.

use std::ops::Range;

use rayon::ThreadPoolBuildError;

use super::{
    At, Attended, End, Isa, Job, Kernel, Op, Packed, Source, Workers,
    op::pairs,
    panel::PANEL,
    prepared::Prepared,
    rows::{
        Activated, Divided, Exponentials, Gated, Joined, Largest, Normed, Powered, RowSums, Same, Scaled,
        TOGETHER, Terms, Turned, Updated, WithoutPowers, rounded,
    },
    schedules::Schedules,
};
use crate::numerics::{
    Numerics, Reduction, Site,
    activation::Activation,
    attention::{Attention, base},
    format::Format,
    functions::Called,
    order::{Launch, Order, Rule, Shape},
    parallel::{Parallel, Reduce, Way},
    precision::{Elementwise, Product, Recipe},
    product::{LMul, Variant},
    rotary::Turn,
};

/// Work below which a second thread that stands by costs more than it brings: fused multiply-adds in a tile of several rows.
const WORTH_SHARING: usize = 1 << 19;
/// What it costs to bring a weight from memory in those terms, however many rows meet it there.
const COST_OF_WEIGHT: usize = 8;

/// The same for what goes row by row, in values that are read, scaled and written.
const WORTH_SHARING_ROWS: usize = 1 << 17;
/// What a value costs in those terms where it is one of a sum.
const COST_OF_SUM: usize = 3;
/// What a value costs where an exponential is taken of it.
const COST_OF_EXP: usize = 20;

/// The fast kernel.
#[derive(Debug)]
pub struct Fast {
    numerics: Numerics,
    isa: Isa,
    workers: Workers,
    schedules: Schedules,
    /// Is a finished sum left as it is, and not rounded to what the precision stores?
    unrounded: bool,
}

impl Fast {
    /// A kernel for these numerics on the widest vectors of this machine.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    pub fn new(numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        Fast::on(Isa::best(), numerics)
    }

    /// A kernel for these numerics on a given instruction set, which the machine must have.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    ///
    /// # Panics
    ///
    /// If the machine lacks the instruction set.
    pub fn on(isa: Isa, numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        assert!(isa.is_available(), "this machine has no {isa}");
        let workers = Workers::new(numerics.threads())?;
        Ok(Fast { numerics, isa, workers, schedules: Schedules::default(), unrounded: false })
    }

    /// The same, but that a product's finished sums stay in f32.
    #[must_use]
    pub fn unrounded(self) -> Fast {
        Fast { unrounded: true, ..self }
    }

    fn recipe(&self, at: At) -> Recipe {
        let recipe = self.numerics.recipe(at);
        if self.unrounded { Recipe { result: Format::F32, ..recipe } } else { recipe }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many of so many rows go into one share, given what all of them cost: all, or few enough that every thread
    /// finds several, because rows differ in cost.
    fn share_of(&self, rows: usize, cost: usize) -> usize {
        let threads = self.workers.threads();
        if threads == 1 || cost < WORTH_SHARING_ROWS {
            return rows.max(1);
        }
        let share = rows.div_ceil(4 * threads).max(1);
        self.workers.note(rows.div_ceil(share));
        share
    }

    /// Does the work of each share, on whichever thread is free.
    fn in_shares<T: Send>(
        &self,
        mut shares: impl ExactSizeIterator<Item = T>,
        work: impl Fn(T) + Send + Sync,
    ) {
        match shares.len() {
            0 => {}
            1 => shares.by_ref().for_each(work),
            _ => self.workers.share(shares.collect(), work),
        }
    }

    fn row_sums(&self, terms: usize, launch: Launch) -> RowSums {
        let order = self.numerics.order_of(Reduction::Row);
        RowSums { isa: self.isa, rule: order.rule(), schedule: self.schedules.of(order, terms, launch) }
    }

    /// Every rank's own product, and what comes together of them.
    fn shared(&self, recipe: Recipe, order: Order, launch: Launch, parallel: Parallel, job: Job<'_, Packed>) {
        let Job { activations, rows, weights, start, out } = job;
        let (columns, depth) = (weights.columns, weights.depth);
        weights.must_be_for(&recipe, order);
        let inputs: Vec<Vec<f32>> = parallel
            .stretches(depth)
            .map(|terms| {
                activations.chunks(depth.max(1)).flat_map(|row| &row[terms.clone()]).copied().collect()
            })
            .collect();
        let ranks = weights.ranks().expect("a product that ranks share has a matrix for each");
        let mut parts = vec![vec![0.0; rows * columns]; ranks.len()];
        let jobs = ranks.iter().zip(&inputs).zip(&mut parts).enumerate();
        let jobs = jobs.map(|(rank, ((weights, activations), out))| {
            let start = start.filter(|_| rank == 0);
            Job { activations, rows, weights, start, out }
        });
        self.product(parallel.of_rank(recipe), order, launch, jobs.map(|job| (0, job)).collect());
        self.reduce(parallel.reduce(), recipe.result, columns, parts, out);
    }

    /// Brings together what every rank has of rows of so many outputs.
    fn reduce(
        &self,
        Reduce { way, sent }: Reduce,
        result: Format,
        columns: usize,
        mut parts: Vec<Vec<f32>>,
        out: &mut [f32],
    ) {
        let add = |format, values: &mut [f32], update: &[f32]| {
            rounded(self.isa, Elementwise::to(format), Updated { values, update });
        };
        match way {
            Way::OneShot => {
                out.copy_from_slice(&parts[0]);
                parts[1..].iter().for_each(|part| add(Format::F32, out, part));
                rounded(self.isa, Elementwise::to(sent), Same(out));
            }
            Way::Ring => {
                let width = columns.div_ceil(parts.len()).max(1);
                for (row, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
                    for (index, chunk) in out.chunks_mut(width).enumerate() {
                        let first = Reduce::first(index * width, columns, parts.len());
                        let own = row * columns + index * width..row * columns + index * width + chunk.len();
                        let own = |rank: usize| &parts[rank % parts.len()][own.clone()];
                        chunk.copy_from_slice(own(first));
                        (first + 1..first + parts.len()).for_each(|rank| add(sent, chunk, own(rank)));
                    }
                }
            }
            Way::Tree => {
                join_halves(&mut parts, &|one, other| add(sent, one, other));
                out.copy_from_slice(&parts[0]);
            }
        }
        rounded(self.isa, Elementwise::to(result), Same(out));
    }

    /// Jobs, each with the term of its matrix that its activations begin to meet.
    fn product(&self, recipe: Recipe, order: Order, launch: Launch, jobs: Vec<(usize, Job<'_, Packed>)>) {
        let prepare =
            |first, job| Prepared::new(self.isa, recipe, order, launch, &self.schedules, first, job);
        let panels = |job: &Job<'_, Packed>| job.weights.columns.div_ceil(PANEL);
        let step = cost_of_step(&recipe, order);
        let cost = |job: &Job<'_, Packed>| {
            let depth = job.activations.len().checked_div(job.rows).unwrap_or(0);
            depth * job.weights.columns * (COST_OF_WEIGHT + job.rows * step)
        };
        let threads = self.workers.threads();
        if threads == 1 || jobs.iter().map(|(_, job)| cost(job)).sum::<usize>() < WORTH_SHARING {
            for (first, job) in jobs {
                let whole = 0..panels(&job);
                let (product, out) = prepare(first, job);
                product.panels(whole, out);
            }
            return;
        }
        self.workers.note(jobs.iter().map(|(_, job)| panels(job)).sum());
        // Few jobs are shared by their outputs, many by their number.
        let shares = if jobs.len() >= 4 * threads { 1 } else { threads };
        self.workers.share(jobs, |(first, job)| {
            let (panels, columns) = (panels(&job), job.weights.columns);
            let bounds: Vec<usize> = (0..=shares).map(|share| panels * share / shares).collect();
            let (product, out) = prepare(first, job);
            let ends = bounds[1..].iter().map(|&panel| columns.min(panel * PANEL));
            let outs = split_columns(out, columns, ends);
            self.workers.share(outs.into_iter().zip(bounds.windows(2)).collect(), |(out, bounds)| {
                product.panels(bounds[0]..bounds[1], out);
            });
        });
    }

    fn lookup(&self, at: At, table: &Packed, columns: &[u32], out: &mut [f32]) {
        let order = self.numerics.order_of(Reduction::Product(at));
        table.must_walk(order);
        assert_eq!(out.len(), columns.len() * table.depth, "there is room for every term");
        let schedule = self.schedules.of(order, table.depth, Launch::default());
        for (&column, out) in columns.iter().zip(out.chunks_exact_mut(table.depth.max(1))) {
            table.column(column as usize, schedule.walk.as_deref(), out);
        }
    }

    fn norm(
        &self,
        by: Elementwise,
        launch: Launch,
        rows: &[f32],
        weight: &[f32],
        epsilon: f32,
        out: &mut [f32],
    ) {
        let width = weight.len().max(1);
        let sums = self.row_sums(weight.len(), launch);
        let share = self.share_of(rows.len() / width, COST_OF_SUM * rows.len());
        let shares = rows.chunks(share * width).zip(out.chunks_mut(share * width));
        self.in_shares(shares, |(rows, out)| {
            for (rows, out) in rows.chunks(TOGETHER * width).zip(out.chunks_mut(TOGETHER * width)) {
                let squares: Option<Vec<f32>> =
                    by.product.map(|lmul| rows.iter().map(|&x| lmul.times(x, x)).collect());
                let (terms, added) = match &squares {
                    Some(squares) => (Terms::Values, squares.as_slice()),
                    None => (Terms::Squares, rows),
                };
                let mut each: [&[f32]; TOGETHER] = [&[]; TOGETHER];
                each.iter_mut().zip(added.chunks_exact(width)).for_each(|(each, row)| *each = row);
                let each = &each[..rows.len() / width];
                let mut scales = sums.of(terms, each);
                for scale in &mut scales[..each.len()] {
                    *scale = self.numerics.functions().of(Called::Rsqrt, *scale / width as f32 + epsilon);
                }
                rounded(self.isa, by, Normed { rows, scales: &scales, weight, out });
            }
        });
    }

    fn softmax(
        &self,
        by: Elementwise,
        launch: Launch,
        scores: &mut [f32],
        width: usize,
        seen: &[Range<usize>],
        scale: f32,
    ) {
        let (width, functions) = (width.max(1), self.numerics.functions());
        let is_two_pass = self.numerics.attention() == Attention::TwoPass;
        let terms = seen.iter().map(|seen| seen.end).sum::<usize>();
        let share = self.share_of(seen.len(), COST_OF_EXP * terms);
        self.in_shares(scores.chunks_mut(share * width).zip(seen.chunks(share)), |(scores, seen)| {
            // Sums go together that have as many terms.
            let mut by_end: Vec<usize> = (0..seen.len()).collect();
            by_end.sort_by_key(|&row| seen[row].end);
            for rows in by_end.chunk_by(|&row, &next| seen[row].end == seen[next].end) {
                let end = seen[rows[0]].end;
                let sums = self.row_sums(end, launch);
                for rows in rows.chunks(TOGETHER) {
                    let mut numbers = Vec::new();
                    for &row in rows {
                        let (before, visible) = scores[row * width..][..end].split_at_mut(seen[row].start);
                        before.fill(0.0);
                        rounded(self.isa, by, Scaled { values: visible, scale });
                        if is_two_pass {
                            numbers.push(self.numbers(visible));
                        } else {
                            let less = self.isa.dispatch(Largest(visible));
                            self.isa.dispatch(Exponentials { functions, less, values: visible });
                        }
                    }
                    let mut each: [&[f32]; TOGETHER] = [&[]; TOGETHER];
                    each.iter_mut().zip(rows).for_each(|(each, row)| *each = &scores[row * width..][..end]);
                    let sums = sums.of(Terms::Values, &each[..rows.len()]);
                    for (&row, &sum) in rows.iter().zip(&sums) {
                        let values = &mut scores[row * width..][seen[row].clone()];
                        if !is_two_pass {
                            rounded(self.isa, by, Divided { values, by: sum });
                        }
                    }
                    for ((numbers, &row), sum) in numbers.iter().zip(rows).zip(sums) {
                        let values = &mut scores[row * width..][seen[row].clone()];
                        values.copy_from_slice(&numbers.left);
                        rounded(self.isa, by, numbers.times(values, Some(1.0 / sum)));
                    }
                }
            }
        });
    }

    /// What exponentials of scores are as numbers and powers; the scores become terms of their sum.
    fn numbers(&self, scores: &mut [f32]) -> Numbers {
        let mut powers = vec![0.0; scores.len()];
        self.isa.dispatch(WithoutPowers { values: scores, powers: &mut powers });
        self.isa.dispatch(Exponentials { functions: self.numerics.functions(), less: 0.0, values: scores });
        let numbers = Numbers { largest: self.isa.dispatch(Largest(&powers)), left: scores.to_vec(), powers };
        rounded(self.isa, Elementwise::to(Format::F32), numbers.times(scores, None));
        numbers
    }

    fn attend(&self, at: At, launch: Launch, rows: Vec<Attended<'_, Packed>>, scale: f32) {
        let by = self.numerics.precision().elementwise(at.weighing());
        let (recipe, order) = (self.recipe(at), self.numerics.order_of(Reduction::Product(at)));
        let attention = self.numerics.attention();
        if !attention.is_cut() {
            let mut weights: Vec<Vec<f32>> =
                rows.iter().map(|own| own.seen_rows().flatten().copied().collect()).collect();
            for (own, weights) in rows.iter().zip(&mut weights) {
                let seen = vec![own.seen.clone(); own.rows];
                self.softmax(by, launch, weights, own.seen.end, &seen, scale);
            }
            let jobs = rows.into_iter().zip(&weights).map(|(own, activations)| {
                let Attended { rows, values: weights, out, .. } = own;
                (0, Job { activations, rows, weights, start: None, out })
            });
            return self.product(recipe, order, launch, jobs.collect());
        }
        let mut stretches: Vec<Vec<Stretch>> = rows
            .iter()
            .map(|own| {
                let parts = attention.parts(&own.seen, launch).expect("it cuts the keys");
                stretches_of(parts, own.rows, own.values.columns)
            })
            .collect();
        let cost = COST_OF_EXP * rows.iter().map(|own| own.rows * own.seen.end).sum::<usize>();
        let share = self.share_of(rows.len(), cost);
        self.in_shares(rows.chunks(share).zip(stretches.chunks_mut(share)), |(rows, stretches)| {
            rows.iter().zip(stretches).for_each(|(own, all)| self.weigh(by, launch, own, scale, all));
        });
        // What is not brought together yet is not rounded yet.
        let jobs = rows.iter().zip(&mut stretches).flat_map(|(own, all)| {
            all.iter_mut().map(|stretch| {
                let Stretch { keys, weights: activations, context: out, .. } = stretch;
                let job = Job {
                    activations,
                    rows: own.rows,
                    weights: own.values,
                    start: None,
                    out: out.as_mut_slice(),
                };
                (keys.start, job)
            })
        });
        self.product(Recipe { result: Format::F32, ..recipe }, order, launch, jobs.collect());
        let mut shares: Vec<_> = rows.into_iter().zip(stretches).collect();
        self.in_shares(shares.chunks_mut(share), |shares| {
            for (own, all) in shares {
                let columns = own.values.columns;
                for (row, out) in own.out.chunks_exact_mut(columns.max(1)).enumerate() {
                    let sum = self.join(by, all, row, out);
                    rounded(self.isa, Elementwise::to(recipe.result), Divided { values: out, by: sum });
                }
            }
        });
    }

    /// The weights of every stretch, and their sums.
    fn weigh(
        &self,
        by: Elementwise,
        launch: Launch,
        own: &Attended<'_, Packed>,
        scale: f32,
        all: &mut [Stretch],
    ) {
        let functions = self.numerics.functions();
        let mut largest = vec![f32::NEG_INFINITY; own.rows];
        for Stretch { keys, begins, weights, sums, largest: of_stretch, .. } in all {
            if *begins {
                largest.fill(f32::NEG_INFINITY);
            }
            let hidden = own.seen.start.saturating_sub(keys.start);
            let rows = weights.chunks_exact_mut(keys.len()).zip(own.seen_rows());
            for ((weights, scores), largest) in rows.zip(&mut largest) {
                weights.copy_from_slice(&scores[keys.clone()]);
                let (before, values) = weights.split_at_mut(hidden);
                before.fill(0.0);
                rounded(self.isa, by, Scaled { values, scale });
                let own = self.isa.dispatch(Largest(values));
                *largest = if own > *largest { own } else { *largest };
                self.isa.dispatch(Exponentials { functions, less: base(*largest), values });
            }
            of_stretch.copy_from_slice(&largest);
            let of_row = self.row_sums(keys.len(), launch);
            for (weights, sums) in weights.chunks(TOGETHER * keys.len()).zip(sums.chunks_mut(TOGETHER)) {
                let mut each: [&[f32]; TOGETHER] = [&[]; TOGETHER];
                each.iter_mut().zip(weights.chunks_exact(keys.len())).for_each(|(each, row)| *each = row);
                let found = of_row.of(Terms::Values, &each[..sums.len()]);
                sums.copy_from_slice(&found[..sums.len()]);
            }
        }
    }

    /// Brings the stretches of a row together in `out`; tells the sum of all weights.
    fn join<'a>(&self, by: Elementwise, all: &'a [Stretch], row: usize, out: &mut [f32]) -> f32 {
        let by = Elementwise { result: Format::F32, ..by };
        let fade = |own: f32, largest: f32| self.numerics.functions().of(Called::Exp, own - base(largest));
        // A sum is joined as every value of the context is.
        let join = |(sum, out): (&mut f32, &mut [f32]), fade, (own, update): (f32, &[f32]), update_fade| {
            rounded(self.isa, by, Joined { values: out, fade, update, update_fade });
            let values = std::slice::from_mut(sum);
            rounded(self.isa, by, Joined { values, fade, update: &[own], update_fade });
        };
        let width = out.len();
        let mut part = vec![0.0; width];
        let (mut sum, mut largest) = (0.0, f32::NEG_INFINITY);
        for (number, blocks) in all.chunk_by(|_, next| !next.begins).enumerate() {
            let of_row = |block: &'a Stretch| (block.sums[row], &block.context[row * width..][..width]);
            let (mut own_sum, context) = of_row(&blocks[0]);
            let mut own_largest = blocks[0].largest[row];
            part.copy_from_slice(context);
            for block in &blocks[1..] {
                let fade = fade(own_largest, block.largest[row]);
                join((&mut own_sum, &mut part), fade, of_row(block), None);
                own_largest = block.largest[row];
            }
            if number == 0 {
                out.copy_from_slice(&part);
                (sum, largest) = (own_sum, own_largest);
                continue;
            }
            let both = if own_largest > largest { own_largest } else { largest };
            let own_fade = Some(fade(own_largest, both));
            join((&mut sum, out), fade(largest, both), (own_sum, &part), own_fade);
            largest = both;
        }
        sum
    }

    fn rotate(&self, by: Elementwise, values: &mut [f32], heads: usize, turns: &[&Turn]) {
        let half = pairs(turns);
        let turns: Vec<_> = turns.iter().map(|turn| turn.by(self.numerics.functions())).collect();
        let share = self.share_of(turns.len(), values.len());
        let shares = values.chunks_mut((share * heads * 2 * half).max(1)).zip(turns.chunks(share));
        self.in_shares(shares, |(values, turns)| rounded(self.isa, by, Turned { values, heads, turns }));
    }

    fn gate(&self, by: Elementwise, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
        let (width, functions) = (width.max(1), self.numerics.functions());
        let share = self.share_of(out.len() / width, COST_OF_EXP * out.len());
        let shares = gate_up.chunks(share * 2 * width).zip(out.chunks_mut(share * width));
        self.in_shares(shares, |(gate_up, out)| {
            for (row, values) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                let (gate, up) = row.split_at(width);
                values.copy_from_slice(gate);
                self.isa.dispatch(Activated { activation, functions, values });
                rounded(self.isa, by, Gated { values, by: up });
            }
        });
    }

    fn add(&self, by: Elementwise, stream: &mut [f32], update: &[f32]) {
        let share = self.share_of(stream.len(), stream.len());
        self.in_shares(stream.chunks_mut(share).zip(update.chunks(share)), |(values, update)| {
            rounded(self.isa, by, Updated { values, update });
        });
    }
}

impl Kernel for Fast {
    type Weights = Packed;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn workers(&self) -> &Workers {
        &self.workers
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Packed {
        let recipe = self.recipe(at);
        let order = self.numerics.order_of(Reduction::Product(at));
        match self.numerics.ranks(at) {
            None => Packed::new(recipe, order, columns, depth, source),
            Some(parallel) => Packed::shared(recipe, order, parallel, columns, depth, source),
        }
    }

    fn push(&self, weights: &mut Packed, end: End<'_>) {
        match end {
            End::Column(terms) => weights.push_column(terms),
            End::Row(terms) => weights.push_row(terms),
        }
    }

    fn apply(&self, at: At, launch: Launch, op: Op<'_, Packed>) {
        op.check();
        let by = self.numerics.precision().elementwise(at);
        match op {
            Op::Product(jobs) => {
                let recipe = self.recipe(at);
                let order = self.numerics.order_of(Reduction::Product(at));
                match self.numerics.ranks(at) {
                    None => {
                        let jobs = jobs.into_iter().map(|job| (0, job)).collect();
                        self.product(recipe, order, launch, jobs);
                    }
                    Some(parallel) => {
                        jobs.into_iter().for_each(|job| self.shared(recipe, order, launch, parallel, job));
                    }
                }
            }
            Op::Lookup { table, columns, out } => self.lookup(at, table, columns, out),
            Op::Norm { rows, weight, epsilon, out } => {
                self.norm(by, launch, rows, weight, epsilon, out);
            }
            Op::Softmax { scores, width, seen, scale } => {
                self.softmax(by, launch, scores, width, seen, scale);
            }
            Op::Attend { rows, scale } => self.attend(at, launch, rows, scale),
            Op::Rotate { values, heads, turns } => self.rotate(by, values, heads, turns),
            Op::Gate { activation, gate_up, width, out } => {
                self.gate(by, activation, gate_up, width, out);
            }
            Op::Add { stream, update } => self.add(by, stream, update),
        }
    }
}

/// Exponentials of a row as numbers and powers of two.
struct Numbers {
    left: Vec<f32>,
    powers: Vec<f32>,
    largest: f32,
}

impl Numbers {
    /// What their powers make of values.
    fn times<'a>(&'a self, values: &'a mut [f32], by: Option<f32>) -> Powered<'a> {
        Powered { values, powers: &self.powers, largest: self.largest, by }
    }
}

/// What rows make of a stretch of keys.
struct Stretch {
    keys: Range<usize>,
    /// Does a part begin with it?
    begins: bool,
    /// Of every row the weights, their sum, the largest score behind them, and what they make of the values.
    weights: Vec<f32>,
    sums: Vec<f32>,
    largest: Vec<f32>,
    context: Vec<f32>,
}

/// Room for so many rows of every stretch, block after block and part after part.
fn stretches_of(parts: Vec<Vec<Range<usize>>>, rows: usize, columns: usize) -> Vec<Stretch> {
    let of_part = |blocks: Vec<Range<usize>>| {
        blocks.into_iter().enumerate().map(move |(number, keys)| Stretch {
            begins: number == 0,
            weights: vec![0.0; rows * keys.len()],
            sums: vec![0.0; rows],
            largest: vec![0.0; rows],
            context: vec![0.0; rows * columns],
            keys,
        })
    };
    parts.into_iter().flat_map(of_part).collect()
}

/// Adds up a balanced tree of parts, in the first of them.
fn join_halves(parts: &mut [Vec<f32>], add: &impl Fn(&mut [f32], &[f32])) {
    if parts.len() > 1 {
        let (first, second) = parts.split_at_mut(parts.len() / 2);
        join_halves(first, add);
        join_halves(second, add);
        add(&mut first[0], &second[0]);
    }
}

/// What a term of a product with weights costs under these numerics, in fused multiply-adds: as measured, roughly.
pub fn cost_of_term(numerics: Numerics) -> usize {
    let at = At::alone(Site::Linear);
    cost_of_step(&numerics.recipe(at), numerics.order_of(Reduction::Product(at)))
}

/// What a term costs, in fused multiply-adds: as measured, roughly.
fn cost_of_step(recipe: &Recipe, order: Order) -> usize {
    let sum = match (order.rule(), order.shape()) {
        (Rule::Kahan | Rule::Neumaier, _) => 5,
        (Rule::Mma(_) | Rule::Unit(_), _) => 4,
        (Rule::Exact, _) | (Rule::Plain, Shape::Pairwise) => 3,
        (Rule::Plain | Rule::DotBf16, _) => 1,
    };
    let term = match recipe.product {
        Product::LMul(LMul { variant: Variant::Formula, .. }) => 12,
        Product::LMul(_) => 2,
        Product::Fused if recipe.sum != Format::F32 => 7,
        Product::Fused | Product::Int8(_) | Product::Scaled(_) => 1,
    };
    sum * term
}

/// Every row's outputs up to each end, as the rows of one share.
fn split_columns(
    out: Vec<&mut [f32]>,
    columns: usize,
    ends: impl Iterator<Item = usize> + Clone,
) -> Vec<Vec<&mut [f32]>> {
    let mut shares: Vec<_> = ends.clone().map(|_| Vec::with_capacity(out.len())).collect();
    for mut row in out {
        let mut start = 0;
        for (share, end) in shares.iter_mut().zip(ends.clone()) {
            let (this, rest) = row.split_at_mut(end - start);
            share.push(this);
            (row, start) = (rest, end);
        }
        debug_assert_eq!(start, columns);
    }
    shares
}
