//! A certificate tells from one cell what all others of its family do, and the cells that run hold it to that.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reprocheck::{
    cell::Cell,
    engine::{
        Engines, Opener,
        faulty::{EngineFault, FaultyEngines, When, Witness},
    },
    model::{Checkpoint, Subject, embedded::MODELS},
    numerics::kernel::KernelFault,
    plan::Plan,
    record::Record,
    run::{
        self, Options, Present, Which,
        certify::{Certificate, PART, Wanted, certify, firsts},
    },
    store::{
        run::{Run, RunError},
        trace::{Line, Reader},
    },
    trace::Token,
    verdict::Outcome,
};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_reprocheck");

/// Cells of bf16 that really part, and some that cannot.
const BF16: &str = "suites = [\"carry_chain\", \"mul_ladder\", \"list_stats\", \"expr_chain\"]\nitems = 24\n[matrix]\n\
                    precision = \"bf16\"\norder = [\"sequential\", \"lanes:16\", \"split-k:rows\"]\nbatch = [4, 8]\nthreads = [1, 2]\n";

/// A folder with a run of the model in the binary.
struct Place {
    folder: TempDir,
    checkpoint: Checkpoint,
}

impl Place {
    fn new(matrix: &str) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            checkpoint: Checkpoint::embedded(&MODELS[0]).unwrap(),
        };
        fs::write(place.path("m.toml"), matrix).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn subject(&self) -> Subject<'_> {
        Subject::of(&self.checkpoint).unwrap()
    }

    /// Runs a part of the cells, with a fault in the kernel from the second cell on, if there is to be one.
    fn run(&self, which: Which, fault: Option<KernelFault>) {
        let matrix = fs::read_to_string(self.path("m.toml")).unwrap();
        let plan =
            Plan::read(&self.path("m.toml"), &matrix, None).unwrap_or_else(|problems| panic!("{problems}"));
        let (subject, folder) = (self.subject(), self.path("r"));
        let engines = Engines {
            checkpoint: Some(&self.checkpoint),
            program: Path::new(BINARY),
            scripts: &plan.scripts,
            servers: &plan.servers,
            logs: &folder,
            subject: &subject,
        };
        let all = Options::of_all(folder.clone(), Present::Resume, ("m.toml".to_owned(), None));
        let options = Options { which, ..all };
        let faulty = fault.map(|fault| FaultyEngines {
            engines,
            fault: EngineFault::Kernel(fault),
            when: When::Always,
            witness: Witness::default(),
        });
        let opener: &dyn Opener = faulty.as_ref().map_or(&engines, |faulty| faulty);
        run::run(&plan, &subject, opener, &options, &mut |_| {}).unwrap();
    }

    fn certified(&self, wanted: Wanted) -> Result<Certificate, String> {
        certify(&self.path("r"), &self.checkpoint, &self.subject(), wanted, &mut |_, _| {})
            .map_err(|error| error.to_string())
    }

    fn usual(&self) -> Certificate {
        self.certified(Wanted::default()).unwrap()
    }

    fn lines(&self, cell: Cell) -> Vec<(Line, Vec<Token>)> {
        let run = Run::open(&self.path("r")).unwrap();
        let Some(Record::Done(done)) = run.records(&[cell]).swap_remove(0).1.unwrap() else {
            panic!("{cell}")
        };
        let reader = Reader::open(&self.path("r"), done.trace).unwrap();
        reader.map(|read| read.map_err(RunError::from).unwrap()).collect()
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(BINARY).args(arguments).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn where_every_cell_of_a_family_parts_is_told_from_one_of_them() {
    let place = Place::new(BF16);
    place.run(Which::Firsts, None);
    let run = Run::open(&place.path("r")).unwrap();
    let cells = run.about.cells.clone();
    let before = place.usual();
    assert_eq!((before.cell, &before.scored[..]), (cells[0], &[][..]), "nothing else has run");
    let done: Vec<Cell> = run
        .records(&cells)
        .into_iter()
        .filter(|(_, record)| matches!(record, Ok(Some(_))))
        .map(|(cell, _)| cell)
        .collect();
    assert_eq!(done, firsts(&cells), "the first of the family alone");

    place.run(Which::All, None);
    let after = place.usual();
    assert_eq!(Certificate { scored: Vec::new(), ..after.clone() }, before, "what ran moves nothing of it");
    assert_eq!(after.scored.len(), cells.len() - 1);
    let mut parted = 0;
    for scored in &after.scored {
        assert_eq!((scored.missed, scored.absent), (0, 0), "{scored:?}");
        assert_eq!(scored.foreseen + scored.untold, scored.parted, "{scored:?}");
        assert!(scored.untold == 0 || scored.cell.to_string().contains("split-k:rows"), "{scored:?}");
        parted += scored.parted;
    }
    assert!(parted >= 8, "cells that do not part hold nothing to anything: {parted}");
    assert_eq!(after.verdict(), Outcome::Unknown);

    // Of the run's own ways the same is told, by the same measure.
    let own = place.certified(Wanted { own: true, ..Wanted::default() }).unwrap();
    assert_eq!((own.ways.len(), own.measured, own.bound), (3, after.ways.len() as u64, after.bound));
    assert_eq!(own.scored, after.scored);
    assert!(own.settled >= after.settled && own.read < after.read);

    // What it counts is all there is, and what it says of a token is what was recorded.
    let lines = place.lines(after.cell);
    let tokens: usize = lines.iter().map(|(line, _)| line.tokens.len()).sum();
    assert_eq!(after.tokens, tokens as u64);
    assert_eq!(after.by_margin + after.by_reading + after.changes.len() as u64, after.tokens);
    let items: BTreeSet<u64> = after.changes.iter().map(|change| change.item).collect();
    assert_eq!(after.settled + items.len() as u64, after.items);
    assert!(after.read < after.of, "it reads less than all of it");
    for change in &after.changes {
        let recorded = &lines[change.item as usize].1[change.place];
        assert_eq!(Some(change.margin), recorded.margin().map(f64::from));
        assert!(change.to.iter().all(|other| other.id != recorded.id));
    }
}

#[test]
fn a_changed_answer_goes_on_as_the_cell_that_changes_it_went_on() {
    let place = Place::new(BF16);
    place.run(Which::All, None);
    let certificate = place.usual();
    let tokenizer = place.checkpoint.tokenizer.as_ref().unwrap();
    let mut held = 0;
    for change in &certificate.changes {
        for other in &change.to {
            // A cell that ran, that minds no other rows, and in which nothing has parted before.
            let cell = other.ways[0];
            let ran = certificate.scored.iter().any(|scored| scored.cell == cell);
            let before = certificate.changes.iter().any(|earlier| {
                earlier.item == change.item
                    && earlier.place < change.place
                    && earlier.to.iter().any(|other| other.ways.contains(&cell))
            });
            if !ran || before || cell.to_string().contains("split-k:rows") {
                continue;
            }
            let (line, _) = &place.lines(cell)[change.item as usize];
            assert_eq!(line.tokens[change.place], other.id, "{change:?}");
            assert_eq!(tokenizer.decode(&line.tokens[change.place + 1..], false), other.rest, "{change:?}");
            assert_eq!(line.scores.flexible.outcome, other.outcome, "{change:?}");
            held += 1;
        }
    }
    assert!(held > 0, "no change is one of a cell that ran");
}

#[test]
fn a_kernel_that_adds_otherwise_than_it_says_refutes_the_certificate() {
    let place = Place::new(BF16);
    place.run(Which::Firsts, None);
    place.run(Which::All, Some(KernelFault::DropsLastTerm));
    let certificate = place.usual();
    assert_eq!(certificate.verdict(), Outcome::Fail);
    assert!(certificate.scored.iter().all(|scored| scored.missed > 0), "{:?}", certificate.scored);
    let (code, out, _) = place.program(&["certify", "r"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("FAIL: "), "{out}");
}

#[test]
fn nothing_changes_in_fp32_and_a_bound_stands_above_what_was_measured() {
    let place = Place::new(&BF16.replace("bf16", "fp32"));
    place.run(Which::All, None);
    let certificate = place.usual();
    assert_eq!((certificate.verdict(), certificate.settled), (Outcome::Pass, certificate.items));
    assert!(certificate.nearer > 0.0 && certificate.bound > 0.0, "{certificate:?}");
    assert!(certificate.bound <= certificate.nearer / PART, "{certificate:?}");
    assert!(certificate.scored.iter().all(|scored| scored.parted == 0));
    let (code, out, err) = place.program(&["certify", "r"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.starts_with("PASS: lab/fp32/sequential/t1/b4: none of 96 answers changes in any of "),
        "{out}"
    );
    // Where nothing changes there is no border, and the certificate is told all the same.
    let (code, told, err) = place.program(&["certify", "r", "--probes", "border"]);
    assert_eq!((code, told), (0, out));
    assert!(
        err.contains("no prompt of lab/fp32/sequential/t1/b4 lies at the border, so border is not written"),
        "{err}"
    );
    assert!(!place.path("border").exists());
}

#[test]
fn run_certify_runs_one_cell_of_each_precision_and_the_rest_can_follow() {
    let place =
        Place::new(&BF16.replace("\"bf16\"", "[\"fp32\", \"bf16\"]").replace("items = 24", "items = 8"));
    let (code, out, err) =
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r", "--certify"]);
    assert_eq!(code, 3, "{out}{err}");
    assert_eq!(out.matches("What it rests on").count(), 2, "{out}");
    assert!(out.contains("No other cell of its family has run."), "{out}");
    let (code, _, err) =
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r", "--resume"]);
    assert_eq!(code, 3, "a matrix without a gate judges nothing: {err}");
    let (code, out, _) =
        place.program(&["certify", "r", "lab/bf16/lanes:16/t2/b8", "--format", "json", "--sample", "50%"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["verdict"], &json["cell"]),
        (3, &"unknown".into(), &"lab/bf16/lanes:16/t2/b8".into())
    );
    assert_eq!((json["scored"].as_array().unwrap().len(), &json["drawn"]), (11, &16.into()));
    assert!(
        json["scored"]
            .as_array()
            .unwrap()
            .iter()
            .all(|scored| scored["missed"] == 0 && scored["absent"] == 0),
        "{out}"
    );
}

#[test]
fn what_has_no_certificate_is_refused_with_the_reason() {
    for (matrix, cell, why) in [
        ("precision = \"int8\"", None, "lab/int8/sequential/t1/b1 minds who shares a batch with a prompt"),
        (
            "precision = \"fp16\"\n[generate]\nmax-new-tokens = 3\nchoice = \"sampled\"",
            None,
            "draws its tokens, and a margin says nothing of a draw",
        ),
        ("engine = \"candle\"", None, "no cell of the lab is done in "),
        ("engine = \"candle\"", Some("candle/fp32/t1/b1"), "candle/fp32/t1/b1 is not of the lab"),
        ("precision = \"fp32\"", Some("lab/bf16/sequential/t1/b1"), "lab/bf16/sequential/t1/b1"),
    ] {
        let place = Place::new(&format!("suites = [\"carry_chain\"]\nitems = 2\n[matrix]\n{matrix}\n"));
        place.run(Which::All, None);
        let cell = cell.map(|cell| cell.parse().unwrap());
        let error = place.certified(Wanted { cell, percent: 100.0, ..Wanted::default() }).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let place = Place::new(
        "suites = [\"carry_chain\"]\nitems = 2\n[generate]\nmax-new-tokens = 3\nreplay = true\n[reference]\nprecision = \"fp32\"\n\
         [matrix]\nprecision = [\"bf16\"]\n",
    );
    place.run(Which::All, None);
    let cells = Run::open(&place.path("r")).unwrap().about.cells;
    let given = cells.iter().find(|cell| cell.to_string().contains("bf16")).copied();
    let error = place.certified(Wanted { cell: given, ..Wanted::default() }).unwrap_err();
    assert!(error.contains("was given its tokens and chose none: name the reference"), "{error}");
    let other = TempDir::new().unwrap();
    let error = certify(other.path(), &place.checkpoint, &place.subject(), Wanted::default(), &mut |_, _| {});
    assert!(error.is_err());
}
