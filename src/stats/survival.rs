//! Kaplan and Meier's estimate of how long outputs stay equal, where some end before they part.

use num_bigint::BigInt;
use num_traits::One;
use serde::Serialize;

use super::{Interval, quotient};
use crate::numerics::{
    special::{log_log_interval, normal_quantile},
    total::Total,
};

/// The curve: what share survives past each time. It steps down at the times of events and nowhere else.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Survival {
    /// The steps, by time.
    pub steps: Vec<Step>,
}

/// What happened at one time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Step {
    /// The time.
    pub time: u64,
    /// How many had no event and were not out of sight before. Those that get out of sight just here count.
    pub at_risk: u64,
    /// How many have their event here, at least one.
    pub events: u64,
    /// The share that survives past this time.
    pub survival: f64,
    /// Greenwood's estimate of the variance of the logarithm of that share; nothing where none survive.
    pub log_variance: Option<f64>,
}

impl Survival {
    /// The curve of observed times. True stands beside the time of an event, and false beside one until which
    /// there was none: for a [`shared_prefix`](super::spread::shared_prefix), its outputs have parted or not.
    pub fn of(times: impl IntoIterator<Item = (u64, bool)>) -> Survival {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        let (mut rest, mut steps) = (&times[..], Vec::new());
        let (mut survival, mut log_variance) = (Exact::from(1), Total::default());
        while let Some(&(time, _)) = rest.first() {
            let here = rest.partition_point(|&(other, _)| other == time);
            let events = rest[..here].iter().filter(|(_, event)| *event).count() as u64;
            if events > 0 {
                let at_risk = rest.len() as u64;
                let left = at_risk - events;
                survival.multiply(left, at_risk);
                if left > 0 {
                    log_variance.add(events as f64 / (at_risk as f64 * left as f64));
                }
                steps.push(Step {
                    time,
                    at_risk,
                    events,
                    survival: survival.round(),
                    log_variance: (left > 0).then(|| log_variance.round()),
                });
            }
            rest = &rest[here..];
        }
        Survival { steps }
    }

    /// The last step up to this time.
    fn last_step(&self, time: u64) -> Option<&Step> {
        self.steps[..self.steps.partition_point(|step| step.time <= time)].last()
    }

    /// The share that survives past this time. Past the last observed time it is a guess.
    pub fn at(&self, time: u64) -> f64 {
        self.last_step(time).map_or(1.0, |step| step.survival)
    }

    /// The first time past which at most this share survives: 0.5 gives the median. Nothing if the curve ends
    /// above.
    pub fn first_time_at_most(&self, share: f64) -> Option<u64> {
        self.steps.iter().find(|step| step.survival <= share).map(|step| step.time)
    }
}

impl Step {
    /// The variance of the survival, by Greenwood's formula; 0 where none survive.
    pub fn variance(&self) -> f64 {
        self.survival * self.survival * self.log_variance.unwrap_or(0.0)
    }

    /// The interval of the survival at this time, on the scale of log(-log), so that it stays between 0 and
    /// 1. Nothing where none survive: then the spread says nothing of the error.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let error = normal_quantile((1.0 - confidence) / 2.0) * self.log_variance?.sqrt();
        let [lower, upper] = log_log_interval(self.survival, error);
        Some(Interval { lower, upper })
    }
}

/// A quotient that is not reduced while it is worked on: that would cost more than the longer integers do.
struct Exact {
    numerator: BigInt,
    denominator: BigInt,
}

impl From<u64> for Exact {
    fn from(number: u64) -> Exact {
        Exact { numerator: number.into(), denominator: BigInt::one() }
    }
}

impl Exact {
    fn multiply(&mut self, numerator: u64, denominator: u64) {
        self.numerator *= numerator;
        self.denominator *= denominator;
    }

    fn round(&self) -> f64 {
        let quotient = quotient(self.numerator.clone(), self.denominator.clone());
        // The denominators are numbers at risk, of which there is one at least.
        quotient.unwrap_or(0.0)
    }
}
