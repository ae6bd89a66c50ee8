//! The schedules that a kernel has made so far: a call finds its own again, however many rows it has.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use crate::numerics::order::{Launch, Order, Schedule};

/// Terms of all schedules that are kept: a cache that grows asks for one of every length.
const MOST_TERMS: usize = 1 << 22;

/// Schedules by their order under a launch, and their number of terms.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    made: RwLock<Made>,
}

#[derive(Debug, Default)]
struct Made {
    by_order: HashMap<(Order, usize), Arc<Schedule>>,
    /// The terms of them all.
    terms: usize,
}

impl Schedules {
    /// The one of an order for so many terms under this launch.
    pub(super) fn of(&self, order: Order, terms: usize, launch: Launch) -> Arc<Schedule> {
        let key = (order.under(launch), terms);
        const POISONED: &str = "nothing panics while it holds the schedules";
        if let Some(schedule) = self.made.read().expect(POISONED).by_order.get(&key) {
            return Arc::clone(schedule);
        }
        let schedule = Arc::new(key.0.schedule(terms, launch));
        let mut made = self.made.write().expect(POISONED);
        if made.terms > MOST_TERMS {
            *made = Made::default();
        }
        made.terms += terms;
        Arc::clone(made.by_order.entry(key).or_insert(schedule))
    }
}
