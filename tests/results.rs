//! What is published: the tables beside the runs say what the runs say, and the reports have the form that they name.

use std::{fs, path::Path};

use reprocheck::{
    report::{CONFIDENCE, Report},
    stats::proportion::Proportion,
};
use serde_json::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn report(name: &str) -> Value {
    serde_json::from_str(&read(&format!("{name}/report.json"))).unwrap()
}

const RUNS: [&str; 3] = ["paper", "approximate", "candle"];

#[test]
fn every_published_report_holds_to_the_schema() {
    let schema = jsonschema::validator_for(&Report::schema()).unwrap();
    for name in RUNS {
        let errors: Vec<_> = schema.iter_errors(&report(name)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// A row of the table of precisions.
fn row(of: &Value) -> String {
    let all = &of["all"];
    let number = |name: &str| all[name].as_f64();
    let counted = |share: &Value| Proportion {
        hits: share["hits"].as_u64().unwrap(),
        of: share["of"].as_u64().unwrap(),
    };
    let (accuracy, apart) = (counted(&all["accuracy"]), counted(&all["tokens"]["unstable"]));
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let interval = apart.wilson(CONFIDENCE).unwrap();
    let cell =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    format!(
        "| `{}` | {} | {} % | {} | {} % ({} to {}) | {} | {} | {} |",
        of["precision"].as_str().unwrap(),
        of["cells"],
        percent(accuracy.rate().unwrap()),
        cell(number("deviation_of_accuracy").map(|share| 100.0 * share), 3),
        percent(apart.rate().unwrap()),
        percent(interval.lower),
        percent(interval.upper),
        cell(number("divergence_index"), 1),
        cell(number("deviation_of_lengths"), 3),
        cell(number("deviation_of_probabilities").map(|deviation| 1e4 * deviation), 3),
    )
}

#[test]
fn the_tables_say_what_the_runs_say() {
    let page = read("README.md");
    for name in ["paper", "approximate"] {
        let report = report(name);
        let rows: Vec<_> = report["precisions"].as_array().unwrap().iter().map(row).collect();
        assert_eq!(rows.len(), 4, "{name}");
        for row in &rows {
            assert!(page.contains(row), "{name}: the page lacks\n{}", rows.join("\n"));
        }
    }
}

#[test]
fn every_published_run_came_to_the_verdict_that_the_page_tells() {
    let page = read("README.md");
    for name in RUNS {
        let verdict = report(name)["verdict"].as_str().unwrap().to_owned();
        let told = page.lines().find(|line| line.contains(&format!("({name}/report.md)"))).unwrap();
        assert!(told.contains(&format!("| {verdict} |")), "{told}: {verdict}");
    }
}
