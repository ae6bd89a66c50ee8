//! A real language model, which is not in the repository: what others make of it, the lab makes of it too.
//!
//! `.ci/model` fetches it and prints where it lies; these tests take it from the environment.

use std::{
    collections::HashMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
};

use reprocheck::{
    cell::{Device, Stock},
    digest::Digest,
    engine::{Engine, Prompt, child::Child, lab::Lab},
    model::Checkpoint,
    numerics::precision::Precision,
    suite::embedded::SUITES,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{Logits, gguf::name_in_gguf, request};

/// As in the fixtures: the largest difference allowed, as a part of the largest logit of its position.
const LIMIT: f32 = 2e-5;

fn model() -> Checkpoint {
    let path = std::env::var("REPROCHECK_REAL_MODEL")
        .expect("REPROCHECK_REAL_MODEL names the file that `.ci/model` fetches: set it to what that prints");
    Checkpoint::open(&PathBuf::from(path)).unwrap_or_else(|error| panic!("{error}"))
}

fn expected() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/real")
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn its_weights_are_those_that_the_package_gguf_reads() {
    let model = model();
    assert_eq!(model.stored(), ["Q4_1", "Q8_0", "F32"]);
    assert_eq!(model.parameters(), 134_515_008);
    let theirs = fs::read_to_string(expected().join("weights.txt")).unwrap();
    let mut theirs: HashMap<_, _> = theirs
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(digest, tensor)| (tensor, digest))
        .collect();
    for (tensor, shape) in model.config.tensors() {
        let mut rows = model.tensor(&tensor, &shape).unwrap();
        let mut values = vec![0.0; shape.iter().product()];
        values.chunks_exact_mut(*shape.last().unwrap()).for_each(|row| rows.next_row(row).unwrap());
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let theirs = theirs.remove(name_in_gguf(&tensor).as_str());
        assert_eq!(Some(Digest::of(&bytes).to_string().as_str()), theirs, "{tensor}");
    }
    assert!(theirs.is_empty(), "{theirs:?}");
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn its_tokens_of_2000_texts_are_those_of_llama_cpp() {
    let model = model();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let theirs = fs::read_to_string(expected().join("tokens.txt")).unwrap();
    let mut texts = 0;
    for line in theirs.lines() {
        let (digest, text) = line.split_once("  ").unwrap();
        let text: String = serde_json::from_str(text).unwrap();
        let tokens = tokenizer.encode(&text, false).unwrap();
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert!(Digest::of(&bytes).to_string().starts_with(digest), "{text:?}: {tokens:?}");
        texts += 1;
    }
    assert_eq!(texts, 2000);
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn its_logits_and_tokens_are_those_of_transformers() {
    let model = model();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let bytes = fs::read(expected().join("expected.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let texts = header.metadata().as_ref().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| file.tensor(name).unwrap().data().as_chunks().0.to_vec();
    let tokens = |name: &str| -> Vec<u32> { words(name).into_iter().map(u32::from_le_bytes).collect() };
    let numbers = |name: &str| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
    let columns = tokens("columns");
    let mut lab = Lab::load(&model, "fp32/sequential/t2".parse().unwrap()).unwrap();
    for index in 0..texts.len() {
        let prompt = format!("prompt.{index}");
        let read = tokenizer.encode(&texts[&prompt], true).unwrap();
        assert_eq!(read, tokens(&format!("{prompt}.tokens")), "{:?}", texts[&prompt]);
        let mut seen = Logits { items: vec![Vec::new()], samples: Vec::new() };
        let prompts = [Prompt { item: 0, tokens: read.clone(), replay: None }];
        lab.generate(&prompts, &request(64), &mut seen).unwrap();
        let answer: Vec<_> = seen.samples[0].steps.iter().map(|step| step.token.id).collect();
        assert_eq!(answer, tokens(&format!("{prompt}.greedy")), "{:?}", texts[&prompt]);
        let (theirs, largest) = (numbers(&format!("{prompt}.logits")), numbers(&format!("{prompt}.largest")));
        let rows = seen.items[0].chunks_exact(model.config.vocabulary).take(read.len());
        assert_eq!(rows.len(), largest.len());
        for ((row, theirs), largest) in rows.zip(theirs.chunks_exact(columns.len())).zip(largest) {
            for (&column, theirs) in columns.iter().zip(theirs) {
                let apart = (row[column as usize] - theirs).abs() / largest;
                assert!(apart < LIMIT, "{:?}: {apart:e}", texts[&prompt]);
            }
        }
    }
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn its_blocks_have_the_bits_of_their_values() {
    let model = model();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let texts = ["The capital of France is", "One, two, three,", "fn main() {"];
    let prompts: Vec<_> = texts
        .iter()
        .zip(0..)
        .map(|(text, item)| Prompt { item, tokens: tokenizer.encode(text, true).unwrap(), replay: None })
        .collect();
    for order in ["sequential", "pairwise", "lanes:16", "exact"] {
        let [fp32, gguf] = ["fp32", "gguf"].map(|precision| {
            let numerics = format!("{precision}/{order}/t2").parse().unwrap();
            let mut lab = Lab::load(&model, numerics).unwrap();
            let mut seen = Logits { items: vec![Vec::new(); 3], samples: Vec::new() };
            // Together, and one alone.
            lab.generate(&prompts, &request(8), &mut seen).unwrap();
            lab.generate(&prompts[..1], &request(8), &mut seen).unwrap();
            let bits = |logits: &Vec<f32>| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            seen.items.iter().map(bits).collect::<Vec<_>>()
        });
        assert!(fp32 == gguf, "{order}");
    }
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn candle_answers_by_its_own_quantized_kernels() {
    let model = model();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let tokens = tokenizer.encode("The capital of France is", true).unwrap();
    let prompts = [Prompt { item: 0, tokens, replay: None }];
    let mut request = request(24);
    request.stop_tokens.clone_from(&model.config.stop_tokens);
    let threads = NonZeroUsize::new(2).unwrap();
    let stock = Stock { precision: Precision::Gguf, threads, device: Device::Cpu };
    let mut candle =
        Child::open(Path::new(env!("CARGO_BIN_EXE_reprocheck")), &model.reopen(), stock).unwrap();
    let mut lab = Lab::load(&model, "gguf/sequential/t2".parse().unwrap()).unwrap();
    let [theirs, ours] = [&mut candle as &mut dyn Engine, &mut lab].map(|engine| {
        let mut samples = Vec::new();
        engine.generate(&prompts, &request, &mut samples).unwrap();
        samples.remove(0)
    });
    // It rounds activations to 8 bits, so that texts may part; what is likely by far stays so.
    assert_eq!(theirs.steps[0].token.id, ours.steps[0].token.id);
    assert!(theirs.text.starts_with(" Paris"), "candle: {:?}\nlab: {:?}", theirs.text, ours.text);
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn the_cause_of_what_two_orders_make_of_it_is_an_operation_and_transplants_of_all_make_one_the_other() {
    let model = std::env::var("REPROCHECK_REAL_MODEL").expect("it names the file that `.ci/model` fetches");
    let place = tempfile::tempdir().unwrap();
    let matrix = "style = \"chat\"\nsuites = [\"gpt3_arith\"]\nitems = 4\n[generate]\nmax-new-tokens = 24\n\
                  [reference]\nprecision = \"bf16\"\norder = \"sequential\"\nbatch = 4\nthreads = 2\n\
                  [matrix]\nprecision = \"bf16\"\norder = \"split-k:rows\"\nbatch = 4\nthreads = 2\n";
    fs::write(place.path().join("m.toml"), matrix).unwrap();
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        command.args(arguments).current_dir(place.path()).output().unwrap()
    };
    program(&["run", "--model", &model, "--matrix", "m.toml", "--out", "r", "--bisect"]);
    let found = program(&["bisect", "r", "--tries", "8", "--format", "json"]);
    let said = String::from_utf8_lossy(&found.stderr);
    assert_eq!(found.status.code(), Some(0), "{said}");
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let cause = &found["cause"];
    assert_eq!(cause["first"]["read_otherwise"], false, "{cause}");
    assert_eq!(cause["transplants"]["complete"], true, "{cause}");
    assert!(cause["transplants"]["suspects"].as_array().unwrap().len() > 30, "{cause}");
    assert_eq!(cause["growth"].as_array().unwrap().len(), 33, "{cause}");
    // The report tells it from then on.
    let report = fs::read_to_string(place.path().join("r/report.txt")).unwrap();
    assert!(report.contains("By transplant,"), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn a_run_takes_at_most_15_percent_more_memory_than_the_weights_that_it_stores() {
    use std::{process::Stdio, thread, time::Duration};

    use reprocheck::numerics::{format::Format, kernel::Encoding};

    let model = model();
    for (precision, format) in [("gguf", None), ("bf16", Some(Format::BF16)), ("fp32", Some(Format::F32))] {
        let bytes = |(name, shape): (String, Vec<usize>)| {
            let stored = model.tensor(&name, &shape).unwrap().encoding();
            let encoding = format.map_or(stored, Encoding::Values);
            shape.iter().product::<usize>() / encoding.terms() * encoding.bytes()
        };
        let weights = model.config.tensors().map(bytes).sum::<usize>() as f64;
        let mut child = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
            .args(["generate", "--model", &model.reopen(), "--prompt", "The capital of France is"])
            .args(["--max-new-tokens", "4", "--cell", &format!("lab/{precision}/sequential/t1/b1")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let (mut own, mut whole) = (0.0_f64, 0.0_f64);
        while child.try_wait().unwrap().is_none() {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let of = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
                line.map_or(0.0, |kib| 1024.0 * kib.trim().parse::<f64>().unwrap())
            };
            // What is left are pages of the program's file, which the system holds for all who run it.
            own = own.max(of("RssAnon:"));
            whole = whole.max(of("VmHWM:"));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(child.wait().unwrap().success());
        let [weights, own, whole] = [weights, own, whole].map(|bytes| bytes / 1e6);
        println!("{precision}: {weights:.1} MB of weights, {own:.1} MB of its own, {whole:.1} MB in all");
        assert!((weights..weights * 1.15).contains(&own), "{precision}: {own} MB, {weights} of weights");
    }
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn a_map_of_it_costs_on_other_items_what_was_expected() {
    let model = std::env::var("REPROCHECK_REAL_MODEL").expect("it names the file that `.ci/model` fetches");
    crate::attribution::a_map_costs_what_was_expected(
        &model,
        "style = \"chat\"\nsuites = [\"gpt3_arith\"]",
        8,
        2,
        "0.1",
    );
}

#[test]
#[ignore = "needs the real model: REPROCHECK_REAL_MODEL=\"$(.ci/model)\""]
fn it_answers_all_sixteen_suites_in_its_chat_template() {
    let model = std::env::var("REPROCHECK_REAL_MODEL").expect("it names the file that `.ci/model` fetches");
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = SUITES.iter().map(|(name, _)| format!("{name:?}")).collect();
    assert_eq!(names.len(), 16);
    let matrix = format!(
        "style = \"chat\"\nsuites = [{}]\nitems = 2\n[generate]\nmax-new-tokens = 8\n\
         [matrix]\nprecision = \"bf16\"\nbatch = 16\nthreads = 2\n",
        names.join(", ")
    );
    fs::write(folder.path().join("m.toml"), matrix).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
        .args(["run", "--model", &model, "--matrix", "m.toml", "--out", "out", "--format", "json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    // Nothing was asked to hold.
    assert_eq!(ran.status.code(), Some(3), "{}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let suites = report["cells"][0]["suites"].as_object().unwrap();
    assert_eq!(suites.len(), 16);
    for (suite, row) in suites {
        assert_eq!(row["right"]["of"], 2, "{suite}");
        assert!(row["tokens"].as_u64().unwrap() > 2, "{suite}");
    }
    assert_eq!(report["cut"], "single", "its tokenizer knows single digits alone");
}
