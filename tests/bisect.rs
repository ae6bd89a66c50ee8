//! Where a cause is looked for and where it is kept: with a flag, by a key of the matrix file, and in a folder that takes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Two cells whose batch moves bits.
const MATRIX: &str = "suites = [\"mul_ladder\"]\nitems = 6\n[generate]\nmax-new-tokens = 8\n[matrix]\nprecision = \"bf16\"\n\
                      order = \"split-k:rows\"\nbatch = [1, 6]\n[[gate]]\nname = \"g\"\nvary = \"batch\"\nexpect = \"diverges\"\n";
const SAID: &str = "The first operation that reads the same and gives something else:";

struct Place(TempDir);

impl Place {
    /// With the matrix, and these lines before it.
    fn new(lines: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write(lines);
        place
    }

    fn write(&self, lines: &str) {
        fs::write(self.path().join("m.toml"), format!("{lines}{MATRIX}")).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn cause(&self, folder: &str) -> PathBuf {
        self.path().join(folder).join("cause.json")
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output = command.args(arguments).current_dir(self.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Runs the matrix into a folder, and gives what it says, and what it says beside.
    fn run(&self, folder: &str, arguments: &[&str]) -> (String, String) {
        let all = [&["run", "--model", "qwen", "--matrix", "m.toml", "--out", folder], arguments].concat();
        let (code, out, err) = self.program(&all);
        assert_eq!(code, 0, "{err}");
        (out, err)
    }
}

#[test]
fn a_key_of_the_matrix_file_does_what_the_flag_does_and_is_no_part_of_the_run() {
    let place = Place::new("\n");
    let (with_flag, _) = place.run("flag", &["--bisect"]);
    assert!(with_flag.contains(SAID), "{with_flag}");
    place.write("bisect = true\n");
    assert_eq!(place.run("key", &[]).0, with_flag.replace("/flag", "/key"));
    assert_eq!(fs::read(place.cause("key")).unwrap(), fs::read(place.cause("flag")).unwrap());
    // A run goes on whatever the file says of it now; both together are as one of them.
    place.write("\n");
    place.run("none", &[]);
    assert!(!place.cause("none").exists());
    place.run("key", &["--resume"]);
    place.write("bisect = false\n");
    place.run("none", &["--resume"]);
    assert!(!place.cause("none").exists());
    place.write("bisect = true\n");
    place.run("none", &["--resume", "--bisect"]);
    assert_eq!(fs::read(place.cause("none")).unwrap(), fs::read(place.cause("flag")).unwrap());
}

#[test]
fn a_profile_may_say_otherwise_and_a_part_looks_for_no_cause() {
    let place = Place::new("bisect = true\n");
    let matrix = fs::read_to_string(place.path().join("m.toml")).unwrap();
    fs::write(place.path().join("m.toml"), matrix + "\n[profile.quick]\nbisect = false\n").unwrap();
    place.run("r", &["--profile", "quick"]);
    assert!(!place.cause("r").exists());
    let (_, err) = place.run("part", &["--part", "1/2"]);
    assert!(!place.cause("part/part-1-of-2").exists());
    assert!(err.contains("`bisect` in m.toml is not followed by a part"), "{err}");
    let (_, err) = place.run("other", &["--part", "2/2", "--profile", "quick"]);
    assert!(!err.contains("`bisect`"), "{err}");
}

#[test]
fn what_was_found_is_said_where_it_cannot_be_kept() {
    let place = Place::new("\n");
    place.run("r", &[]);
    // Nobody, whatever he may do, puts a file in the place of a folder that holds something.
    fs::create_dir_all(place.cause("r").join("in the way")).unwrap();
    let (code, out, err) = place.program(&["bisect", "r"]);
    assert_eq!(code, 4, "{err}");
    assert!(out.split_whitespace().collect::<Vec<_>>().join(" ").contains(SAID), "{out}");
    assert!(err.contains("cause.json") && err.contains("choose another place, or free it"), "{err}");
    // One that is not what was written is written anew.
    fs::remove_dir_all(place.cause("r")).unwrap();
    fs::write(place.cause("r"), "{").unwrap();
    let (code, _, err) = place.program(&["report", "r"]);
    assert!(code != 0 && err.contains("or run `reprocheck bisect` again"), "{code} {err}");
    let (code, _, err) = place.program(&["bisect", "r"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = place.program(&["report", "r"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(SAID), "{out}");
}
