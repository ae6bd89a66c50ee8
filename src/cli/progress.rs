//! What a person sees on a terminal while a model comes from the Hub; anybody else sees nothing.

use std::{env, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::model::hub::Step;

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

#[expect(clippy::disallowed_methods, reason = "whether a bar is drawn moves no bit")]
fn is_watched() -> bool {
    env::var_os("CI").is_none_or(|ci| ci.is_empty()) && env::var_os("TERM").is_none_or(|term| term != "dumb")
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
