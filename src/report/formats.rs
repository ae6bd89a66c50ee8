//! Every way to write a report down, as a table.

use std::str::FromStr;

use super::{Report, csv, github, html, junit, markdown, sarif, text};
use crate::name::{did_you_mean, nearest};

/// A way to write a report down: a row of [`FORMATS`].
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// The file that it goes to, or the folder of its files.
    pub file: &'static str,
    /// For whom it is, in one sentence.
    pub sentence: &'static str,
    /// What writes it.
    pub written: Written,
}

/// What writes a format.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    /// One text.
    Text(fn(&Report) -> String),
    /// Several files: the name of each, and its text.
    Files(fn(&Report) -> Vec<(String, String)>),
    /// Files with every sample of the run, which no report holds: [`crate::run::export`] writes them.
    Samples,
}

/// Every way to write a report down.
pub const FORMATS: &[Format] = &[
    Format {
        name: "text",
        file: "report.txt",
        sentence: "for a person at a terminal",
        written: Written::Text(text::report),
    },
    Format {
        name: "json",
        file: "report.json",
        sentence: "all of it, for a program; `reprocheck schema report` says what it holds",
        written: Written::Text(Report::json),
    },
    Format {
        name: "markdown",
        file: "report.md",
        sentence: "for the summary of a job, or a comment on a pull request",
        written: Written::Text(markdown::report),
    },
    Format {
        name: "html",
        file: "report.html",
        sentence: "a page with its figures in one file, without scripts",
        written: Written::Text(html::page),
    },
    Format {
        name: "svg",
        file: "report.figures",
        sentence: "each figure of the page as a file of its own",
        written: Written::Files(html::figures),
    },
    Format {
        name: "junit",
        file: "report.junit.xml",
        sentence: "a test case for each gate, for the dashboard of a CI",
        written: Written::Text(junit::report),
    },
    Format {
        name: "sarif",
        file: "report.sarif",
        sentence: "a result for each finding, for code scanning",
        written: Written::Text(sarif::report),
    },
    Format {
        name: "github",
        file: "report.annotations.txt",
        sentence: "workflow commands that point into the matrix file: print them in a job",
        written: Written::Text(github::annotations),
    },
    Format {
        name: "csv",
        file: "report.csv",
        sentence: "a line for each cell, for a spreadsheet",
        written: Written::Text(csv::cells),
    },
    Format {
        name: "lm-eval",
        file: "report.lm-eval",
        sentence: "the results and samples of each cell, as lm-evaluation-harness logs them",
        written: Written::Samples,
    },
];

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let names = FORMATS.iter().map(|format| format.name);
        let found = FORMATS.iter().find(|format| format.name == name);
        found.copied().ok_or_else(|| {
            // `md` is no word near `markdown`, but how its file ends.
            let ends = FORMATS.iter().find(|format| format.file.ends_with(&format!(".{name}")));
            let near = did_you_mean(nearest(name, names.clone()).or(ends.map(|format| format.name)));
            format!(
                "there is no format `{name}`: {near}write one of {}",
                names.collect::<Vec<_>>().join(", ")
            )
        })
    }
}
