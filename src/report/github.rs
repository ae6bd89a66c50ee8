//! Annotations for GitHub Actions: one workflow command for every gate that does not pass, at its line of the matrix file.

use super::{
    Report, around,
    escape::{clipped, visible},
    words::{FINDINGS, beyond_gates},
};
use crate::verdict::{Outcome, Ruling};

/// A title has one line.
const TITLE: usize = 200;
/// What GitHub keeps of a message is longer than all of them.
const SENTENCE: usize = 1000;

/// One line for each, the worst first: GitHub shows the first ten errors and the first ten warnings of a step.
pub fn annotations(report: &Report) -> String {
    let mut out = String::new();
    let file = property(&visible(&report.run.matrix));
    for line in around::lines(report) {
        out += &format!("::notice file={file},title=surroundings::{}\n", data(&clipped(&line, SENTENCE)));
    }
    for Ruling { gate, line, outcome, findings, .. } in report.worst_first() {
        let command = match outcome {
            Outcome::Pass => continue,
            Outcome::Fail => "error",
            Outcome::Undecided | Outcome::Unknown => "warning",
        };
        let title = property(&format!("{outcome}: {}", clipped(gate, TITLE)));
        let mut message: Vec<_> =
            findings.iter().take(FINDINGS).map(|finding| clipped(&finding.sentence, SENTENCE)).collect();
        if findings.len() > FINDINGS {
            message.push(format!("and {} more", findings.len() - FINDINGS));
        }
        let message = data(&message.join("\n"));
        let line = line.map_or_else(String::new, |line| format!(",line={line}"));
        out += &format!("::{command} file={file}{line},title={title}::{message}\n");
    }
    if let Some(sentence) = beyond_gates(report) {
        let title = property(&report.verdict.to_string());
        out += &format!("::warning file={file},title={title}::{}\n", data(&clipped(&sentence, SENTENCE)));
    }
    out
}

/// What follows the second pair of colons.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands between a `=` and a comma.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_was_in_the_text_does_not_become_what_it_stands_for() {
        assert_eq!(data("%0A\n"), "%250A%0A");
        assert_eq!(property("a,b::c%2C"), "a%2Cb%3A%3Ac%252C");
    }
}
