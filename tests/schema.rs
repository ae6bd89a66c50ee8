//! What programs read, held against what others wrote: JSON against its schema, that against the schema of schemas, SARIF
//! against types made from the standard, and JUnit against another reader.

use std::{env, fs, path::Path, sync::LazyLock};

use crate::validate::Validator;
use crate::world::cases::{every, failing};
use junit_parser::{TestStatus, TestSuites};
use reprocheck::{
    cell::Cell,
    compare::MARGINS,
    numerics::{order::ORDERS, precision::PRECISIONS},
    report::{Report, junit, sarif},
    verdict::Outcome,
};
use serde_json::{Value, json};
use serde_sarif::sarif::Sarif;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| Validator::new(&Report::schema()).unwrap());

static FAILING: LazyLock<Value> = LazyLock::new(|| as_json(&failing()));

fn as_json(report: &Report) -> Value {
    serde_json::from_str(&report.json()).unwrap()
}

/// Is the failing report still one after this change?
fn holds_after(change: impl FnOnce(&mut Value)) -> bool {
    let mut report = FAILING.clone();
    change(&mut report);
    VALIDATOR.holds(&report).is_ok()
}

/// Every schema inside of one, and where it stands.
fn walk<'s>(schema: &'s Value, path: &str, visit: &mut dyn FnMut(&str, &'s Value)) {
    visit(path, schema);
    for key in ["$defs", "properties", "patternProperties"] {
        for (name, inner) in schema[key].as_object().into_iter().flatten() {
            walk(inner, &format!("{path}/{key}/{name}"), visit);
        }
    }
    for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        for (at, inner) in schema[key].as_array().into_iter().flatten().enumerate() {
            walk(inner, &format!("{path}/{key}/{at}"), visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}/{key}"), visit);
        }
    }
}

#[test]
fn the_schema_is_one() {
    let schema = Report::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], format!("report of reprocheck, form {}", FAILING["form"]));
    assert_eq!(schema["properties"]["form"]["const"], FAILING["form"]);
    let mut none = schema;
    none["properties"]["form"]["type"] = json!("whole");
    assert!(Validator::new(&none).is_err());
}

#[test]
fn every_report_holds_to_the_schema() {
    for (name, _, report) in every() {
        assert_eq!(VALIDATOR.holds(&as_json(&report)), Ok(()), "{name}");
    }
}

#[test]
fn a_number_that_json_has_not_is_a_word() {
    for (drift, word) in [(f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut report = failing();
        report.cells.last_mut().unwrap().against.as_mut().unwrap().drift = Some(drift);
        report.precisions[0].course.as_mut().unwrap().drift[0].most = Some(drift);
        let divergence = &mut report.first.as_mut().unwrap().divergence;
        divergence.drift = Some(drift);
        divergence.sides[0].margin = Some(drift);
        divergence.sides[0].candidates[0].logit = drift;
        let report = as_json(&report);
        assert_eq!(VALIDATOR.holds(&report), Ok(()));
        for place in FLOATS {
            assert_eq!(report.pointer(place), Some(&json!(word)), "{place}");
        }
    }
    for place in FLOATS {
        let set = |value: Value| holds_after(|report| *report.pointer_mut(place).unwrap() = value);
        assert!(set(json!(0.5)) && set(json!(-1)));
        for word in ["+inf", "infinity", "NaN", "1"] {
            assert!(!set(json!(word)), "{place}: {word}");
        }
        // What is not seen is missing, but for what stands in a list of what is.
        assert_eq!(set(Value::Null), !place.ends_with("/logit"), "{place}");
    }
}

/// Where a report has a number that may be infinite.
const FLOATS: [&str; 5] = [
    "/cells/2/against/drift",
    "/precisions/0/course/drift/0/most",
    "/first/divergence/drift",
    "/first/divergence/sides/0/margin",
    "/first/divergence/sides/0/candidates/0/logit",
];

#[test]
fn what_is_no_report_is_refused() {
    assert!(holds_after(|_| {}));
    let set = |pointer: &'static str, value: Value| {
        holds_after(move |report| *report.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value)
    };
    let digest = "0".repeat(64);
    assert!(set("/cells/0/root", json!(digest)));
    for other in [&digest[1..], &format!("{digest}0"), &digest.replace('0', "A"), &digest.replace('0', "g")] {
        assert!(!set("/cells/0/root", json!(other)), "{other}");
    }
    for (pointer, value) in [
        ("/form", json!(1)),
        ("/form", json!(2)),
        ("/form", json!("3")),
        ("/verdict", json!("maybe")),
        ("/verdict", json!("Pass")),
        ("/rulings/0/outcome", Value::Null),
        ("/rulings/0/held", json!(-1)),
        ("/rulings/0/held", json!(0.5)),
        ("/run/model/digest", json!("")),
        ("/run/gates/0/comparison", json!("nothing")),
        ("/run/gates/0/limits/0", json!("require")),
        ("/run/gates/0/limits/0", json!({ "require": "all" })),
        ("/run/gates/0/where", json!({ "order": ["sideways"] })),
        ("/run/gates/0/where", json!({ "Size": ["1"] })),
        ("/run/generation/choice", json!("sampled")),
        ("/run/suites/0/style", json!("verse")),
        ("/environments/0/engine", Value::Null),
        ("/environments/0/facts", json!({ "processor": 1 })),
        ("/axes/0/axis", json!("Size")),
        ("/axes/0/agree", json!([0, 0, 0])),
        ("/axes/0/agree/bits", json!("none")),
        ("/cells/0/sight", json!("some")),
        ("/precisions/0/precision", json!("fp33")),
        ("/precisions/0/course/margins/0", Value::Null),
        ("/precisions/0/course/margins", json!([])),
        ("/cells/1/against/p_value", json!(1.5)),
        ("/first/cells", json!([])),
        ("/tokens", json!({ "one": "1" })),
    ] {
        assert!(!set(pointer, value.clone()), "{pointer} = {value}");
    }
    assert!(set("/run/gates/0/where", json!({ "order": ["exact"], "threads": ["2"] })));
    assert!(set("/run/generation/choice", json!("sampled:seed=1,temperature=0.7,top-k=40,top-p=0.95")));
}

/// What objects a report holds, as pointers to them.
fn objects(value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_object() {
        found.push(path.to_owned());
    }
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, inner)| (name.clone(), inner)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(at, inner)| (at.to_string(), inner)).collect(),
        _ => Vec::new(),
    };
    for (name, inner) in inner {
        objects(inner, &format!("{path}/{name}"), found);
    }
}

#[test]
fn no_field_can_come_or_go() {
    let mut found = Vec::new();
    objects(&FAILING, "", &mut found);
    let mut tried = 0;
    for pointer in found {
        let mut more = FAILING.clone();
        more.pointer_mut(&pointer).unwrap()["surprise"] = json!(1);
        assert!(VALIDATOR.holds(&more).is_err(), "{pointer}");
        // What these hold is named by suites, by tokens, by what a matrix file says, or by an engine.
        if ["/suites", "/tokens", "/where", "/facts"].iter().any(|end| pointer.ends_with(end)) {
            continue;
        }
        for name in FAILING.pointer(&pointer).unwrap().as_object().unwrap().keys() {
            let mut less = FAILING.clone();
            less.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(name);
            // A cell whose weights or logits are elsewhere has none, nor has one of a report from before they were counted.
            let may_lack = name == "cost" || (name == "divergence" && pointer.ends_with("/against"));
            assert_eq!(VALIDATOR.holds(&less).is_ok(), may_lack, "{pointer}/{name}");
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn every_object_is_closed_and_every_property_has_a_sentence() {
    let schema = Report::schema();
    let (mut closed, mut properties) = (0, 0);
    walk(&schema, "", &mut |path, inner| {
        let is_object = inner["type"] == "object"
            || inner["type"].as_array().is_some_and(|types| types.contains(&json!("object")));
        if is_object || inner["properties"].is_object() {
            // The names of a map are free, and what they stand for is not.
            let is_map = inner["additionalProperties"].is_object() && inner["properties"].is_null();
            assert!(inner["additionalProperties"] == false || is_map, "{path}");
            closed += 1;
        }
        for (name, property) in inner["properties"].as_object().into_iter().flatten() {
            // An alternative of one property is described as a whole.
            let whole = &inner["description"];
            let alone = path.contains("/oneOf/") && inner["properties"].as_object().unwrap().len() == 1;
            let description = property["description"].as_str().or(whole.as_str().filter(|_| alone));
            let description = description.unwrap_or_else(|| panic!("{path}/{name} has no description"));
            assert!(description.ends_with(['.', '?']), "{path}/{name}: {description}");
            properties += 1;
        }
        for (name, inner) in inner["$defs"].as_object().into_iter().flatten() {
            assert!(inner["description"].is_string(), "{name}");
        }
    });
    assert!(closed > 30 && properties > 150, "{closed} {properties}");
}

#[test]
fn nothing_in_the_schema_is_only_for_readers_of_rust() {
    let schema = Report::schema();
    walk(&schema, "", &mut |path, inner| {
        assert!(inner["format"].is_null(), "{path}");
        let description = inner["description"].as_str().unwrap_or_default();
        for word in ["::", "[`", "`]", "Option", "None", "Some(", "Vec", "f32", "f64", "u64", "usize", "\n"] {
            assert!(!description.contains(word), "{path}: {description}");
        }
    });
}

#[test]
fn the_ranges_of_margins_are_those_that_are_counted() {
    let schema = Report::schema();
    let margins = &schema["$defs"]["CourseRow"]["properties"]["margins"];
    assert_eq!(margins["minItems"], MARGINS.len() + 1);
    let words = margins["description"].as_str().unwrap().split([' ', ',']);
    let numbers: Vec<f32> = words.filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[..MARGINS.len()], MARGINS);
}

#[test]
fn every_name_of_a_cell_is_known() {
    let precisions = PRECISIONS.iter().map(|entry| entry.example.to_string());
    let others = [
        "cast:e4m3,round=up,saturate=no",
        "cast:e5m10,saturate=no",
        "cast:e8m23,round=zero",
        "lmul:m=3,scope=linear,variant=formula",
        "lmul:scope=attention",
        "int8:threshold=3.5",
    ];
    let precisions = precisions.chain(others.map(str::to_owned));
    let orders = ORDERS.iter().map(|entry| entry.example.to_string());
    let mut names: Vec<String> = precisions.map(|precision| format!("lab/{precision}/exact/t1/b1")).collect();
    names.extend(orders.map(|order| format!("lab/bf16/{order}/t12/b340")));
    for engine in ["candle", "candle:cuda:0", "candle:metal:11"] {
        names.push(format!("{engine}/fp16/t1/b1"));
    }
    for end in ["c16", "by-length", "shuffled:0", "s7", "r2", "c16/by-length/s7/r2"] {
        names.push(format!("lab/fp32/exact/t1/b1/{end}"));
    }
    let holds = |name: &str| holds_after(|report| report["cells"][0]["cell"] = json!(name));
    for name in &names {
        assert_eq!(name.parse::<Cell>().map(|cell| cell.to_string()).as_ref(), Ok(name));
        assert!(holds(name), "{name}");
    }
    for name in [
        "",
        "lab/fp32/t1/b1",
        "candle/fp32/exact/t1/b1",
        "lab/fp33/exact/t1/b1",
        "lab/fp32/exactly/t1/b1",
        "lab/fp32/lanes/t1/b1",
        "lab/lmul:m=x/exact/t1/b1",
        "lab/fp32:round=up/exact/t1/b1",
        "lab/fp32/exact/t0/b1",
        "lab/fp32/exact/b1/t1",
        "lab/fp32/exact/t1/b1/r2/s7",
        "lab/fp32/exact/t1/b1/in-order",
        " lab/fp32/exact/t1/b1",
        "lab/fp32/exact/t1/b1 ",
    ] {
        assert!(name.parse::<Cell>().is_err() && !holds(name), "{name}");
    }
}

/// A schema without its sentences.
fn bare(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            // A property may be called so too.
            let is_sentence = |name: &str, value: &Value| name == "description" && value.is_string();
            let kept = fields.iter().filter(|(name, value)| !is_sentence(name, value));
            kept.map(|(name, value)| (name.clone(), bare(value))).collect()
        }
        Value::Array(list) => list.iter().map(bare).collect(),
        other => other.clone(),
    }
}

/// In `tests/schema` lies what a report of this form looks like. `REPROCHECK_ACCEPT=1` writes that anew, which is right
/// where only new names came.
#[test]
fn a_form_does_not_change() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let file = folder.join(format!("report-{}.json", FAILING["form"]));
    let schema = bare(&Report::schema());
    if env::var_os("REPROCHECK_ACCEPT").is_some_and(|value| value == "1") && env::var_os("CI").is_none() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&file, format!("{schema:#}\n")).unwrap();
    }
    let accepted = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let same = serde_json::from_str::<Value>(&accepted).unwrap() == schema;
    assert!(
        same,
        "a report has another schema than in {}. If it has other fields, or one of them means something else, raise FORM in \
         src/report/data.rs. If there are only new names (of a precision, an order, an axis), run\n  \
         REPROCHECK_ACCEPT=1 cargo test --release --test all schema::",
        file.display()
    );
}

/// A message as it was before brackets, braces and backslashes were made harmless.
fn unescaped(message: &str) -> String {
    let message = message.replace("{{", "{").replace("}}", "}");
    message.replace("\\[", "[").replace("\\]", "]").replace("\\\\", "\\")
}

/// What a text from outside looks like in every format.
fn visible(text: &str) -> String {
    let hides = |c: char| c.is_control() || ['\u{202e}', '\u{2028}', '\u{feff}', '\u{ffff}'].contains(&c);
    let shown = |c: char| if hides(c) { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[test]
fn sarif_is_all_that_the_standard_knows() {
    for (name, _, report) in every() {
        let written = sarif::report(&report);
        let log: Sarif = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{name}: {error}"));
        // What the standard has no name for is not in its types, and so would not come back.
        let written: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_value(&log).unwrap(), written, "{name}");
        let [run] = &log.runs[..] else { panic!("{name}") };
        let rules: Vec<_> = run.tool.driver.rules.iter().flatten().collect();
        let names: Vec<_> = rules.iter().map(|rule| rule.name.clone().unwrap()).collect();
        let gates: Vec<_> = report.rulings.iter().map(|ruling| visible(&ruling.gate)).collect();
        assert_eq!(names, gates, "{name}");
        let results: Vec<_> = run.results.iter().flatten().collect();
        let sentences: Vec<_> =
            results.iter().map(|result| unescaped(result.message.text.as_ref().unwrap())).collect();
        let findings: Vec<_> = report.rulings.iter().flat_map(|ruling| &ruling.findings).collect();
        let expected: Vec<_> = findings.iter().map(|finding| visible(&finding.sentence)).collect();
        assert_eq!(sentences, expected, "{name}");
        let levels: Vec<_> =
            results.iter().map(|result| result.level.as_ref().unwrap().to_string()).collect();
        let level = |outcome| if outcome == Outcome::Fail { "error" } else { "warning" };
        assert_eq!(
            levels,
            findings.iter().map(|finding| level(finding.outcome)).collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[test]
fn junit_says_the_same_to_another_reader() {
    for (name, verdict, report) in every() {
        let written = junit::report(&report);
        let document: TestSuites =
            junit_parser::from_reader(written.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [suite] = &document.suites[..] else { panic!("{name}") };
        let counts = |wanted: fn(&TestStatus) -> bool| {
            suite.cases.iter().filter(|case| wanted(&case.status)).count() as u64
        };
        let counted =
            [counts(TestStatus::is_failure), counts(TestStatus::is_error), suite.cases.len() as u64];
        assert_eq!([suite.failures, suite.errors, suite.tests], counted, "{name}");
        assert_eq!([document.failures, document.errors, document.tests], counted, "{name}");
        assert_eq!(counts(TestStatus::is_success) == counted[2], verdict == Outcome::Pass, "{name}");
        assert_eq!((suite.skipped, counts(TestStatus::is_skipped)), (0, 0), "{name}");
        for (case, ruling) in suite.cases.iter().zip(&report.rulings) {
            assert_eq!(case.original_name, visible(&ruling.gate), "{name}");
            assert_eq!(case.line, ruling.line.map(|line| line as u64), "{name}");
            assert_eq!(case.file.as_ref(), Some(&visible(&report.run.matrix)), "{name}");
            let (message, kind) = match &case.status {
                TestStatus::Failure(failure) => (&failure.message, &failure.failure_type),
                TestStatus::Error(error) => (&error.message, &error.error_type),
                _ => {
                    assert_eq!(ruling.outcome, Outcome::Pass, "{name}");
                    continue;
                }
            };
            assert_eq!(*message, visible(&ruling.findings[0].sentence), "{name}");
            assert_eq!(*kind, ruling.outcome.to_string(), "{name}");
        }
    }
}
