//! The words that a reader meets, in pages, in help and in what the program says: those that were retired do not come back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reprocheck::{plan::keys, report::Report};

/// Words that no text for readers has, and what stands for them. A phrase is one word after another, over the end of a line too.
const RETIRED: &[(&str, &str)] = &[
    ("nobody", "say what is not known, not done or not there"),
    ("somebody", "name who or what it is"),
    ("anybody", "name who or what it is"),
    ("everybody", "name who or what it is"),
    ("whoever", "name who or what it is"),
    ("really", "leave it out; of an axis: exercised"),
    ("unluckiest", "deepest"),
    ("the machine would not", "an environment error"),
    ("call it otherwise", "choose another name"),
    ("otherwise than", "in another way than"),
    ("goes with nothing", "cannot be compared"),
    ("is no", "is not a"),
    ("are no", "are not"),
    ("is none", "is not one"),
    ("are none", "are not"),
];

/// Behind `is no` these make a comparison, which is no noun denied.
const COMPARATIVES: &[&str] = &[
    "better", "farther", "faster", "higher", "larger", "less", "longer", "more", "slower", "smaller", "worse",
];

/// Retired words in a text, each with its line and what stands for it.
fn retired(text: &str) -> Vec<String> {
    // A word, or a mark, which no phrase goes past.
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (line, text) in text.lines().enumerate() {
        for c in text.chars() {
            if c.is_alphanumeric() && is_open {
                words.last_mut().unwrap().1.extend(c.to_lowercase());
            } else if !c.is_whitespace() {
                words.push((line + 1, c.to_lowercase().collect()));
            }
            is_open = c.is_alphanumeric();
        }
        is_open = false;
    }
    let word = |at: usize| words.get(at).map_or("", |(_, word)| word.as_str());
    let mut found = Vec::new();
    for (at, (line, _)) in words.iter().enumerate() {
        for (phrase, instead) in RETIRED {
            let parts: Vec<_> = phrase.split(' ').collect();
            let is_there = parts.iter().enumerate().all(|(further, part)| word(at + further) == *part);
            let is_denied = !phrase.ends_with(" no") && !phrase.ends_with(" none")
                || at.checked_sub(1).is_none_or(|before| word(before) != "there")
                    && !COMPARATIVES.contains(&word(at + parts.len()));
            if is_there && is_denied {
                found.push(format!("{line} has `{phrase}`: {instead}"));
            }
        }
    }
    found
}

/// What a source says to a reader, in the lines in which it stands: its literals, and where doc comments are help, those; a `|`
/// for all else.
fn told(source: &str, is_help: bool) -> String {
    let mut told = String::new();
    let mut rest = source;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let hashes = |prefix: &str| {
            let behind = rest.strip_prefix(prefix)?;
            let quoted = behind.trim_start_matches('#');
            quoted.starts_with('"').then(|| (prefix.len(), behind.len() - quoted.len()))
        };
        let raw = if before.is_alphanumeric() || before == '_' {
            None
        } else {
            hashes("r").or_else(|| hashes("br"))
        };
        let length = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            match rest[..end].strip_prefix("///") {
                Some(help) if is_help => told.push_str(help),
                _ => told.push('|'),
            }
            end
        } else if let Some((prefix, hashes)) = raw {
            let begin = prefix + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            let text = rest[begin..].find(&end).expect("a raw literal ends");
            told.push('|');
            told.push_str(&rest[begin..begin + text]);
            told.push('|');
            begin + text + end.len()
        } else if first == '"' {
            told.push('|');
            let length = literal(&rest[1..], &mut told);
            told.push('|');
            1 + length
        } else if first == '\'' {
            // A lifetime has no second mark.
            let mut behind = rest[1..].chars();
            match (behind.next(), behind.next()) {
                (Some('\\'), Some(escaped)) => {
                    let known = 2 + escaped.len_utf8();
                    known + rest[known..].find('\'').expect("a character ends") + 1
                }
                (Some(c), Some('\'')) => 2 + c.len_utf8(),
                _ => 1,
            }
        } else {
            told.push(if first.is_whitespace() { first } else { '|' });
            first.len_utf8()
        };
        before = rest[..length].chars().next_back().unwrap();
        rest = &rest[length..];
    }
    told
}

/// Tells what stands in a literal, behind its first mark, and how long it is with its last one.
fn literal(text: &str, told: &mut String) -> usize {
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return at + 1,
            '\\' => match letters.next().expect("something is escaped").1 {
                '\n' => told.push('\n'),
                'n' | 'r' | 't' => told.push(' '),
                escaped => told.push(escaped),
            },
            c => told.push(c),
        }
    }
    panic!("a literal ends");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder that end so, and those of its folders.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_str().unwrap().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn no_text_for_readers_has_a_retired_word() {
    let mut pages: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "src/report/page.html"].map(|page| root().join(page)).into();
    pages.extend(files(&root().join("docs"), ".md"));
    let sources = files(&root().join("src"), ".rs");
    assert!(pages.len() > 12 && sources.len() > 100, "the texts are not where this test looks");
    let mut texts: Vec<_> = [("report", Report::schema()), ("matrix", keys::schema())]
        .map(|(name, schema)| (format!("the schema of a {name}"), format!("{schema:#}")))
        .into();
    for path in pages.iter().chain(&sources) {
        let text = fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = if sources.contains(path) { told(&text, name.starts_with("src/cli/")) } else { text };
        texts.push((name, text));
    }
    let found = texts
        .iter()
        .flat_map(|(name, text)| retired(text).into_iter().map(move |what| format!("{name}:{what}")));
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_retired_word_is_seen_in_every_spelling_and_at_its_line() {
    for (text, line) in [
        ("Nobody knows.", 1),
        ("a\nb (somebody's)", 2),
        ("this is no\npass", 1),
        ("| 4 | the machine\nwould not |", 1),
        ("it may be\n**really** so", 2),
        ("`7` is none of these", 1),
        ("where there is none, it is none", 1),
    ] {
        let found = retired(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].starts_with(&format!("{line} has ")), "{text:?}: {found:?}");
    }
    for text in [
        "There is no server, and there\nare none to name.",
        "it is no longer there, and is no more than that",
        "what is, no doubt, not reallyd",
        "this is not a pass; no gate holds",
    ] {
        assert_eq!(retired(text), [""; 0], "{text:?}");
    }
}

#[test]
fn literals_and_help_are_told_and_code_is_not() {
    let help =
        |text: &str| told(text, true).replace('|', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for (source, text) in [
        ("let nobody = f(\"a \\\"b\\\" c\");", "a \"b\" c"),
        ("f(\"one \\\n         two\\nthree\")", "one two three"),
        ("f(r\"a\\\") + r#\"b \"c\" d\"# + br##\"e\"# f\"##", "a\\ b \"c\" d e\"# f"),
        ("fn f<'a>(c: char, s: &'a str) { c == '\"' || c == '\\'' || c == '\\\\' || s == \"x\" }", "x"),
        ("let c = '\\u{22}'; // \"a comment\"\nf(\"y\")", "y"),
        ("for\"a\"", "a"),
    ] {
        assert_eq!(help(source), text, "{source}");
    }
    let source = "//! Not help.\n/// Is help,\n/// in two lines.\n// Not this.\nfn f() {}";
    assert_eq!(help(source), "Is help, in two lines.");
    assert_eq!(told(source, false).replace(['|', ' '], "").trim(), "");
    assert_eq!(told("a\n\"b\nc\"\n", false), "|\n|b\nc|\n", "lines stay lines");
}
