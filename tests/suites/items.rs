//! What every suite promises of its items, and every mistake in a suite's file.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
};

use reprocheck::suite::{
    Suite, embedded::SUITES, generate::GENERATORS, item::Item, score::Outcome, style::Style,
};

fn taken(suite: &Suite, seed: u64, count: usize) -> Vec<Item> {
    suite.items(seed).take(count).collect()
}

#[test]
fn every_suite_in_its_folder_is_in_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    // A suite of lines, such as `border`, is named by its path.
    let is_made = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("suite.toml")).is_ok_and(|text| text.contains("\ngenerator = "))
    };
    let folders = folders.filter(is_made);
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, SUITES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

#[test]
fn every_generator_makes_a_suite() {
    let made: HashSet<_> = Suite::all().map(|suite| suite.maker()).collect();
    for (name, _) in GENERATORS {
        assert!(made.contains(&format!("generator {name}")), "{name}");
    }
}

#[test]
fn fewer_items_are_the_first_of_more_and_a_seed_decides_all() {
    for suite in Suite::all() {
        let all = taken(&suite, 3, 400);
        assert_eq!(taken(&suite, 3, 150), all[..150], "{}", suite.name);
        assert_eq!(taken(&Suite::open(&suite.name).unwrap(), 3, 400), all);
        let other = taken(&suite, 4, 400);
        let same = all.iter().zip(&other).filter(|(one, other)| one.problem == other.problem).count();
        // Fixed items and tiny strata may agree.
        assert!(same < 40, "{}: {same}", suite.name);
    }
}

#[test]
fn an_item_has_its_place_its_name_and_a_question_of_its_own() {
    for suite in Suite::all() {
        // Nine digits look alike whether their commas are set from the left or from the right.
        if suite.name == "tok_chunk" {
            continue;
        }
        let mut questions = HashSet::new();
        for (at, item) in (0..).zip(taken(&suite, 0, suite.sizes.std as usize)) {
            assert_eq!((item.index, item.id), (at, format!("{}-v1-s0-{at:06}", suite.name)));
            assert_eq!(item.duplicate, !questions.insert(item.problem.question), "{} {at}", suite.name);
        }
    }
}

/// Such a suite has room for so many and repeats itself nowhere; the others have strata of few numbers, of which all are
/// met before any is met again.
#[test]
fn questions_repeat_only_where_a_stratum_has_no_more() {
    const ROOM: [&str; 8] = [
        "carry_chain",
        "digit_ops",
        "exec_trace",
        "list_stats",
        "street_approx",
        "tok_chunk",
        "word_checklist",
        "word_symbolic",
    ];
    for suite in Suite::all() {
        let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
        for item in suite.items(0).take(30_000).filter(|item| item.duplicate) {
            *repeated.entry(item.problem.stratum).or_default() += 1;
        }
        assert!(repeated.is_empty() || !ROOM.contains(&suite.name.as_str()), "{}: {repeated:?}", suite.name);
    }
    let products = Suite::open("mul_ladder").unwrap();
    let ones = products.items(0).filter(|item| item.problem.stratum == "1x1").take(200);
    let fresh = ones.filter(|item| !item.duplicate).count();
    // Of a hundred pairs of digits.
    assert!((95..=100).contains(&fresh), "{fresh}");
}

#[test]
fn the_first_items_hold_every_stratum_alike() {
    // Another test counts those of perturb_num.
    for suite in Suite::all().filter(|suite| suite.name != "perturb_num") {
        // Behind those that are fixed.
        let fixed = if suite.name == "carry_chain" { 10 } else { 0 };
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for item in taken(&suite, 0, suite.sizes.full as usize).split_off(fixed) {
            *counts.entry(item.problem.stratum).or_default() += 1;
        }
        let mut quick: BTreeMap<String, u64> = counts.keys().map(|stratum| (stratum.clone(), 0)).collect();
        for item in taken(&suite, 0, suite.sizes.quick as usize).split_off(fixed) {
            *quick.get_mut(&item.problem.stratum).unwrap() += 1;
        }
        for (stratum, count) in counts {
            // The share that a stratum has of all, give or take one, holds among the first as well.
            let share = count * suite.sizes.quick / suite.sizes.full;
            assert!(
                quick[&stratum].abs_diff(share) <= 2,
                "{} {stratum}: {} of {share}",
                suite.name,
                quick[&stratum]
            );
        }
    }
}

#[test]
fn what_is_shown_as_right_is_scored_as_right() {
    for suite in Suite::all() {
        for style in Style::ALL.iter().copied().filter(|style| suite.limits.of(*style).is_some()) {
            let items: Vec<_> =
                suite.items(1).take(300).filter(|item| item.problem.prompt(style).is_some()).collect();
            assert!(!items.is_empty(), "{} has no item of the style {style}", suite.name);
            for item in items {
                let text = item.problem.shown(style);
                let scores = suite.score(&item, style, &text, false);
                let outcomes = [scores.strict.outcome, scores.flexible.outcome];
                assert_eq!(
                    outcomes,
                    [Outcome::Correct; 2],
                    "{} {style}: {text} of {:?}",
                    item.id,
                    item.problem.answer
                );
                let most = suite.limits.of(style).unwrap();
                assert!(
                    text.len() < most || style == Style::Completion,
                    "{} {style}: {} of {most}",
                    item.id,
                    text.len()
                );
                // A text that broke off within it is not.
                if style == Style::Compact {
                    let cut = suite.score(&item, style, &text[..text.len() - 1], true);
                    assert_eq!(cut.strict.outcome, Outcome::Truncated, "{}", item.id);
                }
            }
        }
    }
}

#[test]
fn a_wrong_answer_is_wrong() {
    for suite in Suite::all() {
        for item in suite.items(2).take(200) {
            let answer = &item.problem.answer;
            let changed: String = match answer.text.chars().position(|c| c.is_ascii_digit()) {
                // Another first digit; an estimate forgives as little as a fifth.
                Some(at) => {
                    let digit = answer.text[at..].chars().next().unwrap().to_digit(10).unwrap();
                    let other = if digit < 5 { 9 } else { 1 };
                    format!("{}{other}{}", &answer.text[..at], &answer.text[at + 1..])
                }
                None => format!("not {}", answer.text),
            };
            let scores = suite.score(&item, Style::Chat, &format!("Answer: {changed}"), false);
            assert_eq!(scores.strict.outcome, Outcome::Wrong, "{}: {changed} for {answer:?}", item.id);
        }
    }
}

#[test]
fn examples_are_of_the_same_stratum_and_no_items() {
    for suite in Suite::all() {
        let items = taken(&suite, 0, 300);
        let questions: HashSet<_> = items.iter().map(|item| item.problem.prompt(Style::Completion)).collect();
        let mut met = 0;
        for item in &items {
            let asked = suite.asked(item, 0, Style::Completion, 3).unwrap();
            // A fixed item has no others of its kind.
            let expected = if item.problem.stratum == "edge" || suite.name == "perturb_num" && item.index < 6
            {
                0
            } else {
                3
            };
            assert_eq!(asked.shots.len(), expected, "{}", item.id);
            for (question, answer) in asked.shots {
                assert!(question != asked.prompt, "{}: {question}", item.id);
                assert!(answer.starts_with(' ') && answer.len() > 1, "{answer}");
                met += usize::from(questions.contains(&Some(question)));
            }
        }
        // Strata of few numbers may meet one by chance.
        assert!(met <= 120, "{}: {met}", suite.name);
    }
}

fn wrong(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("suite.toml");
    fs::write(&file, text).unwrap();
    let error = Suite::open(&format!("{}/", folder.path().display())).err().expect(text);
    error.to_string().replace(&folder.path().display().to_string(), ".").replace("//", "/")
}

#[test]
fn a_mistake_in_a_suites_file_is_told_with_its_place_and_the_way_out() {
    const HEAD: &str = "version = 1\ntitle = \"t\"\nmeasures = \"m\"\nlimits = { completion = 8 }\n";
    const ITEMS: &str = "items = { quick = 1, std = 2, full = 3 }\n";
    let carry = |parameters: &str| wrong(&format!("{HEAD}{ITEMS}generator = \"carry_chain\"\n{parameters}"));
    let cases = [
        (
            wrong("version = 1\ntitel = \"t\"\n"),
            "./suite.toml:2: unknown field `titel`, expected one of `version`, `title`, `measures`, `sources`, `limits`, \
             `generator`, `items`, `parameters`, `file`, `format`, `shots`\n  | titel = \"t\"\n  | ^^^^^",
        ),
        (
            wrong("version = 1\ntitle = \n"),
            "./suite.toml:2: string values must be quoted, expected literal string\n  | title = \n  |         ^",
        ),
        (
            wrong(HEAD),
            "./suite.toml: nothing says where the items come from: name a `generator`, or the `file` beside this one \
             that holds them",
        ),
        (
            wrong(&format!("{HEAD}generator = \"carry_chain\"\n")),
            "./suite.toml: `items` is missing: say how many, such as items = { quick = 60, std = 500, full = 4000 }",
        ),
        (
            wrong(&format!("{HEAD}{ITEMS}generator = \"cary_chain\"\n")),
            "./suite.toml:6: `cary_chain` is not a generator: write one of carry_chain, digit_ops, divmod, exec_trace, \
             expr_chain, gpt3_arith, list_stats, mul_ladder, number_theory, nupa_core, perturb_num, sequence_next, \
             street_approx, tok_chunk, word_checklist, word_symbolic\n  | generator = \"cary_chain\"\n  |             ^^^^^^^^^^^^",
        ),
        (
            wrong(&format!("{HEAD}{ITEMS}generator = \"carry_chain\"\nfile = \"x.jsonl\"\n")),
            "./suite.toml:7: a suite has a `generator` or a `file`: take one of them out\n  | file = \"x.jsonl\"\n  |        ^^^^^^^^^",
        ),
        (carry(""), "./suite.toml: [parameters]: missing field `digits`"),
        (
            carry("[parameters]\ndigits = 8\nchain = 3\n"),
            "./suite.toml:9: unknown field `chain`, expected `digits` or `chains`\n  | chain = 3\n  | ^^^^^",
        ),
        (
            carry("[parameters]\ndigits = 80\nchains = { from = 0, to = 7 }\n"),
            "./suite.toml:7: `digits` is 80: take a number from 2 to 18\n  | [parameters]\n  | ^^^^^^^^^^^^",
        ),
        (
            carry("[parameters]\ndigits = 8\nchains = { from = 0, to = 8 }\n"),
            "./suite.toml:7: `chains` goes from 0 to 8: stay between 0 and 7, the smaller number first\n  | [parameters]\n  | ^^^^^^^^^^^^",
        ),
        (
            wrong(&format!("{HEAD}file = \"x.jsonl\"\nitems = {{ quick = 1, std = 2, full = 3 }}\n")),
            "./suite.toml:5: `items` and `parameters` belong to a suite with a `generator`, and all lines of a file are \
             items: take them out\n  | file = \"x.jsonl\"\n  |        ^^^^^^^^^",
        ),
        (
            wrong(&format!("{HEAD}file = \"x.jsonl\"\n")),
            "./x.jsonl: cannot be read (No such file or directory (os error 2)): check the path and who may read it",
        ),
        (
            wrong(&format!(
                "{HEAD}{ITEMS}generator = \"word_checklist\"\n[parameters]\ntemplates = \"word_symbolc\"\n"
            )),
            "./suite.toml:8: there is no suite `word_symbolc`: did you mean `word_symbolic`? `reprocheck list suites` \
             names them, and a path to your own has a slash, such as `./word_symbolc`\n  | templates = \"word_symbolc\"\n  \
             |             ^^^^^^^^^^^^^^",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}

#[test]
fn a_suite_of_ones_own_is_a_folder_and_needs_no_rust() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("short_sums");
    fs::create_dir(&own).unwrap();
    let text = SUITES.iter().find(|(name, _)| *name == "carry_chain").unwrap().1;
    fs::write(own.join("suite.toml"), text.replace("digits = 8", "digits = 4").replace("to = 7", "to = 3"))
        .unwrap();
    for path in [own.clone(), own.join("suite.toml")] {
        let suite = Suite::open(path.to_str().unwrap()).unwrap();
        assert_eq!(suite.name, "short_sums");
        let item = suite.items(0).nth(12).unwrap();
        assert_eq!((item.problem.operands[0].len(), item.id.as_str()), (4, "short_sums-v1-s0-000012"));
    }
}

#[test]
fn an_export_comes_back_as_the_same_questions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("items.jsonl");
    for suite in Suite::all() {
        let items = taken(&suite, 5, 60);
        let lines: Vec<_> = items.iter().map(|item| suite.record(item, 5, 0)).collect();
        fs::write(&file, lines.join("\n")).unwrap();
        let brought = Suite::open(file.to_str().unwrap()).unwrap();
        let back: Vec<_> = brought.items(0).collect();
        assert_eq!(back.len(), items.len());
        for (item, back) in items.iter().zip(&back) {
            assert_eq!((&back.id, &back.problem.question), (&item.id, &item.problem.question));
            assert_eq!(back.problem.answer, item.problem.answer);
            assert_eq!(
                (&back.problem.stratum, &back.problem.cluster),
                (&item.problem.stratum, &item.problem.cluster)
            );
        }
    }
}

#[test]
fn lines_beside_a_suites_file_are_its_items_with_examples_from_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "suite.toml",
        "version = 3\ntitle = \"t\"\nmeasures = \"m\"\nlimits = { completion = 400, chat = 500 }\n\
         file = \"test.jsonl\"\nformat = \"gsm8k\"\nshots = \"train.jsonl\"\n",
    );
    write("test.jsonl", "{\"question\": \"2 and 2?\", \"answer\": \"2 + 2 = 4\\n#### 4\"}\n");
    write(
        "train.jsonl",
        "{\"question\": \"1 and 1?\", \"answer\": \"#### 2\"}\n{\"question\": \"3?\", \"answer\": \"#### 3\"}\n",
    );
    let suite = Suite::open(folder.path().to_str().unwrap()).unwrap();
    let items = taken(&suite, 0, 10);
    let asked = suite.asked(&items[0], 0, Style::Completion, 1).unwrap();
    assert_eq!(asked.text(), "Question: 1 and 1?\nAnswer: 2\n\nQuestion: 2 and 2?\nAnswer:");
    assert_eq!((suite.version, suite.stop(Style::Completion)), (3, &["Question:"][..]));
    // A solution has several lines, and its first is no answer even where it looks like one.
    let solution = " 2\nand 2 make 4.\n#### 4";
    assert_eq!(suite.score(&items[0], Style::Completion, solution, false).strict.outcome, Outcome::Correct);
    assert!(suite.asked(&items[0], 0, Style::Compact, 0).is_none());
}
