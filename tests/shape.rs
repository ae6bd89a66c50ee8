//! The layers hold: who uses whom, who may reduce floats, print, write, exit or be unsafe, read off the sources.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

/// The modules at the root of the crate, each with its layer: one uses only those below it and itself.
const LAYERS: &[(&str, u32)] = &[
    ("http", 0),
    ("json_float", 0),
    ("name", 0),
    ("numerics", 1),
    ("digest", 2),
    ("source", 2),
    ("stats", 2),
    ("cell", 3),
    ("model", 3),
    ("suite", 3),
    ("trace", 3),
    ("compare", 4),
    ("cause", 4),
    ("engine", 4),
    ("plan", 5),
    ("record", 6),
    ("verdict", 7),
    ("report", 8),
    ("store", 8),
    ("parity", 9),
    ("run", 9),
    ("attest", 10),
    ("cli", 11),
];

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The module path of a file under `src`: `numerics/kernel/mod.rs` is `[numerics, kernel]`.
fn module_of(path: &str) -> Vec<&str> {
    let mut module: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib" | "main"))) {
        module.pop();
    }
    module
}

/// The code alone: comments, and what stands between quotation marks, are left out; lines stay lines.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if ["'\"'", "'\\\"'", "'{'", "'}'"].iter().any(|quoted| rest.starts_with(quoted)) {
            rest[1..].find("'").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|&(_, c)| {
                let end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                end
            });
            end.map_or(rest.len(), |(end, _)| end + 1)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (gone, left) = rest.split_at(skipped);
        code.extend(gone.chars().filter(|&c| c == '\n'));
        rest = left;
    }
    code
}

/// Everything a file imports, as full paths; a nested list gives one path for each of its entries.
fn imports(path: &str, text: &str) -> Vec<Vec<String>> {
    let paths = imported(path, text).into_iter().filter_map(|(module, import)| full(&module, &import));
    paths.collect()
}

/// Everything a file imports as it writes it, and the module that it stands in.
fn imported(path: &str, text: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let code = code(text);
    let module = module_of(path);
    let mut found = Vec::new();
    let mut end = 0;
    for statement in code.split(';') {
        let begin = end;
        end += statement.len() + 1;
        // A `use` begins a line, perhaps after `pub` or the brace that opened a module.
        let Some(start) = statement.rmatch_indices("use ").map(|(at, _)| at).find(|&at| {
            statement[..at].chars().next_back().is_none_or(|before| before.is_whitespace() || before == '{')
        }) else {
            continue;
        };
        let mut imports = Vec::new();
        spread(&statement[start + "use ".len()..], &[], &mut imports);
        let inside = modules_open_at(&code[..begin + start]);
        let module: Vec<_> = module.iter().copied().chain(inside).map(str::to_owned).collect();
        found.extend(imports.into_iter().map(|import| (module.clone(), import)));
    }
    found
}

/// A path in the code of a module from the root of the crate on; nothing where it leads out of the crate.
fn full(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (up, rest) = match path.first().map(String::as_str)? {
        "crate" | "reprocheck" => (module.len(), &path[1..]),
        "self" => (0, &path[1..]),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            (up, &path[up..])
        }
        _ => return None,
    };
    let base = &module[..module.len().saturating_sub(up)];
    let full: Vec<_> = base.iter().chain(rest).cloned().collect();
    (!full.is_empty()).then_some(full)
}

/// Every path in the code of a file that needs no import, as a full path.
fn named(path: &str, text: &str) -> Vec<Vec<String>> {
    let code = code(text);
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for head in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(head) {
            if code[..at].chars().next_back().is_some_and(is_part) {
                continue;
            }
            let end = code[at..].find(|c| !is_part(c)).map_or(code.len(), |end| at + end);
            let parts = code[at..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned);
            let parts: Vec<_> = parts.collect();
            let module = module_of(path).into_iter().chain(modules_open_at(&code[..at])).map(str::to_owned);
            found.extend(full(&module.collect::<Vec<_>>(), &parts));
        }
    }
    found
}

/// Files that use one another in a circle.
#[derive(PartialEq, Eq, Debug)]
struct Circle {
    folder: String,
    /// All files that can be reached from each of them.
    files: Vec<String>,
    /// The shortest way around from the first of them.
    way: Vec<String>,
}

impl Circle {
    fn sentence(&self) -> String {
        let Circle { folder, files, way } = self;
        format!(
            "in `{folder}` the files {} use one another in a circle ({}): move what they share to a file below them",
            files.join(", "),
            way.join(" → ")
        )
    }
}

/// Every circle among the files of one folder; a folder in it counts as one file, and its `mod.rs` is above all of them. What
/// a `mod.rs` imports is known under its name there, too, and counts as the file that has it.
fn circles(sources: &[(String, String)]) -> Vec<Circle> {
    // Tests may hold a file against those above it.
    let sources =
        sources.iter().map(|(path, text)| (path, text.split("#[cfg(test)]\nmod").next().unwrap_or(text)));
    let sources: Vec<_> = sources.collect();
    let owned = |path: &str| module_of(path).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|(path, _)| owned(path)).collect();
    let mut known: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
    for (path, text) in &sources {
        for (module, import) in imported(path, text).into_iter().filter(|(module, _)| *module == owned(path))
        {
            // A path may begin at a module of one's own.
            let child: Vec<_> = module.iter().chain(&import).cloned().collect();
            let is_child = modules.contains(&child[..module.len() + 1]);
            let full = if is_child { Some(child) } else { full(&module, &import) };
            known.entry(module).or_default().extend(full);
        }
    }
    // The file that a path leads to.
    let resolved = |mut path: Vec<String>| {
        // No name is handed on more often.
        for _ in 0..9 {
            let file = (0..=path.len()).rev().find(|&end| modules.contains(&path[..end])).unwrap_or(0);
            let Some(name) = path.get(file) else { break };
            let found =
                known.get(&path[..file]).and_then(|all| all.iter().find(|full| full.last() == Some(name)));
            match found {
                Some(full) if full[..] != path[..=file] => {
                    path = full.iter().chain(&path[file + 1..]).cloned().collect();
                }
                _ => {
                    path.truncate(file);
                    break;
                }
            }
        }
        path
    };
    let mut folders: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (path, text) in &sources {
        let own = owned(path);
        for used in imports(path, text).into_iter().chain(named(path, text)) {
            let used = resolved(used);
            let shared = own.iter().zip(&used).take_while(|(own, used)| own == used).count();
            if let (Some(from), Some(to)) = (own.get(shared), used.get(shared)) {
                let files = folders.entry(own[..shared].to_vec()).or_default();
                files.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let mut circles = Vec::new();
    for (folder, uses) in &folders {
        let mut told = BTreeSet::new();
        for first in uses.keys() {
            let Some(way) = around(uses, first) else { continue };
            let on_circle = |file: &&String| {
                **file == *first
                    || way_from(uses, first, file).is_some() && way_from(uses, file, first).is_some()
            };
            let files: Vec<_> = uses.keys().filter(on_circle).cloned().collect();
            if told.insert(files.clone()) {
                circles.push(Circle { folder: folder.join("/"), files, way });
            }
        }
    }
    circles
}

/// The shortest way from a file to itself.
fn around(uses: &BTreeMap<String, BTreeSet<String>>, file: &str) -> Option<Vec<String>> {
    way_from(uses, file, file)
}

/// The shortest way from one file to another over those that each uses.
fn way_from(uses: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            let longer: Vec<_> = way.iter().chain([next]).cloned().collect();
            if next == to {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The modules inside a file that are open where this text ends: the file itself is `super` to its tests.
fn modules_open_at(code: &str) -> Vec<&str> {
    let mut open = Vec::new();
    for (at, brace) in code.match_indices(['{', '}']) {
        if brace == "}" {
            open.pop();
        } else {
            let mut words = code[..at].split_whitespace().rev();
            open.push(words.next().filter(|_| words.next() == Some("mod")));
        }
    }
    open.into_iter().flatten().collect()
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn spread(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some(list) = tree.strip_prefix('{') {
        let list = list.strip_suffix('}').unwrap_or(list);
        let mut depth = 0;
        let commas = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        for entry in list.split(commas).filter(|entry| !entry.trim().is_empty()) {
            spread(entry, before, found);
        }
        return;
    }
    let (head, tail) = match tree.split_once("::") {
        // The head of `a` or of `a as b`.
        None => (tree.split(' ').next().unwrap_or_default(), None),
        Some((head, tail)) => (head.trim(), Some(tail)),
    };
    let path: Vec<_> = before.iter().cloned().chain([head.to_owned()]).collect();
    match tail {
        Some(tail) => spread(tail, &path, found),
        None => found.push(path),
    }
}

/// A module uses only modules of lower layers, and itself.
fn uses_upward(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let Some((&own, own_layer)) = module.first().and_then(|own| Some((own, layer(own)?))) else {
        // The root itself is above all layers.
        return Vec::new();
    };
    let mut used: Vec<String> = imports(path, text).into_iter().map(|mut import| import.remove(0)).collect();
    // Paths in the code need no import.
    let code = code(text);
    used.extend(code.match_indices("crate::").filter_map(|(at, head)| {
        let name = code[at + head.len()..].split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }));
    used.sort_unstable();
    used.dedup();
    let others = used.iter().filter(|used| *used != own);
    let upward =
        others.filter_map(|used| Some((used, layer(used)?))).filter(|(_, layer)| *layer >= own_layer);
    upward.map(|(used, layer)| format!("{path} (layer {own_layer}) uses {used} (layer {layer})")).collect()
}

/// A module at the root that has no layer would be held to nothing.
fn has_no_layer(path: &str, _: &str) -> Vec<String> {
    match module_of(path).first() {
        Some(&module) if layer(module).is_none() => {
            vec![format!("{path} belongs to `{module}`, which has no layer: give it one in tests/shape.rs")]
        }
        _ => Vec::new(),
    }
}

/// The lines of code in which one of these words stands.
fn lines_with(path: &str, text: &str, words: &[&str], why: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in code(text).lines().enumerate() {
        // A word is not part of a longer one: `eprintln!` is not `println!`.
        let stands = |word: &str| {
            line.match_indices(word).any(|(at, _)| {
                let inside = |c: char| c.is_alphanumeric() || c == '_';
                let (before, after) =
                    (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
                !(word.starts_with(inside) && before.is_some_and(inside)
                    || word.ends_with(inside) && after.is_some_and(inside))
            })
        };
        if let Some(word) = words.iter().find(|word| stands(word)) {
            found.push(format!("{path}:{} has `{word}`: {why}", number + 1));
        }
    }
    found
}

/// A sum has an order and an elementary function has bits: both are decided in `numerics` alone.
fn reduces_floats(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("numerics/") {
        return Vec::new();
    }
    let mut words = Vec::new();
    for float in ["f32", "f64"] {
        words.push(format!(".sum::<{float}"));
        words.push(format!(".product::<{float}"));
    }
    let functions = [
        "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "sin", "cos", "tan", "sin_cos",
        "sinh", "cosh", "tanh", "asin", "acos", "atan", "atan2", "powf", "cbrt", "hypot", "mul_add",
    ];
    for function in functions {
        words.push(format!(".{function}("));
        words.extend(["f32", "f64", "libm"].map(|owner| format!("{owner}::{function}")));
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    lines_with(path, text, &words, "arithmetic that can move a bit belongs in numerics")
}

fn is_unsafe_elsewhere(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("numerics/kernel/") {
        return Vec::new();
    }
    lines_with(path, text, &["unsafe"], "only numerics/kernel may be unsafe")
}

fn prints_elsewhere(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("cli/") {
        return Vec::new();
    }
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "io::stdout", "io::stderr"];
    lines_with(path, text, &words, "only cli prints")
}

/// Results come from `store` alone. The cache of the Hub has its own files, and the doctor tries whether it may have any.
fn writes_elsewhere(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("store/") || path.starts_with("model/hub/") || path == "cli/doctor.rs" {
        return Vec::new();
    }
    let words = [
        "fs::write",
        "File::create",
        "File::create_new",
        "OpenOptions",
        "fs::rename",
        "fs::copy",
        "fs::hard_link",
        "fs::create_dir",
        "fs::create_dir_all",
        "fs::remove_file",
        "fs::remove_dir",
        "fs::remove_dir_all",
    ];
    lines_with(path, text, &words, "only store writes results")
}

fn exits(path: &str, text: &str) -> Vec<String> {
    lines_with(
        path,
        text,
        &["process::exit", "process::abort"],
        "only main ends the program, by its return value",
    )
}

fn opens_without_a_sentence(path: &str, text: &str) -> Vec<String> {
    let sentence = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    match sentence {
        Some(sentence) if !sentence.trim().is_empty() => Vec::new(),
        _ => vec![format!("{path} does not open with a `//!` line that says what it is")],
    }
}

/// Every source file, as its path under `src` and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort_unstable();
    let name = |path: &Path| {
        let parts = path.strip_prefix(&root).unwrap().iter().map(|part| part.to_str().unwrap());
        parts.collect::<Vec<_>>().join("/")
    };
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn hold(check: fn(&str, &str) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 10, "the sources are not where this test looks");
    let found: Vec<_> = sources.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_module_uses_only_lower_layers() {
    hold(uses_upward);
    hold(has_no_layer);
}

#[test]
fn no_files_of_one_folder_use_one_another_in_a_circle() {
    let wrong: Vec<_> = circles(&sources()).iter().map(Circle::sentence).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn floats_are_reduced_in_numerics_only() {
    hold(reduces_floats);
}

#[test]
fn only_the_kernel_is_unsafe() {
    hold(is_unsafe_elsewhere);
}

#[test]
fn only_the_command_line_prints_and_nobody_exits() {
    hold(prints_elsewhere);
    hold(exits);
}

#[test]
fn only_the_store_writes_results() {
    hold(writes_elsewhere);
}

#[test]
fn every_file_opens_with_what_it_is() {
    hold(opens_without_a_sentence);
}

#[test]
fn an_upward_use_is_seen_in_every_spelling() {
    let sentence = ["numerics/order.rs (layer 1) uses cli (layer 11)"];
    for text in [
        "use crate::cli;",
        "use crate::cli::main;",
        "use crate::{numerics::tree::Tree, cli::{self, main}};",
        "//! A file.\n\nuse std::fmt;\npub use crate::cli as words;",
        "use super::super::cli::main;",
        "#[cfg(test)]\nmod tests {\n    use crate::cli::main;\n}",
        "mod tests {\n    use super::super::super::cli::main;\n}",
        "fn f() {\n    use super::super::cli::main;\n}",
        "fn f() { crate::cli::main(); }",
        "pub(crate) use crate::{\n    cli::{\n        Exit,\n    },\n};",
    ] {
        assert_eq!(uses_upward("numerics/order.rs", text), sentence, "{text}");
    }
    let text = "use super::super::super::cli::Exit;";
    assert_eq!(
        uses_upward("numerics/kernel/tile.rs", text),
        ["numerics/kernel/tile.rs (layer 1) uses cli (layer 11)"]
    );
    assert_eq!(
        uses_upward("numerics/mod.rs", "use super::cli;"),
        ["numerics/mod.rs (layer 1) uses cli (layer 11)"]
    );
    // A neighbor in the same layer is no lower layer.
    assert_eq!(uses_upward("source.rs", "use crate::stats;"), ["source.rs (layer 2) uses stats (layer 2)"]);
    assert_eq!(
        uses_upward("plan/mod.rs", "use crate::{report, run};"),
        ["plan/mod.rs (layer 5) uses report (layer 8)", "plan/mod.rs (layer 5) uses run (layer 9)"]
    );
}

#[test]
fn a_downward_use_passes() {
    for (path, text) in [
        ("cli/dot.rs", "use super::{Exit, complain};\nuse crate::numerics::order::Order;"),
        ("numerics/order.rs", "use super::tree::Tree;\nuse std::{cli::x, run};\n// use crate::cli;"),
        ("numerics/order.rs", "const HELP: &str = \"use crate::cli;\";"),
        ("engine.rs", "use crate::{model::Model, numerics::kernel::Kernel};"),
        // To its tests the file is `super`: this is its own function.
        ("plan.rs", "mod tests {\n    use super::run;\n    fn f() { g(); }\n    use super::{cli, run};\n}"),
        ("lib.rs", "use crate::cli;"),
        ("main.rs", "use reprocheck::cli;"),
    ] {
        assert_eq!(uses_upward(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn a_circle_of_files_is_seen_in_every_spelling() {
    let ways = |files: &[(&str, &str)]| {
        let sources: Vec<_> =
            files.iter().map(|(path, text)| (format!("report/{path}.rs"), (*text).to_owned())).collect();
        circles(&sources).iter().map(|circle| circle.way.join(" → ")).collect::<Vec<_>>()
    };
    let exports = ("mod", "mod a;\nmod b;\npub use b::B;\nuse self::a::{A, other};");
    for a in [
        "use super::b::B;",
        "use super::{a::A, b::{self, B}};",
        "use super::B;",
        "use crate::report::B;",
        "fn f() { crate::report::b::g(); }",
        "fn f() -> super::B { B }",
        "mod inside {\n    use super::super::B;\n}",
        "mod inside {\n    fn f() { super::super::b::g(); }\n}",
    ] {
        assert_eq!(ways(&[exports, ("a", a), ("b", "use super::A;")]), ["a → b → a"], "{a}");
        assert_eq!(ways(&[exports, ("a", a), ("b", "use super::Mine;")]), [""; 0], "{a}");
    }
    // A folder is as one file, inside it there may be another circle, and what is handed on twice is found.
    let files = [
        ("mod", "mod a;\nmod b;\npub use b::Deep;"),
        ("a", "use super::Deep;"),
        ("b/mod", "mod x;\nmod y;\npub use x::Deep;"),
        ("b/x", "use super::y::Y;"),
        ("b/y", "use super::super::{a::A, Deep};"),
    ];
    assert_eq!(ways(&files), ["a → b → a", "x → y → x"]);
    let test = "#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}";
    assert_eq!(ways(&[exports, ("a", test), ("b", "use super::A;")]), [""; 0], "a test may look up");
    // A parent and its children are one room.
    assert_eq!(ways(&[("mod", "mod a;\nuse a::A;\nfn f() {}"), ("a", "use super::f;")]), [""; 0]);
}

#[test]
fn a_module_without_a_layer_is_seen() {
    assert_eq!(has_no_layer("util/strings.rs", "").len(), 1);
    assert_eq!(has_no_layer("cli/dot.rs", "").len(), 0);
    assert_eq!(has_no_layer("main.rs", "").len(), 0);
}

#[test]
fn a_float_reduction_outside_numerics_is_seen() {
    for text in [
        "let x = values.iter().sum::<f32>();",
        "let x = values.iter().product::<f64>();",
        "let x = y.exp();",
        "values.map(f32::exp)",
        "values.map(f64::sin)",
        "libm::erf(x) + libm::exp(x)",
        "x.mul_add(y, z)",
    ] {
        assert_eq!(reduces_floats("model/norm.rs", text).len(), 1, "{text}");
        assert_eq!(reduces_floats("numerics/elementary.rs", text).len(), 0, "{text}");
    }
    for text in ["counts.iter().sum::<usize>()", "// y.exp()", "reader.expect(x)", "numerics.exp(x, y)"] {
        let seen = reduces_floats("model/norm.rs", text).len();
        assert_eq!(seen, usize::from(text.contains(".exp(") && !text.starts_with("//")), "{text}");
    }
    assert_eq!(
        reduces_floats("model/norm.rs", "//! Norms.\nlet x = y.sin();"),
        ["model/norm.rs:2 has `.sin(`: arithmetic that can move a bit belongs in numerics"]
    );
}

#[test]
fn unsafe_code_outside_the_kernel_is_seen() {
    let text = "fn f() {\n    unsafe { g() }\n}";
    assert_eq!(is_unsafe_elsewhere("numerics/exact.rs", text).len(), 1);
    assert_eq!(is_unsafe_elsewhere("numerics/kernel/tile.rs", text).len(), 0);
    assert_eq!(is_unsafe_elsewhere("cli/dot.rs", "// unsafe\nlet not_unsafe_at_all = \"unsafe\";").len(), 0);
}

#[test]
fn printing_and_exiting_are_seen() {
    for text in ["println!(\"x\")", "eprintln!()", "print!(\"x\")", "let out = io::stdout();"] {
        assert_eq!(prints_elsewhere("numerics/order.rs", text).len(), 1, "{text}");
        assert_eq!(prints_elsewhere("cli/list.rs", text).len(), 0, "{text}");
    }
    for text in ["std::process::exit(1)", "use std::process::exit;", "process::abort()"] {
        assert_eq!(exits("cli/mod.rs", text).len(), 1, "{text}");
    }
    assert_eq!(exits("main.rs", "use std::process::ExitCode;").len(), 0);
}

#[test]
fn writing_outside_the_store_is_seen() {
    for text in ["fs::write(path, text)?;", "let file = File::create(path);", "std::fs::rename(one, other)"] {
        assert_eq!(writes_elsewhere("report/html.rs", text).len(), 1, "{text}");
        for path in ["store/run.rs", "model/hub/cache.rs", "cli/doctor.rs"] {
            assert_eq!(writes_elsewhere(path, text).len(), 0, "{path}: {text}");
        }
    }
    assert_eq!(writes_elsewhere("cli/plan.rs", "fs::read(path)").len(), 0);
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_seen() {
    for text in ["", "use std::fmt;", "//!", "//! ", "// Not a sentence of the module.", "\n//! Too late."] {
        assert_eq!(opens_without_a_sentence("cli/dot.rs", text).len(), 1, "{text:?}");
    }
    assert_eq!(opens_without_a_sentence("cli/dot.rs", "//! Dot products.\n").len(), 0);
}

#[test]
fn comments_and_texts_are_no_code() {
    assert_eq!(code("a // b\nc"), "a \nc");
    assert_eq!(code("a(\"b // \\\" c\") + d"), "a() + d");
    assert_eq!(code("a('\"') + \"b\\\\\" + c"), "a() +  + c");
    assert_eq!(code("a(r#\"b\"c\"#) + d"), "a() + d");
    assert_eq!(code("\"b\nc\";\nd"), "\n;\nd");
    assert_eq!(code("a('{') + b('}')"), "a() + b()");
}
