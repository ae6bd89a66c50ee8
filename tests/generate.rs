//! `reprocheck generate` as a user meets it: what it prints, what it writes, and how it ends.

use std::{fs, path::PathBuf, process::Command};

use reprocheck::{
    digest::Digest,
    trace::{Sample, Sight},
};
use safetensors::SafeTensors;
use serde_json::Value;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
        .arg("generate")
        .args(arguments)
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("all output is text");
    (output.status.code().expect("no signal ended it"), text(output.stdout), text(output.stderr))
}

/// The sample of one run, from its JSON.
fn sample(arguments: &[&str]) -> Sample {
    let (code, out, err) = run(&[arguments, &["--format", "json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["model"]["digest"].as_str().map(str::len), Some(64));
    serde_json::from_value(shown["sample"].clone()).unwrap()
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("reprocheck-generate-{}-{name}", std::process::id()))
}

#[test]
fn the_file_holds_the_logits_whose_digests_are_shown_and_those_of_the_prompt() {
    let file = temporary("logits.safetensors");
    let model = fixture("qwen3-tied");
    let model = ["--model", &model, "--prompt-ids", "5,7,11,13", "--max-new-tokens", "3"];
    let shown = sample(&[&model[..], &["--logits", file.to_str().unwrap()]].concat());
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let written = SafeTensors::deserialize(&bytes).unwrap();
    let (tokens, logits) = (written.tensor("tokens").unwrap(), written.tensor("logits").unwrap());
    assert_eq!((tokens.shape(), logits.shape()), (&[6][..], &[6, 96][..]));
    let tokens: Vec<_> = tokens.data().as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
    let answer: Vec<_> = shown.steps.iter().map(|step| step.token.id).collect();
    assert_eq!(tokens, [&[5, 7, 11, 13], &answer[..2]].concat());
    let logits: Vec<_> = logits.data().as_chunks().0.iter().copied().map(f32::from_le_bytes).collect();
    let digests: Vec<_> = logits.chunks(96).map(Digest::of_logits).collect();
    assert_eq!(digests[3..], shown.steps.iter().map(|step| step.token.digest().unwrap()).collect::<Vec<_>>());
    // Candle shows as many, if it reads token by token.
    let candle = ["--engine", "candle", "--prefill-chunk", "1", "--logits", file.to_str().unwrap()];
    assert_eq!(sample(&[&model[..], &candle].concat()).steps.len(), 3);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor("logits").unwrap().shape(), [6, 96]);
    // The same without a file: looking on moves no bit.
    assert_eq!(sample(&model).steps, shown.steps);
}

#[test]
fn only_an_order_shaped_by_the_launch_lets_copies_of_a_prompt_move_its_bits() {
    let root = |order: &str, batch: &str| {
        let arguments = ["--model", "qwen", "--prompt", "12+34=", "--order", order, "--batch", batch];
        sample(&arguments).root(Sight::Logits)
    };
    for order in ["sequential", "pairwise", "exact"] {
        assert_eq!(root(order, "1"), root(order, "5"), "{order}");
    }
    assert_ne!(root("split-k:rows", "1"), root("split-k:rows", "5"));
}

#[test]
fn both_engines_continue_the_model_in_the_binary_alike() {
    let prompt = ["--model", "qwen", "--prompt", "7*8=", "--max-new-tokens", "5"];
    let lab = sample(&prompt);
    let candle = sample(&[&prompt[..], &["--engine", "candle"]].concat());
    assert_eq!(lab.text, candle.text);
    assert_eq!(lab.steps.len(), 5);
    assert_eq!(candle.launch.unwrap().prefill, [4]);
}

#[test]
fn a_draw_is_the_same_draw_again_and_another_with_another_seed() {
    let draw = |seed: u32| {
        let choice = format!("sampled:seed={seed},temperature=2");
        sample(&["--model", "qwen", "--prompt", "1", "--choice", &choice]).text
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let whole = sample(&["--model", "qwen", "--prompt", "12+34="]).text;
    let stop = &whole[3..5];
    let cut = sample(&["--model", "qwen", "--prompt", "12+34=", "--stop", stop]).text;
    assert_eq!(cut, whole[..whole.find(stop).unwrap()]);
}

#[test]
fn what_cannot_be_done_is_a_sentence_with_the_way_out_and_an_exit_code() {
    let tied = fixture("qwen3-tied");
    let window = fixture("qwen2-window");
    for (arguments, exit, sentence) in [
        (&["--model", "qwem", "--prompt", "a"][..], 2, "did you mean `qwen`?"),
        (&["--model", "./nope", "--prompt", "a"], 2, "there is no folder ./nope"),
        (&["--model", &tied, "--prompt", "a"], 2, "has no tokenizer.json: give the prompt as --prompt-ids"),
        (
            &["--model", &tied, "--prompt-ids", "1,96"],
            2,
            "the model knows those below 96: use its own tokenizer",
        ),
        (&["--model", "qwen", "--prompt", "a", "--chat"], 2, "qwen has no chat template: leave out --chat"),
        (&["--model", "qwen", "--prompt", "a", "--max-new-tokens", "5000"], 2, "the model has 4096: shorten"),
        (
            &["--model", &window, "--prompt-ids", "1", "--engine", "candle"],
            2,
            "candle/fp32/t1: candle's Qwen2 does not keep to a sliding window",
        ),
        (
            &["--model", "qwen", "--prompt", "a", "--engine", "candle", "--precision", "w8a8"],
            2,
            "candle/w8a8/t1: candle computes in fp32, fp16, bf16 or gguf: use one of these, or the lab engine",
        ),
        (&["--model", "qwen", "--prompt", "a", "--threads", "20000"], 2, "for one call: write up to 1024"),
        (
            &["--model", "qwen", "--prompt", "a", "--engine", "candle", "--threads", "20000"],
            2,
            "no machine has 20000 threads for one call: write up to 1024",
        ),
        (
            &["--model", "qwen", "--prompt", "a", "--cell", "lab/fp32/exact/t1/b1/s7"],
            2,
            "generate runs one prompt once, without seed: leave it out of lab/fp32/exact/t1/b1/s7",
        ),
        (&["--model", "qwen", "--prompt", "a", "--logits", "/no/where"], 4, "choose another place"),
        (
            &["--model", "qwen", "--prompt", "ab", "--engine", "candle", "--logits", "/no/where"],
            2,
            "candle/fp32/t1/b1 tells the logits after 16 of 17 tokens read: add --prefill-chunk 1",
        ),
        (
            &[
                "--model",
                "qwen",
                "--prompt",
                "ab",
                "--cell",
                "lab/fp32/exact/t1/b1/warm",
                "--logits",
                "/no/where",
            ],
            2,
            "tokens read: name a cell without a cache",
        ),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (exit, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(sentence), "{arguments:?}: {err}");
    }
}

#[test]
fn the_text_form_shows_the_model_the_cell_and_every_token() {
    let arguments = ["--model", "qwen", "--prompt", "12+34=", "--max-new-tokens", "2", "--precision", "bf16"];
    let (code, out, err) = run(&arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    for words in [
        "qwen: qwen3, 603,648 parameters, inside this binary\n",
        "the model to audit",
        "lab/bf16/sequential/t1/b1: 6 tokens read, 2 added, cut off at --max-new-tokens\n",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    for step in sample(&arguments).steps {
        assert!(out.contains(&step.token.digest().unwrap().to_string()[..16]), "{out}");
    }
}

#[test]
fn a_replay_shows_what_would_have_been_chosen_before_each_token_that_is_given() {
    let model = ["--model", "qwen", "--precision", "bf16", "--prompt", "12+34="];
    let own = sample(&[&model[..], &["--max-new-tokens", "6"]].concat());
    let text: String = own.text.chars().take(2).collect();
    assert_eq!(text.len(), 2, "{text:?}");
    let replay = sample(&[&model[..], &["--replay", &text]].concat());
    // Given what it would have chosen, it has the same logits, and it does not end by itself.
    assert_eq!(
        replay.steps[..2].iter().map(|step| step.token.digest()).collect::<Vec<_>>(),
        own.steps[..2].iter().map(|step| step.token.digest()).collect::<Vec<_>>()
    );
    assert_eq!(replay.steps.len(), 2);
    let ids: Vec<_> = replay.steps.iter().map(|step| step.token.id.to_string()).collect();
    assert_eq!(sample(&[&model[..], &["--replay-ids", &ids.join(",")]].concat()), replay);
    let (code, out, _) = run(&[&model[..], &["--replay", &format!("{text}9x")]].concat());
    assert_eq!(code, 0);
    assert!(out.contains("4 read after them, replayed to the end"), "{out}");
    assert!(out.contains("best") && out.contains("the same"), "{out}");
    let (code, _, err) = run(&[&model[..], &["--replay", "4", "--max-new-tokens", "3"]].concat());
    assert_eq!(code, 2);
    assert!(err.contains("cannot be used with"), "{err}");
}
