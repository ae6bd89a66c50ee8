//! What a person sees on a terminal while a model comes from the Hub or a plan runs; a log gets a line for each cell.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{complain, in_ci, is_dumb};
use crate::{model::hub::Step, record::Record, report::words::grouped, run::Event};

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

/// How far a plan has come: a bar where somebody watches, and lines in a log.
pub(super) struct Cells {
    bar: ProgressBar,
    /// Is the bar drawn?
    drawn: bool,
    cells: usize,
    number: usize,
    items: u64,
    tokens: u64,
    start: Instant,
}

impl Cells {
    /// Before anything runs.
    pub(super) fn new() -> Cells {
        let drawn = is_watched() && std::io::stderr().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = "{wide_msg} [{bar:20}] {pos}/{len} items {eta}";
        let style =
            ProgressStyle::with_template(style).expect("a template that parses").progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        Cells { bar, drawn, cells: 0, number: 0, items: 0, tokens: 0, start: Instant::now() }
    }

    /// Takes note of what happens.
    pub(super) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { cells, done, items } => {
                (self.cells, self.number, self.items) = (cells, done, items);
                self.bar.set_length(items * (cells - done) as u64);
                self.bar.reset_eta();
                if done > 0 {
                    self.say(&format!("{done} of {cells} cells are done already"));
                }
            }
            Event::Distrusted { cell, problem } => self.say(&format!("{cell} runs again: {problem}")),
            Event::Began(cell) => {
                self.number += 1;
                (self.tokens, self.start) = (0, Instant::now());
                self.bar.set_message(format!("{}/{} {cell}", self.number, self.cells));
            }
            Event::Continued { items, tokens } => {
                self.tokens += tokens as u64;
                self.bar.inc(items as u64);
            }
            Event::Ended(Record::Failed(failed)) => {
                self.say(&format!("{} could not run: {}", failed.cell, failed.sentence));
            }
            Event::Ended(Record::Done(done)) => {
                if !self.drawn {
                    let seconds = self.start.elapsed().as_secs_f64();
                    let speed = (self.tokens as f64 / seconds.max(1e-3)) as u64;
                    self.say(&format!(
                        "{}/{} {}: {} items, {} tokens, {seconds:.1} s, {} tokens/s",
                        self.number,
                        self.cells,
                        done.cell,
                        grouped(self.items),
                        grouped(self.tokens),
                        grouped(speed)
                    ));
                }
            }
        }
    }

    fn say(&self, line: &str) {
        if self.drawn { self.bar.println(line) } else { complain(&line) }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
