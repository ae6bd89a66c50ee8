//! Precision maps: one value has one name, whatever was written for it, and every operation computes as its place says.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    process::Command,
    sync::Mutex,
};

use crate::{support::fixture, validate::Validator};
use reprocheck::{
    cause::{
        passage::{Passage, Rows},
        transplant::{Donated, Transplant},
    },
    cell::{Cell, map},
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::{
        Numerics,
        format::Format,
        kernel::{At, Definition, End, Fast, Kernel, Op, Source, Step, Workers},
        order::Launch,
        precision::{Map, Precision, Site},
        random::Stream,
    },
    report::Report,
};
use serde_json::Value;
use tempfile::TempDir;

fn precision(name: &str) -> Precision {
    name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read(text: &str) -> Precision {
    map::read("m.map", text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// Every place of a model of so many layers.
fn places(layers: usize) -> Vec<At> {
    let (of_layer, outside): (Vec<Step>, Vec<Step>) = Step::ALL.iter().partition(|step| step.is_of_layer());
    let of_layers = (0..layers).flat_map(|layer| of_layer.iter().map(move |step| At::layer(layer, *step)));
    of_layers.chain(outside.into_iter().map(At::outside)).collect()
}

/// Lines as a person might write them, and what the last that holds at a place says.
struct Lines {
    base: Precision,
    rules: Vec<Line>,
}

/// Layers from one to another, or to the last; steps; what they have.
type Line = (Vec<(usize, Option<usize>)>, Vec<Step>, Precision);

const SOME: [&str; 6] =
    ["bf16", "cast:e4m3", "lmul:m=4,scope=attention", "int8:threshold=4.5", "cast:e3m2,round=zero", "gguf"];

impl Lines {
    fn random(stream: &mut Stream) -> Lines {
        let mut below = |bound: u64| stream.below(NonZeroU64::new(bound).unwrap()) as usize;
        let count = 1 + below(6) as u64;
        let any = |below: &mut dyn FnMut(u64) -> usize| precision(SOME[below(count) % SOME.len()]);
        let base = any(&mut below);
        let rules = (0..below(9)).map(|_| {
            let layers = (0..below(4)).map(|_| {
                let first = below(7);
                (first, [None, Some(first), Some(first + below(4))][below(3)])
            });
            let layers: Vec<_> = layers.collect();
            let mut steps: Vec<Step> = (0..below(5)).map(|_| Step::ALL[below(19)]).collect();
            steps.retain(|step| layers.is_empty() || step.is_of_layer());
            if layers.is_empty() && steps.is_empty() {
                steps.push(Step::ALL[below(19)]);
            }
            (layers, steps, any(&mut below))
        });
        Lines { base, rules: rules.collect() }
    }

    fn text(&self) -> String {
        let mut text = format!("# a map\nall : {}\n\n", self.base);
        for (layers, steps, precision) in &self.rules {
            let layers: Vec<_> = layers
                .iter()
                .map(|(first, last)| match last {
                    Some(last) if last == first => format!("{first}"),
                    Some(last) => format!("{first}-{last}"),
                    None => format!("{first}-"),
                })
                .collect();
            let steps: Vec<_> = steps.iter().map(|step| step.name()).collect();
            let between = if layers.is_empty() || steps.is_empty() { "" } else { ", " };
            let word = if layers.is_empty() { "" } else { "layers " };
            writeln!(text, " {word}{}{between}{}: {precision} # why", layers.join(" "), steps.join(" "))
                .unwrap();
        }
        text
    }

    fn at(&self, at: At) -> Precision {
        let holds = |(layers, steps, _): &&Line| {
            let has = |layer: usize| {
                layers.iter().any(|(first, last)| (*first..=last.unwrap_or(usize::MAX)).contains(&layer))
            };
            (layers.is_empty() || at.layer.is_some_and(has)) && (steps.is_empty() || steps.contains(&at.step))
        };
        self.rules.iter().rev().find(holds).map_or(self.base, |(_, _, precision)| *precision)
    }
}

#[test]
fn a_map_is_what_its_lines_say_and_has_one_name_and_one_text() {
    let mut stream = Stream::new(5, 0);
    let (mut maps, mut longest) = (0, 0);
    let all = places(13);
    for _ in 0..2000 {
        let lines = Lines::random(&mut stream);
        let text = lines.text();
        let value = read(&text);
        for &at in &all {
            assert_eq!(value.at(at), lines.at(at), "{at}: {value}\n{text}");
        }
        let name = value.to_string();
        assert_eq!(name.parse(), Ok(value), "{text}");
        let written = map::written(value);
        assert_eq!((read(&written), map::written(read(&written))), (value, written), "{text}");
        // Place by place it is the same value, whatever the lines were.
        let depth = all.iter().filter_map(|at| at.layer).max().unwrap();
        let placed = all.iter().map(|at| (*at, lines.at(*at)));
        let again = Map::new(precision("fp32"), placed);
        let agree = |at: &At| again.at(*at) == value.at(*at);
        assert!(all.iter().all(agree) && again.to_string().parse() == Ok(again), "{again}\n{text}");
        // Behind the last layer that was placed one by one it has the base.
        assert_eq!(again.at(At::layer(depth + 1, Step::Down)), precision("fp32"));
        // A map over itself, and over another, is itself.
        assert_eq!(Map::new(value, all.iter().map(|at| (*at, value))), value);
        assert_eq!(value.parts().len() > 1, matches!(value, Precision::Map(_)));
        maps += usize::from(matches!(value, Precision::Map(_)));
        longest = longest.max(name.len());
        let cell = format!("lab/{name}/exact/t1/b1");
        assert_eq!(cell.parse::<Cell>().map(|cell| cell.to_string()), Ok(cell));
    }
    assert!(
        (1200..1990).contains(&maps) && longest > 300,
        "{maps} maps, the longest of {longest} characters"
    );
}

#[test]
fn texts_that_mean_the_same_have_the_name_that_is_shown() {
    for (name, texts) in [
        (
            "map:cast:e4m3;gate-up@7.12-=bf16;down@0-3.7.12-=bf16;head=fp32",
            &[
                "all: cast:e4m3\nlayers 0-3, down: bf16\nlayers 7 12-, gate-up down: bf16\nhead: fp32\n",
                "all: cast:e4m3\ndown gate-up head: bf16\nlayers 4-6 8-11, down: cast:e4m3\nhead: fp32\n\
                 layers 0-6 8-11, gate-up: cast:e4m3",
            ][..],
        ),
        (
            "map:bf16;@0-1=fp32;embed,norm,head=fp32;down@0=bf16",
            &[
                "all: fp32\nlayers 2-: bf16\nlayers 0, down: bf16",
                "all: bf16\nlayers 0 1: fp32\nembed norm head: fp32\ndown: bf16\nlayers 1, down: fp32",
            ],
        ),
        (
            "map:bf16;gate-up,down@1-=cast:e4m3;head=fp32",
            &["all: bf16\ngate-up,down: cast:e4m3\r\nlayers 0: bf16\r\nhead:fp32"],
        ),
        (
            "map:fp32;scores,context=lmul:m=4,scope=attention",
            &["all: fp32\nscores context: lmul:scope=attention,m=4"],
        ),
        // Where all places agree it is no map.
        (
            "bf16",
            &[
                "all: bf16",
                "all: bf16\nlayers 0-7: bf16",
                "all: fp32\nlayers 0-: bf16\nembed norm head: bf16",
            ],
        ),
    ] {
        for text in texts {
            assert_eq!(read(text).to_string(), name, "{text}");
        }
        assert_eq!(precision(name).to_string(), name);
    }
    // What stands alone has what most steps have.
    let map = precision("map:cast:e4m3;head=fp32");
    assert_eq!(map.at(At::alone(Site::Head)), precision("cast:e4m3"));
    assert_eq!(map.at(At::outside(Step::Head)), precision("fp32"));
}

#[test]
fn a_map_in_its_own_words_says_what_is_wrong_with_them() {
    let error = |name: &str| name.parse::<Precision>().unwrap_err().to_string();
    for (name, said) in [
        (
            "map:smooth.map",
            "`map:smooth.map` names a file, and here none is read: write what it says, such as map:bf16;head=fp32 (a map in its own \
             words has a `;`, and the name of a file has none)",
        ),
        ("map:bf16;", "`` gives no place a precision: write for example down@0-3=bf16"),
        ("map:bf16;dwn=fp32", "unknown step `dwn`: write `down`, or one of embed, "),
        ("map:bf16;=fp32", "unknown step ``: write one of embed, "),
        ("map:bf16;down@=fp32", "`` is not a layer: write a number from 0 up, or a range such as 0-3 or 12-"),
        ("map:bf16;down@x=fp32", "`x` is not a layer: "),
        ("map:bf16;down@-3=fp32", "`-3` is not a layer: "),
        ("map:bf16;down@+3=fp32", "`+3` is not a layer: "),
        ("map:bf16;down@3-1=fp32", "layers 3-1 end before they begin: write 1-3"),
        (
            "map:bf16;down@0-1024=fp32",
            "no model has a layer 1024: layers are counted from 0, up to 1023 at most",
        ),
        ("map:bf16;down@99999999999999999999999=fp32", "no model has a layer "),
        ("map:bf16;head@0=fp32", "`head` stands outside of the layers: name it without any"),
        ("map:map:x;head=fp32", "a map cannot stand in a map: write what it says of these places"),
        ("map:bf16;head=bf61", "unknown precision `bf61`: did you mean `bf16`? "),
        ("map", "unknown precision `map`: did you mean `map:FILE`? "),
    ] {
        assert!(error(name).starts_with(said), "{name}: {}", error(name));
    }
}

fn numerics(precision: &str) -> Numerics {
    format!("{precision}/split-k:3/t2").parse().unwrap()
}

/// The bits of the logits after every token of a passage, as a kernel that may have a donor reads it.
fn logits<H: Kernel>(checkpoint: &Checkpoint, host: H, donor: Option<Fast>, donated: &[At]) -> Vec<u32> {
    let kernel = Transplant::new(0, host, donor);
    kernel.donate(Donated::At(donated.iter().copied().collect::<BTreeSet<_>>()));
    let decoder = Decoder::load(kernel, checkpoint).unwrap();
    let tokens = (0..40).map(|place| (place * 7 + 3) % checkpoint.config.vocabulary as u32).collect();
    let rows = [Rows { layers: 9, head: 9 }; 2];
    let passage =
        Passage { tokens, prompt: 1, calls: vec![rows; 40], together: NonZeroUsize::new(16).unwrap() };
    let mut bits = Vec::new();
    passage.read(&decoder, |_, logits| bits.extend(logits.iter().map(|logit| logit.to_bits())));
    bits
}

#[test]
fn a_map_computes_what_a_transplant_of_its_places_computes() {
    let checkpoint = Checkpoint::embedded(&MODELS[0]).unwrap();
    let fast = |precision: &str| Fast::new(numerics(precision)).unwrap();
    for (host, donor, lines, donated) in [
        ("bf16", "cast:e4m3", "layers 0-1, down gate-up", &[Step::Down, Step::GateUp][..]),
        ("bf16", "fp32", "layers 0-1, scores softmax context", &[Step::Scores, Step::Softmax, Step::Context]),
        (
            "fp32",
            "lmul:m=3",
            "layers 0-1, scores context output",
            &[Step::Scores, Step::Context, Step::Output],
        ),
        (
            "fp32",
            "cast:e4m3",
            "layers 0-1, query-rotation key-rotation attention-add gate mlp-add",
            &[Step::QueryRotation, Step::KeyRotation, Step::AttentionAdd, Step::Gate, Step::MlpAdd],
        ),
        ("layercast", "w8a8", "layers 0-1, qkv down", &[Step::Qkv, Step::Down]),
        ("fp16", "bf16", "layers 0-1, down gate-up output", &[Step::Down, Step::GateUp, Step::Output]),
    ] {
        let map = read(&format!("all: {host}\n{lines}: {donor}")).to_string();
        let places: Vec<At> =
            (0..2).flat_map(|layer| donated.iter().map(move |step| At::layer(layer, *step))).collect();
        let own = logits(&checkpoint, fast(&map), None, &[]);
        let transplanted = logits(&checkpoint, fast(host), Some(fast(donor)), &places);
        assert!(own == transplanted, "{map} is no transplant");
        for plain in [host, donor] {
            assert!(own != logits(&checkpoint, fast(plain), None, &[]), "{map} is {plain}");
        }
        // Nor is it one of a place less.
        for left in 0..places.len() {
            let fewer = [&places[..left], &places[left + 1..]].concat();
            let transplanted = logits(&checkpoint, fast(host), Some(fast(donor)), &fewer);
            assert!(own != transplanted, "{map}: {} changes nothing", places[left]);
        }
    }
}

/// A kernel that looks at the vectors of every norm and product: are they numbers of the format that their place has?
struct Looks {
    kernel: Fast,
    seen: Mutex<BTreeSet<Step>>,
}

impl Kernel for Looks {
    type Weights = <Fast as Kernel>::Weights;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        self.kernel.pack(at, columns, depth, source)
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        self.kernel.push(weights, end);
    }

    fn apply(&self, at: At, launch: Launch, op: Op<'_, Self::Weights>) {
        let vectors = match &op {
            Op::Norm { weight, .. } => vec![*weight],
            Op::Product(jobs) => jobs.iter().filter_map(|job| job.start).collect(),
            _ => Vec::new(),
        };
        let precision = self.numerics().precision();
        // The narrower one is told from the wider.
        let is_fp8 = precision.at(at) == Precision::Minifloat(Format::E4M3);
        for vector in vectors {
            let fits = |format: Format| vector.iter().all(|value| format.round(*value) == *value);
            assert_eq!(fits(Format::E4M3), is_fp8, "{at} under {precision}");
            self.seen.lock().unwrap().insert(at.step);
        }
        self.kernel.apply(at, launch, op);
    }
}

#[test]
fn vectors_are_stored_as_their_own_place_stores_them() {
    // Norms of the heads in the one, biases of the products in the other.
    for (name, steps) in
        [("qwen3-untied-bias", "attention-norm query-norm qkv"), ("llama-bias", "mlp-norm output norm")]
    {
        let checkpoint = fixture(name);
        let mut seen = BTreeSet::new();
        for steps in
            [steps.to_owned(), "head".to_owned()].into_iter().chain(steps.split(' ').map(str::to_owned))
        {
            let map = read(&format!("all: bf16\nlayers 1: cast:e4m3\n{steps}: cast:e4m3")).to_string();
            let kernel = Looks { kernel: Fast::new(numerics(&map)).unwrap(), seen: Mutex::default() };
            let decoder = Decoder::load(kernel, &checkpoint).unwrap();
            let mut cache = decoder.cache();
            decoder.forward(&mut [Span { cache: &mut cache, tokens: &[1, 2, 3], logits: Wanted::Last }]);
            seen.extend(decoder.kernel().seen.lock().unwrap().iter().copied());
        }
        assert!(steps.split(' ').all(|step| seen.contains(&step.parse().unwrap())), "{name}: {seen:?}");
    }
}

#[test]
fn the_fast_kernel_has_the_bits_of_the_definition_under_any_map() {
    let mut stream = Stream::new(6, 0);
    for name in ["qwen3-wide-heads", "qwen2-window", "llama-bias", "qwen2-tied"] {
        let checkpoint = fixture(name);
        for _ in 0..6 {
            let map = Lines::random(&mut stream).text();
            let numerics = numerics(&read(&map).to_string());
            let fast = logits(&checkpoint, Fast::new(numerics).unwrap(), None, &[]);
            let definition = logits(&checkpoint, Definition { numerics }, None, &[]);
            assert!(fast == definition, "{name}: {numerics}");
        }
    }
}

#[test]
fn layercast_of_layers_is_f32_but_for_what_the_products_of_layers_store() {
    // Stored in f32: tied and not, with biases of products and without.
    for name in ["qwen3-tied", "qwen2-tied", "llama-plain"] {
        let checkpoint = fixture(name);
        let bits = |precision: &str| {
            let numerics = numerics(precision);
            let fast = logits(&checkpoint, Fast::new(numerics).unwrap(), None, &[]);
            assert!(fast == logits(&checkpoint, Definition { numerics }, None, &[]), "{name}: {precision}");
            fast
        };
        let own = bits("layercast:scope=layers");
        assert!(own == bits("map:fp32;qkv,output,gate-up,down=layercast"), "{name}");
        assert!(own != bits("layercast") && own != bits("fp32"), "{name}");
        let summed = bits("layercast:scope=layers,sum=e8m13");
        assert!(summed != own && summed != bits("layercast:sum=e8m13"), "{name}");
    }
}

#[test]
fn a_tied_table_is_stored_twice_where_head_and_embedding_differ() {
    let checkpoint = fixture("qwen2-tied");
    let fast = |precision: &str| Fast::new(numerics(precision)).unwrap();
    for (name, shared) in [
        ("map:fp32;head=bf16", false),
        ("map:fp32;embed=bf16", false),
        ("map:fp32;embed,head=bf16", true),
        ("map:bf16;down=fp32", true),
        ("map:fp32;head=gguf", true),
        ("map:fp32;embed=gguf", true),
    ] {
        assert_eq!(precision(name).head_is_table(), shared, "{name}");
        // The embedding is read as its own precision has it, whatever the head is in.
        let definition = logits(&checkpoint, Definition { numerics: numerics(name) }, None, &[]);
        assert!(logits(&checkpoint, fast(name), None, &[]) == definition, "{name}");
    }
    let plain = logits(&checkpoint, fast("fp32"), None, &[]);
    assert!(logits(&checkpoint, fast("map:fp32;embed=gguf"), None, &[]) == plain);
}

/// A folder, and the program run in it.
struct Place(TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::write(place.0.path().join(name), text).unwrap();
        }
        place
    }

    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output =
            command.args(arguments).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn held(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.program(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }
}

const SMOOTH: &str = "all: cast:e4m3\nlayers 0-1, down gate-up: bf16 # where it counts\nhead: fp32\n";
const NAME: &str = "map:cast:e4m3;gate-up,down@0-1=bf16;head=fp32";

const MATRIX: &str = r#"
suites = ["carry_chain"]
items  = 3

[reference]
precision = "map:smooth.map"

[matrix]
precision = ["bf16", "map:plain.map", "map:smooth.map"]
batch     = [1, 2]
exclude   = [{ precision = "map:plain.map", batch = 2 }]

[[gate]]
name    = "the batch must not matter"
where   = { precision = "map:smooth.map" }
vary    = ["batch"]
require = "bits"
"#;

#[test]
fn a_run_takes_the_maps_beside_its_matrix_and_needs_them_no_more() {
    let place = Place::new(&[
        ("smooth.map", SMOOTH),
        ("plain.map", "all: bf16\nlayers 0-: fp16\nembed norm head: fp16"),
    ]);
    let folder = place.0.path().join("matrices");
    fs::create_dir(&folder).unwrap();
    for name in ["smooth.map", "plain.map"] {
        fs::rename(place.0.path().join(name), folder.join(name)).unwrap();
    }
    fs::write(folder.join("m.toml"), MATRIX).unwrap();
    let plan = place.held(&["plan", "--matrix", "matrices/m.toml"]);
    let cells = [
        format!("lab/{NAME}/sequential/t1/b1"),
        "lab/bf16/sequential/t1/b1".to_owned(),
        "lab/bf16/sequential/t1/b2".to_owned(),
        "lab/fp16/sequential/t1/b1".to_owned(),
        format!("lab/{NAME}/sequential/t1/b2"),
    ];
    let listed: Vec<_> = plan.lines().filter(|line| line.starts_with("lab/")).collect();
    let listed: Vec<_> = listed.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(listed, cells, "{plan}");
    let run = ["run", "--model", "qwen", "--matrix", "matrices/m.toml", "--out", "r"];
    let report = place.held(&run);
    assert!(report.contains("pass       the batch must not matter: 1 of 1 comparison"), "{report}");
    // The cell says all that computes: the run is judged, looked into and gone on with by that alone.
    for name in ["smooth.map", "plain.map"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let json: Value = serde_json::from_str(&place.held(&["report", "r", "--format", "json"])).unwrap();
    let reported = json["cells"].as_array().unwrap().iter().map(|cell| cell["cell"].as_str().unwrap());
    assert_eq!(reported.collect::<BTreeSet<_>>(), cells.iter().map(String::as_str).collect());
    assert_eq!(Validator::new(&Report::schema()).unwrap().holds(&json), Ok(()));
    let bisected = place.held(&["bisect", "r", &cells[0], &cells[1], "--tries", "1"]);
    assert!(bisected.contains("part"), "{bisected}");
    // In its words instead of its file it is the same matrix, which has nothing left to do.
    let words = MATRIX.replace("map:smooth.map", NAME).replace("map:plain.map", "fp16");
    fs::write(folder.join("m.toml"), words).unwrap();
    let (code, _, err) = place.program(&[&run[..], &["--resume"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("1/"), "{err}");
}

#[test]
fn a_person_may_name_a_map_by_its_file_wherever_a_precision_or_a_cell_is_named() {
    let place = Place::new(&[("smooth.map", SMOOTH), ("plain.map", "all: bf16"), ("bad.map", "all: bf61")]);
    let generate = |arguments: &[&str]| {
        place.held(&[&["generate", "--model", "qwen", "--prompt", "12+34="], arguments].concat())
    };
    let by_words = generate(&["--precision", NAME]);
    assert!(by_words.contains(&format!("lab/{NAME}/sequential/t1/b1: ")), "{by_words}");
    assert_eq!(generate(&["--precision", "map:smooth.map"]), by_words);
    assert_eq!(generate(&["--cell", "lab/map:smooth.map/sequential/t1/b1"]), by_words);
    let loose = "lab/map:cast:e4m3;head=fp32;down@0-1=bf16;gate-up@1.0=bf16/sequential/t1/b1";
    assert_eq!(generate(&["--cell", loose]), by_words);
    assert_eq!(generate(&["--precision", "map:plain.map"]), generate(&["--precision", "bf16"]));
    let explained = place.held(&["explain", "precision", "map:smooth.map"]);
    assert!(
        explained.starts_with(&format!("{NAME}: "))
            && explained.contains(
                "\nplaces\n  all: cast:e4m3\n  layers 0-1, gate-up down: bf16\n  head: fp32\n\nWhat follows is of cast:e4m3; "
            ),
        "{explained}"
    );
    // What has no `;` is a file, whatever it looks like.
    fs::write(place.0.path().join("m.toml"), "suites = [\"divmod\"]\n[matrix]\nprecision = \"map:bf16\"\n")
        .unwrap();
    let (code, _, err) = place.program(&["plan", "--matrix", "m.toml"]);
    assert!(
        code == 2
            && err.starts_with("error: m.toml:3: bf16: it cannot be read (")
            && err.contains("): put the map there, or write its words in place of the file, with a `;`, such as map:bf16;head=fp32\n"),
        "{err}"
    );
    for (arguments, said) in [
        (&["--precision", "map:bad.map"], "bad.map:1: unknown precision `bf61`: did you mean `bf16`?"),
        (&["--precision", "map:none.map"], "none.map: it cannot be read ("),
        (&["--precision", "map:../none.map"], "write map:FILE, with its name and no folder"),
        (&["--cell", "lab/map:bad.map/sequential/t1/b1"], "bad.map:1: unknown precision `bf61`"),
        (&["--cell", "lab/map:none.map/sequential/t1/b1"], "none.map: it cannot be read ("),
    ] {
        let (code, _, err) =
            place.program(&[&["generate", "--model", "qwen", "--prompt", "1"], &arguments[..]].concat());
        assert!(code == 2 && err.contains(said), "{arguments:?}: {err}");
    }
}

#[test]
fn a_map_that_names_what_a_model_has_not_is_refused_before_anything_runs() {
    let llama = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-plain");
    let layers = fixture("llama-plain").config.layers;
    let place = Place::new(&[]);
    let model = llama.to_str().unwrap();
    let refused = |precision: &str| {
        let matrix = format!(
            "suites = [\"carry_chain\"]\nitems = 1\n[matrix]\nprecision = [\"fp32\", \"{precision}\"]\n"
        );
        fs::write(place.0.path().join("m.toml"), matrix).unwrap();
        let (code, _, err) =
            place.program(&["generate", "--model", model, "--prompt-ids", "1,2", "--precision", precision]);
        let cell = format!("error: lab/{precision}/sequential/t1 ");
        if code == 0 {
            return String::new();
        }
        assert!(code == 2 && err.starts_with(&cell), "{err}");
        err[cell.len()..].trim_end().to_owned()
    };
    let last = layers - 1;
    assert_eq!(
        refused(&format!("map:fp32;down@{layers}=bf16")),
        format!(
            "names layer {layers}, and {model} has {layers}, the last of them {last}: take layer {layers} out of the map"
        )
    );
    assert!(
        refused(&format!("map:fp32;down@0.{}-=bf16", layers + 2))
            .starts_with(&format!("names layer {}, and", layers + 2))
    );
    assert_eq!(refused(&format!("map:fp32;down@{last}=bf16")), "");
    assert_eq!(refused(&format!("map:fp32;down@{last}-=bf16")), "");
    assert!(
        refused(&format!("map:fp32;down@{layers}-=bf16")).starts_with(&format!("names layer {layers}, and"))
    );
    // All layers but the last: those behind it are as the others, and that is not what was meant.
    let but_last = read(&format!("all: fp32\ndown: bf16\nlayers {last}, down: fp32")).to_string();
    assert!(
        but_last.contains(&format!(".{layers}-=bf16")) || last == 1 && but_last.contains("@0.2-=bf16"),
        "{but_last}"
    );
    assert_eq!(refused(&but_last), "");
    assert_eq!(
        refused("map:fp32;query-norm=bf16"),
        format!("names query-norm, a step that {model} never takes: take query-norm out of the map")
    );
    assert!(refused("map:fp32;key-norm,down@0=bf16").starts_with("names key-norm, a step that "));
    // A layer as a whole has it by the way.
    assert_eq!(refused("map:fp32;@0=bf16;down@0=fp16"), "");
    let keeps = refused("map:fp32;head=gguf");
    assert!(keeps.starts_with("keeps weights as a file of GGUF stores them, and "), "{keeps}");
    // The one in the binary has norms of its heads, and four layers.
    let run = |precision: &str| {
        let matrix = format!(
            "suites = [\"carry_chain\"]\nitems = 1\n[matrix]\nprecision = [\"fp32\", \"{precision}\"]\n"
        );
        fs::write(place.0.path().join("m.toml"), matrix).unwrap();
        place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"])
    };
    let (code, _, err) = run("map:fp32;query-norm@4=bf16");
    assert_eq!((code, place.0.path().join("r").exists()), (2, false), "{err}");
    assert!(err.contains("names layer 4, and qwen has 4, the last of them 3"), "{err}");
    let (code, _, err) = run("map:fp32;query-norm@3=bf16");
    assert!(code != 2, "{err}");
}

#[test]
fn a_cell_whose_name_is_too_long_for_a_file_runs_like_any_other() {
    let rule = |(number, step): (usize, &Step)| {
        let (name, exponent) = (step.name(), 3 + number % 6);
        format!(
            "layers {}, {name}: cast:e{exponent}m{}\nlayers 3, {name}: cast:e3m{}\n",
            number % 3,
            2 + number,
            3 + number
        )
    };
    let of_layers = Step::ALL.iter().filter(|step| step.is_of_layer());
    let text = format!("all: bf16\n{}", of_layers.enumerate().map(rule).collect::<String>());
    let name = read(&text).to_string();
    assert!(name.len() > 400, "{name}");
    let other = name.replacen("e3m18", "e3m2", 1);
    assert_ne!(other, name);
    let matrix = format!(
        "suites = [\"carry_chain\"]\nitems = 2\n[matrix]\nprecision = [\"map:long.map\", \"{other}\"]\n\
         [[gate]]\nname = \"g\"\nvary = \"precision\"\nexpect = \"diverges\"\n"
    );
    let place = Place::new(&[("long.map", &text), ("m.toml", &matrix)]);
    let run = ["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"];
    let report = place.held(&run);
    // Two files, although both begin alike.
    let files: Vec<_> =
        fs::read_dir(place.0.path().join("r/cells")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(place.held(&["report", "r"]), report);
    assert_eq!(place.held(&[&run[..], &["--resume"]].concat()), report);
}
