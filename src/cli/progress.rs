//! What a person sees on a terminal while a model comes from the Hub or a plan runs; a log gets a line for each
//! cell, and whatever happens two a minute.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{complain, in_ci, is_dumb};
use crate::{
    model::hub::Step,
    record::Record,
    report::words::{grouped, plural},
    run::{Event, pace::Pace},
};

/// A bar on stderr that is gone when its work is done.
#[derive(Debug)]
pub(super) struct Download {
    bar: ProgressBar,
    /// The bytes of the files before the present one.
    before: u64,
    /// The present one, and its size.
    file: Option<(String, u64)>,
}

impl Download {
    /// On a terminal where a person may be watching; hidden from pipes, files and CI.
    #[must_use]
    pub(super) fn on_terminal() -> Download {
        Download::on(if is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() })
    }

    fn on(target: ProgressDrawTarget) -> Download {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.enable_steady_tick(Duration::from_millis(200));
        Download { bar: bar.with_style(spinner()), before: 0, file: None }
    }

    /// Takes note of a step.
    pub(super) fn show(&mut self, step: Step<'_>) {
        match step {
            Step::Resolved { commit } => self.bar.set_message(format!("commit {commit}")),
            Step::Planned { bytes, .. } => {
                self.bar.inc_length(bytes);
                self.bar.set_style(if bytes == 0 { spinner() } else { line() });
            }
            Step::Received { file, bytes, size } => {
                if let Some((_, size)) = self.file.take_if(|(current, _)| current != file) {
                    self.before += size;
                }
                if self.file.is_none() {
                    self.bar.set_message(file.to_owned());
                    self.file = Some((file.to_owned(), size));
                }
                self.bar.set_position(self.before + bytes);
            }
            Step::Waiting { file } => self.bar.set_message(format!("{file}: another process is fetching it")),
            Step::Retrying { error } => self.bar.println(format!("{error} (trying again)")),
            Step::Checking { files, .. } => {
                self.bar.set_style(spinner());
                self.bar.set_message(format!("checking {files} files"));
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Neither has colors, so there are none to turn off.
fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").expect("a template that parses").tick_chars("|/-\\ ")
}

fn line() -> ProgressStyle {
    let line = "{wide_msg} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    ProgressStyle::with_template(line).expect("a template that parses").progress_chars("=> ")
}

/// Is there a person who sees a bar move?
fn is_watched() -> bool {
    !in_ci() && !is_dumb()
}

/// How many of several readings, or whatever takes as long, are done: a bar where a person watches, and a line now and then in a log.
pub(super) struct Readings {
    noun: &'static str,
    bar: ProgressBar,
    said: Instant,
}

impl Readings {
    /// Before the first one.
    pub(super) fn new() -> Readings {
        Readings::of("reading")
    }

    /// The same of something else.
    pub(super) fn of(noun: &'static str) -> Readings {
        let target = if is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(&format!("[{{bar:24}}] {{pos}}/{{len}} {noun}s {{eta}}"));
        let style = style.expect("a template that parses").progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        Readings { noun, bar, said: Instant::now() }
    }

    /// Takes note of it.
    pub(super) fn show(&mut self, done: usize, of: usize) {
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() && self.said.elapsed() >= BEAT {
            self.said = Instant::now();
            complain(&format!("{} of {} are done", grouped(done as u64), plural(of as u64, self.noun)));
        }
    }
}

impl Drop for Readings {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Says what is waited for, once it has been long.
pub(super) struct Waiting(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl Waiting {
    /// From now on until it is dropped.
    pub(super) fn until(what: &'static str) -> Waiting {
        Waiting::after(QUIET, move || complain(&what))
    }

    fn after(long: Duration, say: impl FnOnce() + Send + 'static) -> Waiting {
        let (done, nothing) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            if nothing.recv_timeout(long) == Err(mpsc::RecvTimeoutError::Timeout) {
                say();
            }
        });
        Waiting(Some((done, waiting)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((done, waiting)) = self.0.take() {
            drop(done);
            let _ = waiting.join();
        }
    }
}

/// How far a plan has come: a bar where a person watches, and lines in a log.
pub(super) struct Cells {
    shown: Arc<Mutex<Shown>>,
    /// Before the plan is there: questions are made, and what is done already is read and checked.
    before: Option<Waiting>,
    /// Speaks up while a cell says nothing; it ends when nothing can tell it anything any more.
    ticker: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

/// A run of seconds needs no lines but those of its cells.
const QUIET: Duration = Duration::from_secs(10);
/// Less than half a minute, however late the clock is read.
const BEAT: Duration = Duration::from_secs(25);

impl Cells {
    /// Before anything runs; `stop` is set when it should end.
    pub(super) fn new(stop: Arc<AtomicBool>) -> Cells {
        let drawn = is_watched() && std::io::stderr().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = "{wide_msg}\n[{bar:20}] {pos}/{len} items {prefix}";
        let style =
            ProgressStyle::with_template(style).expect("a template that parses").progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        let shown = Arc::new(Mutex::new(Shown { bar, drawn, log: Log::default(), stop }));
        let (done, nothing) = mpsc::channel();
        let ticked = Arc::clone(&shown);
        let ticker = std::thread::spawn(move || {
            while nothing.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                lock(&ticked).tick(Instant::now());
            }
        });
        let before =
            Waiting::until("still writing questions down, and checking what is done of them already");
        Cells { shown, before: Some(before), ticker: Some((done, ticker)) }
    }

    /// Takes note of what happens.
    pub(super) fn show(&mut self, event: Event<'_>) {
        self.before = None;
        lock(&self.shown).show(event, Instant::now());
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        if let Some((done, ticker)) = self.ticker.take() {
            drop(done);
            let _ = ticker.join();
        }
        lock(&self.shown).bar.finish_and_clear();
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is seen of a run.
struct Shown {
    bar: ProgressBar,
    /// Is the bar drawn?
    drawn: bool,
    log: Log,
    stop: Arc<AtomicBool>,
}

impl Shown {
    fn show(&mut self, event: Event<'_>, now: Instant) {
        if self.drawn {
            match event {
                Event::Planned { left, items, .. } => self.bar.set_length(items * left.len() as u64),
                Event::Resumed { items, .. } | Event::Continued { items, .. } => self.bar.inc(items as u64),
                _ => {}
            }
        }
        let line = self.log.note(event, now);
        if let Event::Began { .. } = event {
            let pace = &self.log.pace;
            self.bar.set_message(pace.current.map_or_else(String::new, |current| {
                format!("{}/{} {}", pace.number, pace.cells, current.cell)
            }));
        }
        match event {
            // The bar has told it.
            Event::Ended(Record::Done(_)) | Event::Shared(_) if self.drawn => {}
            _ => self.say(line),
        }
    }

    fn tick(&mut self, now: Instant) {
        let stopping = self.log.stopping(self.stop.load(Ordering::Relaxed));
        self.say(stopping.map(str::to_owned));
        if self.drawn {
            let pace = &self.log.pace;
            self.bar.set_prefix(pace.current.map_or_else(String::new, |current| {
                format!("{} tokens/s, {}", grouped(current.speed(now)), pace.left(now))
            }));
        } else {
            let lines = self.log.due(now);
            self.say(lines);
        }
    }

    fn say(&self, line: Option<String>) {
        match line {
            Some(line) if self.drawn => self.bar.println(line),
            Some(line) => complain(&line),
            None => {}
        }
    }
}

/// The words of a log. It reads no clock.
#[derive(Default)]
struct Log {
    pace: Pace,
    /// When it has something to say next, from the plan on, and whether it has said anything.
    next: Option<(Instant, bool)>,
    is_stopping: bool,
}

impl Log {
    /// What is said of an event at once.
    fn note(&mut self, event: Event<'_>, now: Instant) -> Option<String> {
        let before = self.pace.current;
        self.pace.note(event, now);
        let pace = &self.pace;
        match event {
            Event::Planned { cells, left, .. } => {
                self.next = Some((now + QUIET, false));
                let done = cells - left.len();
                (done > 0).then(|| format!("{done} of {cells} cells are done already"))
            }
            Event::Distrusted { cell, problem } => Some(format!("{cell} runs again: {problem}")),
            Event::Began { .. } | Event::Continued { .. } | Event::Resumed { items: 0, problem: None } => {
                None
            }
            Event::Resumed { items, problem } => pace.current.map(|current| {
                let why = problem.map_or_else(String::new, |problem| format!(": {problem}"));
                format!(
                    "{} goes on after {} of {} items{why}",
                    current.cell,
                    grouped(items as u64),
                    grouped(current.of)
                )
            }),
            Event::Ended(Record::Failed(failed)) => {
                Some(format!("{} could not run: {}", failed.cell, failed.sentence))
            }
            Event::Ended(Record::Done(_)) | Event::Shared(_) => before.map(|current| {
                // Tokens and time are those of this run alone.
                let items = match current.resumed {
                    0 => grouped(current.of),
                    resumed => {
                        format!("the last {} of {}", grouped(current.of - resumed), grouped(current.of))
                    }
                };
                format!(
                    "{}/{} {}: {items} items, {} tokens, {:.1} s, {} tokens/s",
                    pace.number,
                    pace.cells,
                    current.cell,
                    grouped(current.tokens),
                    current.time(now).as_secs_f64(),
                    grouped(current.speed(now))
                )
            }),
        }
    }

    /// What is said because it has been long.
    fn due(&mut self, now: Instant) -> Option<String> {
        let (next, has_spoken) = self.next?;
        let current = self.pace.current.filter(|_| now >= next)?;
        self.next = Some((now + BEAT, true));
        let Pace { cells, number, items, .. } = self.pace;
        let all = match has_spoken {
            true => String::new(),
            false => format!("{} of {} each\n", plural(cells as u64, "cell"), plural(items, "item")),
        };
        Some(format!(
            "{all}{number}/{cells} {}: {} of {} items, {} tokens, {} tokens/s, {}",
            current.cell,
            grouped(current.items),
            grouped(items),
            grouped(current.tokens),
            grouped(current.speed(now)),
            self.pace.left(now)
        ))
    }

    /// What is said once when it is asked to end.
    fn stopping(&mut self, is_asked: bool) -> Option<&'static str> {
        let is_new = is_asked && !self.is_stopping && self.pace.current.is_some();
        self.is_stopping |= is_new;
        is_new.then_some("stopping when the items in flight are done: a second signal stops at once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cell::Cell,
        digest::Digest,
        engine::environment::Environment,
        record::{Done, Elapsed, Failed},
        trace::Launches,
    };

    /// A day by a clock that is not waited for.
    #[test]
    fn a_log_is_never_silent_for_half_a_minute_and_says_nothing_of_a_run_of_seconds() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut log = Log::default();
        let cells =
            ["lab/fp32/exact/t1/b1", "lab/bf16/sequential/t1/b4"].map(|cell| cell.parse::<Cell>().unwrap());
        let planned = Event::Planned { cells: 2, left: &cells, items: 1000, most_tokens: 64_000 };
        assert_eq!(log.note(planned, at(0)), None);
        assert_eq!(log.note(Event::Began { cell: cells[0], items: 1000 }, at(0)), None);
        let mut lines = Vec::new();
        for second in 0..86_400 {
            if second % 50 == 49 {
                assert_eq!(log.note(Event::Continued { items: 0, tokens: 50 }, at(second)), None);
            }
            if second % 500 == 499 {
                assert_eq!(log.note(Event::Continued { items: 5, tokens: 0 }, at(second)), None);
            }
            lines.extend(log.due(at(second)).map(|line| (second, line)));
        }
        assert_eq!(
            lines[0],
            (
                10,
                "2 cells of 1,000 items each\n1/2 lab/fp32/exact/t1/b1: 0 of 1,000 items, 0 tokens, 0 tokens/s, \
                 time left unknown"
                    .to_owned()
            )
        );
        assert_eq!(
            lines[2].1,
            "1/2 lab/fp32/exact/t1/b1: 0 of 1,000 items, 50 tokens, 0 tokens/s, at most 2 days left"
        );
        assert_eq!(
            lines[2000].1,
            "1/2 lab/fp32/exact/t1/b1: 500 of 1,000 items, 50,000 tokens, 0 tokens/s, about 2 days left"
        );
        assert!(lines.windows(2).all(|two| two[1].0 - two[0].0 <= 30), "{lines:?}");
        // A cell that cannot run is told at once; then there is nothing to wait for.
        let failed = Record::Failed(Failed { cell: cells[0], sentence: "why".to_owned() }.into());
        assert_eq!(
            log.note(Event::Ended(&failed), at(86_400)).unwrap(),
            "lab/fp32/exact/t1/b1 could not run: why"
        );
        assert_eq!(log.due(at(90_000)), None);
    }

    #[test]
    fn what_takes_long_is_said_once_and_what_does_not_is_not() {
        let (say, said) = mpsc::channel();
        let waiting = Waiting::after(Duration::ZERO, move || say.send(()).unwrap());
        said.recv().unwrap();
        drop(waiting);
        assert!(said.recv().is_err(), "it is said again");
        let (say, said) = mpsc::channel::<()>();
        drop(Waiting::after(QUIET, move || say.send(()).unwrap()));
        assert!(said.recv().is_err(), "it has not been long");
    }

    #[test]
    fn a_cell_that_goes_on_counts_the_items_of_this_run() {
        let (start, cell) = (Instant::now(), Cell::default());
        let mut log = Log::default();
        log.note(Event::Planned { cells: 1, left: &[cell], items: 16, most_tokens: 64 }, start);
        log.note(Event::Began { cell, items: 16 }, start);
        log.note(Event::Resumed { items: 12, problem: None }, start);
        log.note(Event::Continued { items: 4, tokens: 20 }, start);
        let done = Record::Done(Box::new(Done {
            cell,
            trace: Digest::of(b""),
            root: Digest::of(b""),
            launches: Launches::none(),
            unlike_copies: 0,
            environment: Environment { engine: String::new(), facts: [].into() },
            cost: None,
            elapsed: Elapsed { milliseconds: 0, tokens: 0 },
        }));
        let line = log.note(Event::Ended(&done), start + Duration::from_secs(2)).unwrap();
        assert_eq!(line, format!("1/1 {cell}: the last 4 of 16 items, 20 tokens, 2.0 s, 10 tokens/s"));
    }

    #[test]
    fn who_asks_a_run_to_end_is_answered_once() {
        let mut log = Log::default();
        assert_eq!(log.stopping(true), None, "nothing is in flight");
        log.note(Event::Began { cell: Cell::default(), items: 1 }, Instant::now());
        assert_eq!(log.stopping(false), None);
        assert!(log.stopping(true).unwrap().starts_with("stopping when the items in flight are done"));
        assert_eq!(log.stopping(true), None);
    }

    #[test]
    fn the_bar_counts_every_file_once_whatever_happens_to_it() {
        let mut download = Download::on(ProgressDrawTarget::hidden());
        let mut show = |step| {
            download.show(step);
            (download.bar.position(), download.bar.length())
        };
        let received = |file, bytes, size| Step::Received { file, bytes, size };
        show(Step::Planned { files: 2, bytes: 100 });
        assert_eq!(show(received("a", 10, 40)), (10, Some(100)));
        assert_eq!(show(received("a", 40, 40)), (40, Some(100)));
        assert_eq!(show(received("a", 0, 40)), (0, Some(100)), "it comes again from its beginning");
        assert_eq!(show(received("a", 40, 40)), (40, Some(100)));
        assert_eq!(show(received("b", 0, 60)), (40, Some(100)));
        assert_eq!(show(received("b", 60, 60)), (100, Some(100)));
        assert_eq!(show(Step::Planned { files: 1, bytes: 50 }), (100, Some(150)));
        assert_eq!(show(received("c", 50, 50)), (150, Some(150)));
    }
}
