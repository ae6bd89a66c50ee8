//! The statement: which run, what it was asked, and what became of its gates, as in-toto says it of tests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refused;
use crate::{
    cell::Cell,
    digest::Digest,
    model::subject::NO_MODEL,
    report::{Report, words},
    verdict::Outcome,
};

/// The form of the statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The form of what it says.
const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// A statement about a run. Fields that others add are overlooked, as the standard asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    form: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    predicate_type: String,
    /// What it says of that.
    pub predicate: TestResult,
}

/// A file, a folder, or a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Which it is, where it has no digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Its digests, by their algorithms: `sha256` of a file, `dirHash` of what lies in a folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

/// What became of the gates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    /// Of all of them.
    pub result: Verdict,
    /// What was asked, and by which program.
    pub configuration: Vec<Resource>,
    /// Those that hold.
    #[serde(default)]
    pub passed_tests: Vec<String>,
    /// Those that hold, with something that a reader should know.
    #[serde(default)]
    pub warned_tests: Vec<String>,
    /// Those that do not hold, and those of which nobody can tell: what was not shown has not passed.
    #[serde(default)]
    pub failed_tests: Vec<String>,
}

/// A result in the words of in-toto, from the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It holds, with something that a reader should know.
    Warned,
    /// It does not hold, or nobody can tell.
    Failed,
}

impl Verdict {
    /// In-toto has no word for what cannot be told, and lets policies take a warning for a pass.
    fn of(outcome: Outcome, has_notes: bool) -> Verdict {
        match outcome {
            Outcome::Pass if has_notes => Verdict::Warned,
            Outcome::Pass => Verdict::Passed,
            Outcome::Undecided | Outcome::Unknown | Outcome::Fail => Verdict::Failed,
        }
    }

    /// As a statement has it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "PASSED",
            Verdict::Warned => "WARNED",
            Verdict::Failed => "FAILED",
        }
    }
}

impl Resource {
    /// A file, by the SHA-256 of its bytes.
    pub fn file(name: &str, digest: Digest) -> Resource {
        Resource::digested(name, "sha256", digest)
    }

    /// What lies in a folder, by the SHA-256 of the lines that `sha256sum` prints for its files in the order of their names.
    fn folder(name: &str, digest: Digest) -> Resource {
        Resource::digested(name, "dirHash", digest)
    }

    fn digested(name: &str, algorithm: &str, digest: Digest) -> Resource {
        let digest = [(algorithm.to_owned(), digest.to_string())].into();
        Resource { name: name.to_owned(), uri: String::new(), digest, annotations: BTreeMap::new() }
    }

    fn saying(mut self, what: &str, value: &str) -> Resource {
        self.annotations.insert(what.to_owned(), value.into());
        self
    }

    /// Its digests, for a person.
    fn digests(&self) -> String {
        let digests = self.digest.iter().map(|(algorithm, digest)| format!("{algorithm} {digest}"));
        digests.collect::<Vec<_>>().join(", ")
    }
}

impl Statement {
    /// What a report comes to, with the traces of its cells, the files of the report, of what ran and of the questions, and what
    /// gates were held to.
    pub fn of(
        report: &Report,
        traces: &[(Cell, Digest)],
        [json, run, items]: [Resource; 3],
        approved: Option<Resource>,
    ) -> Statement {
        let about = &report.run;
        let model = Some(&about.model).filter(|model| model.name != NO_MODEL);
        let model = model.map(|model| Resource::folder(&model.name, model.digest));
        let traces = traces.iter().map(|(cell, trace)| Resource::folder(&cell.to_string(), *trace));
        let verdict = report.verdict.to_string();
        let files = [json.saying("verdict", &verdict), run.clone()];

        let mut ran = run.saying("matrix", &about.matrix);
        if let Some(profile) = &about.profile {
            ran = ran.saying("profile", profile);
        }
        let program = Resource {
            name: report.program.split(' ').next().unwrap_or_default().to_owned(),
            uri: format!("pkg:generic/{}", report.program.replace(' ', "@")),
            digest: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        let mut predicate = TestResult {
            result: Verdict::of(report.verdict, report.rulings.iter().any(|ruling| !ruling.notes.is_empty())),
            configuration: [ran, items].into_iter().chain(approved).chain([program]).collect(),
            passed_tests: Vec::new(),
            warned_tests: Vec::new(),
            failed_tests: Vec::new(),
        };
        for ruling in &report.rulings {
            let list = match Verdict::of(ruling.outcome, !ruling.notes.is_empty()) {
                Verdict::Passed => &mut predicate.passed_tests,
                Verdict::Warned => &mut predicate.warned_tests,
                Verdict::Failed => &mut predicate.failed_tests,
            };
            list.push(ruling.gate.clone());
        }
        // Where it is no gate that keeps the verdict from a pass, a list of gates would look like one.
        if words::beyond_gates(report).is_some() {
            predicate.failed_tests.push(words::VERDICT.to_owned());
        }
        Statement {
            form: STATEMENT.to_owned(),
            subject: model.into_iter().chain(files).chain(traces).collect(),
            predicate_type: TEST_RESULT.to_owned(),
            predicate,
        }
    }

    /// The bytes that are signed.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts have a form in JSON")
    }

    /// Reads a payload.
    pub(super) fn read(payload: &[u8]) -> Result<Statement, Refused> {
        let wrong = |what: String| Err(Refused::Statement(what));
        let statement: Statement = match serde_json::from_slice(payload) {
            Ok(statement) => statement,
            Err(error) => return wrong(format!("does not read ({error})")),
        };
        for (what, found, expected) in
            [("form", &statement.form, STATEMENT), ("predicate type", &statement.predicate_type, TEST_RESULT)]
        {
            if found != expected {
                return wrong(format!("has the {what} {found:?}, not {expected:?}"));
            }
        }
        match statement.subject.iter().find(|subject| subject.digest.is_empty()) {
            Some(subject) => wrong(format!("has the subject {:?} without a digest", subject.name)),
            None if statement.subject.is_empty() => wrong("has no subject".to_owned()),
            None => Ok(statement),
        }
    }

    /// Is this what can be attested of a run?
    ///
    /// # Errors
    ///
    /// The first thing that is another one there.
    pub fn is_of(&self, run: &Statement) -> Result<(), Refused> {
        if self == run { Ok(()) } else { Err(Refused::Run(self.difference(run))) }
    }

    fn difference(&self, run: &Statement) -> String {
        let find = |all: &[Resource], name: &str| all.iter().find(|one| one.name == name).cloned();
        for (part, signed, own) in [
            ("subject", &self.subject, &run.subject),
            ("configuration", &self.predicate.configuration, &run.predicate.configuration),
        ] {
            for one in signed {
                match find(own, &one.name) {
                    None => return format!("its {part} {:?} is not one of the run", one.name),
                    Some(other) if other.digest != one.digest => {
                        let [signed, own] = [one.digests(), other.digests()];
                        return format!("its {part} {:?} has {signed}, and that of the run {own}", one.name);
                    }
                    Some(_) => {}
                }
            }
            if let Some(other) = own.iter().find(|other| find(signed, &other.name).is_none()) {
                return format!("the run has the {part} {:?}, which is not in it", other.name);
            }
        }
        let [signed, own] = [self, run].map(|statement| statement.predicate.result.name());
        if signed != own {
            return format!("it says {signed}, and the run {own}");
        }
        "what it says of gates, or of a subject, is not what the run says".to_owned()
    }
}
