//! JUnit XML for the dashboards of CI systems: one suite per matrix file, one test case per gate.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{
    Report, around,
    escape::visible,
    parting,
    words::{VERDICT, beyond_gates},
};
use crate::verdict::{Outcome, Ruling};

/// The whole document. It holds no times, so equal reports make equal documents.
///
/// Nothing is ever skipped: a skipped test reads as green, and what is undecided is not.
pub fn report(report: &Report) -> String {
    let matrix = visible(&report.run.matrix);
    let name = report
        .run
        .profile
        .as_ref()
        .map_or_else(|| matrix.clone(), |profile| format!("{matrix}, profile {}", visible(profile)));
    let mut suite = TestSuite::new(name);
    let class = class(&matrix);
    let case = |name: &str, status: TestCaseStatus| {
        let mut case = TestCase::new(name, status);
        case.set_classname(class.as_str());
        case.extra.insert("file".into(), matrix.as_str().into());
        case
    };
    for Ruling { gate, line, outcome, findings, notes, .. } in &report.rulings {
        let sentences: Vec<_> =
            findings.iter().map(|finding| visible(&parting::finding(report, finding))).collect();
        let mut case = case(&visible(gate), status(*outcome, &sentences));
        if let Some(line) = line {
            case.extra.insert("line".into(), line.to_string().into());
        }
        if !notes.is_empty() {
            let notes: Vec<_> = notes.iter().map(|note| visible(note)).collect();
            case.set_system_out(notes.join("\n"));
        }
        suite.add_test_case(case);
    }
    let around: Vec<_> = around::lines(report).iter().map(|line| visible(line)).collect();
    if !around.is_empty() {
        suite.set_system_out(around.join("\n"));
    }
    if let Some(sentence) = beyond_gates(report) {
        let missing =
            report.missing.iter().map(|missing| visible(&format!("{}: {}", missing.cell, missing.reason)));
        let sentences: Vec<_> = [visible(&sentence)].into_iter().chain(missing).collect();
        suite.add_test_case(case(VERDICT, status(report.verdict, &sentences)));
    }
    let mut document = quick_junit::Report::new("reprocheck");
    document.add_test_suite(suite);
    document.to_string().expect("a string takes everything")
}

fn status(outcome: Outcome, sentences: &[String]) -> TestCaseStatus {
    let kind = match outcome {
        Outcome::Pass => return TestCaseStatus::success(),
        Outcome::Unknown => NonSuccessKind::Error,
        Outcome::Undecided | Outcome::Fail => NonSuccessKind::Failure,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(outcome.to_string());
    if let Some(first) = sentences.first() {
        status.set_message(first);
    }
    status.set_description(sentences.join("\n"));
    status
}

/// The name of the file without folders, and without dots: dashboards read those as packages.
fn class(matrix: &str) -> String {
    let file = matrix.rsplit(['/', '\\']).next().unwrap_or(matrix);
    let file = file.strip_suffix(".toml").unwrap_or(file);
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
    format!("reprocheck.{}", file.chars().map(plain).collect::<String>())
}
