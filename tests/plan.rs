//! Matrix files: what a good one means, and every sentence that a bad one gets.

use std::{collections::HashSet, env, fs, path::Path, process::Command};

use reprocheck::{
    cell::{AXES, Axis, AxisEntry, Cell, ENGINES, EngineEntry, Setting},
    compare::Level,
    plan::{
        Plan,
        gate::{Comparison, Limit},
        keys,
        shape::{AxisForm, Form, Key, Section},
    },
};
use serde_json::Value;

const GOOD: &str = r#"
suites = ["carry_chain", "mul_ladder", { name = "divmod", items = 12, style = "completion" }]
items  = 64
shots  = 2

[reference]
precision = "fp32"
order     = "exact"

[matrix]
precision = ["bf16", "int8"]
order     = ["sequential", "split-k:rows"]
batch     = [1, 8]
exclude   = [{ precision = "int8", order = ["sequential"] }]
include   = [{ engine = "candle", precision = "bf16" }]

[[gate]]
name    = "batch must not matter"
where   = { order = "sequential" }
vary    = "batch"
require = "bits"

[[gate]]
against           = "reference"
max-accuracy-drop = 0.07
max-flip-rate     = 0.02

[profile.ci]
items = "quick"
[profile.ci.matrix]
batch = [1, 2]
[[profile.ci.gate]]
name    = "batch must not matter"
vary    = ["batch"]
expect  = "diverges"
where   = { order = "split-k:rows" }
[[profile.ci.gate]]
name    = "close to the reference"
against = "reference"
max-divergence-rate = "5%"

[profile.night]
inherits = "ci"
items = 7
"#;

fn read(text: &str, profile: Option<&str>) -> Plan {
    Plan::read(Path::new("ci.toml"), text, profile).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> String {
    Plan::read(Path::new("ci.toml"), text, None).err().expect("it is wrong").to_string()
}

fn names(plan: &Plan) -> Vec<String> {
    plan.cells.iter().map(ToString::to_string).collect()
}

#[test]
fn a_matrix_is_the_reference_the_product_and_what_was_included() {
    let plan = read(GOOD, None);
    assert_eq!(
        names(&plan),
        [
            "lab/fp32/exact/t1/b1",
            "lab/bf16/sequential/t1/b1",
            "lab/bf16/sequential/t1/b8",
            "lab/bf16/split-k:rows/t1/b1",
            "lab/bf16/split-k:rows/t1/b8",
            "lab/int8/split-k:rows/t1/b1",
            "lab/int8/split-k:rows/t1/b8",
            "candle/bf16/t1/b1",
        ]
    );
    assert_eq!(plan.reference, Some(plan.cells[0]));
    let suites: Vec<_> = plan
        .suites
        .iter()
        .map(|asked| {
            let style = asked.style.map(|style| style.to_string()).unwrap_or_default();
            format!("{} {} {style} {}", asked.suite.name, asked.items, asked.shots)
        })
        .collect();
    assert_eq!(suites, ["carry_chain 64  2", "mul_ladder 64  2", "divmod 12 completion 2"]);
}

#[test]
fn the_example_on_the_page_is_read() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/matrix.md"))
        .unwrap()
        .replace('\r', "");
    let (_, file) = page.split_once("```toml\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let plan = read(file, Some("night"));
    assert_eq!((plan.cells.len(), plan.gates.len()), (11, 3));
}

#[test]
fn gates_group_the_cells_that_differ_on_their_axes_alone() {
    let plan = read(GOOD, None);
    let [batch, accuracy] = &plan.gates[..] else { panic!("{:?}", plan.gates) };
    assert_eq!((batch.name.as_str(), batch.line), ("batch must not matter", 17));
    assert_eq!(batch.comparison, Comparison::Within(vec![Axis::Batch]));
    assert_eq!(batch.limits, [Limit::Require(Level::Bits)]);
    let groups = batch.groups(&plan.cells);
    assert_eq!(groups, [vec![plan.cells[1], plan.cells[2]]]);
    assert_eq!(accuracy.name, "at most 7 pp less accuracy, at most 2 % flips, beside the reference");
    assert_eq!(
        accuracy.limits,
        [Limit::AccuracyDrop { most: 0.07, confidence: 0.95 }, Limit::FlipRate(0.02)]
    );
}

#[test]
fn a_profile_replaces_keys_and_gates_of_the_same_name_and_inherits_the_rest() {
    let [plain, ci, night] = [None, Some("ci"), Some("night")].map(|profile| read(GOOD, profile));
    let items = |plan: &Plan| plan.suites.iter().map(|asked| asked.items).collect::<Vec<_>>();
    assert_eq!((items(&plain), items(&night)), (vec![64, 64, 12], vec![7, 7, 12]));
    assert_eq!(items(&ci)[0], plain.suites[0].suite.sizes.quick);
    assert_eq!(names(&ci), names(&night));
    assert!(names(&ci).contains(&"lab/bf16/sequential/t1/b2".to_owned()), "{:?}", names(&ci));
    let gates: Vec<_> = ci.gates.iter().map(|gate| gate.name.as_str()).collect();
    let accuracy = plain.gates[1].name.as_str();
    assert_eq!(gates, ["batch must not matter", accuracy, "close to the reference"]);
    assert_eq!(ci.gates[0].limits, [Limit::Diverges]);
}

#[test]
fn a_number_of_repeats_is_so_many_cells() {
    let plan = |repeat: &str| {
        read(
            &format!("suites = [\"divmod\"]\n[matrix]\nrepeat = {repeat}\nprefill-chunk = [\"all\", 4]\n"),
            None,
        )
    };
    assert_eq!(
        names(&plan("2")),
        [
            "lab/fp32/sequential/t1/b1",
            "lab/fp32/sequential/t1/b1/r2",
            "lab/fp32/sequential/t1/b1/c4",
            "lab/fp32/sequential/t1/b1/c4/r2"
        ]
    );
    assert_eq!(names(&plan("2")), names(&plan("[1, 2]")));
}

#[test]
fn what_could_not_be_a_cell_can_be_left_out() {
    let text = "suites = [\"carry_chain\"]\n[matrix]\nengine = [\"lab\", \"candle\"]\nprecision = [\"bf16\", \"tf32\"]\n\
                kv-format = [\"same\", \"fp8\"]\n\
                exclude = [{ precision = \"tf32\", kv-format = \"fp8\" }, { engine = \"candle\", precision = \"tf32\" }]\n";
    let plan = Plan::read(Path::new("m.toml"), text, None).unwrap();
    // Candle keeps keys and values as it does.
    assert_eq!(
        names(&plan),
        [
            "lab/bf16/sequential/t1/b1",
            "lab/bf16/sequential/t1/kv:fp8/b1",
            "lab/tf32/sequential/t1/b1",
            "candle/bf16/t1/b1"
        ]
    );
}

#[test]
fn one_rank_reduces_nothing_so_one_cell_stands_for_every_reduction() {
    let text = "suites = [\"carry_chain\"]\n[matrix]\nprecision = [\"bf16\", \"int8\"]\ntp = [1, 4]\nreduce = [\"ring\", \"tree\"]\n\
                exclude = [{ precision = \"int8\", tp = 4 }]\n";
    let plan = Plan::read(Path::new("m.toml"), text, None).unwrap();
    assert_eq!(
        names(&plan),
        [
            "lab/bf16/sequential/t1/b1",
            "lab/bf16/sequential/t1/tp4/ring/b1",
            "lab/bf16/sequential/t1/tp4/b1",
            "lab/int8/sequential/t1/b1",
        ]
    );
}

#[test]
fn a_cell_has_one_name_and_every_axis_shows_in_it() {
    for name in [
        "lab/bf16/pairwise/t2/b8",
        "lab/bf16/pairwise/t2/kv:bfp12:32,k-sort/b8/c16",
        "lab/bf16/pairwise/t2/tp4/b8",
        "lab/bf16/pairwise/t2/kv:int4/tp8/ring:bf16/b8/c16",
        "lab/bf16/pairwise/t2/tp2/tree:f16/b1",
        "lab/bf16/pairwise/t2/kv:int4/fn:poly:5/b8/c16",
        "lab/lmul:m=4,scope=attention/split-k:rows/t1/b1/c16/by-length/s7/r2",
        "candle/fp16/t2/b4/by-length",
        "candle:cuda:0/bf16/t1/b1/shuffled:3/s1",
        "lab/bf16/pairwise/t1/b1/c16/by-length/T0.6/p0.95/k20/s7/r2",
        "lab/bf16/pairwise/t1/b8/noise:7/warm:16/v3/re-prefill:8/s7",
        "lab/bf16/pairwise/t1/b1/c16/cold",
        "lab/bf16/pairwise/t1/b2/copies/re-decode:1/r2",
        "candle/fp32/t1/b1/T1/p1/kall",
        "lab/fp32/sequential/t1/b1/T0.000001/k1",
        "script:before.jsonl/b2/r2",
        "server:llama/n1",
        "server:llama/kv=split/parallel=4/n8/warm/r2",
        "server:llama/shuffled:3/n4/noise:7/staggered:0/cold",
        "server:llama/n2/copies",
    ] {
        assert_eq!(name.parse::<Cell>().unwrap().to_string(), name);
    }
    for name in [
        "lab",
        "lab/bf16",
        "lab/bf16/t1/b1",
        "lab/bf16/pairwise/b1/t1",
        "lab/bf16/pairwise/t1/b1/s0",
        "lab/bf16/pairwise/t1/kv:same/b1",
        "lab/bf16/pairwise/t1/b1/kv:fp8",
        "lab/tf32/pairwise/t1/kv:fp8/b1",
        "lab/bf16/pairwise/t1/tp1/b1",
        "lab/bf16/pairwise/t1/ring/b1",
        "lab/bf16/pairwise/t1/tp4/tree/b1",
        "lab/bf16/pairwise/t1/ring/tp4/b1",
        "lab/bf16/pairwise/t1/tp4/kv:fp8/b1",
        "lab/int8/pairwise/t1/tp4/b1",
        "candle/bf16/t1/tp2/b1",
        "candle/bf16/t1/kv:fp8/b1",
        "candle/bf16/t1/fn:libm/b1",
        "lab/bf16/pairwise/t1/fn:exact/b1",
        "lab/bf16/pairwise/t1/fn:libm/kv:int4/b1",
        "lab/fp32/sequential/t1/b1/T0",
        "lab/fp32/sequential/t1/b1/T0.60",
        "lab/fp32/sequential/t1/b1/T6e-1",
        "lab/fp32/sequential/t1/b1/Tinf",
        "lab/fp32/sequential/t1/b1/p1.5",
        "lab/fp32/sequential/t1/b1/k0",
        "lab/fp32/sequential/t1/b1/p0.95/T0.6",
        "lab/fp32/sequential/t1/b1/s7/T0.6",
        "lab/fp32/sequential/t1/b1/copies",
        "lab/fp32/sequential/t1/b4/own",
        "lab/fp32/sequential/t1/b4/off",
        "lab/fp32/sequential/t1/b4/warm:1",
        "lab/fp32/sequential/t1/b4/warm:0",
        "lab/fp32/sequential/t1/b4/warm:+2",
        "lab/fp32/sequential/t1/b4/warm/copies",
        "lab/fp32/sequential/t1/b4/voff",
        "lab/fp32/sequential/t1/b4/v0",
        "lab/fp32/sequential/t1/b4/re-off",
        "lab/fp32/sequential/t1/b4/re-prefill",
        "lab/fp32/sequential/t1/b4/re-decode:8/v3",
        "candle/fp32/t1/b4/by-length/copies",
        "candle/fp32/t1/b1/warm",
        "candle/fp32/t1/b1/v3",
        "server:llama/n1/v3",
        "server:llama/n1/T0.6",
        "script:before.jsonl/b2/T0.6",
        "server:llama",
        "server:llama/n1/off",
        // Whoever is asked alone has no neighbors.
        "server:llama/n1/copies",
        "server:llama/n1/staggered:7",
        "server:llama/n4/own",
        "server:llama/n4/together",
        "server:llama/n4/noise",
        "server:llama/n4/noise:+7",
        "server:llama/n4/staggered:7/copies",
        "server:llama/parallel=4/kv=split/n1",
        "server:llama/kv=split/kv=split/n1",
        "server:llama/kv=/n1",
        "server:a b/n1",
        "x/y/z",
    ] {
        assert!(name.parse::<Cell>().is_err(), "{name}");
    }
    assert_eq!(OTHER.len(), AXES.len());
    let mut seen = HashSet::from([Cell::default().to_string(), server().to_string()]);
    for (entry, setting) in AXES.iter().zip(OTHER) {
        let setting = entry.axis.parse(setting).unwrap();
        assert_eq!(setting.axis(), entry.axis);
        let cell = usual(entry.axis).with([setting]).unwrap();
        assert_eq!(cell.get(entry.axis), setting);
        assert!(seen.insert(cell.to_string()), "{}", entry.name);
        assert_eq!(cell.to_string().parse::<Cell>().unwrap(), cell);
    }
    let kv: Cell = "server:llama/kv=split/n1".parse().unwrap();
    let axis = kv.get(Axis::recorded("kv").unwrap()).axis();
    assert_eq!(kv.with([axis.parse("unified").unwrap()]).unwrap().to_string(), "server:llama/kv=unified/n1");
    // What is declared for one server is nothing to another.
    let other = kv.with([Axis::Engine.parse("server:other").unwrap()]).unwrap();
    assert_eq!(other.to_string(), "server:other/n1");
    assert_eq!(other.get(axis), Setting::Own(axis));
    let bf16: Cell = "lab/bf16/pairwise/t2/b1".parse().unwrap();
    let candle = bf16.with([Axis::Engine.parse("candle").unwrap()]).unwrap();
    assert_eq!(candle.to_string(), "candle/bf16/t2/b1");
    assert_eq!(candle.get(Axis::Order), Setting::Own(Axis::Order));
    let lab = candle.with([Axis::Engine.parse("lab").unwrap()]).unwrap();
    assert_eq!(lab.to_string(), "lab/bf16/sequential/t2/b1");
}

/// A setting on every axis that is not the usual one.
const OTHER: [&str; 23] = [
    "candle",
    "fp16",
    "pairwise",
    "2",
    "int4",
    "online:64",
    "2",
    "ring:bf16",
    "libm",
    "2",
    "3",
    "by-length",
    "8",
    "noise:7",
    "staggered:7",
    "warm",
    "3",
    "prefill:8",
    "0.7",
    "0.9",
    "40",
    "5",
    "4",
];

fn server() -> Cell {
    "server:llama/n4".parse().unwrap()
}

/// A cell that takes settings on an axis.
fn usual(axis: Axis) -> Cell {
    match axis {
        // One rank has nothing to reduce.
        Axis::Reduce => "lab/fp32/sequential/t1/tp4/b1".parse().unwrap(),
        Axis::Neighbors => "lab/fp32/sequential/t1/b4".parse().unwrap(),
        axis if ENGINES[0].takes(axis) => Cell::default(),
        _ => server(),
    }
}

#[test]
fn cells_that_differ_in_anything_that_computes_never_share_an_engine() {
    for (entry, other) in AXES.iter().zip(OTHER) {
        let one = usual(entry.axis);
        let two = one.with([entry.axis.parse(other).unwrap()]).unwrap();
        // Another repeat computes the same, with an engine that is opened anew.
        let is_shared = one.engine() == two.engine();
        assert_eq!(is_shared, !entry.computes && entry.axis != Axis::Repeat, "{one} and {two}");
        assert_eq!(one.compute == two.compute, !entry.computes, "{one} and {two}");
    }
    let [split, unified, warm]: [Cell; 3] = ["kv=split/n1", "kv=unified/n1", "kv=split/n8/warm"]
        .map(|rest| format!("server:llama/{rest}").parse().unwrap());
    assert_ne!(split.engine(), unified.engine());
    assert_eq!(split.engine(), warm.engine());
}

#[test]
fn every_row_of_the_table_of_engines_is_read_back_and_takes_what_it_says() {
    for entry in ENGINES {
        let text = entry.example.to_string();
        assert_eq!(text.parse(), Ok(entry.example), "{text}");
        assert_eq!(entry.example.entry().name, entry.name);
        assert!(entry.axes.contains(&Axis::Engine) && entry.axes.contains(&Axis::Repeat), "{text}");
        let cell = Cell::default().with([Setting::Engine(entry.example)]).unwrap();
        for axis in AXES.iter().map(|row| row.axis) {
            // What keys and values are kept in is that of attention, where an engine says nothing else.
            let is_own = !entry.takes(axis) && !axis.entry().usual_elsewhere;
            assert_eq!(cell.get(axis) == Setting::Own(axis), is_own, "{text}: {axis}");
        }
        // What it does not take leaves it as it is.
        let all =
            ["2", "3", "by-length"].into_iter().zip([Axis::Threads, Axis::PrefillChunk, Axis::Grouping]);
        for (setting, axis) in all {
            let other = cell.with([axis.parse(setting).unwrap()]).unwrap();
            assert_eq!(other == cell, !entry.takes(axis), "{other}");
        }
        assert_eq!(cell.to_string().parse::<Cell>().unwrap(), cell);
    }
}

#[test]
fn examples_of_the_table_of_axes_are_read() {
    for entry in AXES {
        let choice = if entry.axis.is_of_draws() { "[generate]\nchoice = \"sampled\"\n" } else { "" };
        let grouping = match entry.axis {
            Axis::Engine => "",
            Axis::Concurrency => "engine = \"server:it\"\n",
            Axis::Reduce => "tp = 4\n",
            Axis::Neighbors => "batch = 4\n",
            axis if !ENGINES[0].takes(axis) => "engine = \"server:it\"\nconcurrency = 4\n",
            _ => "threads = 2\n",
        };
        let server = "[engine.it]\ndialect = \"llama.cpp\"\nurl = \"http://127.0.0.1:8000\"\n";
        let text = format!(
            "suites = [\"divmod\"]\n{choice}{server}[matrix]\n{grouping}{} = {}\n",
            entry.name, entry.example
        );
        let text = if entry.axis == Axis::Threads { text.replacen(grouping, "", 1) } else { text };
        assert!(read(&text, None).cells.len() >= 2, "{}", entry.name);
    }
}

#[test]
fn axes_of_draws_override_what_choice_leaves_open() {
    let text = r#"
suites = ["divmod"]
[generate]
choice = "sampled:top-p=0.9"
[reference]
precision = "fp32"
[matrix]
precision = "bf16"
temperature = [0.60, 1, 1_0.5e-1]
top-k = ["all", 20, 1]
seed = [0, 1]
include = [{ top-p = 1.0 }]
"#;
    let plan = read(text, None);
    assert_eq!(plan.cells.len(), 2 + 3 * 3 * 2 + 1);
    let choice = |cell: &Cell| cell.serving.choice(plan.generation.choice).to_string();
    let shown: Vec<_> = plan.cells.iter().map(|cell| format!("{cell} {}", choice(cell))).collect();
    assert_eq!(
        [&shown[..6], &shown[shown.len() - 2..]].concat(),
        [
            "lab/fp32/sequential/t1/b1/T0.6/kall sampled:seed=0,temperature=0.6,top-p=0.9",
            "lab/fp32/sequential/t1/b1/T0.6/kall/s1 sampled:seed=1,temperature=0.6,top-p=0.9",
            "lab/bf16/sequential/t1/b1/T0.6/kall sampled:seed=0,temperature=0.6,top-p=0.9",
            "lab/bf16/sequential/t1/b1/T0.6/kall/s1 sampled:seed=1,temperature=0.6,top-p=0.9",
            "lab/bf16/sequential/t1/b1/T0.6/k20 sampled:seed=0,temperature=0.6,top-k=20,top-p=0.9",
            "lab/bf16/sequential/t1/b1/T0.6/k20/s1 sampled:seed=1,temperature=0.6,top-k=20,top-p=0.9",
            "lab/bf16/sequential/t1/b1/T1.05/k1/s1 sampled:seed=1,temperature=1.05,top-k=1,top-p=0.9",
            "lab/fp32/sequential/t1/b1/T0.6/p1/kall sampled:seed=0,temperature=0.6",
        ]
    );
    // A matrix that sets none of them has the names that it always had.
    let plain = read(
        "suites = [\"divmod\"]\n[generate]\nchoice = \"sampled:temperature=0.6\"\n[matrix]\nseed = [0, 1]\n",
        None,
    );
    assert_eq!(names(&plain), ["lab/fp32/sequential/t1/b1", "lab/fp32/sequential/t1/b1/s1"]);
    // A filter that is kept is the same when it is read back.
    let gate = "[[gate]]\nwhere = { temperature = [0.6, 1], top-k = \"all\" }\nvary = \"seed\"\nexpect = \"diverges\"\n";
    let plan = read(&format!("{text}{gate}"), None);
    assert_eq!(plan.gates[0].groups(&plan.cells).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
    let kept = serde_json::to_string(&plan.gates[0]).unwrap();
    assert_eq!(
        &serde_json::from_str::<reprocheck::plan::gate::Gate>(&kept).unwrap(),
        &plan.gates[0],
        "{kept}"
    );
}

#[test]
fn the_reference_runs_under_every_seed_and_a_cell_is_compared_with_its_own() {
    let text = r#"
suites = ["divmod"]
[generate]
choice = "sampled"
[reference]
precision = "fp32"
[matrix]
precision = ["fp16", "bf16"]
seed = [3, 4]
include = [{ batch = 2, seed = 9 }]
[[gate]]
against = "reference"
max-accuracy-drop = "5pp"
[[gate]]
against = "reference"
where = { precision = "fp32" }
require = "bits"
"#;
    let plan = read(text, None);
    let references = plan.references();
    let compared: Vec<_> = plan
        .cells
        .iter()
        .map(|cell| match references.of(*cell) {
            Some(reference) => format!("{cell} {reference}"),
            None => cell.to_string(),
        })
        .collect();
    assert_eq!(
        compared,
        [
            "lab/fp32/sequential/t1/b1/s3",
            "lab/fp32/sequential/t1/b1/s4",
            "lab/fp32/sequential/t1/b1/s9",
            "lab/fp16/sequential/t1/b1/s3 lab/fp32/sequential/t1/b1/s3",
            "lab/fp16/sequential/t1/b1/s4 lab/fp32/sequential/t1/b1/s4",
            "lab/bf16/sequential/t1/b1/s3 lab/fp32/sequential/t1/b1/s3",
            "lab/bf16/sequential/t1/b1/s4 lab/fp32/sequential/t1/b1/s4",
            "lab/fp32/sequential/t1/b2/s9 lab/fp32/sequential/t1/b1/s9",
        ]
    );
    // They are no part of the product, and no gate holds them against each other.
    let beside: Vec<_> = plan.beside.iter().map(ToString::to_string).collect();
    let of_product = |cell: &Cell| !plan.beside.contains(cell);
    assert_eq!(
        (plan.cells.iter().filter(|cell| of_product(cell)).count(), beside.len()),
        (4, 4),
        "{beside:?}"
    );
    assert_eq!(plan.gates.iter().map(|gate| plan.comparisons(gate)).collect::<Vec<_>>(), [5, 1]);
    // A reference that always takes the best token runs once.
    let best = text.replace("precision = \"fp32\"\n", "precision = \"fp32\"\ntop-k = 1\n");
    let plan = read(&best, None);
    assert_eq!(names(&plan)[..2], ["lab/fp32/sequential/t1/b1/k1/s3", "lab/fp16/sequential/t1/b1/s3"]);
    assert_eq!(plan.references().of(plan.cells[2]), Some(plan.cells[0]));
}

#[test]
fn a_path_to_a_suite_begins_at_the_file_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("mine")).unwrap();
    let lines = "{\"question\": \"1+1=\", \"answer\": \"2\"}\n{\"question\": \"1+2=\", \"answer\": \"3\"}\n";
    fs::write(folder.path().join("mine/test.jsonl"), lines).unwrap();
    let read = |items: u64| {
        let text = format!("suites = [\"./mine/test.jsonl\"]\nitems = {items}\n[matrix]\nbatch = [1, 2]\n");
        Plan::read(&folder.path().join("ci.toml"), &text, None)
    };
    assert_eq!(read(2).ok().unwrap().suites[0].items, 2);
    let error = read(3).err().unwrap().to_string();
    assert!(error.contains(":2: `test` has 2 items, not 3: ask for fewer"), "{error}");
}

#[test]
fn a_reference_takes_what_it_does_not_say_from_the_matrix() {
    let text = "suites = [\"divmod\"]\n[reference]\norder = \"exact\"\n[matrix]\nthreads = [2, 3]\nprecision = \"bf16\"\n";
    assert_eq!(names(&read(text, None))[0], "lab/bf16/exact/t2/b1");
    // One that lies in the matrix is not run twice.
    let text = "suites = [\"divmod\"]\n[reference]\nthreads = 3\n[matrix]\nthreads = [2, 3]\n";
    let plan = read(text, None);
    assert_eq!(names(&plan), ["lab/fp32/sequential/t3/b1", "lab/fp32/sequential/t2/b1"]);
    assert_eq!(problems("suites = [\"divmod\"]\n[matrix]\nbatch = [0]\n").lines().count(), 3);
}

// ------------------------------------------------------------------------------------------------------- mistakes

fn reprocheck(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Is what is made here to be written down as what is right?
fn accepts() -> bool {
    env::var_os("REPROCHECK_ACCEPT").is_some_and(|value| value == "1") && env::var_os("CI").is_none()
}

/// Beside each file of `tests/bad` lies what is said of it. `REPROCHECK_ACCEPT=1` writes that anew; whoever accepts must
/// look at it.
#[test]
fn every_mistake_has_its_sentence_and_ends_with_exit_code_2() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 50, "{}", files.len());
    let mut other = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (code, out, err) = reprocheck(&["plan", "--matrix", &format!("tests/bad/{name}")]);
        assert_eq!((code, out.as_str()), (2, ""), "{name}: {err}");
        assert!(err.starts_with("error: "), "{name}: {err}");
        let expected = file.with_extension("stderr");
        if accepts() {
            fs::write(&expected, &err).unwrap();
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(&err) {
            other.push(format!("{name}:\n{err}"));
        }
    }
    assert!(other.is_empty(), "other sentences than those beside the files:\n{}", other.join("\n"));
}

#[test]
fn a_profile_or_a_file_that_is_not_there_is_told() {
    let (code, _, err) = reprocheck(&["plan", "--matrix", "tests/bad/nowhere.toml"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("cannot read tests/bad/nowhere.toml: ") && err.contains("name a matrix file"),
        "{err}"
    );
    let error = Plan::read(Path::new("ci.toml"), GOOD, Some("nigth")).err().unwrap().to_string();
    assert_eq!(
        error,
        "ci.toml: there is no profile `nigth`: did you mean `night`? there are `ci` and `night`"
    );
}

// --------------------------------------------------------------------------------------------------------- output

#[test]
fn the_plan_says_what_it_will_cost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ci.toml");
    fs::write(&file, GOOD).unwrap();
    let (code, out, err) = reprocheck(&["plan", "--matrix", file.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "lab/fp32/exact/t1/b1  the reference\n",
        "gate: batch must not matter (1 comparison)\n",
        "gate: at most 7 pp less accuracy, at most 2 % flips, beside the reference (7 comparisons)\n",
        "8 cells x 140 items = 1,120 samples, at most ",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let (_, out, _) = reprocheck(&["plan", "--matrix", file.to_str().unwrap(), "--format", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["cells"].as_array().unwrap().len(), 8);
    assert_eq!((&json["samples"], &json["gates"][1]["comparisons"]), (&1120.into(), &7.into()));
}

fn matrix_of(schema: &Value) -> &Value {
    &schema["properties"]["matrix"]
}

#[test]
fn the_schema_knows_every_key_that_the_reader_knows() {
    let (code, out, _) = reprocheck(&["schema"]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema, keys::schema());
    let keys =
        |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
    // What a file declares has names of its own.
    let declared = &schema["properties"]["reference"]["patternProperties"];
    assert!(declared.as_object().unwrap().len() == 1 && matrix_of(&schema)["patternProperties"].is_null());
    let of_axes = || AXES.iter().map(|entry| entry.name.to_owned());
    let matrix = matrix_of(&schema);
    assert_eq!(keys(matrix), of_axes().chain(["include", "exclude"].map(str::to_owned)).collect());
    assert_eq!(keys(&schema["properties"]["reference"]), of_axes().collect());
    let file = keys::FILE.keys.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(keys(&schema), file);
    assert_eq!(matrix["additionalProperties"], false);
    // An editor completes names that the reader takes.
    for (axis, names) in [
        (Axis::Precision, "precision"),
        (Axis::Order, "order"),
        (Axis::Grouping, "grouping"),
        (Axis::Neighbors, "neighbors"),
    ] {
        let names = &schema["properties"]["reference"]["properties"][names]["anyOf"][0]["enum"];
        assert!(names.as_array().unwrap().len() >= 3);
        for name in names.as_array().unwrap() {
            axis.parse(name.as_str().unwrap()).unwrap();
        }
    }
}

const SERVED: &str = r#"
suites = ["carry_chain"]

[engine.llama]
dialect = "llama.cpp"
command = ["llama-server", "-m", "{model}", "--port={port}", "{kv}", "-t", "{threads-of-it}"]

[engine.llama.axes]
threads-of-it = [1, 2]
kv = { split = ["-np", "4"], unified = ["-np", "4", "-kvu"] }

[matrix]
engine = ["lab", "server:llama"]
concurrency = [1, 4]
exclude = [{ kv = "unified", threads-of-it = 2 }]

[[gate]]
where = { kv = "split" }
vary = "concurrency"
require = "top"

[[gate]]
vary = ["kv", "threads-of-it"]
require = "tokens"
"#;

#[test]
fn what_a_file_declares_of_a_server_are_settings_like_any_other() {
    let plan = read(SERVED, None);
    let names: Vec<_> = plan.cells.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "lab/fp32/sequential/t1/b1",
            "server:llama/kv=split/threads-of-it=1/n1",
            "server:llama/kv=split/threads-of-it=1/n4",
            "server:llama/kv=split/threads-of-it=2/n1",
            "server:llama/kv=split/threads-of-it=2/n4",
            "server:llama/kv=unified/threads-of-it=1/n1",
            "server:llama/kv=unified/threads-of-it=1/n4",
        ]
    );
    let groups: Vec<Vec<usize>> =
        plan.gates.iter().map(|gate| gate.groups(&plan.cells).iter().map(Vec::len).collect()).collect();
    // The cell of the lab is alone.
    assert_eq!(groups, [vec![2, 2], vec![1, 3, 3]]);
    assert_eq!(plan.gates[0].limits, [Limit::Top]);
    // A gate that is kept is the same when it is read back.
    for gate in &plan.gates {
        let text = serde_json::to_string(gate).unwrap();
        assert_eq!(&serde_json::from_str::<reprocheck::plan::gate::Gate>(&text).unwrap(), gate, "{text}");
    }
    let text =
        SERVED.replace("[matrix]", "[reference]\nengine = \"server:llama\"\nkv = \"unified\"\n[matrix]");
    assert_eq!(
        read(&text, None).reference.unwrap().to_string(),
        "server:llama/kv=unified/threads-of-it=1/n1"
    );
}

#[test]
fn a_prompt_that_is_asked_alone_has_no_neighbors_and_one_cell_stands_for_all() {
    let text = SERVED.replace(
        "concurrency = [1, 4]",
        "concurrency = [1, 4]\nneighbors = [\"own\", \"noise:7\", \"copies\"]\narrival = [\"together\", \"staggered:3\"]",
    );
    let plan = read(&text, None);
    let names: Vec<_> = plan.cells.iter().map(ToString::to_string).collect();
    assert_eq!(
        names[..8],
        [
            "lab/fp32/sequential/t1/b1",
            "server:llama/kv=split/threads-of-it=1/n1",
            "server:llama/kv=split/threads-of-it=1/n4",
            "server:llama/kv=split/threads-of-it=1/n4/staggered:3",
            "server:llama/kv=split/threads-of-it=1/n4/noise:7",
            "server:llama/kv=split/threads-of-it=1/n4/noise:7/staggered:3",
            "server:llama/kv=split/threads-of-it=1/n4/copies",
            "server:llama/kv=split/threads-of-it=1/n4/copies/staggered:3",
        ]
    );
    assert_eq!(names.len(), 1 + 3 * 7);
    let together: Vec<_> = plan.cells[1..8].iter().map(|cell| cell.serving.together().get()).collect();
    assert_eq!(together, [1, 4, 4, 1, 1, 1, 1]);
    // Those that nobody reads are paid for: 1, 4 x 1 and 4 x 4 answers to each prompt, and one of the lab.
    let (_, tokens) = plan.cost();
    assert_eq!(plan.most_tokens_of_all(), tokens * (1 + 3 * (3 + 4 * 4)));
}

/// The tables of a matrix file that have been described, each with what it is called where it first comes up.
type Described = Vec<(&'static str, String)>;

/// What may stand at a place, as the page on matrix files writes it. `under` is the table that the place is in.
fn in_words(form: Form, key: &str, under: &str, described: &Described) -> String {
    let words =
        |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    let first_of =
        |section: &Section| described.iter().find(|(name, _)| *name == section.name).map(|(_, title)| title);
    match form {
        Form::Text => "a text".to_owned(),
        Form::Word(all) => words(all),
        Form::WordOrCount(all) => format!("{}, or a whole number from 1 up", words(all)),
        Form::Count(least) => format!("a whole number from {least} up"),
        Form::Flag => "`true` or `false`".to_owned(),
        Form::Number => "a number from 0 up".to_owned(),
        Form::Share => "a share: `0.01`, `\"1%\"` or `\"1pp\"`".to_owned(),
        Form::Memory => "`\"64G\"`".to_owned(),
        Form::Limit => "`\"12h\"`".to_owned(),
        Form::Choice => "`\"greedy\"` or `\"sampled:…\"`".to_owned(),
        Form::Axes => "an axis, or a list of them".to_owned(),
        Form::Suites(section) => {
            let first = first_of(section).cloned().unwrap_or_else(|| title(form, key, under));
            format!("a list of texts, or of [tables]({})", anchor(&first))
        }
        Form::Table(section) | Form::Tables(section) | Form::Named(section) => {
            let title = title(form, key, under);
            match first_of(section) {
                Some(first) => format!("{title}, the same as [{first}]({})", anchor(first)),
                None => format!("[{title}]({})", anchor(&title)),
            }
        }
        Form::Texts => "a list of texts".to_owned(),
        Form::Variables => "a table of texts".to_owned(),
        Form::Declared => {
            "a table: for each axis a list of words, or a table of words and their arguments".to_owned()
        }
    }
}

/// Where a link to a heading leads.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || *letter == ' ');
    format!("#{}", kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// What stands above a table: how a file begins it, where it has a heading of its own.
fn title(form: Form, key: &str, under: &str) -> String {
    let path = if under.is_empty() { key.to_owned() } else { format!("{under}.{key}") };
    match form {
        Form::Suites(_) => format!("A table of `{path}`"),
        Form::Tables(_) => format!("`[[{path}]]`"),
        Form::Named(_) => format!("`[{path}.NAME]`"),
        _ => format!("`[{path}]`"),
    }
}

/// A table of the file, and those in it that have not been described, as Markdown.
fn describe(section: &'static Section, title_of_it: &str, described: &mut Described) -> String {
    let under = if section.name == keys::FILE.name { "" } else { title_of_it.trim_matches(['`', '[', ']']) };
    let mut page = format!("\n### {title_of_it}\n\n{}.\n", capitalized(section.sentence));
    let settings = match section.axes {
        Some(AxisForm::One) => "one setting",
        Some(AxisForm::OneOrMore) => "one setting or a list",
        None => "",
    };
    if !settings.is_empty() {
        // The matrix has every setting of a server, as that declares them.
        let declared = if section.name == "matrix" { "" } else { ", and so is every axis of a server" };
        page += &format!("Every [axis](#axes) is a key, with {settings}{declared}.\n");
    }
    if !section.keys.is_empty() {
        page += "\n| key | value | what it says |\n|---|---|---|\n";
    }
    for Key { name, form, sentence } in section.keys {
        page += &format!("| `{name}` | {} | {sentence} |\n", in_words(*form, name, under, described));
    }
    for Key { name, form, .. } in section.keys {
        if let Form::Suites(inner) | Form::Table(inner) | Form::Tables(inner) | Form::Named(inner) = *form
            && described.iter().all(|(name, _)| *name != inner.name)
        {
            let title = title(*form, name, under);
            described.push((inner.name, title.clone()));
            page += &describe(inner, &title, described);
        }
    }
    page
}

fn capitalized(sentence: &str) -> String {
    let (first, rest) = sentence.split_at(1);
    first.to_uppercase() + rest
}

/// On the page stands every key, in tables that are made from the one by which files are checked. `REPROCHECK_ACCEPT=1`
/// writes them anew.
#[test]
fn the_page_has_every_key_and_every_axis() {
    const BEGIN: &str = "<!-- keys -->\n";
    const END: &str = "<!-- end of keys -->\n";
    let mut tables = describe(&keys::FILE, "The file", &mut Described::new());
    tables += "\n### Axes\n\nAn axis that is not set is as usual.\n\n";
    tables += "| axis | for example | as usual | what it is | engines |\n|---|---|---|---|---|\n";
    for AxisEntry { axis, name, sentence, example, .. } in AXES {
        let engines: Vec<_> =
            ENGINES.iter().filter(|entry| entry.takes(*axis)).map(EngineEntry::kind).collect();
        let first = ENGINES.iter().find(|entry| entry.takes(*axis)).unwrap();
        let usual = Cell::default().with([Setting::Engine(first.example)]).unwrap().get(*axis);
        tables += &format!("| `{name}` | `{example}` | `{usual}` | {sentence} | {} |\n", engines.join(", "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/matrix.md");
    let page = fs::read_to_string(&path).unwrap().replace('\r', "");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (shown, after) = rest.split_once(END).unwrap();
    if accepts() {
        fs::write(&path, format!("{before}{BEGIN}{tables}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(shown.trim(), tables.trim(), "REPROCHECK_ACCEPT=1 cargo test --release --test all plan::");
    }
}
