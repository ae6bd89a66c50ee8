//! A thousand cells of a thousand items: whatever reads a run costs as much again with ten times the cells as they are, and no memory
//! that grows with its samples. Nothing is computed: an engine of digests stands for the model.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use reprocheck::{
    cell::Compute,
    digest::Digest,
    engine::{Engine, EngineError, Observer, Opener, Prompt, Request, environment::Environment},
    model::Subject,
    numerics::{choice::Candidate, random::Stream},
    plan::Plan,
    record::Part,
    report::{FORMATS, Written},
    run::{self, Options, Present, Which},
    trace::{Finish, History, Launched, Sample, Seen, Sight, Step, Token},
};

use tempfile::TempDir;

use crate::{
    endurance::{Took, took},
    serving::files,
};

/// A matrix as a user would write it, of so many settings on each of its axes.
#[derive(Clone, Copy)]
struct Size {
    precisions: usize,
    orders: usize,
    batches: usize,
    threads: usize,
    items: usize,
}

const PRECISIONS: [&str; 5] = ["fp32", "bf16", "fp16", "layercast", "int8"];

const ORDERS: [&str; 10] = [
    "sequential",
    "pairwise",
    "reversed",
    "lanes:4",
    "lanes:8",
    "lanes:16",
    "split-k:2",
    "split-k:4",
    "blocks:32",
    "split-k:rows",
];

impl Size {
    fn cells(self) -> usize {
        self.precisions * self.orders * self.batches * self.threads
    }

    fn matrix(self) -> String {
        let Size { precisions, orders, batches, threads, items } = self;
        let numbers = |most: usize| (1..=most).collect::<Vec<_>>();
        format!(
            "suites = [\"carry_chain\"]\nitems = {items}\n\
             [reference]\nprecision = \"fp32\"\norder = \"sequential\"\n\
             [matrix]\nprecision = {:?}\norder = {:?}\nbatch = {:?}\nthreads = {:?}\n\
             [[gate]]\nname = \"batch and threads must not matter\"\nvary = [\"batch\", \"threads\"]\nrequire = \"bits\"\n\
             [[gate]]\nname = \"orders give the same answers\"\nwhere = {{ precision = [\"fp32\", \"bf16\"] }}\n\
             vary = [\"order\"]\nrequire = \"answers\"\n\
             [[gate]]\nname = \"accuracy holds\"\nagainst = \"reference\"\nmax-accuracy-drop = \"2pp\"\n\
             [[gate]]\nname = \"few texts move\"\nagainst = \"reference\"\nmax-divergence-rate = \"2%\"\n\
             [[gate]]\nname = \"logits stay near\"\nwhere = {{ precision = \"fp32\" }}\nvary = [\"threads\"]\nmax-ulp = 16\n",
            &PRECISIONS[..precisions],
            &ORDERS[..orders],
            numbers(batches),
            numbers(threads),
        )
    }
}

/// Answers every prompt by digests of what a cell is: half of all cells as the reference does, and each other one with bits of its own on
/// some items, and with another token on some of these.
struct Simulated {
    seed: u64,
}

impl Simulated {
    /// A number below `bound` that is the same for the same text.
    fn draw(&self, text: &str, bound: u64) -> u64 {
        let Digest(bytes) = Digest::of(text.as_bytes());
        let (first, _) = bytes.split_first_chunk().unwrap();
        Stream::new(self.seed, u64::from_le_bytes(*first)).below(bound.try_into().unwrap())
    }
}

impl Opener for Simulated {
    fn open<'s>(&'s self, compute: Compute) -> Result<Box<dyn Engine + 's>, EngineError> {
        Ok(Box::new(Answers { of: self, compute }))
    }
}

struct Answers<'s> {
    of: &'s Simulated,
    compute: Compute,
}

impl Answers<'_> {
    fn steps(&self, prompt: &Prompt, request: &Request, rows: usize) -> Vec<Step> {
        let Request { asking, candidates, .. } = request;
        let cell = format!("{} {}", self.compute, asking.concurrency);
        let draws = |what: &str, bound: u64| self.of.draw(&format!("{what} {cell} {}", prompt.item), bound);
        let is_apart = self.of.draw(&cell, 2) == 0;
        // From this token on, if at all.
        let (moved, parted) = (is_apart && draws("moved", 4) == 0, is_apart && draws("parted", 16) == 0);
        let whose = |is_own: bool| if is_own { &cell[..] } else { "all" };
        let of_item = format!("{} {}", whose(moved), prompt.item);
        let token = |place: u32| {
            let own = whose(moved && parted && place > 0);
            let id = u32::from(b'0') + self.of.draw(&format!("{own} {} {place}", prompt.item), 10) as u32;
            let digest = Digest::of(format!("{of_item} {place}").as_bytes());
            let logit = |rank: u32| 8.0 - rank as f32 + f32::from(digest.0[0]) / 1024.0;
            let candidate = |rank| Candidate { token: (id + rank) % 256, logit: logit(rank) };
            let candidates = (0..*candidates as u32).map(candidate).collect();
            let seen = Seen::Logits { digest, candidates, margin: 1.0, probability: 0.5 };
            Step { token: Token { id, seen }, rows: Some(rows) }
        };
        (0..4).map(token).collect()
    }
}

impl Engine for Answers<'_> {
    fn about(&self) -> Environment {
        Environment { engine: "simulated 1".to_owned(), facts: [].into() }
    }

    fn sight(&self) -> Sight {
        Sight::Logits
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let threads = match self.compute {
            Compute::Lab(numerics) => numerics.threads().get(),
            _ => 1,
        };
        for prompt in prompts {
            let steps = self.steps(prompt, request, prompts.len());
            let text = steps.iter().map(|step| char::from(step.token.id as u8)).collect();
            let launch = Launched {
                prefill: vec![prompts.iter().map(|prompt| prompt.tokens.len()).sum()],
                threads: Some(threads),
                has_unlike_copy: false,
                history: History::default(),
            };
            let (item, prompt) = (prompt.item, prompt.tokens.clone());
            observer.finished(Sample {
                item,
                prompt,
                steps,
                text,
                finish: Finish::Stop,
                launch: Some(launch),
            });
        }
        Ok(())
    }
}

/// A run of so many cells in four parts, made by nobody.
fn parts(size: Size, folder: &Path) {
    let (file, text) = (folder.join("m.toml"), size.matrix());
    fs::write(&file, &text).unwrap();
    let plan = Plan::read(&file, &text, None).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(plan.cells.len(), size.cells());
    let subject = Subject {
        name: "simulated",
        origin: "nobody: every answer is a digest".to_owned(),
        architecture: "shapes".to_owned(),
        parameters: 1 << 40,
        digest: Digest::of(b"simulated"),
        sums: [64, 128, 64, 32],
        ..Subject::none()
    };
    let engine = Simulated { seed: 7 };
    for number in 1..=4 {
        let options = Options {
            which: Which::Part(Part::Of(number, 4)),
            ..Options::of_all(folder.join("parts"), Present::Refuse, ("m.toml".to_owned(), None))
        };
        run::run(&plan, &subject, &engine, &options, &mut |_| {}).unwrap();
    }
}

/// What the program did with such a run, in a process of its own.
struct Told {
    /// The bytes that it read, and the most memory that it had, in KiB.
    read: u64,
    memory: u64,
    /// The time that it computed, in milliseconds.
    busy: u64,
}

const MERGE: [&str; 5] = ["merge", "parts", "--out", "whole", "--format"];

fn program(folder: &Path, arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
    let child = command.args(arguments).current_dir(folder).stdout(Stdio::null()).spawn().unwrap();
    let Took { memory, busy, read } = took(child);
    Told { read, memory, busy }
}

/// Every format but the samples themselves, which are as many as they are.
fn formats() -> String {
    let formats = FORMATS.iter().filter(|format| !matches!(format.written, Written::Samples));
    formats.map(|format| format.name).collect::<Vec<_>>().join(",")
}

fn merged(size: Size) -> (TempDir, Told) {
    let folder = tempfile::tempdir().unwrap();
    parts(size, folder.path());
    let told = program(folder.path(), &[&MERGE[..], &[&formats()]].concat());
    (folder, told)
}

/// The bytes of each report.
fn reports(folder: &Path) -> BTreeMap<String, u64> {
    let reports = files(&folder.join("whole")).into_iter().filter_map(|file| {
        let name = file.strip_prefix(folder.join("whole")).unwrap().display().to_string();
        name.starts_with("report.").then(|| (name, file.metadata().unwrap().len()))
    });
    reports.collect()
}

const FEW: Size = Size { precisions: 2, orders: 2, batches: 2, threads: 2, items: 50 };
const MANY: Size = Size { precisions: 4, orders: 4, batches: 4, threads: 2, items: 50 };

#[test]
fn of_eight_times_as_many_cells_each_is_read_as_often_and_reports_are_no_more_than_eight_times_as_large() {
    let [(few, once), (many, told)] = [FEW, MANY].map(merged);
    let each = [once.read / FEW.cells() as u64, told.read / MANY.cells() as u64];
    assert!(10 * each[1] < 11 * each[0], "{each:?} bytes are read for each cell");
    let (few, many) = (reports(few.path()), reports(many.path()));
    assert!(few.len() >= 9, "{few:?}");
    for (name, bytes) in few {
        assert!(
            many[&name] < 8 * bytes,
            "{name}: {bytes} bytes, and {} of eight times the cells",
            many[&name]
        );
    }
}

#[test]
fn ten_times_as_many_items_take_no_more_memory() {
    let size = Size { batches: 2, ..MANY };
    let [few, long] = [50, 500].map(|items| merged(Size { items, ..size }).1.memory);
    // What an allocator keeps; and of every item what its cluster and its lengths were.
    assert!(long < few + 1024, "{few} KiB, and {long} KiB of ten times the items");
}

#[test]
#[ignore = "takes minutes: `cargo test --release --test all -- --ignored --nocapture scale::`"]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn a_thousand_cells_of_a_thousand_items_are_planned_merged_and_told_in_reports_below_5_mb() {
    let items = 1_000;
    let sizes = [
        Size { items, ..FEW },
        Size { precisions: 5, orders: 5, batches: 2, threads: 2, items },
        Size { precisions: 5, orders: 10, batches: 5, threads: 4, items },
    ];
    for size in sizes {
        let folder = tempfile::tempdir().unwrap();
        parts(size, folder.path());
        println!("{} cells of {items} items", size.cells());
        let all = formats();
        let merge = [&MERGE[..], &["text"]].concat();
        let commands: [&[&str]; 3] = [
            &["plan", "--matrix", "m.toml"],
            &merge,
            &["report", "whole", "--format", &all, "--out", "whole"],
        ];
        for arguments in commands {
            let Told { read, memory, busy } = program(folder.path(), arguments);
            println!("{busy:>8} ms, {memory:>7} KiB at most, {read:>12} bytes read: {}", arguments[0]);
        }
        for (name, bytes) in reports(folder.path()) {
            println!("{bytes:>12} bytes of {name}");
            assert!(bytes < 5_000_000, "{name} has {bytes} bytes");
        }
    }
}
