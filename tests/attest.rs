//! What a run came to, signed: every gate is in what is attested, nothing is attested of a run that was changed, and in-toto's own
//! libraries read what is written here and write what is read here.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use reprocheck::{
    attest::{
        key::{PrivateKey, PublicKey},
        statement::{Resource, Statement, Verdict},
    },
    digest::Digest,
    report::Report,
    verdict::Outcome,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::cases::every;

/// The key of RFC 8410, section 10.3, and its public half.
const PRIVATE: &str = "PRIVATE KEY\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
const PUBLIC: &str = "PUBLIC KEY\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
const ANOTHER: &str = "PUBLIC KEY\nMCowBQYDK2VwAyEACszAaYo/1WToFkifTfidItbA1oXbcIMx1YnU1rPC5kc=";
/// The same private key under the passphrase `x`.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY\n\
    MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjPp781nfCBgQICCAAw\n\
    DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEB63STDMSgmcm+k+Kr+hfPIEQEqC\n\
    UhJo0JsRl1RNUS6FBtGezYD4Lqc6fJxulhxxw3wwSAsqKzbvSr2HjNp4UDJNfBEU\n\
    sVnh3HWGSXOl92bYp4E=";
/// Of 512 bits, for this test.
const RSA: &str = "PRIVATE KEY\n\
    MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEArCc1Zz1pEQfT5wQh\n\
    +NWzhgNz0wfg7tbIKyDoLQO+2xkfN0Nq4LHesf+DWFrju/y87JxwalqBbJL2ex+W\n\
    vbnt0wIDAQABAkEAh/iz+mYLvVLUcKvX9UU89UV2zyBy7dIg6cek+iDyNvP0vpL3\n\
    kYgifg/lKpDijQcYM7QYFW7hIfflybNvEjbAmQIhAOV4B/IUAQgLPyOGN2DSRuNC\n\
    MdGMPSyBi6xjD8bpMY+vAiEAwA61tkVo6gwPfj+7vKYEOOoR79MlN5ik7BwFqNxI\n\
    iR0CIQDZbJcSv/OOPKHRti2otvVmBeWQaLHaBtFiQObFEVXdjwIgIrcF9WpaamO/\n\
    sSxH/PNtM/RrRZQ+1+vJc7wk8b7PhakCIQDHXV7o7wDLm2UALliSbOjfGOzRb1o9\n\
    cWKzE1Fs5kwpCA==";
const RSA_PUBLIC: &str = "PUBLIC KEY\n\
    MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKwnNWc9aREH0+cEIfjVs4YDc9MH4O7W\n\
    yCsg6C0DvtsZHzdDauCx3rH/g1ha47v8vOyccGpagWyS9nsflr257dMCAwEAAQ==";
const OLD_RSA: &str = "RSA PRIVATE KEY\nMAA=";

/// What `openssl` would have written: the words after BEGIN, then lines of base64.
fn pem(key: &str) -> String {
    let (words, lines) = key.split_once('\n').unwrap();
    format!("-----BEGIN {words}-----\n{lines}\n-----END {words}-----\n")
}

const RUN: &str = "suites = [\"mul_ladder\"]\nitems = 6\n[generate]\nmax-new-tokens = 8\n[matrix]\nprecision = \"bf16\"\n\
                   order = \"split-k:rows\"\nbatch = [1, 6]\n";
const DIVERGES: &str = "[[gate]]\nname = \"it moves é\"\nvary = \"batch\"\nexpect = \"diverges\"\n";
const BITS: &str = "[[gate]]\nname = \"it moves nothing\"\nvary = \"batch\"\nrequire = \"bits\"\n";
const APPROVED: &str = "[[gate]]\nname = \"as approved\"\nagainst = \"baseline\"\nrequire = \"bits\"\n";

/// A folder with keys and a run.
struct Place(TempDir);

impl Place {
    fn new(gates: &[&str]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("m.toml", &(RUN.to_owned() + &gates.concat()));
        place.write("key.pem", &pem(PRIVATE));
        place.write("key.pub", &pem(PUBLIC));
        place.call(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn call(&self, arguments: &[&str]) -> (i32, Vec<u8>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output = command.args(arguments).current_dir(self.0.path()).env_remove("CI").output().unwrap();
        (output.status.code().unwrap(), output.stdout, String::from_utf8(output.stderr).unwrap())
    }

    /// The attestation of the run.
    fn attested(&self, more: &[&str]) -> Vec<u8> {
        let (code, out, err) = self.call(&[&["attest", "r", "--key", "key.pem"], more].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        out
    }

    /// The exit code of a check, and what is said.
    fn checked(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, err) = self.call(&[&["attest", "--key", "key.pub"], arguments].concat());
        (code, String::from_utf8(out).unwrap() + &err)
    }
}

/// Every file of a folder and of its folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn payload(envelope: &[u8]) -> Value {
    let envelope: Value = serde_json::from_slice(envelope).unwrap();
    let text = envelope["payload"].as_str().unwrap();
    serde_json::from_slice(&base64(text)).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    let mut bits = String::new();
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let value = alphabet.iter().position(|other| *other == letter).unwrap();
        bits += &format!("{value:06b}");
    }
    let bytes = bits.as_bytes().chunks_exact(8);
    bytes.map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap()).collect()
}

fn statement(report: &Report) -> Statement {
    let file = |name| Resource::file(name, Digest::of(b""));
    Statement::of(report, &[], [file("report.json"), file("run.json"), file("items.jsonl")], None)
}

#[test]
fn every_gate_is_attested_and_none_that_was_not_shown_to_hold_has_passed() {
    let mut seen = BTreeMap::new();
    for (name, verdict, report) in every() {
        let predicate = statement(&report).predicate;
        let has_passed = verdict == Outcome::Pass;
        assert_eq!(predicate.result, if has_passed { Verdict::Passed } else { Verdict::Failed }, "{name}");
        for ruling in &report.rulings {
            let passed = predicate.passed_tests.contains(&ruling.gate);
            assert_eq!(passed, ruling.outcome == Outcome::Pass, "{name}: {}", ruling.gate);
            assert_eq!(passed, !predicate.failed_tests.contains(&ruling.gate), "{name}: {}", ruling.gate);
            *seen.entry(ruling.outcome).or_insert(0) += 1;
        }
        // A policy that looks at lists alone finds what one that looks at the result finds.
        assert_eq!(predicate.failed_tests.is_empty(), has_passed, "{name}: {:?}", predicate.failed_tests);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    // A pass with something that a reader should know is a warning.
    let (_, _, mut report) = every().into_iter().find(|(_, verdict, _)| *verdict == Outcome::Pass).unwrap();
    report.rulings[0].notes.push("in 1 of 2 groups `batch` made no difference".to_owned());
    let predicate = statement(&report).predicate;
    assert_eq!(predicate.result, Verdict::Warned);
    assert_eq!(predicate.warned_tests, [report.rulings[0].gate.clone()]);
    assert_eq!(predicate.passed_tests.len(), report.rulings.len() - 1);
}

#[test]
fn an_attestation_is_of_the_run_and_the_same_bytes_each_time() {
    let place = Place::new(&[DIVERGES]);
    let envelope = place.attested(&[]);
    assert_eq!(place.attested(&[]), envelope);
    let (code, out, _) = place.call(&["attest", "r", "--key", "key.pem", "--out", "new/a.json"]);
    let id = PublicKey::read(pem(PUBLIC).as_bytes()).unwrap().id();
    let said = format!("wrote new/a.json: PASSED, signed by the key {id}\n");
    assert_eq!((code, String::from_utf8(out).unwrap()), (0, said));
    assert_eq!(fs::read(place.path("new/a.json")).unwrap(), envelope);

    let statement = payload(&envelope);
    assert_eq!(statement["predicate"]["passedTests"], json!(["it moves é"]));
    assert_eq!(statement["predicate"]["failedTests"], json!([]));
    // Every subject, by what anyone can compute of it.
    let subjects = statement["subject"].as_array().unwrap();
    let digest = |name: &str| {
        let subject = subjects.iter().find(|subject| subject["name"] == name).unwrap();
        subject["digest"].as_object().unwrap().values().next().unwrap().as_str().unwrap()
    };
    let of_file = |path: &Path| Digest::of(&fs::read(path).unwrap()).to_string();
    for file in ["report.json", "run.json"] {
        assert_eq!(digest(file), of_file(&place.path("r").join(file)));
    }
    for cell in ["lab/bf16/split-k:rows/t1/b1", "lab/bf16/split-k:rows/t1/b6"] {
        let folder = place.path("r/traces").join(digest(cell));
        let lines = ["samples.jsonl", "tokens.safetensors", "tree.bin"]
            .map(|file| format!("{}  {file}\n", of_file(&folder.join(file))));
        assert_eq!(digest(cell), Digest::of(lines.concat().as_bytes()).to_string());
    }
    assert_eq!(subjects.len(), 5);
    let run: Value = serde_json::from_slice(&fs::read(place.path("r/run.json")).unwrap()).unwrap();
    assert_eq!(digest("qwen"), run["content"]["model"]["digest"]);

    let (code, said) = place.checked(&["r", "--verify", "new/a.json"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with(&format!("PASSED: signed by the key {id}\npassed  it moves é\n")), "{said}");
    assert!(said.contains("\nIt is of r:\n"), "{said}");
    let (code, said) = place.checked(&["--verify", "new/a.json"]);
    assert!(code == 0 && said.contains("no run was held against it"), "{code} {said}");
}

#[test]
fn a_run_with_a_byte_changed_is_neither_attested_nor_what_was_attested() {
    let place = Place::new(&[DIVERGES]);
    fs::write(place.path("a.json"), place.attested(&[])).unwrap();
    let mut changed = 0;
    for path in files(&place.path("r")) {
        let whole = fs::read(&path).unwrap();
        let name = path.strip_prefix(place.path("r")).unwrap().display().to_string();
        if [".lock", "report.txt"].contains(&name.as_str()) {
            continue;
        }
        // In the middle, where a file says what it is there for.
        let mut other = whole.clone();
        other[whole.len() / 2] ^= 1;
        fs::write(&path, &other).unwrap();
        let (code, out, err) = place.call(&["attest", "r", "--key", "key.pem", "--out", "b.json"]);
        assert_eq!((code, out.as_slice()), (2, &b""[..]), "{name}: {err}");
        assert!(err.starts_with("error: ") && err.contains("r/"), "{name}: {err}");
        assert!(!place.path("b.json").exists(), "{name}");
        let (code, said) = place.checked(&["r", "--verify", "a.json"]);
        assert_eq!(code, 1, "{name}: {said}");
        fs::write(&path, whole).unwrap();
        changed += 1;
    }
    assert_eq!(changed, 12, "of two cells and two traces");
    assert_eq!(place.checked(&["r", "--verify", "a.json"]).0, 0);
    // A report that is gone.
    fs::remove_file(place.path("r/report.json")).unwrap();
    let (code, _, err) = place.call(&["attest", "r", "--key", "key.pem"]);
    assert!(
        code == 2 && err.contains("report.json: it is not there; write it with `reprocheck report RUN"),
        "{err}"
    );
    // A trace that is gone, and the report that follows from what is left.
    let trace = fs::read_dir(place.path("r/traces")).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir_all(trace).unwrap();
    assert_eq!(place.call(&["report", "r", "--format", "json", "--out", "r"]).0, 3);
    let (code, _, err) = place.call(&["attest", "r", "--key", "key.pem"]);
    assert!(code == 2 && err.contains("run it again with --resume"), "{err}");
    let (code, said) = place.checked(&["none", "--verify", "a.json"]);
    assert!(code == 2 && said.contains("there is no run in none"), "{said}");
}

#[test]
fn a_failure_is_attested_as_one_and_a_baseline_is_a_part_of_what_was_asked() {
    let place = Place::new(&[DIVERGES, BITS, APPROVED]);
    fs::write(place.path("a.json"), place.attested(&[])).unwrap();
    let (code, said) = place.checked(&["r", "--verify", "a.json"]);
    assert_eq!(code, 1, "{said}");
    for line in ["FAILED: ", "passed  it moves é", "failed  it moves nothing", "failed  as approved"] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line}: {said}");
    }
    // Held to a baseline it is another report.
    assert_eq!(place.call(&["approve", "r"]).0, 0);
    let with_baseline = ["--baseline", "baseline.json"];
    let (code, _, err) = place.call(&[&["attest", "r", "--key", "key.pem"], &with_baseline[..]].concat());
    assert!(
        code == 2 && err.contains("report.json: it is not the report that follows from the traces"),
        "{err}"
    );
    place.call(&[&["report", "r", "--format", "json", "--out", "r"], &with_baseline[..]].concat());
    fs::write(place.path("b.json"), place.attested(&with_baseline)).unwrap();
    let predicate = payload(&fs::read(place.path("b.json")).unwrap())["predicate"].clone();
    assert_eq!(predicate["passedTests"], json!(["it moves é", "as approved"]));
    let digest = Digest::of(&fs::read(place.path("baseline.json")).unwrap()).to_string();
    assert_eq!(
        predicate["configuration"][2],
        json!({ "name": "baseline.json", "digest": { "sha256": digest } })
    );
    let (code, said) = place.checked(&[&["r", "--verify", "b.json"], &with_baseline[..]].concat());
    assert!(code == 1 && said.starts_with("FAILED: ") && said.contains("passed  as approved"), "{said}");
    let (code, said) = place.checked(&[&["r", "--verify", "a.json"], &with_baseline[..]].concat());
    assert!(code == 1 && said.contains("a.json: its subject \"report.json\" has sha256 "), "{said}");
}

#[test]
fn an_attestation_of_another_run_is_refused_with_the_first_that_differs() {
    let place = Place::new(&[DIVERGES]);
    let other = Place::new(&[DIVERGES, BITS]);
    fs::write(place.path("a.json"), other.attested(&[])).unwrap();
    assert_eq!(place.checked(&["--verify", "a.json"]).0, 1, "it says FAILED");
    let (code, said) = place.checked(&["r", "--verify", "a.json"]);
    assert!(code == 1 && said.contains("error: a.json: its subject \"report.json\" has sha256 "), "{said}");
    place.write("another.pub", &pem(ANOTHER));
    let (code, _, err) = place.call(&["attest", "--verify", "a.json", "--key", "another.pub"]);
    assert!(
        code == 1 && err.contains("a.json: the signature does not hold: it is that of the key \"946b"),
        "{err}"
    );
    place.write("a.json", "{}");
    let (code, said) = place.checked(&["--verify", "a.json"]);
    assert!(code == 1 && said.contains("a.json: the envelope does not read (missing field"), "{said}");
    let (code, said) = place.checked(&["--verify", "none.json"]);
    assert!(code == 2 && said.contains("cannot read none.json"), "{said}");
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_a_sentence() {
    let private = |key: &str| PrivateKey::read(pem(key).as_bytes()).err().map(|error| error.to_string());
    let public = |key: &str| PublicKey::read(pem(key).as_bytes()).err().map(|error| error.to_string());
    assert_eq!((private(PRIVATE), public(PUBLIC)), (None, None));
    for (said, expected) in [
        (private(PUBLIC), "has a public key, and a signature takes the private one"),
        (public(PRIVATE), "has a private key, and a check takes the public one"),
        (private(RSA), "has a key that is not one of Ed25519: make one with `openssl genpkey"),
        (private(OLD_RSA), "has a key that is not one of Ed25519"),
        (public(RSA_PUBLIC), "has a key that is not one of Ed25519"),
        (private(ENCRYPTED), "has a key under a passphrase"),
        (public(ENCRYPTED), "has a key under a passphrase"),
        (private("CERTIFICATE\nMAA="), "has no key in PEM (its first section is Certificate)"),
        (public("OPENSSH PRIVATE KEY\nMAA="), "has no key in PEM (it has no section of a known kind)"),
        (public("PUBLIC KEY\nMCow!"), "has no key in PEM ("),
        (private(&PRIVATE[..PRIVATE.len() - 8]), "has a key that is not one of Ed25519"),
    ] {
        assert!(said.as_ref().is_some_and(|said| said.starts_with(expected)), "{expected}: {said:?}");
    }
    // Before a run is read.
    let place = Place(tempfile::tempdir().unwrap());
    place.write("rsa.pem", &pem(RSA));
    for (key, expected) in [
        ("rsa.pem", "error: rsa.pem has a key that is not one of Ed25519: "),
        ("none.pem", "error: cannot read none.pem: "),
    ] {
        let (code, _, err) = place.call(&["attest", "r", "--key", key]);
        assert!(code == 2 && err.starts_with(expected), "{code} {err}");
    }
}

#[test]
#[ignore = "needs in-toto's libraries in Python: `.ci/run` asks for it"]
fn the_libraries_of_in_toto_read_what_is_attested_and_sign_what_is_read() {
    let python = env::var("REPROCHECK_IN_TOTO").expect(
        "REPROCHECK_IN_TOTO: export REPROCHECK_IN_TOTO=\"$(.ci/in-toto)\" fetches a Python that has them",
    );
    for gates in [&[DIVERGES][..], &[DIVERGES, BITS, APPROVED]] {
        let place = Place::new(gates);
        let envelope = place.attested(&["--out", "a.json"]);
        assert!(String::from_utf8(envelope).unwrap().starts_with("wrote a.json: "));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attest/in_toto.py");
        let read = Command::new(&python)
            .args([script, "a.json", "key.pub", "key.pem", "b.json"])
            .current_dir(place.0.path())
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        // What they understood is what was signed, with no field lost.
        let written = payload(&fs::read(place.path("a.json")).unwrap());
        let understood: Value = serde_json::from_slice(&read.stdout).unwrap();
        assert_eq!(understood, written);
        // The same payload, signed by them and written with other blanks.
        let (theirs, ours) =
            (fs::read(place.path("b.json")).unwrap(), fs::read(place.path("a.json")).unwrap());
        assert_ne!(theirs, ours);
        let expected = place.checked(&["r", "--verify", "a.json"]);
        assert_eq!(place.checked(&["r", "--verify", "b.json"]), expected);
    }
}
