//! What is measured of activations beforehand: the same bytes however it is run, limits that hold, and cells that compute with them.

use std::{fs, num::NonZeroUsize, path::Path, process::Command};

use crate::support::{difference, facts, fixed_prompts, fixture, request};
use reprocheck::{
    cause::watch::Watch,
    cell::calibration::{self, FORM, Header},
    digest::Digest,
    engine::{Engine as _, Prompt, Request, in_groups, lab::Lab},
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
    },
    numerics::{
        Numerics,
        kernel::{At, Definition, Fast, Kernel, Step},
        precision::{Calibration, Channels},
        smooth::Transform,
    },
    run::calibrate::{self, ROWS},
};
use tempfile::TempDir;

fn numerics(name: &str) -> Numerics {
    name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What the products of a fixture read while it answers prompts.
fn measured(
    checkpoint: &Checkpoint,
    batch: usize,
    transform: Option<Transform>,
) -> Vec<(usize, Step, Channels)> {
    let kernel = Watch::new(Fast::new(numerics("fp32/sequential/t2")).unwrap(), ROWS);
    let mut lab = Lab::on(checkpoint, kernel).unwrap();
    let batch = NonZeroUsize::new(batch).unwrap();
    in_groups(&mut lab, batch, &fixed_prompts(checkpoint), &request(6), &mut Vec::new()).unwrap();
    let seen = lab.decoder().kernel().take();
    calibrate::channels(checkpoint, &seen, transform, NonZeroUsize::MIN).unwrap()
}

fn text(checkpoint: &Checkpoint, places: &[(usize, Step, Channels)]) -> String {
    let header = Header {
        form: FORM,
        program: "a test".to_owned(),
        model: "a fixture".to_owned(),
        digest: checkpoint.digest().unwrap(),
        layers: checkpoint.config.layers,
        suites: Vec::new(),
        items: 0,
        seed: 0,
        questions: Digest::of(b""),
        tokens: 0,
        numerics: "fp32/sequential".to_owned(),
        transform: None,
    };
    calibration::written(&header, places.iter().map(|(layer, step, of)| (*layer, *step, of))).unwrap()
}

fn calibration(checkpoint: &Checkpoint, transform: Option<Transform>) -> Calibration {
    calibration::read("c.jsonl", &text(checkpoint, &measured(checkpoint, 4, transform))).unwrap()
}

/// Every kind of cell that reads one.
fn cells(calibration: Calibration) -> Vec<String> {
    [
        "w8a8:a=tensor,calibration=C",
        "w8a8:calibration=C",
        "scaled:w=int8-f32-channel,a=int8-f32-tensor-zero,compute=fp32,calibration=C",
        "fp8:tensor,a=tensor,calibration=C",
        "fp8:s16,a=tensor,calibration=C",
        "scaled:w=int4-f16-g16,a=int8-f32-tensor,calibration=C",
        "w4a16:g16,calibration=C",
        "map:bf16;qkv@0=w8a8:calibration=C;down=fp8:a=tensor,calibration=C",
    ]
    .map(|name| name.replace('C', &calibration.to_string()))
    .to_vec()
}

/// The logits of one call that reads every prompt, and of one more token each.
fn logits<K: Kernel>(decoder: &Decoder<K>, prompts: &[Prompt]) -> Vec<f32> {
    let mut caches: Vec<_> = prompts.iter().map(|_| decoder.cache()).collect();
    let mut all = Vec::new();
    for last in [false, true] {
        let spans = caches.iter_mut().zip(prompts).map(|(cache, prompt)| {
            let tokens = if last { &prompt.tokens[..1] } else { &prompt.tokens };
            Span { cache, tokens, logits: Wanted::All }
        });
        all.extend(decoder.forward(&mut spans.collect::<Vec<_>>()));
    }
    all
}

const MODELS: [&str; 3] = ["qwen3-wide-heads", "qwen2-window", "llama-bias"];

#[test]
fn cells_with_a_calibration_have_the_bits_of_the_definition() {
    for model in MODELS {
        let checkpoint = fixture(model);
        let prompts = fixed_prompts(&checkpoint);
        let transforms = [None, Some(Transform::Smooth(0.5)), Some(Transform::Outliers)];
        for transform in transforms.into_iter().take(if model == MODELS[0] { 3 } else { 2 }).skip(1) {
            for name in cells(calibration(&checkpoint, transform)) {
                for order in ["sequential", "pairwise", "split-k:rows", "exact"] {
                    let numerics = numerics(&format!("{name}/{order}/t2"));
                    let definition = Decoder::load(Definition { numerics }, &checkpoint).unwrap();
                    let fast = Decoder::load(Fast::new(numerics).unwrap(), &checkpoint).unwrap();
                    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                    let [one, other] = [logits(&definition, &prompts), logits(&fast, &prompts)].map(bits);
                    assert_eq!(one, other, "{model}: {numerics}");
                    assert!(one.iter().all(|bits| f32::from_bits(*bits).is_finite()), "{model}: {numerics}");
                }
            }
        }
    }
}

#[test]
fn batch_chunks_and_threads_move_no_bit_of_them() {
    for model in MODELS {
        let checkpoint = fixture(model);
        let prompts = fixed_prompts(&checkpoint);
        for name in cells(calibration(&checkpoint, Some(Transform::Smooth(0.5)))) {
            let answers = |batch: usize, threads: usize, chunk: Option<usize>| {
                let numerics = numerics(&format!("{name}/sequential/t{threads}"));
                let mut lab = Lab::load(&checkpoint, numerics).unwrap();
                let request = Request { prefill_chunk: chunk.and_then(NonZeroUsize::new), ..request(5) };
                let (batch, mut samples) = (NonZeroUsize::new(batch).unwrap(), Vec::new());
                in_groups(&mut lab, batch, &prompts, &request, &mut samples).unwrap();
                facts(samples)
            };
            let alone = answers(1, 1, None);
            for (batch, threads, chunk) in [(4, 1, None), (1, 3, Some(2)), (3, 2, Some(5))] {
                assert_eq!(
                    answers(batch, threads, chunk),
                    alone,
                    "{model}: {name}, {batch} {threads} {chunk:?}"
                );
            }
        }
    }
}

#[test]
fn what_was_measured_is_the_same_in_any_batch_and_is_what_the_first_product_reads() {
    for model in MODELS {
        let checkpoint = fixture(model);
        let (config, places) = (&checkpoint.config, measured(&checkpoint, 1, Some(Transform::Outliers)));
        for batch in [2, 4] {
            assert_eq!(measured(&checkpoint, batch, Some(Transform::Outliers)), places, "{model}");
        }
        // A second way: the rows of the embedding through the first norm, in doubles.
        let mut lab = Lab::load(&checkpoint, numerics("fp32/sequential/t1")).unwrap();
        let mut samples = Vec::new();
        lab.generate(&fixed_prompts(&checkpoint), &request(6), &mut samples).unwrap();
        let read = samples.iter().flat_map(|sample| {
            let answer = sample.steps[..sample.steps.len() - 1].iter().map(|step| step.token.id);
            sample.prompt.iter().copied().chain(answer)
        });
        let read: Vec<u32> = read.collect();
        let width = config.width;
        let mut embedding =
            checkpoint.tensor("model.embed_tokens.weight", &[config.vocabulary, width]).unwrap();
        let mut table = vec![vec![0.0_f32; width]; config.vocabulary];
        table.iter_mut().for_each(|row| embedding.next_row(row).unwrap());
        let mut norm = vec![0.0_f32; width];
        checkpoint
            .tensor("model.layers.0.input_layernorm.weight", &[width])
            .unwrap()
            .next_row(&mut norm)
            .unwrap();
        let (mut low, mut high) = (vec![0.0_f64; width], vec![0.0_f64; width]);
        for token in read {
            let row = &table[token as usize];
            let squares: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(config.epsilon)).sqrt();
            for channel in 0..width {
                let value = f64::from(row[channel]) * scale * f64::from(norm[channel]);
                low[channel] = low[channel].min(value);
                high[channel] = high[channel].max(value);
            }
        }
        let (_, Step::Qkv, channels) = &places[0] else { panic!("the first product is qkv") };
        for channel in 0..width {
            for (found, expected) in
                [(channels.low[channel], low[channel]), (channels.high[channel], high[channel])]
            {
                assert!((f64::from(found) - expected).abs() < 1e-5, "{model}, {channel}: {found} {expected}");
            }
        }
    }
}

/// How far transforms move logits in f32 with exact sums, in steps of an f32 of the size of the largest logit of the row: a division
/// and a multiplication more round for each term.
const STEPS: f32 = 16.0;

#[test]
fn in_f32_a_transform_moves_logits_by_a_few_steps_alone() {
    for model in MODELS {
        let checkpoint = fixture(model);
        let prompts = fixed_prompts(&checkpoint);
        let fast = || Fast::new(numerics("fp32/exact/t2")).unwrap();
        let plain = logits(&Decoder::load(fast(), &checkpoint).unwrap(), &prompts);
        for transform in [Transform::Smooth(0.5), Transform::Smooth(0.9), Transform::Outliers] {
            let calibration = calibration(&checkpoint, Some(transform));
            let smoothed = Decoder::smoothed(fast(), &checkpoint, Some(calibration)).unwrap();
            let apart = difference(&logits(&smoothed, &prompts), &plain, checkpoint.config.vocabulary);
            let steps = apart / f32::EPSILON;
            assert!(steps <= STEPS, "{model}, {transform}: {steps}");
        }
    }
}

#[test]
fn every_product_has_its_limits_or_the_file_is_refused() {
    let checkpoint = fixture(MODELS[0]);
    let good = text(&checkpoint, &measured(&checkpoint, 4, Some(Transform::Smooth(0.5))));
    let lines: Vec<&str> = good.lines().collect();
    let without = |number: usize| -> String {
        let lines =
            lines.iter().enumerate().filter(|(at, _)| *at != number).map(|(_, line)| format!("{line}\n"));
        lines.collect()
    };
    let read = |text: &str| calibration::read("c.jsonl", text).map_err(|problems| problems.to_string());
    assert!(read(&good).is_ok());
    let again = "write it anew with `reprocheck calibrate`";
    assert_eq!(
        read(&without(3)).unwrap_err(),
        format!("c.jsonl: it says nothing of gate-up of layer 0: {again}")
    );
    let twice = format!("{good}{}\n", lines[2]);
    let number = lines.len() + 1;
    assert_eq!(
        read(&twice).unwrap_err(),
        format!("c.jsonl: line {number}, output of layer 0: it stands there twice: {again}")
    );
    for (from, to, said) in [
        ("\"calibration\":1", "\"calibration\":2", "it has form 2, and this program reads form 1"),
        (
            "\"low\":[-",
            "\"low\":[",
            "line 2, qkv of layer 0: every channel has a smallest value up to 0 and a largest from",
        ),
        ("\"low\":[", "\"low\":[-1e39,", "line 2 is not what a calibration has there (number out of range"),
        ("\"smooth\":[", "\"smooth\":[0,", "line 2, qkv of layer 0: every channel has a divisor above 0"),
        (
            "\"step\":\"qkv\"",
            "\"step\":\"head\"",
            "line 2, head of layer 0: the model that it names has no such product",
        ),
        ("\"layer\":0", "\"layer\":9", "line 2, qkv of layer 9: the model that it names has no such product"),
        ("{\"layer\"", "{\"laier\"", "line 2 is not what a calibration has there (unknown field `laier`"),
    ] {
        let error = read(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.starts_with(&format!("c.jsonl: {said}")) && error.ends_with(again), "{error}");
    }
    let output = good.lines().nth(2).unwrap();
    let smoothed = output.replace("\"high\"", &format!("\"smooth\":{:?},\"high\"", vec![1; 9]));
    assert!(read(&good.replace(output, &smoothed)).unwrap_err().contains("every channel has a divisor"));
    assert!(read("").unwrap_err().starts_with("c.jsonl: line 1 is not what a calibration has there"));

    // One of another model says so, and the decoder never takes its channels for others.
    let other = fixture(MODELS[1]);
    let numerics = numerics(&format!("w8a8:a=tensor,calibration={}/exact/t1", read(&good).unwrap()));
    let error = Decoder::load(Definition { numerics }, &other).unwrap_err().to_string();
    assert!(error.contains("qkv of layer 0, which reads"), "{error}");
    let unread = "w8a8:a=tensor,calibration=0123456789abcdef/exact/t1".parse().unwrap();
    let error = Decoder::load(Definition { numerics: unread }, &other).unwrap_err().to_string();
    assert!(
        error.starts_with("calibration=0123456789abcdef was not read here, so nothing is known of qkv"),
        "{error}"
    );
    assert!(
        unread.precision().recipe(At::layer(0, Step::Down))
            != numerics.precision().recipe(At::layer(0, Step::Down))
    );
}

struct Place(TempDir);

impl Place {
    fn program(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        let output =
            command.args(arguments).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn calibrate(&self, more: &[&str]) -> String {
        let usual = ["calibrate", "--suite", "carry_chain,divmod", "--items", "2", "--out", "c.jsonl"];
        let (code, out, err) = self.program(&[&usual[..], more].concat());
        assert_eq!(code, 0, "{err}");
        assert!(out.starts_with("c.jsonl: 16 products of qwen, "), "{out}");
        fs::read_to_string(self.0.path().join("c.jsonl")).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
}

#[test]
fn one_seed_gives_one_file_and_a_run_keeps_what_its_cells_read() {
    let place = Place(tempfile::tempdir().unwrap());
    let file = place.calibrate(&[]);
    assert_eq!(place.calibrate(&["--batch", "3", "--threads", "2"]), file);
    assert_ne!(place.calibrate(&["--seed", "1"]), file);
    let smoothed = place.calibrate(&["--transform", "smooth:0.5", "--batch", "1"]);
    assert_eq!(smoothed.matches("\"smooth\":[").count(), 8);
    let name = Digest::of(smoothed.as_bytes()).to_string()[..16].to_owned();

    let mixed = "all: bf16\ndown: w8a8:a=tensor,calibration=c.jsonl\n";
    place.write("m.map", mixed);
    let matrix = "suites = [\"carry_chain\"]\nitems = 2\n[matrix]\nprecision = [\"fp32\", \
                  \"w8a8:a=tensor,calibration=c.jsonl\", \"map:m.map\"]\n[[gate]]\nname = \"g\"\nvary = \"precision\"\nexpect \
                  = \"diverges\"\n";
    place.write("m.toml", matrix);
    let (code, report, err) = place.program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"]);
    assert_eq!(code, 0, "{err}");
    let cells = fs::read_to_string(place.0.path().join("r/run.json")).unwrap();
    assert!(cells.contains(&format!("lab/w8a8:a=tensor,calibration={name}/sequential/t1/b1")), "{cells}");
    assert!(cells.contains(&format!("map:bf16;down=w8a8:a=tensor,calibration={name}")), "{cells}");

    // The run has its own, so that it can be read and computed again without the file.
    fs::remove_file(place.0.path().join("c.jsonl")).unwrap();
    assert_eq!(place.program(&["report", "r"]).1, report);
    let (code, out, err) = place.program(&["verify", "r", "--sample", "100%"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = place.program(&["plan", "--matrix", "m.toml"]);
    assert!(code == 2 && err.contains("m.toml:4: c.jsonl: it cannot be read ("), "{err}");
    assert!(
        err.contains("what `reprocheck calibrate` has written, and write its name without a folder"),
        "{err}"
    );
    let kept = place.0.path().join(format!("r/calibrations/{name}.jsonl"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), smoothed);
    fs::write(&kept, smoothed.replacen("-0.", "-1.", 1)).unwrap();
    let (code, _, err) = place.program(&["verify", "r"]);
    assert!(code == 2 && err.contains("it is not what was written: it is calibration="), "{err}");
    fs::remove_file(&kept).unwrap();
    let (_, _, err) = place.program(&["verify", "r"]);
    assert!(err.contains(&format!("calibration={name} was not read here, so nothing is known of ")), "{err}");
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let place = Place(tempfile::tempdir().unwrap());
    let refused = |arguments: &[&str]| {
        let (code, out, err) = place.program(&[&["calibrate", "--out", "c.jsonl"], arguments].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(!place.0.path().join("c.jsonl").exists());
        err
    };
    let err = refused(&["--suite", "divmod", "--precision", "int8"]);
    assert!(err.contains("int8 looks at all rows of a call at once"), "{err}");
    let err = refused(&["--suite", "divmod", "--transform", "smoth"]);
    assert!(err.contains("write smooth:0.5 (any share from 0 to 1) or os+"), "{err}");
    assert!(refused(&["--suite", "divmot"]).contains("did you mean"), "the suite is not known");
    // A calibration is of one model.
    place.calibrate(&[]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-plain");
    let generate = |precision: &str| {
        let model = model.to_str().unwrap();
        place.program(&["generate", "--model", model, "--prompt-ids", "1,2", "--precision", precision])
    };
    let (code, _, err) = generate("w8a8:a=tensor,calibration=c.jsonl");
    assert!(code == 2 && err.contains("which was measured of another model ("), "{err}");
    let (code, out, _) = place.program(&["explain", "precision", "w8a8:a=tensor,calibration=c.jsonl"]);
    assert!(code == 0 && out.contains("limits of its own") && !out.contains("NaN"), "{out}");
    let (code, _, err) = generate("w8a8:a=tensor,calibration=0123456789abcdef");
    assert!(code == 2 && err.contains("whose file was not read here: write calibration=FILE"), "{err}");
    let (code, _, err) = generate("w8a8:a=tensor");
    assert!(
        code == 2 && err.contains("choose calibration=FILE, which `reprocheck calibrate` writes"),
        "{err}"
    );
}
