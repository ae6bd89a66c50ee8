//! How far a run has come, how fast it goes, and how long it will take: events and their times in, numbers out.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use super::Event;
use crate::{
    cell::{Cell, EngineName},
    record::Record,
    report::words::plural,
};

/// A run while it goes on. It reads no clock: whoever tells it of an event says when that was.
#[derive(Debug, Default)]
pub struct Pace {
    /// How many cells there are.
    pub cells: usize,
    /// How many of them are done or have begun.
    pub number: usize,
    /// How many items each of them has.
    pub items: u64,
    /// How many tokens may follow the items of a cell.
    most_tokens: u64,
    /// How many cells have not begun, by engine.
    left: HashMap<EngineName, u64>,
    /// What the cells took that have ended, by engine.
    took: HashMap<EngineName, Took>,
    /// Items that are done, and their tokens: how many an item takes.
    finished: (u64, u64),
    /// The cell that runs.
    pub current: Option<Current>,
}

/// Time, and the tokens chosen in it.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    time: Duration,
    tokens: u64,
}

/// The cell that runs.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// Which.
    pub cell: Cell,
    /// How many items it has.
    pub of: u64,
    start: Instant,
    /// How many of its items are done.
    pub items: u64,
    /// How many of them were done before this run went on.
    pub resumed: u64,
    /// How many tokens were chosen, for items that are not done as well.
    pub tokens: u64,
    /// How many of them belong to items that are done.
    of_items: u64,
}

/// How long something will still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing has been measured.
    Unknown,
    /// If cells of an engine take what those before took.
    About(Duration),
    /// So long, and what an engine takes of which nothing is known.
    AtLeast(Duration),
    /// If as many tokens follow every item as may.
    AtMost(Duration),
}

impl Took {
    /// How long so many tokens take, if that is known.
    fn of(self, tokens: u64) -> Option<Duration> {
        let known = self.tokens > 0 && !self.time.is_zero();
        let seconds = self.time.as_secs_f64() * tokens as f64 / self.tokens as f64;
        known.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

impl Current {
    fn took(&self, now: Instant) -> Took {
        Took { time: now.saturating_duration_since(self.start), tokens: self.tokens }
    }

    /// How long it has run.
    pub fn time(&self, now: Instant) -> Duration {
        self.took(now).time
    }

    /// Tokens of a second.
    pub fn speed(&self, now: Instant) -> u64 {
        let Took { time, tokens } = self.took(now);
        (tokens as f64 / time.as_secs_f64().max(1e-3)) as u64
    }
}

impl Pace {
    /// Takes note of what happens now.
    pub fn note(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Planned { cells, left, items, most_tokens } => {
                (self.cells, self.number) = (cells, cells - left.len());
                (self.items, self.most_tokens) = (items, most_tokens);
                for cell in left {
                    *self.left.entry(cell.compute.engine()).or_default() += 1;
                }
            }
            Event::Distrusted { .. } => {}
            Event::Began { cell, items: of } => {
                self.number += 1;
                if let Some(left) = self.left.get_mut(&cell.compute.engine()) {
                    *left = left.saturating_sub(1);
                }
                self.current =
                    Some(Current { cell, of, start: now, items: 0, resumed: 0, tokens: 0, of_items: 0 });
            }
            Event::Resumed { items, .. } => {
                if let Some(current) = &mut self.current {
                    current.items += items as u64;
                    current.resumed = items as u64;
                }
            }
            Event::Continued { items, tokens } => {
                let Some(current) = &mut self.current else { return };
                current.items += items as u64;
                current.tokens += tokens as u64;
                // No other item is in flight where some have just been finished.
                if items > 0 {
                    self.finished.0 += items as u64;
                    self.finished.1 += current.tokens - current.of_items;
                    current.of_items = current.tokens;
                }
            }
            Event::Ended(_) | Event::Shared(_) => {
                // What a cell took that could not run says nothing of others.
                let is_done = !matches!(event, Event::Ended(Record::Failed(_)));
                if let Some(current) = self.current.take().filter(|_| is_done) {
                    let Took { time, tokens } = current.took(now);
                    let all = self.took.entry(current.cell.compute.engine()).or_default();
                    (all.time, all.tokens) = (all.time + time, all.tokens + tokens);
                }
            }
        }
    }

    /// How long the rest will take: a cell that has not begun as long as those of its engine before it.
    pub fn left(&self, now: Instant) -> Left {
        // Before an item is done it is known how many tokens it may have, and no more.
        let is_bound = self.finished.0 == 0;
        let (items, tokens) = if is_bound { (self.items, self.most_tokens) } else { self.finished };
        let of_items = |count: u64| (count as f64 * tokens as f64 / items.max(1) as f64) as u64;
        let (mut left, mut is_whole) = (None::<Duration>, true);
        let mut add = |time: Option<Duration>, count: u64| match time {
            Some(time) => {
                let time = time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
                left = Some(left.unwrap_or_default().saturating_add(time));
            }
            None => is_whole = false,
        };
        let took = |engine: &EngineName| {
            let current = self.current.filter(|current| current.cell.compute.engine() == *engine);
            let (done, now) = (self.took.get(engine), current.map(|current| current.took(now)));
            let all = [done.copied(), now].into_iter().flatten();
            all.fold(Took::default(), |all, one| Took {
                time: all.time + one.time,
                tokens: all.tokens + one.tokens,
            })
        };
        if let Some(current) = self.current {
            let in_flight = current.tokens - current.of_items;
            let rest = of_items(current.of.saturating_sub(current.items)).saturating_sub(in_flight);
            // It knows best how fast it goes itself.
            let own = current.took(now).of(rest);
            add(own.or_else(|| took(&current.cell.compute.engine()).of(rest)), 1);
        }
        for (engine, &cells) in self.left.iter().filter(|(_, cells)| **cells > 0) {
            add(took(engine).of(of_items(self.items)), cells);
        }
        match left {
            None => Left::Unknown,
            // Some of it too much, and some of it missing.
            Some(_) if is_bound && !is_whole => Left::Unknown,
            Some(time) if is_bound => Left::AtMost(time),
            Some(time) if !is_whole => Left::AtLeast(time),
            Some(time) => Left::About(time),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Unknown => f.write_str("time left unknown"),
            Left::About(time) => write!(f, "about {} left", in_words(*time)),
            Left::AtLeast(time) => write!(f, "at least {} left", in_words(*time)),
            Left::AtMost(time) => write!(f, "at most {} left", in_words(*time)),
        }
    }
}

/// As people say it, with no more digits than an estimate has.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let of = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..90 => plural(seconds.max(1), "second"),
        90..5_400 => plural(of(60), "minute"),
        5_400..129_600 => plural(of(3_600), "hour"),
        _ => plural(of(86_400), "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> Cell {
        name.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_estimate_says_at_most_at_least_or_about_as_it_knows() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let cells = ["lab/bf16/sequential/t1/b2", "lab/fp32/exact/t1/b2", "candle/fp32/t1/b1"].map(cell);
        pace.note(Event::Planned { cells: 4, left: &cells, items: 10, most_tokens: 1000 }, start);
        assert_eq!((pace.number, pace.left(start)), (1, Left::Unknown));
        pace.note(Event::Began { cell: cells[0], items: 10 }, start);
        assert_eq!((pace.number, pace.left(start + SECOND)), (2, Left::Unknown));
        // 20 tokens in 10 seconds: no item is done, and of the stock engine nothing is known.
        pace.note(Event::Continued { items: 0, tokens: 20 }, start);
        assert_eq!(pace.left(start + 10 * SECOND), Left::Unknown);
        assert_eq!(pace.current.unwrap().speed(start + 10 * SECOND), 2);
        // Two items of 20 tokens each: 8 such items here, 10 there, 2 tokens a second.
        pace.note(Event::Continued { items: 2, tokens: 20 }, start);
        assert_eq!(pace.left(start + 20 * SECOND), Left::AtLeast(180 * SECOND));
        // Half an item more.
        pace.note(Event::Continued { items: 0, tokens: 10 }, start);
        assert_eq!(pace.left(start + 25 * SECOND), Left::AtLeast(175 * SECOND));
        pace.note(Event::Continued { items: 8, tokens: 150 }, start);
        let record = |cell| {
            let sentence = "it cannot".to_owned();
            Record::Failed(crate::record::Failed { cell, sentence }.into())
        };
        // It took 100 seconds; one that cannot run takes its turn away and nothing else.
        let mut failed = Pace { took: HashMap::new(), left: pace.left.clone(), ..Pace::default() };
        failed.note(Event::Began { cell: cells[1], items: 10 }, start);
        failed.note(Event::Ended(&record(cells[1])), start + SECOND);
        assert!(failed.took.is_empty() && failed.left[&EngineName::Lab] == 0);
        assert_eq!(pace.left(start + 100 * SECOND), Left::AtLeast(100 * SECOND));
    }

    #[test]
    fn before_an_item_is_done_all_tokens_that_may_follow_are_reckoned_with() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let cells = ["lab/bf16/sequential/t1/b1", "lab/bf16/sequential/t1/b2"].map(cell);
        pace.note(Event::Planned { cells: 2, left: &cells, items: 10, most_tokens: 1000 }, start);
        pace.note(Event::Began { cell: cells[0], items: 10 }, start);
        pace.note(Event::Continued { items: 0, tokens: 100 }, start);
        assert_eq!(pace.left(start + 10 * SECOND), Left::AtMost(190 * SECOND));
        pace.note(Event::Continued { items: 10, tokens: 0 }, start);
        assert_eq!(pace.left(start + 10 * SECOND), Left::About(10 * SECOND));
    }

    #[test]
    fn a_time_has_as_many_digits_as_are_known() {
        for (seconds, words) in [
            (0, "1 second"),
            (89, "89 seconds"),
            (90, "2 minutes"),
            (720, "12 minutes"),
            (5_400, "2 hours"),
            (90_000, "25 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
