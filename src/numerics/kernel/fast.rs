//! The fast twin: the definition's bits, on vectors, by as many threads as asked for.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, prelude::*};

use super::{Isa, Job, Kernel, Packed, definition::sum_of_products, packed::PANEL, prepared::Prepared};
use crate::numerics::{
    Numerics,
    order::{Launch, Order, Schedule},
    precision::Site,
};

/// Multiply-adds below which waking a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 20;

/// The fast kernel.
#[derive(Debug)]
pub struct Fast {
    pub(super) numerics: Numerics,
    pub(super) isa: Isa,
    /// As many threads as the numerics ask for; one is the caller's own.
    pool: Option<ThreadPool>,
    schedules: RwLock<HashMap<(Order, usize), Arc<Schedule>>>,
    pub(super) fault: Option<Fault>,
}

/// A defect to put into the kernel, for showing that an audit would have seen it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The terms come in the opposite order.
    Reversed,
    /// The last term of the walk is left out.
    Dropped,
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
        let threads = numerics.threads.get();
        let pool = match threads {
            1 => None,
            _ => Some(ThreadPoolBuilder::new().num_threads(threads).build()?),
        };
        Ok(Fast { numerics, isa, pool, schedules: RwLock::default(), fault: None })
    }

    /// The same kernel with a defect.
    pub fn with_fault(self, fault: Fault) -> Fast {
        Fast { fault: Some(fault), ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub(super) fn schedule(&self, terms: usize, launch: Launch) -> Arc<Schedule> {
        let key = (self.numerics.order.under(launch), terms);
        const POISONED: &str = "nothing panics while it holds the schedules";
        if let Some(schedule) = self.schedules.read().expect(POISONED).get(&key) {
            return Arc::clone(schedule);
        }
        let schedule = Arc::new(key.0.schedule(terms, launch));
        Arc::clone(self.schedules.write().expect(POISONED).entry(key).or_insert(schedule))
    }
}

impl Kernel for Fast {
    type Weights = Packed;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn pack(
        &self,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Packed {
        Packed::new(self.numerics, site, columns, depth, fill)
    }

    fn push_column(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_column(terms);
    }

    fn push_row(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_row(terms);
    }

    fn run(&self, site: Site, launch: Launch, jobs: Vec<Job<'_, Packed>>) {
        let recipe = self.numerics.precision.recipe(site);
        let cost = |job: &Job<'_, Packed>| job.activations.len() * job.weights.columns;
        let pool = self.pool.as_ref().filter(|_| jobs.iter().map(cost).sum::<usize>() >= WORTH_SHARING);
        let Some(pool) = pool else {
            for job in jobs {
                let whole = 0..job.weights.columns.div_ceil(PANEL);
                let (product, out) = Prepared::new(self, recipe, launch, job);
                product.panels(whole, out);
            }
            return;
        };
        let threads = self.numerics.threads.get();
        pool.install(|| {
            // Few jobs are shared by their outputs, many by their number.
            let shares = if jobs.len() >= 4 * threads { 1 } else { threads };
            jobs.into_par_iter().with_max_len(1).for_each(|job| {
                let panels = job.weights.columns.div_ceil(PANEL);
                let bounds: Vec<usize> = (0..=shares).map(|share| panels * share / shares).collect();
                let columns = job.weights.columns;
                let (product, out) = Prepared::new(self, recipe, launch, job);
                let ends = bounds[1..].iter().map(|&panel| columns.min(panel * PANEL));
                split_columns(out, columns, ends)
                    .into_par_iter()
                    .with_max_len(1)
                    .zip(bounds.par_windows(2))
                    .for_each(|(out, bounds)| product.panels(bounds[0]..bounds[1], out));
            });
        });
    }

    fn sum(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order, launch, terms.len(), |term| (terms[term], 1.0))
    }

    fn sum_of_squares(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order, launch, terms.len(), |term| (terms[term], terms[term]))
    }
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
