//! SARIF 2.1.0 for code scanning: a rule per gate, a result per finding, all of them at lines of the matrix file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Report, around, escape::visible, parting, words::beyond_gates};
use crate::{
    digest::Digest,
    verdict::{Finding, Outcome},
};

/// Code scanning takes longer names of rules, and nobody reads them.
const SLUG: usize = 100;

// Values of the format: its specification says what each is.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    automation_details: Automation,
    invocations: [Invocation; 1],
    results: Vec<Result>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
struct Driver {
    name: String,
    version: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    name: String,
    short_description: Message,
}

#[derive(Serialize)]
struct Automation {
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Serialize)]
struct Notification {
    level: &'static str,
    message: Message,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Result {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Message,
    locations: [Location; 1],
    partial_fingerprints: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Physical,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: Artifact,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
struct Artifact {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
}

/// The whole log.
pub fn report(report: &Report) -> String {
    let uri = uri(&report.run.matrix);
    let (mut rules, mut results) = (Vec::new(), Vec::new());
    let mut taken = BTreeSet::new();
    for (index, ruling) in report.rulings.iter().enumerate() {
        let id = free(&slug(&ruling.gate), &mut taken);
        for finding in &ruling.findings {
            let artifact_location = Artifact { uri: uri.clone() };
            let region = ruling.line.map(|start_line| Region { start_line });
            results.push(Result {
                rule_id: id.clone(),
                rule_index: index,
                level: if finding.outcome == Outcome::Fail { "error" } else { "warning" },
                message: message(&parting::finding(report, finding)),
                locations: [Location { physical_location: Physical { artifact_location, region } }],
                // GitHub reads this name alone; where it is missing, all results of a line count as one.
                partial_fingerprints: [("primaryLocationLineHash", fingerprint(&ruling.gate, finding))]
                    .into(),
            });
        }
        rules.push(Rule { id, name: visible(&ruling.gate), short_description: message(&ruling.gate) });
    }
    let missing =
        report.missing.iter().map(|missing| format!("{} is missing: {}", missing.cell, missing.reason));
    let notifications = beyond_gates(report).into_iter().chain(missing);
    let notifications = notifications.map(|text| Notification { level: "warning", message: message(&text) });
    let around = around::lines(report).into_iter();
    let around = around.map(|text| Notification { level: "note", message: message(&text) });
    let (name, version) = report.program.split_once(' ').unwrap_or((&report.program, "0"));
    let profile =
        report.run.profile.as_ref().map_or_else(String::new, |profile| format!("{}/", visible(profile)));
    let run = Run {
        tool: Tool { driver: Driver { name: visible(name), version: visible(version), rules } },
        automation_details: Automation {
            id: format!("reprocheck/{}/{profile}", visible(&report.run.matrix)),
        },
        invocations: [Invocation {
            execution_successful: report.missing.is_empty(),
            tool_execution_notifications: around.chain(notifications).collect(),
        }],
        results,
    };
    let schema = "https://json.schemastore.org/sarif-2.1.0.json";
    let log = Log { schema, version: "2.1.0", runs: [run] };
    let mut json = serde_json::to_string_pretty(&log).expect("these are strings and whole numbers");
    json.push('\n');
    json
}

/// In messages brackets make links and braces stand for arguments.
fn message(text: &str) -> Message {
    let text = visible(text).replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
    Message { text: text.replace('{', "{{").replace('}', "}}") }
}

/// The name of a gate in lower case, with hyphens for all that is neither letter nor digit.
fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug: String = words.collect::<Vec<_>>().join("-").to_ascii_lowercase().chars().take(SLUG).collect();
    if slug.is_empty() { "gate".to_owned() } else { slug }
}

/// The first of `a`, `a-2`, `a-3` that no other gate has.
fn free(slug: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{slug}-{number}"));
    let mut names = [slug.to_owned()].into_iter().chain(numbered);
    names.find(|name| taken.insert(name.clone())).expect("numbers do not end")
}

/// The same for the same two cells under the same gate, whatever the counts and wherever the gate stands.
fn fingerprint(gate: &str, finding: &Finding) -> String {
    let what = match finding.cells {
        Some([one, other]) => format!("{one} {other}"),
        None => finding.sentence.clone(),
    };
    format!("{:.16}:1", Digest::of(format!("{gate}\n{what}").as_bytes()).to_string())
}

/// Relative where the file was named so.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let path = path.strip_prefix("./").unwrap_or(&path);
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(byte.into());
        } else {
            uri += &format!("%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gates_never_share_a_rule() {
        let mut taken = BTreeSet::new();
        assert_eq!(
            ["A b!", "a-b", "a b 2", "é"].map(|name| free(&slug(name), &mut taken)),
            ["a-b", "a-b-2", "a-b-2-2", "gate"]
        );
    }

    #[test]
    fn a_path_is_a_uri() {
        assert_eq!(uri("./a b/ü%.toml"), "a%20b/%C3%BC%25.toml");
        assert_eq!(uri("/w/ci.toml"), "file:///w/ci.toml");
    }
}
