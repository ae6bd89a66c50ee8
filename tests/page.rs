//! The page and its figures on all kinds of reports: well-formed, closed to texts from outside, and bounded.

use std::{collections::BTreeSet, sync::OnceLock};

use crate::world::{Made, World, thousand};
use reprocheck::{
    compare::{Drift, MARGINS},
    report::{
        CONFIDENCE, CourseRow, Report, SurvivalRow,
        html::{figures, page},
    },
    stats::{proportion::Proportion, survival::Survival},
    verdict::Outcome,
};

const WICKED: &str = "<script>alert(1)</script>\"><img src=x onerror=\"alert(1)\">]]>🦀\u{202e}evil\u{1b}[2J\0{{7*7}}\
                      {% raw %}</style><!--</svg>&amp;' onload='x\u{2028}\u{feff}\u{ffff}\r\n";

fn same() -> Made {
    (vec![(1, 0), (2, 0)], 1)
}

/// One thing or another, on the first so many items of the second trace.
fn parting(items: u64) -> impl Fn(usize, u64) -> Made {
    move |trace, item| if trace == 1 && item < items { (vec![(1, 0), (3, 9)], 2) } else { same() }
}

const TWO: &str =
    "[reference]\norder = \"exact\"\n[matrix]\nprecision = \"fp32\"\n[[gate]]\nagainst = \"reference\"\n";

fn two(limit: &str, items: u64, parts: u64) -> Report {
    World::new(&format!("{TWO}{limit}\n")).report(items, parting(parts))
}

fn missing() -> Report {
    let mut world = World::new(&format!("{TWO}require = \"bits\"\n"));
    world.traces[1] = None;
    world.report(9, parting(0))
}

fn empty() -> Report {
    let mut world = World::new("[matrix]\nbatch = [1, 2]\n");
    world.traces.fill(None);
    world.report(0, parting(0))
}

/// Six precisions that come apart along a thousand tokens, the later ones sooner.
fn rich() -> Report {
    let mut world = World::new(
        "[reference]\norder = \"exact\"\nprecision = \"fp32\"\n[matrix]\n\
         precision = [\"fp32\", \"bf16\", \"fp16\", \"layercast\", \"lmul\", \"int8\"]\n\
         order = [\"sequential\", \"pairwise\"]\nbatch = [1, 8]\n[[gate]]\nvary = \"batch\"\nrequire = \"bits\"\n\
         [[gate]]\nname = \"order must not change an answer\"\nvary = \"order\"\nrequire = \"answers\"\n",
    );
    // A batch changes nothing.
    world.traces = (0..world.traces.len()).map(|cell| Some(cell.div_ceil(2))).collect();
    let mut report = world.report(40, |trace, item| {
        let precision = (trace.saturating_sub(1) / 2) as u64;
        match trace {
            0 => same(),
            _ if item < precision * 3 => {
                (vec![(1, 1), (3, 9)], if trace % 2 == 0 { (item % 3) as u8 } else { 1 })
            }
            _ => (vec![(1, trace as u8), (2, 0)], 1),
        }
    });
    let draw = |seed: u64| {
        (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)) >> 40
    };
    for (at, row) in report.precisions.iter_mut().enumerate() {
        let at = at as u64;
        let outputs = 400_u64;
        let times = (0..outputs).map(|output| match draw(output * 977 + at) % 1400 * 6 / (at + 1) {
            time if at > 0 && time < 1000 => (time, true),
            _ => (1000, false),
        });
        let survival = Survival::of(times);
        let steps = survival.steps.iter();
        let drift = (0..1000_u64).map(|place| Drift {
            outputs: 400 - place / 4,
            moved: Some((400 - place / 4) * (at + 1) / 6),
            most: Some(if at == 0 {
                0.0
            } else {
                (1 + place) as f32 * 1e-5 * (1 << (3 * at)) as f32 * (1.0 + (draw(place + at) % 7) as f32)
            }),
        });
        let margins = (0..=MARGINS.len() as u64)
            .map(|range| Proportion { hits: (40 + at * 20) >> (range * 2).min(20), of: 600 });
        row.course = Some(CourseRow {
            cells: 4,
            outputs,
            survival: steps
                .map(|step| SurvivalRow {
                    tokens: step.time,
                    at_risk: step.at_risk,
                    part: step.events,
                    share: step.survival,
                    interval: step.interval(CONFIDENCE),
                })
                .collect(),
            median: None,
            drift: drift.collect(),
            margins: margins.collect(),
        });
        for suite in ["carry_chain", "divmod", "mul_ladder"] {
            let mut spreads = row.all.clone();
            spreads.accuracy.hits -= (draw(at + suite.len() as u64) % 20) * 2;
            row.suites.insert(suite.to_owned(), spreads);
        }
    }
    let divergence = &mut report.first.as_mut().unwrap().divergence;
    divergence.prompt = "5000000000+5000000000=".to_owned();
    let common = "0000;0000;0000;0505;5055\nthen 0505050505050505";
    divergence.sides[0].text = format!("{common}3000000\n");
    divergence.sides[1].text = format!("{common}2");
    report
}

/// Texts from outside wherever there can be any.
fn with_texts(text: &str) -> Report {
    let mut world = World::new(&format!("{TWO}require = \"bits\"\n"));
    (world.name, world.text) = (text.to_owned(), text.to_owned());
    let mut report = world.report(9, parting(3));
    report.run.profile = Some(text.to_owned());
    report.run.model.origin = text.to_owned() + "!";
    report.run.model.architecture = text.to_owned();
    report.rulings[0].gate = text.to_owned();
    report.rulings[0].notes.push(text.to_owned());
    report.rulings[0].findings[0].sentence = text.to_owned();
    report.environments[0].facts.insert("processor".to_owned(), text.to_owned());
    let cell = report.cells[0].cell;
    report.missing.push(reprocheck::report::Missing { cell, reason: text.to_owned() });
    let divergence = &mut report.first.as_mut().unwrap().divergence;
    divergence.stratum = text.to_owned();
    divergence.right = text.to_owned();
    for (at, side) in divergence.sides.iter_mut().enumerate() {
        side.answer = Some(text.to_owned());
        side.text = format!("{text}{at}{text}");
    }
    for row in &mut report.precisions {
        row.engine = text.to_owned();
    }
    report
}

/// Made once, as some take their time.
fn all() -> &'static [(&'static str, Report)] {
    static ALL: OnceLock<Vec<(&str, Report)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let drop = "max-accuracy-drop = \"5pp\"";
        vec![
            ("passing", two("require = \"bits\"", 50, 0)),
            ("failing", two("require = \"bits\"", 50, 3)),
            ("undecided", two(drop, 20, 1)),
            ("missing", missing()),
            ("empty", empty()),
            ("one", World::new("[matrix]\nbatch = 1\n").report(5, parting(0))),
            ("no-items", two("require = \"bits\"", 0, 0)),
            ("thousand", thousand(20)),
            ("rich", rich()),
            ("wicked", with_texts(WICKED)),
        ]
    })
}

/// An element: how deep it lies, its name, and its attributes.
struct Element {
    depth: usize,
    name: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The elements of a text that is well-formed as XML is, and holds no comment and no character that cannot be seen.
fn elements(text: &str) -> Vec<Element> {
    let text = text.strip_prefix("<!DOCTYPE html>\n").unwrap_or(text).trim_end();
    let hidden = text
        .chars()
        .find(|c| *c != '\n' && (c.is_control() || "\u{202e}\u{2028}\u{feff}\u{ffff}".contains(*c)));
    assert_eq!(hidden, None);
    let no_entity = |text: &str| {
        for after in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|entity| after.starts_with(entity)),
                "&{after:.20}"
            );
        }
    };
    let (mut found, mut open, mut rest) = (Vec::new(), Vec::<String>::new(), text);
    loop {
        let (before, after) = rest.split_once('<').unwrap_or((rest, ""));
        assert!(!before.contains('>') || open.last().is_some_and(|name| name == "style"), "{before:.80}");
        no_entity(before);
        assert!(!open.is_empty() || before.is_empty(), "text beside the root: {before:.80}");
        if after.is_empty() {
            break;
        }
        let end = after.find('>').expect("a tag ends");
        let (tag, next) = (&after[..end], &after[end + 1..]);
        rest = next;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "before {next:.80}");
            continue;
        }
        let (tag, is_void) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag.trim_end(), true));
        let (name, mut inside) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "<{name}");
        let mut attributes = Vec::new();
        while !inside.is_empty() {
            let (attribute, quoted) = inside.split_once("=\"").unwrap_or_else(|| panic!("{inside}"));
            let (value, more) = quoted.split_once('"').expect("a value ends");
            assert!(attribute.trim().chars().all(|c| c.is_ascii_alphabetic() || c == '-'), "{attribute}");
            no_entity(value);
            attributes.push((attribute.trim().to_owned(), value.to_owned()));
            inside = more.trim_start();
        }
        let names: BTreeSet<_> = attributes.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), attributes.len(), "an attribute twice: {tag}");
        found.push(Element { depth: open.len(), name: name.to_owned(), attributes });
        if !is_void {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    found
}

#[test]
fn every_page_is_well_formed_closed_and_the_same_each_time() {
    for (name, report) in all() {
        let page_of = page(report);
        let found = elements(&page_of);
        assert_eq!(page_of, page(report), "{name}");
        assert_eq!(found.iter().filter(|element| element.depth == 0).count(), 1, "{name}");
        let text = page_of.to_lowercase();
        for foreign in
            ["<script", "http", "@import", "url(", "<img", "<link", "<iframe", "javascript:", " src=\""]
        {
            assert!(!text.contains(foreign), "{name}: {foreign}");
        }
        for element in &found {
            let known = [
                "a",
                "aria-hidden",
                "aria-label",
                "aria-labelledby",
                "charset",
                "class",
                "content",
                "d",
                "height",
                "href",
            ];
            let more = [
                "id",
                "lang",
                "name",
                "role",
                "scope",
                "stroke-dasharray",
                "tabindex",
                "text-anchor",
                "transform",
            ];
            let last = ["viewBox", "width", "x", "y"];
            for (attribute, value) in &element.attributes {
                let attribute = attribute.as_str();
                assert!(
                    [&known[..], &more, &last].iter().any(|list| list.contains(&attribute)),
                    "{name}: {attribute}"
                );
                assert!(!value.contains("alert"), "{name}: {value}");
            }
        }
    }
}

#[test]
fn every_page_can_be_walked_without_eyes() {
    for (name, report) in all() {
        let found = elements(&page(report));
        let ids: Vec<_> = found.iter().filter_map(|element| element.get("id")).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{name}: an id twice in {ids:?}");
        for element in &found {
            let targets = element.get("href").map(|target| target.trim_start_matches('#')).into_iter();
            for target in
                targets.chain(element.get("aria-labelledby").into_iter().flat_map(str::split_whitespace))
            {
                assert!(ids.contains(&target), "{name}: {target}");
            }
            if element.get("class").is_some_and(|class| ["wide", "tall"].contains(&class)) {
                assert_eq!(
                    (element.get("tabindex"), element.get("role")),
                    (Some("0"), Some("region")),
                    "{name}"
                );
                assert!(element.get("aria-label").is_some_and(|label| !label.is_empty()), "{name}");
            }
        }
        let headings = found.iter().filter_map(|element| element.name.strip_prefix('h')?.parse::<u32>().ok());
        let headings: Vec<_> = headings.collect();
        assert_eq!(headings.iter().filter(|level| **level == 1).count(), 1, "{name}");
        assert!(headings.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{name}: {headings:?}");
        for landmark in ["header", "nav", "main", "footer"] {
            assert_eq!(
                found.iter().filter(|element| element.name == landmark).count(),
                1,
                "{name}: {landmark}"
            );
        }
    }
}

#[test]
fn a_verdict_has_a_word_and_a_symbol() {
    for (name, report) in all() {
        let symbol = match report.verdict {
            Outcome::Pass => "✓</span> PASS",
            Outcome::Fail => "✗</span> FAIL",
            Outcome::Undecided => "~</span> UNDECIDED",
            Outcome::Unknown => "?</span> UNKNOWN",
        };
        let text = page(report);
        let (head, _) = text.split_once("</h1>").unwrap();
        assert!(head.contains(symbol), "{name}");
    }
}

#[test]
fn every_row_of_a_table_is_as_long_as_its_head() {
    for (name, report) in all() {
        for table in page(report).split("<table>").skip(1) {
            let rows = table.split("</table>").next().unwrap().split("<tr>").skip(1);
            let lengths: Vec<_> =
                rows.map(|row| row.matches("<th ").count() + row.matches("<td").count()).collect();
            assert!(lengths.iter().all(|length| *length == lengths[0]), "{name}: {lengths:?}");
        }
    }
}

#[test]
fn the_worst_gate_comes_first() {
    let text = page(&rich());
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is missing"));
    assert!(at("order must not change an answer") < at("the same bits across batch"));
}

#[test]
fn texts_from_outside_move_no_tag() {
    let names = |text: &str| {
        let found = elements(&page(&with_texts(text)));
        found.into_iter().map(|element| (element.depth, element.name)).collect::<Vec<_>>()
    };
    assert_eq!(names(WICKED), names("tame"));
    let report = with_texts(WICKED);
    let text = page(&report);
    assert!(
        text.contains("{{7*7}}") && text.contains("\\u{202e}evil\\u{1b}[2J"),
        "they are shown as they are"
    );
    for (file, svg) in figures(&report) {
        assert!(!svg.contains("<img") && !svg.contains("<script"), "{file}");
        elements(&svg);
    }
}

#[test]
fn every_figure_stands_alone_and_says_what_it_shows() {
    const NAMESPACE: &str = " xmlns=\"http://www.w3.org/2000/svg\"";
    for (name, report) in all() {
        let figures = figures(report);
        for (file, svg) in &figures {
            assert!(file.ends_with(".svg") && svg.starts_with(&format!("<svg{NAMESPACE}")), "{name}: {file}");
            assert!(!svg.replace(NAMESPACE, "").contains("http"), "{name}: {file}");
            let found = elements(svg);
            let count = |what: &str| found.iter().filter(|element| element.name == what).count();
            assert_eq!([count("title"), count("desc"), count("style")], [1, 1, 1], "{name}: {file}");
            let class =
                |what: &str| found.iter().filter(|element| element.get("class") == Some(what)).count();
            assert!(class("axis") >= 2, "{name}: {file} has no labels");
            assert_eq!(class("head"), 1, "{name}: {file}");
            assert!(svg.len() < 200_000, "{name}: {file} has {} bytes", svg.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf "), "{name}: {file}");
        }
        let names: Vec<_> = figures.iter().map(|(file, _)| file.as_str()).collect();
        match *name {
            "empty" => assert!(names.is_empty()),
            "one" => assert_eq!(names, ["accuracy.svg"]),
            "rich" => assert_eq!(
                names,
                [
                    "cells.svg",
                    "survival.svg",
                    "drift.svg",
                    "moved.svg",
                    "margins.svg",
                    "accuracy.svg",
                    "cost.svg"
                ]
            ),
            _ => {}
        }
    }
}

#[test]
fn every_text_of_a_figure_lies_within_it() {
    for (name, report) in all() {
        for (file, svg) in figures(report) {
            assert!(svg.contains("viewBox=\"0 0 460 "), "{name}: {file} is too wide for a phone");
            for text in svg.split("<text ").skip(1) {
                let get =
                    |name: &str| text.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap();
                let letters = text.split_once('>').unwrap().1.split('<').next().unwrap();
                let letters =
                    letters.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").chars().count();
                let width = letters as f64 * if get("class") == "mono" { 7.9 } else { 7.3 };
                let begin = get("x").parse::<f64>().unwrap()
                    - width
                        * ["start", "middle", "end"]
                            .iter()
                            .position(|known| *known == get("text-anchor"))
                            .unwrap() as f64
                        / 2.0;
                assert!(begin >= 0.0 && begin + width <= 460.0, "{name}: {file}: {text:.200}");
            }
        }
    }
}

#[test]
fn more_cells_that_do_the_same_make_no_interval_narrower() {
    let of = |batches: &str| {
        let mut world = World::new(&format!("[reference]\norder = \"exact\"\n[matrix]\nbatch = {batches}\n"));
        world.traces = (0..world.traces.len()).map(|cell| Some(cell.min(1))).collect();
        world.report(20, parting(3))
    };
    let (one, four) = (of("[1]"), of("[1, 2, 3, 4]"));
    let ends = |report: &Report| {
        let steps = &report.precisions[0].course.as_ref().unwrap().survival;
        let interval = steps.last().unwrap().interval.unwrap();
        [interval.lower, interval.upper]
    };
    for (one, four) in ends(&one).into_iter().zip(ends(&four)) {
        assert!((one - four).abs() < 1e-12, "{one} {four}");
    }
    let margins = |report| figures(report).into_iter().find(|(file, _)| file == "margins.svg");
    assert_eq!(margins(&one), margins(&four));
}

#[test]
fn a_long_course_makes_no_long_curve() {
    let mut report = rich();
    for row in &mut report.precisions {
        let course = row.course.as_mut().unwrap();
        course.drift =
            (0..32_768).map(|place| Drift { outputs: 3, moved: Some(1), most: Some(place as f32) }).collect();
        let share = |place: u64| 1.0 - place as f64 / 40_000.0;
        let step = |tokens| SurvivalRow { tokens, at_risk: 9, part: 1, share: share(tokens), interval: None };
        course.survival = (0..32_768).map(step).collect();
    }
    for (file, svg) in figures(&report) {
        assert!(svg.len() < 120_000, "{file} has {} bytes", svg.len());
    }
    assert!(page(&report).contains("every point stands for 137 tokens"));
}

#[test]
fn a_thousand_cells_fit_and_those_left_out_are_counted() {
    let mut report = thousand(20);
    assert_eq!(report.cells.len(), 1000);
    let text = page(&report);
    assert!(text.len() < 2_000_000, "{}", text.len());
    assert!(text.contains("The 799 cells that agree most are left out"));
    assert_eq!(text.matches("class=\"mono\"").count(), 200);
    let against = report.cells[999].against.clone();
    for row in &mut report.cells {
        row.root = reprocheck::digest::Digest::of(b"one for all");
        row.against = row.against.as_ref().and(against.clone());
    }
    report.cells.push(report.cells[999].clone());
    let text = page(&report);
    assert_eq!(text.matches("class=\"mono\"").count(), 1, "alike cells share a row");
    assert!(text.contains("×1000"));
    assert!(text.contains("1 row more: the JSON has them."));
}

#[test]
fn the_first_other_token_is_marked() {
    let mut report = rich();
    let sides = &report.first.as_ref().unwrap().divergence.sides;
    let tokens = [0, 1].map(|at| sides[at].token.unwrap());
    report.tokens.insert(tokens[0], "3000".to_owned());
    let text = page(&report);
    // The whole token where the text has it, one letter where it has not.
    assert!(text.contains("5055↵\nthen 0505050505050505<mark>3000</mark>000↵\n</pre>"), "{tokens:?}");
    assert!(text.contains("0505<mark>2</mark></pre>"));
    report.first.as_mut().unwrap().divergence.sides[1].text = "0000;".to_owned();
    assert!(page(&report).contains("0000;<mark>end of text</mark></pre>"));
}

#[test]
fn equal_texts_have_no_mark() {
    let text = page(&two("require = \"bits\"", 50, 3));
    assert!(text.contains("Where two cells first part") && !text.contains("<mark>"));
}

/// For a look at them: `PAGES=folder cargo test --test all page:: -- --ignored`.
#[test]
#[ignore = "writes files"]
fn pages_for_a_look() {
    let folder = std::env::var("PAGES").expect("PAGES names a folder");
    for (name, report) in all() {
        std::fs::write(format!("{folder}/{name}.html"), page(report)).unwrap();
        for (file, svg) in figures(report) {
            std::fs::write(format!("{folder}/{name}-{file}"), svg).unwrap();
        }
    }
}
