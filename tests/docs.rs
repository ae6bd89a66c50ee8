//! Every page for readers: what its sessions show is what the binary says, and its links lead somewhere.

#![cfg(unix)]

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reprocheck::numerics::kernel::Isa;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages: those of the top level, and those in `docs`, `results` and `suites`.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_owned()];
    folders.extend(["docs", "docs/tutorials", "results", "suites"].map(|folder| root().join(folder)));
    for folder in folders {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let paths = entries.map(|entry| entry.unwrap().path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// A clone, as far as sessions look: nothing in it is written to.
fn clone() -> tempfile::TempDir {
    let clone = tempfile::tempdir().unwrap();
    for folder in ["suites", "src"] {
        std::os::unix::fs::symlink(root().join(folder), clone.path().join(folder)).unwrap();
    }
    clone
}

/// The commands of a session with what is said to each. A command whose line asks for a document ends behind it.
fn exchanges(session: &str) -> Vec<(String, String)> {
    let mut exchanges: Vec<(String, String)> = Vec::new();
    let mut in_document = false;
    for line in session.lines() {
        match line.strip_prefix("$ ") {
            Some(command) if !in_document => exchanges.push((command.to_owned(), String::new())),
            _ if in_document => exchanges.last_mut().unwrap().0.push_str(&format!("\n{line}")),
            _ => exchanges.last_mut().unwrap().1.push_str(&format!("{line}\n")),
        }
        in_document = if in_document { line != "END" } else { line.ends_with("<<'END'") };
    }
    exchanges
}

/// What a shell says to a command, as on a machine with AVX-512: which vectors do the work depends on the machine.
fn says(command: &str, folder: &Path) -> String {
    let binaries = Path::new(BINARY).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", command]).current_dir(folder).env("PATH", &path).env_remove("CI");
    let said = bash.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    as_with_avx512(&(text(said.stdout) + &text(said.stderr)))
}

fn as_with_avx512(said: &str) -> String {
    Isa::ALL.iter().fold(said.to_owned(), |said, isa| said.replace(&format!("({isa}, "), "(avx512, "))
}

/// A block that begins with ```` ```console ```` is a session: each command behind `$ `, and what is said to it. The
/// sessions of a page share one folder. `REPROCHECK_ACCEPT=1` writes what is said; whoever accepts must read it.
#[test]
fn every_session_shows_what_the_binary_says() {
    let accept =
        env::var_os("REPROCHECK_ACCEPT").is_some_and(|value| value == "1") && env::var_os("CI").is_none();
    let (mut commands, mut others) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut blocks = text.split("```console\n");
        let mut written = blocks.next().unwrap().to_owned();
        let folder = clone();
        for block in blocks {
            let (session, rest) = block.split_once("```").unwrap();
            written.push_str("```console\n");
            for (command, shown) in exchanges(session) {
                let said = says(&command, folder.path());
                if said != shown {
                    others.push(format!("{}: $ {command}\n{said}", page.display()));
                }
                written += &format!("$ {command}\n{said}");
                commands += 1;
            }
            written += &format!("```{rest}");
        }
        if accept {
            fs::write(&page, written).unwrap();
        }
    }
    assert!(commands >= 20, "only {commands} commands were found");
    assert!(accept || others.is_empty(), "other words than on the page:\n{}", others.join("\n"));
}

/// The page whose changes of the code are tried.
const CHANGES: &str = "docs/tutorials/add-something.md";

/// The blocks of this language on a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

/// `git apply` in a folder, with more arguments.
fn apply(change: &str, folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    // A repository that the folder happens to lie in has no say.
    git.arg("apply").args(arguments).arg("-").current_dir(folder).env("GIT_DIR", folder.join("none"));
    let mut git = git.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(change.as_bytes()).unwrap();
    let ended = git.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}\n{change}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn every_change_of_the_tutorial_fits_the_code() {
    let changes = blocks(CHANGES, "diff");
    assert_eq!(changes.len(), 4);
    for change in changes {
        apply(&change, root(), &["--check"]);
    }
}

/// A folder once more, with all that is in it.
fn mirror(from: &Path, to: &Path, put: &dyn Fn(&Path, &Path) -> io::Result<()>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            mirror(&from, &to, put);
        } else {
            put(&from, &to).unwrap();
        }
    }
}

/// The crate with the tutorial's changes, built and tried: what the tutorial shows is what it says.
#[test]
#[ignore = "builds the crate again, which takes minutes"]
fn the_code_of_the_tutorial_does_what_it_says() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [folder, builds] = ["crate", "target"].map(|name| scratch.path().join(name));
    for part in ["src", "suites", "tests", "benches", "examples"] {
        mirror(&root().join(part), &folder.join(part), &|from, to| fs::copy(from, to).map(drop));
    }
    // The dependencies as they are built already, in a place of their own: the program that other tests run stays what it is.
    let release = Path::new(BINARY).parent().unwrap();
    for part in [".fingerprint", "build", "deps"] {
        mirror(&release.join(part), &builds.join("release").join(part), &|from, to| fs::hard_link(from, to));
    }
    for file in ["Cargo.toml", "Cargo.lock", "README.md"] {
        fs::copy(root().join(file), folder.join(file)).unwrap();
    }
    for change in blocks(CHANGES, "diff") {
        apply(&change, &folder, &[]);
    }
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).current_dir(&folder).env("CARGO_TARGET_DIR", &builds);
        // What cargo tells this test of its own package would make it build again what asks for that.
        let of_package =
            |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.starts_with(begin));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
            cargo.env_remove(name);
        }
        let said = cargo.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(said.status.success(), "cargo {arguments:?}\n{}{}", text(said.stdout), text(said.stderr));
        text(said.stdout)
    };
    cargo(&["test", "--release", "--locked", "--test", "all", "conformance::"]);
    cargo(&["test", "--release", "--locked", "--test", "all", "cli::every_order"]);
    cargo(&["test", "--release", "--locked", "--test", "all", "plan::every_row_of_the_table_of_engines"]);
    let mut sessions = 0;
    for session in blocks(CHANGES, "text") {
        for (command, shown) in exchanges(&session) {
            let arguments = command.strip_prefix("reprocheck ").unwrap().split(' ');
            let begin = ["run", "--release", "--locked", "--quiet", "--"];
            assert_eq!(
                as_with_avx512(&cargo(&begin.into_iter().chain(arguments).collect::<Vec<_>>())),
                shown
            );
            sessions += 1;
        }
    }
    assert_eq!(sessions, 3);
}

/// What a link to a heading is called, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: nothing is at {link}", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
                assert!(found, "{}: no heading is called {link}", page.display());
            }
            links += 1;
        }
    }
    assert!(links >= 20, "only {links} links were found");
}
