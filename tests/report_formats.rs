//! Reports as other programs read them: what each format says of every verdict, and that no text from outside gets out of
//! its place.

use std::{env, fs, path::Path, time::Instant};

use crate::world::{
    cases::{BITS, DROP, every, failing, other, wicked, world},
    thousand,
};
use reprocheck::{
    digest::Digest,
    record::PROGRAM,
    report::{self, CellRow, Missing, Report, Written, csv, github, html, junit, markdown, sarif, text},
    verdict::Outcome,
};
use serde_json::{Value, json};

/// No version of the program is to change what was accepted.
const PINNED: &str = "reprocheck 1.2.3";

/// What a file of it ends with, and what writes it.
type Format = (&'static str, fn(&Report) -> String);

const FORMATS: [Format; 8] = [
    ("text", text::report),
    ("json", Report::json),
    ("md", markdown::report),
    ("txt", github::annotations),
    ("xml", junit::report),
    ("sarif", sarif::report),
    ("csv", csv::cells),
    ("html", html::page),
];

/// A report of so many cells, none alike.
fn large(cells: usize) -> Report {
    let mut report = failing();
    let row = report.cells.pop().unwrap();
    let numbered = |at: usize| CellRow { root: Digest::of(&at.to_le_bytes()), ..row.clone() };
    report.cells = (0..cells).map(numbered).collect();
    report
}

/// Long texts by their lengths and digests.
fn digests(mut report: Report) -> String {
    PINNED.clone_into(&mut report.program);
    let line = |format: &report::Format| {
        let Written::Text(render) = format.written else { return String::new() };
        let text = render(&report);
        format!("{} {} {}\n", Digest::of(text.as_bytes()), text.len(), format.file)
    };
    report::FORMATS.iter().map(line).collect()
}

/// In `tests/report_formats` lies what each format says of each. `REPROCHECK_ACCEPT=1` writes that anew; whoever accepts
/// must look at it.
#[test]
fn every_format_says_what_was_accepted() {
    let accept =
        env::var_os("REPROCHECK_ACCEPT").is_some_and(|value| value == "1") && env::var_os("CI").is_none();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report_formats");
    let mut all = vec![("thousand.digests".to_owned(), digests(thousand(20)))];
    for (name, verdict, mut report) in every() {
        assert_eq!(report.verdict, verdict, "{name}");
        assert_eq!(report.program, PROGRAM);
        PINNED.clone_into(&mut report.program);
        for (extension, render) in FORMATS {
            let rendered = render(&report);
            assert_eq!(rendered, render(&report));
            all.push((format!("{name}.{extension}"), rendered));
        }
    }
    let mut others = Vec::new();
    for (name, rendered) in all {
        let expected = folder.join(&name);
        if accept {
            fs::write(&expected, &rendered).unwrap();
        } else if fs::read(&expected).ok().as_deref() != Some(rendered.as_bytes()) {
            others.push(format!("{name}:\n{rendered}"));
        }
    }
    assert!(others.is_empty(), "other texts than in {}:\n{}", folder.display(), others.join("\n"));
}

#[test]
fn nothing_that_hides_or_commands_is_in_any_format() {
    for (extension, render) in FORMATS {
        let rendered = render(&wicked());
        let hidden = rendered.chars().filter(|c| {
            let line_end = *c == '\n' || (*c == '\r' && extension == "csv");
            // JSON is for programs, which are to have every letter as it was.
            let turns = ['\u{202e}', '\u{2028}', '\u{feff}', '\u{ffff}'].contains(c) && extension != "json";
            c.is_control() && !line_end || turns
        });
        assert_eq!(hidden.collect::<String>(), "", "{extension}");
    }
}

/// What is left of a line of Markdown without its code spans.
fn without_code(line: &str) -> String {
    let mut rest = line;
    let mut out = String::new();
    while let Some(start) = rest.find('`') {
        out += &rest[..start];
        let run = rest[start..].chars().take_while(|c| *c == '`').count();
        let mut inside = &rest[start + run..];
        // A span ends with as many backticks as it begins with, no more and no fewer.
        loop {
            let at = inside.find('`').unwrap_or_else(|| panic!("no end of a span in {line}"));
            let end = inside[at..].chars().take_while(|c| *c == '`').count();
            inside = &inside[at + end..];
            if end == run {
                break;
            }
        }
        rest = inside;
    }
    out + rest
}

#[test]
fn nothing_from_outside_is_markup() {
    let page = markdown::report(&wicked());
    let (mut fence, mut tables) = (None, 0);
    for line in page.lines() {
        if fence.as_deref() == Some(line) {
            fence = None;
        } else if fence.is_none() && line.starts_with("```") {
            let run = line.trim_end_matches("text");
            assert_eq!(format!("{run}text"), line);
            fence = Some(run.to_owned());
        } else if fence.is_none() {
            let bare = without_code(line);
            let bare =
                bare.replace("<details><summary>", "").replace("</details>", "").replace("</summary>", "");
            for part in ["<", "@", "&", "www", "http", "](", "$", ":+", "script>", "\\", "~", "#1", "cmd"] {
                assert!(!bare.contains(part), "{part} in {line}");
            }
            if line.starts_with('|') {
                tables += 1;
                // A table is split into its columns before anything else, so pipes in code count.
                assert!([5, 7, 8, 9].contains(&line.matches('|').count()), "{line}");
            }
        }
    }
    assert_eq!(fence, None, "a block has no end");
    assert!(tables > 10, "{tables}");
}

#[test]
fn the_gates_stand_worst_first_and_say_what_they_found() {
    let page = markdown::report(&failing());
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?} in {page}"));
    assert!(page.starts_with("## FAIL: 1 of 2 gates does not hold\n"), "{page}");
    assert!(at("| **fail** | `bits` | 1 of 2 | ") < at("| pass | `accuracy` | 2 of 2 |"));
    assert!(page.contains("has other bits than `lab/fp32/exact/t1/b1` on 3 of 400 items"), "{page}");
    assert!(at("### Where two cells first part") < at("### What one axis alone moves"));
}

#[test]
fn a_page_is_never_too_long_and_leaves_out_the_best() {
    for cells in [1000, 20_000] {
        let mut report = large(cells);
        let worst = report.cells.last_mut().unwrap();
        worst.against.as_mut().unwrap().items.answers.as_mut().unwrap().hits = 0;
        let name = worst.cell.to_string();
        let begin = Instant::now();
        for (most, page) in [
            (markdown::SUMMARY, markdown::report(&report)),
            (markdown::COMMENT, markdown::within(&report, markdown::COMMENT)),
        ] {
            assert!(page.len() < most, "{} of {most}", page.len());
            let rows: Vec<_> =
                page.lines().filter(|line| line.starts_with(&format!("| `{name}` | 1 |"))).collect();
            assert!(rows[0].contains("| 0 % |") && !rows[1].contains("| 0 % |"), "{}", rows[0]);
            let left_out = cells - rows.len();
            assert_eq!(left_out > 0, page.contains("Left out"), "{left_out}");
            if left_out > 0 {
                assert!(rows.len() > 100, "{}", rows.len());
                let digits: String = page
                    .lines()
                    .find(|line| line.starts_with("Left out to keep this short: "))
                    .unwrap()
                    .chars()
                    .filter(char::is_ascii_digit)
                    .collect();
                assert_eq!(digits, left_out.to_string());
            }
            assert!(page.contains("\n</details>\n"));
        }
        for (_, render) in FORMATS {
            render(&report);
        }
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    }
}

#[test]
fn no_number_or_length_of_names_makes_a_page_too_long() {
    let mut report = wicked();
    let long = "😀`# ".repeat(1000);
    let ruling = report.rulings.iter_mut().find(|ruling| !ruling.findings.is_empty()).unwrap();
    ruling.gate = long.clone();
    ruling.findings = (0..11).map(|_| ruling.findings[0].clone()).collect();
    ruling.findings.iter_mut().for_each(|finding| finding.sentence = long.clone());
    report.rulings = vec![ruling.clone(); 1000];
    report.missing = vec![Missing { reason: long.clone(), ..report.missing[0].clone() }; 100];
    let divergence = &mut report.first.as_mut().unwrap().divergence;
    (divergence.id, divergence.stratum, divergence.right) = (long.clone(), "\n".repeat(5000), long.clone());
    (report.run.matrix, report.run.model.name, report.program) = (long.clone(), long.clone(), long);
    report.cells = vec![report.cells[1].clone(); 5000];
    for most in [markdown::COMMENT, markdown::SUMMARY] {
        let page = markdown::within(&report, most);
        assert!(page.len() < most, "{} of {most}", page.len());
        assert!(
            page.contains("\nLeft out to keep this short: ")
                && page.contains(" gates.\n")
                && page.contains("\n</details>\n"),
            "{page:.3000}"
        );
    }
}

#[test]
fn every_gate_that_does_not_pass_has_one_annotation() {
    for (name, _, report) in every() {
        let annotations = github::annotations(&report);
        // What surrounds cells is told beside the gates.
        let (around, annotations): (String, String) =
            annotations.split_inclusive('\n').partition(|line| line.starts_with("::notice "));
        assert_eq!(around.is_empty(), name != "wicked", "{name}: {around}");
        let bad = report.rulings.iter().filter(|ruling| ruling.outcome != Outcome::Pass).count();
        let silent = bad == 0 && report.verdict != Outcome::Pass;
        assert_eq!(annotations.lines().count(), bad + usize::from(silent), "{name}: {annotations}");
        let errors = annotations.lines().filter(|line| line.starts_with("::error file=")).count();
        let warnings = annotations.lines().filter(|line| line.starts_with("::warning file=")).count();
        let failed = report.rulings.iter().filter(|ruling| ruling.outcome == Outcome::Fail).count();
        assert_eq!((errors, errors + warnings), (failed, annotations.lines().count()), "{name}");
    }
    for line in github::annotations(&wicked()).lines().filter(|line| !line.starts_with("::notice ")) {
        // Of a command the first `::` after its properties ends them.
        let (command, message) = line[2..].split_once("::").unwrap();
        let properties: Vec<_> = command.split_once(' ').unwrap().1.split(',').collect();
        let names: Vec<_> = properties.iter().map(|property| property.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["file", "line", "title"], "{line}");
        assert!(
            command.contains("%3A%3Aerror%3A%3Ax%250A=cmd()@team") && message.contains("::error::x%250A"),
            "{line}"
        );
    }
}

#[test]
fn nothing_that_does_not_pass_is_green_for_a_dashboard() {
    for (name, verdict, report) in every() {
        let xml = junit::report(&report);
        let count = |text: &str| xml.matches(text).count();
        let outcomes = |wanted: &[Outcome]| {
            report.rulings.iter().filter(|ruling| wanted.contains(&ruling.outcome)).count()
        };
        let failures = outcomes(&[Outcome::Fail, Outcome::Undecided]);
        let silent = verdict != Outcome::Pass && outcomes(&[Outcome::Pass]) == report.rulings.len();
        let errors = outcomes(&[Outcome::Unknown]) + usize::from(silent);
        let cases = report.rulings.len() + usize::from(silent);
        assert_eq!(
            (count("<failure "), count("<error "), count("<testcase ")),
            (failures, errors, cases),
            "{name}"
        );
        for counter in
            [format!("tests=\"{cases}\""), format!("failures=\"{failures}\""), format!("errors=\"{errors}\"")]
        {
            assert_eq!(count(&counter), 2, "{name}: {counter} in {xml}");
        }
        assert_eq!(
            (count("<skipped"), count("timestamp"), count("uuid"), count("]]>")),
            (0, 0, 0, 0),
            "{name}"
        );
        assert_eq!(failures + errors > 0, verdict != Outcome::Pass, "{name}");
    }
}

#[test]
fn findings_keep_their_fingerprints_when_counts_change() {
    let results = |report: &Report| {
        let log: Value = serde_json::from_str(&sarif::report(report)).unwrap();
        log["runs"][0]["results"].as_array().unwrap().clone()
    };
    let prints = |report: &Report| -> Vec<_> {
        results(report).iter().map(|result| result["partialFingerprints"].to_string()).collect()
    };
    let three = world(&[DROP, BITS]).report(400, other(3));
    let nine = world(&[BITS, DROP]).report(400, other(9));
    assert_eq!(prints(&three), prints(&nine));
    assert_ne!(results(&three)[0]["message"], results(&nine)[0]["message"]);
    let both = world(&[BITS, "[[gate]]\nname = \"tokens\"\nagainst = \"reference\"\nrequire = \"tokens\"\n"]);
    let both = prints(&both.report(400, other(3)));
    assert_eq!(both.len(), 2);
    assert_ne!(both[0], both[1]);
}

#[test]
fn every_result_names_its_rule_and_its_line() {
    for (name, _, report) in every() {
        let log: Value = serde_json::from_str(&sarif::report(&report)).unwrap();
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), report.rulings.len(), "{name}");
        let findings: usize = report.rulings.iter().map(|ruling| ruling.findings.len()).sum();
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), findings, "{name}");
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(result["ruleId"], rules[index]["id"], "{name}");
            let location = &result["locations"][0]["physicalLocation"];
            assert_eq!(location["region"]["startLine"], json!(report.rulings[index].line), "{name}");
            let uri = location["artifactLocation"]["uri"].as_str().unwrap();
            assert!(
                uri.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)),
                "{uri}"
            );
        }
    }
}

#[test]
fn every_cell_has_one_line_with_every_column() {
    for (name, _, mut report) in every() {
        if let Some(missing) = report.missing.first_mut() {
            "=cmd(),\"x\"\n".clone_into(&mut missing.reason);
        }
        let table = csv::cells(&report);
        let lines: Vec<_> = table.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 1 + report.cells.len() + report.missing.len(), "{name}");
        for line in &lines {
            // Only a reason is ever quoted, and it comes last.
            let fields =
                line.split(",\"").next().unwrap().split(',').count() + line.matches(",\"").count().min(1);
            assert_eq!(fields, lines[0].split(',').count(), "{name}: {line}");
        }
        if !report.missing.is_empty() {
            assert!(lines.last().unwrap().ends_with(",\"'=cmd(),\"\"x\"\"\\n\""), "{name}: {table}");
        }
    }
    let table = csv::cells(&failing());
    let names: Vec<_> = table.lines().next().unwrap().split(',').collect();
    let last: Vec<_> = table.lines().last().unwrap().split(',').collect();
    let field = |name: &str| last[names.iter().position(|other| *other == name).unwrap()];
    assert_eq!(
        ["engine", "precision", "prefill-chunk", "items", "right", "same_bits", "lost"].map(field),
        ["lab", "bf16", "all", "400", "397", "397", "3"]
    );
}
