//! The cause of a divergence: seeded differences are found where they were put, and real ones are proved by transplants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    process::Command,
};

use reprocheck::{
    cause::{
        passage::{Passage, Rows},
        tap::{Parting, Reading, Tap, parting},
        transplant::{Donated, Moved, Transplant},
    },
    model::{Checkpoint, Decoder, embedded::MODELS},
    numerics::{
        Numerics,
        kernel::{At, End, Fast, Faulty, Kernel, KernelFault, Op, Source, Step, Workers},
        order::Launch,
        random::Stream,
    },
};
use serde_json::Value;
use tempfile::TempDir;

fn fast(numerics: &str) -> Fast {
    Fast::new(numerics.parse().unwrap()).unwrap()
}

fn model() -> Checkpoint {
    Checkpoint::embedded(&MODELS[0]).unwrap()
}

/// Forty tokens, which one cell has read in calls of one row and the other in calls of nine.
fn passage(checkpoint: &Checkpoint) -> Passage {
    let tokens = (0..40).map(|place| (place * 7 + 3) % checkpoint.config.vocabulary as u32).collect();
    let rows = [1, 9].map(|rows| Rows { layers: rows, head: rows });
    Passage { tokens, prompt: 30, calls: vec![rows; 40], together: NonZeroUsize::new(16).unwrap() }
}

/// What every operation of a passage read and gave under a kernel of the first cell.
fn readings<H: Kernel>(checkpoint: &Checkpoint, kernel: Transplant<H, Fast>) -> Vec<Reading> {
    let decoder = Decoder::load(Tap::new(kernel, &checkpoint.config), checkpoint).unwrap();
    decoder.kernel().listen(None);
    passage(checkpoint).read(&decoder, |_, _| {});
    decoder.kernel().take().0
}

/// A difference that is put into one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// Its sums are added in another order.
    Order,
    /// It rounds otherwise.
    Rounding,
    /// It is launched as in a larger call, and its order follows the launch.
    Launch,
    /// The last term of its sums is dropped.
    Dropped,
    /// The key or value of one token is that of the token before.
    Stale,
}

const KINDS: [Kind; 5] = [Kind::Order, Kind::Rounding, Kind::Launch, Kind::Dropped, Kind::Stale];

impl Kind {
    /// Can it be put into such an operation?
    fn concerns(self, step: Step) -> bool {
        const SUMS: [Step; 12] = [
            Step::AttentionNorm,
            Step::Qkv,
            Step::QueryNorm,
            Step::KeyNorm,
            Step::Scores,
            Step::Softmax,
            Step::Context,
            Step::Output,
            Step::MlpNorm,
            Step::GateUp,
            Step::Down,
            Step::Norm,
        ];
        match self {
            Kind::Order | Kind::Launch | Kind::Dropped => SUMS.contains(&step) || step == Step::Head,
            Kind::Rounding => step != Step::Embed,
            Kind::Stale => [Step::Scores, Step::Context].contains(&step),
        }
    }

    /// What the model's operations read and gave with it at a place, and without.
    fn readings(self, checkpoint: &Checkpoint, numerics: &str, at: At) -> [Vec<Reading>; 2] {
        let followed = numerics.replace("/sequential/", "/split-k:rows/");
        let own = if self == Kind::Launch { &followed } else { numerics };
        let plain = || Transplant::<Fast>::new(0, fast(own), None);
        let only = || Donated::At(BTreeSet::from([at]));
        let other = |donor: Option<Fast>| {
            let kernel = Transplant::new(0, fast(own), donor);
            kernel.donate(only());
            readings(checkpoint, kernel)
        };
        let spoiled = match self {
            Kind::Order => other(Some(fast(&numerics.replace("/sequential/", "/pairwise/")))),
            Kind::Rounding => other(Some(fast("bf16/sequential/t1"))),
            Kind::Launch => other(None),
            Kind::Dropped => {
                let numerics: Numerics = numerics.parse().unwrap();
                let faulty = Faulty::new(numerics, KernelFault::DropsLastTerm, Some(at), Fast::new).unwrap();
                readings(checkpoint, Transplant::new(0, faulty, None))
            }
            Kind::Stale => {
                readings(checkpoint, Transplant::new(0, Stale { kernel: fast(numerics), at }, None))
            }
        };
        [readings(checkpoint, plain()), spoiled]
    }
}

/// A kernel whose memory at one place takes the seventh token's for the sixth's.
struct Stale {
    kernel: Fast,
    at: At,
}

#[derive(Debug)]
struct Remembered<W> {
    weights: W,
    is_stale: bool,
    last: Vec<f32>,
    pushed: usize,
}

impl Kernel for Stale {
    type Weights = Remembered<<Fast as Kernel>::Weights>;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        let weights = self.kernel.pack(at, columns, depth, source);
        Remembered { weights, is_stale: at == self.at, last: Vec::new(), pushed: 0 }
    }

    fn push(&self, memory: &mut Self::Weights, end: End<'_>) {
        let is_stale = memory.is_stale && memory.pushed == 6;
        let (End::Column(terms) | End::Row(terms)) = end;
        let terms = if is_stale { memory.last.clone() } else { terms.to_vec() };
        let end = match end {
            End::Column(_) => End::Column(&terms),
            End::Row(_) => End::Row(&terms),
        };
        self.kernel.push(&mut memory.weights, end);
        (memory.last, memory.pushed) = (terms, memory.pushed + 1);
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Self::Weights>) {
        self.kernel.apply(at, launch, op.lend(|memory| &memory.weights));
    }
}

/// Everywhere that a difference of a kind can be.
fn places(checkpoint: &Checkpoint, kind: Kind) -> Vec<At> {
    let layers = (0..checkpoint.config.layers).map(Some).chain([None]);
    let all = layers.flat_map(|layer| Step::ALL.iter().map(move |step| At { layer, step: *step }));
    let is_there = |at: &At| {
        let outside = [Step::Embed, Step::Norm, Step::Head].contains(&at.step);
        outside == at.layer.is_none() && kind.concerns(at.step)
    };
    all.filter(is_there).collect()
}

#[test]
fn of_25_seeded_differences_the_operation_is_named_in_25() {
    let checkpoint = model();
    let mut named = BTreeMap::new();
    for draw in 0..25 {
        let kind = KINDS[draw % KINDS.len()];
        let places = places(&checkpoint, kind);
        let below = NonZeroU64::new(places.len() as u64).unwrap();
        let at = places[Stream::new(19, draw as u64).below(below) as usize];
        let [own, spoiled] = kind.readings(&checkpoint, "fp32/sequential/t1", at);
        assert_eq!(own.len(), spoiled.len());
        let Some(Parting::Gave(which)) = parting(&own, &spoiled) else {
            panic!("{kind:?} in {at} is not seen");
        };
        assert_eq!(which.at, at, "{kind:?}");
        if kind == Kind::Stale {
            assert_eq!(which.position, 6, "a token is the first to read its own key");
        }
        *named.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(named.values().sum::<u32>(), 25, "{named:?}");
}

#[test]
fn a_difference_that_no_result_shows_is_none() {
    let checkpoint = model();
    // Rounded to sixteen bits, some results are those of another order.
    let (mut seen, mut unseen) = (0, 0);
    for at in places(&checkpoint, Kind::Order) {
        let [own, spoiled] = Kind::Order.readings(&checkpoint, "bf16/sequential/t1", at);
        let found = parting(&own, &spoiled);
        // Whether its results move is measured another way: from the same inputs, in one pass.
        let host = Transplant::new(0, fast("bf16/sequential/t1"), Some(fast("bf16/pairwise/t1")));
        host.donate(Donated::Compared(BTreeMap::new()));
        let decoder = Decoder::load(host, &checkpoint).unwrap();
        passage(&checkpoint).read(&decoder, |_, _| {});
        let Donated::Compared(moved) = decoder.kernel().donate(Donated::At(BTreeSet::new())) else {
            unreachable!("that was asked for")
        };
        let Moved { values, moved } = moved[&at];
        assert!(values > 0);
        match found {
            Some(Parting::Gave(which)) => {
                assert!(moved > 0, "{at}");
                assert_eq!(which.at, at);
                seen += 1;
            }
            None => {
                assert_eq!(moved, 0, "{at}");
                unseen += 1;
            }
            Some(Parting::Read(which)) => panic!("{at}: {which:?} reads something else"),
        }
    }
    assert!(seen > 4 && unseen > 10, "{seen} seen, {unseen} not");
}

#[test]
fn a_memory_that_changes_between_operations_is_no_operation_s_fault() {
    let checkpoint = model();
    let own = readings(&checkpoint, Transplant::<Fast>::new(0, fast("fp32/sequential/t1"), None));
    // A reader of other tokens has read something else before any operation gave anything.
    let kernel = Transplant::<Fast>::new(0, fast("fp32/sequential/t1"), None);
    let decoder = Decoder::load(Tap::new(kernel, &checkpoint.config), &checkpoint).unwrap();
    decoder.kernel().listen(None);
    let mut other = passage(&checkpoint);
    other.tokens[11] += 1;
    other.read(&decoder, |_, _| {});
    let Some(Parting::Read(which)) = parting(&own, &decoder.kernel().take().0) else {
        panic!("another token is not seen");
    };
    assert_eq!((which.position, which.at), (11, At::outside(Step::Embed)));
}

/// A run in a folder of its own.
struct Place(TempDir);

const SMOKE: &str = include_str!("../suites/smoke.toml");

impl Place {
    /// Of a matrix with a few gates, whatever they say.
    fn run(matrix: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.0.path().join("m.toml"), matrix).unwrap();
        let (code, _, err) = place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"]);
        assert!(code == 0 || code == 1 || code == 3, "{err}");
        place
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output =
            command.args(arguments).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What `bisect` says in JSON.
    fn cause(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.program(&[&["bisect", "r", "--format", "json"], arguments].concat());
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    }

    fn refusal(&self, arguments: &[&str], exit: i32) -> String {
        let (code, _, err) = self.program(&[&["bisect", "r"], arguments].concat());
        assert_eq!(code, exit, "{err}");
        err
    }
}

#[test]
fn the_divergence_of_the_smoke_matrix_has_one_cause_that_transplants_prove() {
    let place = Place::run(SMOKE);
    let (code, out, err) = place.program(&["bisect", "r"]);
    assert_eq!(code, 0, "{err}");
    let flowed = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "mul_ladder-v1-s0-000014",
        "The first operation that reads the same and gives something else: down of layer 0, for position 3 of 54 (in the prompt). \
         Of its 128 results 1 has other bits, by at most 1 step of bf16.",
        "Both carry it out as bf16/split-k:rows/t1, A in a call of 12 rows and B in a call of 73 rows, and add 256 terms for each \
         result.",
        "By transplant, down of layer 0 alone is the cause",
        "A has the logits of B to the last bit",
        "mlp-add of layer 2",
    ] {
        assert!(flowed.contains(said), "{said}: {out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    let found = place.cause(&[]);
    let first = &found["cause"]["first"];
    assert_eq!(first["operation"], serde_json::json!({ "layer": 0, "step": "down" }));
    // From the other side the same operation.
    let [a, b] = ["lab/bf16/split-k:rows/t1/b8", "lab/bf16/split-k:rows/t1/b1"];
    let turned = place.cause(&[a, b]);
    assert_eq!(turned["cause"]["first"]["operation"], first["operation"]);
    assert_eq!(turned["cause"]["first"]["sides"][0], first["sides"][1]);
    assert_eq!(turned["cause"]["transplants"]["smallest"], found["cause"]["transplants"]["smallest"]);
}

#[test]
fn another_degree_and_another_reduction_are_found_where_ranks_share_terms_and_transplants_prove_it() {
    let checkpoint = model();
    let tapped = |numerics: &str| readings(&checkpoint, Transplant::<Fast>::new(0, fast(numerics), None));
    let by_terms = [Step::Output, Step::Down];
    for [one, other] in [
        ["fp32/sequential/t1", "fp32/sequential/t1/tp4"],
        ["fp32/pairwise/t1/tp2/ring:bf16", "fp32/pairwise/t1/tp4/one-shot"],
        ["bf16/sequential/t1/tp4/ring", "bf16/sequential/t1/tp2"],
        ["w8a8/exact/t1", "w8a8/exact/t1/tp2"],
    ] {
        let (own, others) = (tapped(one), tapped(other));
        let Some(Parting::Gave(first)) = parting(&own, &others) else {
            panic!("{one} and {other} do not part")
        };
        assert!(by_terms.contains(&first.at.step), "{one} and {other} part in {}", first.at);
        // Every product that ranks share, and nothing else, makes one the other.
        let layers = 0..checkpoint.config.layers;
        let shared = layers.flat_map(|layer| by_terms.map(|step| At::layer(layer, step)));
        let both = [
            Transplant::new(0, fast(one), Some(fast(other))),
            Transplant::new(0, fast(other), Some(fast(one))),
        ];
        for (kernel, expected) in both.into_iter().zip([&others, &own]) {
            kernel.donate(Donated::At(shared.clone().collect()));
            assert_eq!(readings(&checkpoint, kernel), *expected, "{one} and {other}");
        }
    }
    // A balanced tree in a balanced order gives every operation of every degree the same to read.
    assert_eq!(parting(&tapped("bf16/pairwise/t1"), &tapped("bf16/pairwise/t1/tp4")), None);
}

#[test]
fn every_report_of_a_run_tells_the_cause_that_was_looked_for() {
    let matrix =
        SMOKE.replace("vary   = \"batch\"\nexpect = \"diverges\"", "vary   = \"batch\"\nrequire = \"bits\"");
    assert_ne!(matrix, SMOKE);
    let place = Place::run(&matrix);
    const FORMATS: &str = "text,json,markdown,html,junit,sarif";
    let report = |folder: &str| {
        let (code, _, err) = place.program(&["report", "r", "--format", FORMATS, "--out", folder]);
        assert_eq!(code, 1, "{err}");
        let files = fs::read_dir(place.0.path().join(folder)).unwrap();
        files
            .map(|file| file.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let before = report("before");
    place.cause(&[]);
    let after = report("after");
    assert_eq!(after.len(), 6);
    for (name, text) in &after {
        let said = |text: &str| text.contains("down of layer 0") || text.contains("\"step\": \"down\"");
        assert!(said(text) && !said(&before[name]), "{name:?}: {text}");
    }
    // Of other cells or items none tells.
    let kept = fs::read(place.0.path().join("r/cause.json")).unwrap();
    place.cause(&["lab/fp32/exact/t1/b1", "lab/bf16/sequential/t1/b1", "--tries", "1"]);
    assert_eq!(fs::read(place.0.path().join("r/cause.json")).unwrap(), kept);
    assert_eq!(report("again"), after);
    // Run with it from the beginning, it is there at once.
    let (code, out, err) =
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r", "--fresh", "--bisect"]);
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("By transplant, down of layer 0 alone is the cause"), "{out}");
    // A byte of it that is another is no cause.
    let mut spoiled = kept.clone();
    let at = kept.windows(8).position(|part| part == b"\"down\"}," || part == b"\"layer\":").unwrap();
    spoiled[at + 2] ^= 1;
    fs::write(place.0.path().join("r/cause.json"), spoiled).unwrap();
    let (code, _, err) = place.program(&["report", "r"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cause.json") && err.contains("run `reprocheck bisect` again"), "{err}");
    // A part of the cells is judged by nobody, and has no first two that part.
    let (code, _, err) = place.program(&[
        "run", "--model", "qwen", "--matrix", "m.toml", "--out", "part", "--part", "1/2", "--bisect",
    ]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cannot be used with"), "{err}");
    // Where no two cells part, the verdict stands, and it is said why there is no cause.
    let matrix = "suites = [\"carry_chain\"]\nitems = 2\n[matrix]\nprecision = \"fp32\"\nbatch = [1, 2]\n\
                  [[gate]]\nname = \"g\"\nvary = \"batch\"\nrequire = \"bits\"\n";
    fs::write(place.0.path().join("m.toml"), matrix).unwrap();
    let (code, _, err) =
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "other", "--bisect"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no cause is told: no two cells part"), "{err}");
}

/// Many cells that share calls in every way there is; all are in an order that follows the rows.
const SHARED: &str = r#"
suites = ["carry_chain", "mul_ladder"]
items  = 12

[reference]
precision = "bf16"
order     = "split-k:rows"

[matrix]
precision     = "bf16"
order         = "split-k:rows"
batch         = [1, 5]
prefill-chunk = [4, "all"]
grouping      = ["in-order", "shuffled:3", "by-length"]
threads       = [1, 2]
"#;

#[test]
fn a_replay_is_what_ran_whatever_shared_its_calls() {
    let place = Place::run(SHARED);
    let names = fs::read_dir(place.0.path().join("r/cells")).unwrap();
    let cells: BTreeSet<String> = names
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .map(|text| serde_json::from_str::<Value>(&text).unwrap()["content"]["done"]["cell"].clone())
        .map(|cell| cell.as_str().unwrap().to_owned())
        .collect();
    assert!(cells.len() >= 16, "{cells:?}");
    let mut causes = BTreeSet::new();
    for cell in &cells {
        let (code, out, err) = place.program(&[
            "bisect",
            "r",
            "lab/bf16/split-k:rows/t1/b1",
            cell,
            "--format",
            "json",
            "--tries",
            "1",
        ]);
        // Either has the logits that were recorded, or it would be said.
        match code {
            0 => {
                let found: Value = serde_json::from_str(&out).unwrap();
                let cause = &found["cause"];
                assert_eq!(cause["transplants"]["complete"], true, "{cell}: {out}");
                assert_eq!(cause["first"]["read_otherwise"], false, "{cell}: {out}");
                causes.insert(cause["first"]["sides"][1]["rows"].as_u64().unwrap());
            }
            _ => assert!(err.contains("both cells have the same logits"), "{cell}: {err}"),
        }
    }
    assert!(causes.len() > 3, "{causes:?}");
}

#[test]
fn the_answer_is_the_same_byte_for_byte_however_it_is_read_and_whatever_else_ran() {
    let place = Place::run(SMOKE);
    let first = place.cause(&[]);
    for together in ["1", "7", "1000"] {
        assert_eq!(place.cause(&["--together", together]), first, "{together}");
    }
    // The same two cells among others, which share their engines and come in another order.
    let matrix = SMOKE.replace("[1, 8]", "[8, 3, 1]").replace(
        "[\"sequential\", \"split-k:rows\"]",
        "[\"split-k:rows\", \"sequential\", \"pairwise\"]\nthreads = [2, 1]",
    );
    let others = Place::run(&matrix);
    let cells = ["lab/bf16/split-k:rows/t1/b1", "lab/bf16/split-k:rows/t1/b8"];
    assert_eq!(others.cause(&cells), first);
    // On two threads every operation is the same one.
    let threads = others.cause(&["lab/bf16/split-k:rows/t2/b1", "lab/bf16/split-k:rows/t2/b8"]);
    assert_eq!(threads["cause"]["growth"], first["cause"]["growth"]);
    assert_eq!(threads["cause"]["transplants"], first["cause"]["transplants"]);
}

#[test]
fn another_precision_is_caused_by_several_operations_of_which_none_is_idle() {
    let place = Place::run(SMOKE);
    let found = place.cause(&["lab/fp32/exact/t1/b1", "lab/bf16/sequential/t1/b1"]);
    let transplants = &found["cause"]["transplants"];
    let smallest = &transplants["smallest"];
    assert_eq!(smallest["minimal"], true, "{transplants}");
    assert_eq!(smallest["effect"]["sufficient"], true);
    assert!(smallest["operations"].as_array().unwrap().len() > 1, "{transplants}");
    assert!(transplants["suspects"].as_array().unwrap().len() > 40, "{transplants}");
    // Whoever may try little says that there may be fewer.
    let few = place.cause(&["lab/fp32/exact/t1/b1", "lab/bf16/sequential/t1/b1", "--tries", "2"]);
    assert_eq!(few["cause"]["transplants"]["smallest"]["minimal"], false);
    assert_eq!(few["cause"]["first"], found["cause"]["first"]);
}

#[test]
fn what_cannot_be_looked_into_is_refused_with_the_way_out() {
    let matrix = SMOKE
        .replace("precision = \"bf16\"", "engine = [\"lab\", \"candle\"]\nprecision = [\"bf16\", \"int8\"]");
    let matrix = matrix
        .replace(
            "[1, 8]",
            "[1, 3]\ngrouping  = \"by-length\"\nexclude   = [{ engine = \"candle\", precision = \"int8\" }]",
        )
        .replace("items  = 24", "items  = 3");
    let matrix = matrix.split("[[gate]]").next().unwrap();
    let place = Place::run(matrix);
    let own = "lab/bf16/sequential/t1/b1/by-length";
    for (arguments, exit, said) in [
        (&[own, own][..], 2, "both cells have the same logits for every token of every item"),
        (&[own, "lab/bf16/sequential/t1/b7/by-length"], 2, "has not run in r"),
        (
            &[own, "lab/bf16/sequential/t1/b3/by-length", "--item", "nobody"],
            2,
            "no item is called nobody: take a name of r/items.jsonl",
        ),
        (
            &["lab/int8/sequential/t1/b1/by-length", "lab/int8/sequential/t1/b3/by-length"],
            2,
            "int8 cannot be replayed by itself",
        ),
        (&[own, "lab/bf16/sequential/t1/b3/by-length", "--tries", "x"], 2, "write a number"),
        (&[own], 2, "2 values required"),
    ] {
        let err = place.refusal(arguments, exit);
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/qwen3-tied");
    let err = place.refusal(&["--model", fixture.to_str().unwrap()], 2);
    assert!(err.contains("name that model with --model"), "{err}");
}
