//! What a part of a run asks a scheduler for: a queue, memory, time, processors. It moves no bit, and is no part of what a run is
//! known by.

use std::str::FromStr;

/// What a matrix file says of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Which queue: a partition, as Slurm calls it.
    pub queue: Option<String>,
    /// How much memory a part takes.
    pub memory: Option<Memory>,
    /// How long a part may take.
    pub time: Option<Limit>,
    /// How many processors a part computes on.
    pub cpus: Option<u64>,
    /// How many parts there are.
    pub parts: Option<u64>,
}

/// How much memory, in MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory(pub u64);

impl FromStr for Memory {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Memory, Self::Err> {
        counted(text, &[('M', 1), ('G', 1 << 10), ('T', 1 << 20)])
            .map(Memory)
            .ok_or("write it as 512M, 64G or 2T")
    }
}

/// How long, in minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit(pub u64);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Limit, Self::Err> {
        counted(text, &[('m', 1), ('h', 60), ('d', 24 * 60)]).map(Limit).ok_or("write it as 90m, 12h or 2d")
    }
}

/// A whole number from 1 up of a unit.
fn counted(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let (unit, worth) = units.iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number = text.strip_suffix(*unit)?;
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(*worth).filter(|number| *number > 0)
}
