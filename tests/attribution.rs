//! Which parts carry a difference: each part is exchanged and nothing beside it, and all together are the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use reprocheck::{
    cause::{
        Heads, Part,
        attribution::{By, Panel},
        passage::{Passage, Rows},
        sensitivity::{Budget, Lowered, STEPS},
        tap::{Kept, Tap, Which},
        transplant::{Donated, Transplant},
    },
    digest::Digest,
    model::{Checkpoint, Decoder, embedded::MODELS},
    numerics::{
        Numerics,
        choice::rank,
        kernel::{At, Fast, Step},
    },
};
use serde_json::Value;

fn model() -> Checkpoint {
    Checkpoint::embedded(&MODELS[0]).unwrap()
}

fn passage(checkpoint: &Checkpoint, first: u32) -> Passage {
    let tokens = (0..24).map(|place| (first + place * 7) % checkpoint.config.vocabulary as u32).collect();
    let rows = [1, 9].map(|rows| Rows { layers: rows, head: rows });
    Passage { tokens, prompt: 16, calls: vec![rows; 24], together: 16.try_into().unwrap() }
}

/// What every operation gives for the last token, with something of the other cell.
fn kept(checkpoint: &Checkpoint, donated: Donated) -> Kept {
    let numerics: [Numerics; 2] =
        ["fp32/sequential/t1", "fp16/pairwise/t1"].map(|name| name.parse().unwrap());
    let kernel = Transplant::of(numerics, 0).unwrap();
    kernel.donate(donated);
    let decoder = Decoder::load(Tap::new(kernel, &checkpoint.config), checkpoint).unwrap();
    decoder.kernel().listen(Some(23));
    passage(checkpoint, 3).read(&decoder, |_, _| {});
    decoder.kernel().take().1
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_head_is_exchanged_and_no_other() {
    let checkpoint = model();
    let heads = Heads::of(&checkpoint.config);
    let own = kept(&checkpoint, Donated::At(BTreeSet::new()));
    let width = checkpoint.config.head_width;
    for step in [Step::Qkv, Step::QueryRotation, Step::Scores, Step::Softmax, Step::Context] {
        let at = At::layer(1, step);
        let whole = kept(&checkpoint, Donated::At(BTreeSet::from([at])));
        for part in heads.parts(step) {
            let parts = BTreeMap::from([(at, BTreeSet::from([part]))]);
            let found = kept(&checkpoint, Donated::Parts(heads, parts));
            for (which, values) in found.iter().filter(|(which, _)| which.at == at) {
                let [own, whole, found] = [&own[which], &whole[which], values].map(|values| bits(values));
                // Scores and what follows come head by head; the others have the heads of a token side by side.
                let by_head = matches!(step, Step::Scores | Step::Softmax | Step::Context);
                let width = if by_head { found.len() } else { width };
                for (piece, ((own, whole), found)) in
                    own.chunks(width).zip(whole.chunks(width)).zip(found.chunks(width)).enumerate()
                {
                    let head = if by_head { which.head } else { piece };
                    let owner: Part = Some(head).filter(|head| *head < checkpoint.config.heads);
                    let expected = if owner == part { whole } else { own };
                    assert_eq!(found, expected, "{at}, {part:?}, {head}");
                }
            }
            let before = |which: &&Which| which.at < at;
            assert!(found.keys().filter(before).all(|which| bits(&found[which]) == bits(&own[which])));
        }
        // Otherwise nothing was shown.
        assert!(
            own.iter().any(|(which, values)| which.at == at && bits(values) != bits(&whole[which])),
            "{at}"
        );
    }
}

/// Two cells on three passages, with what the first gives on them.
fn panel<'a>(checkpoint: &'a Checkpoint, numerics: [&str; 2]) -> Panel<'a> {
    let numerics = numerics.map(|name| name.parse::<Numerics>().unwrap());
    let passages: Vec<Passage> = [3, 50, 77].map(|first| passage(checkpoint, first)).into();
    let decoder = Decoder::load(Transplant::of(numerics, 0).unwrap(), checkpoint).unwrap();
    let digests = passages.iter().map(|passage| {
        let mut digests = Vec::new();
        passage.read(&decoder, |_, logits| digests.push(Digest::of_logits(logits)));
        [digests, Vec::new()]
    });
    Panel { checkpoint, numerics, digests: digests.collect(), passages }
}

#[test]
fn all_parts_together_make_one_cell_the_other() {
    let checkpoint = model();
    for (numerics, parts) in [
        (["bf16/sequential/t1", "bf16/lanes:8/t1"], &By::ALL[..]),
        (["bf16/split-k:rows/t1", "bf16/split-k:rows/t1"], &[By::Layer]),
        (["fp32/pairwise/t1", "fp32/exact/t1"], &[By::Layer]),
    ] {
        let panel = panel(&checkpoint, numerics);
        for by in parts.iter().copied() {
            let mut told = Vec::new();
            let found = panel.attribute(by, &mut |done, of| told.push((done, of))).unwrap();
            assert_eq!(found.whole.places, 27, "nine places each");
            assert!(found.whole.divergence.unwrap() > 0.0, "{numerics:?}");
            let last = found.together.last().unwrap();
            assert_eq!(
                (last.units, last.left.flips, last.left.divergence),
                (found.units.len(), 0, Some(0.0))
            );
            assert_eq!(found.units.len() + found.idle, by.units(&checkpoint.config).len(), "{by}");
            assert!(told.is_sorted() && told.iter().all(|(done, of)| done < of), "{told:?}");
            // Strongest first, each by itself.
            let left = |at: usize| (found.units[at].left.flips, found.units[at].left.divergence);
            assert!((1..found.units.len()).all(|at| left(at - 1) <= left(at)), "{found:?}");
            assert_eq!(found.together[0].left, found.units[0].left);
            assert!(found.units.iter().any(|unit| unit.made.divergence > Some(0.0)));
        }
    }
}

#[test]
fn what_differs_in_one_layer_is_that_layer_s() {
    let checkpoint = model();
    // A map that has another precision in a single layer differs nowhere else.
    let panel = panel(&checkpoint, ["bf16/sequential/t1", "map:bf16;@2=fp16/sequential/t1"]);
    let found = panel.attribute(By::Layer, &mut |_, _| {}).unwrap();
    assert_eq!(found.units.len(), 1, "{found:?}");
    assert_eq!(found.units[0].unit.layer, Some(2));
    assert_eq!(found.removed(&found.units[0].left), Some(1.0));
    assert_eq!(found.units[0].made, found.whole);
    let sites = panel.attribute(By::Site, &mut |_, _| {}).unwrap();
    assert!(sites.units.iter().all(|unit| unit.unit.layer == Some(2)), "{sites:?}");
}

#[test]
fn a_map_does_what_was_measured_of_its_products() {
    let checkpoint = model();
    let panel = panel(&checkpoint, ["bf16/sequential/t1", "cast:e4m3/sequential/t1"]);
    let found = panel.sensitivity(Budget { flips: 0.1, bytes: None }, &mut |_, _| {}).unwrap();
    let layers = checkpoint.config.layers;
    assert_eq!((found.units.len(), found.bytes[1]), (STEPS.len() * layers, found.bytes[0] / 2));
    assert!(
        found.chosen.flips <= 2 && !found.lowered.is_empty() && found.lowered.len() < found.units.len(),
        "{found:?}"
    );
    let taken = |unit: &Lowered| unit.bytes[usize::from(found.lowered.contains(&unit.operation))];
    assert_eq!(found.takes, found.units.iter().map(taken).sum::<u64>());
    // As a precision of its own, by a kernel that knows nothing of transplants, it is no other.
    let map = panel.map(&found.lowered);
    let numerics: Numerics = format!("{map}/sequential/t1").parse().unwrap();
    let choices = |numerics: Numerics, passage: &Passage| {
        let mut choices = Vec::new();
        let decoder =
            Decoder::load(Transplant::<Fast>::new(0, Fast::new(numerics).unwrap(), None), &checkpoint)
                .unwrap();
        passage.read(&decoder, |_, logits| choices.push(rank(logits, 1).unwrap().candidates[0].token));
        choices
    };
    let flips = panel.passages.iter().map(|passage| {
        let (own, mapped) = (choices(panel.numerics[0], passage), choices(numerics, passage));
        own.iter().zip(&mapped).filter(|(own, mapped)| own != mapped).count() as u64
    });
    let flips: Vec<u64> = flips.collect();
    assert_eq!(flips.iter().sum::<u64>(), found.chosen.flips);
    let apart = panel.lowered(&found.lowered).unwrap();
    assert_eq!(apart.iter().map(|distance| distance.flips).collect::<Vec<_>>(), flips);
    // More bytes than the budget has are not taken, and what cannot be is refused.
    let half = Budget { flips: 1.0, bytes: Some(0.75) };
    let found = panel.sensitivity(half, &mut |_, _| {}).unwrap();
    assert!(found.takes <= found.bytes[0] * 3 / 4);
    let error = |budget| panel.sensitivity(budget, &mut |_, _| {}).unwrap_err().to_string();
    let said = error(Budget { flips: 0.0, bytes: Some(0.5) });
    assert!(said.contains("allow more bytes, or more flips"), "{said}");
    let said = error(Budget { flips: 1.0, bytes: Some(0.4) });
    assert!(said.contains("and 471859 are allowed: allow more, or lower further"), "{said}");
}

#[test]
fn a_transplant_stores_norms_and_biases_as_the_donor_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["llama-bias", "qwen2-tied", "qwen3-tied"] {
        let checkpoint = Checkpoint::open(&folder.join(name)).unwrap();
        let map: Numerics =
            "map:fp32;attention-norm,qkv,output,down@0=cast:e4m3/sequential/t1".parse().unwrap();
        let logits = |kernel: Transplant<Fast>, donated: Donated| {
            kernel.donate(donated);
            let decoder = Decoder::load(kernel, &checkpoint).unwrap();
            let mut rows = Vec::new();
            passage(&checkpoint, 3).read(&decoder, |_, logits| rows.extend(bits(logits)));
            rows
        };
        let nothing = || Donated::At(BTreeSet::new());
        let mapped = logits(Transplant::new(0, Fast::new(map).unwrap(), None), nothing());
        let cells = ["fp32/sequential/t1", "cast:e4m3/sequential/t1"].map(|name| name.parse().unwrap());
        let own = Transplant::of(cells, 0).unwrap();
        let places =
            [Step::AttentionNorm, Step::Qkv, Step::Output, Step::Down].map(|step| At::layer(0, step));
        assert!(mapped == logits(own, Donated::At(places.into())), "{name}");
        assert!(mapped != logits(Transplant::of(cells, 0).unwrap(), nothing()), "{name}");
    }
}

#[test]
fn what_is_no_lower_is_no_map() {
    let checkpoint = model();
    let error = |numerics| {
        let panel = panel(&checkpoint, numerics);
        panel.sensitivity(Budget { flips: 0.1, bytes: None }, &mut |_, _| {}).unwrap_err().to_string()
    };
    let said = error(["bf16/sequential/t1", "fp16/sequential/t1"]);
    assert_eq!(
        said,
        "fp16/sequential/t1 takes as many bytes for a weight as bf16/sequential/t1, or more: lower to a precision that takes fewer"
    );
    let said = error(["bf16/sequential/t1", "int8/sequential/t1"]);
    assert!(said.contains("looks at all rows of a call at once"), "{said}");
    let said = error(["gguf/sequential/t1", "fp16/sequential/t1"]);
    assert!(said.contains("keeps weights as the model's file stores them"), "{said}");
}

#[test]
fn what_was_recorded_elsewhere_is_not_attributed() {
    let checkpoint = model();
    let mut panel = panel(&checkpoint, ["bf16/sequential/t1", "bf16/lanes:8/t1"]);
    let error = |panel: &Panel<'_>| panel.attribute(By::Layer, &mut |_, _| {}).unwrap_err().to_string();
    // So it is on either side.
    panel.digests.iter_mut().for_each(|[one, other]| other.clone_from(one));
    let said = error(&panel);
    assert!(said.contains("bf16/lanes:8/t1 gives other logits here than the run recorded"), "{said}");
    panel.numerics.swap(0, 1);
    let said = error(&panel);
    assert!(said.contains("bf16/lanes:8/t1 gives other logits here than the run recorded"), "{said}");
}

/// Runs the program in a folder, and gives what it says.
fn program(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
    let output = command.args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Chooses a map by some items of a model, runs it as a cell on as many others, and holds it to what was expected there: `suites` is
/// what a matrix file says of the questions.
pub(crate) fn a_map_costs_what_was_expected(
    model: &str,
    suites: &str,
    items: usize,
    threads: usize,
    budget: &str,
) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let run = |name: &str, seed: u64, items: usize, precision: &str| {
        let matrix = format!(
            "{suites}\nitems = {items}\nitem-seed = {seed}\n[generate]\nreplay = true\nmax-new-tokens = 16\n\
             [reference]\nprecision = \"bf16\"\nbatch = 4\nthreads = {threads}\n\
             [matrix]\nprecision = \"{precision}\"\nbatch = 4\nthreads = {threads}\n"
        );
        fs::write(folder.join("m.toml"), matrix).unwrap();
        let (code, _, said) =
            program(folder, &["run", "--model", model, "--matrix", "m.toml", "--out", name]);
        // Without gates nothing is decided.
        assert_eq!(code, 3, "{said}");
    };
    run("own", 0, items, "fp32");
    let count = items.to_string();
    let arguments = ["sensitivity", "own", "--to", "cast:e4m3", "--flips", budget, "--items", &count];
    let (code, out, said) =
        program(folder, &[&arguments[..], &["--format", "json", "--out", "cheap.map"]].concat());
    assert_eq!(code, 0, "{said}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let number = |of: &Value, name: &str| of[name].as_f64().unwrap();
    let expected = [number(&found["expected"], "lower"), number(&found["expected"], "upper")];
    assert!(expected[0] < expected[1] && expected[1] < 0.8, "{found}");
    let lowered = found["sensitivity"]["lowered"].as_array().unwrap().len();
    assert!(lowered > 0, "{found}");
    run("other", 7, items / 2, "map:cheap.map");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("other/report.json")).unwrap()).unwrap();
    let row = report["cells"].as_array().unwrap().iter().find(|row| !row["against"].is_null()).unwrap();
    let best = &row["against"]["best"];
    let flips = 1.0 - number(best, "hits") / number(best, "of");
    assert!((expected[0]..=expected[1]).contains(&flips), "{flips} is not within {expected:?}");
    assert!(row["cell"].as_str().unwrap().contains(found["map"].as_str().unwrap()), "{row}");
}

#[test]
fn a_map_costs_on_other_items_what_was_expected() {
    a_map_costs_what_was_expected("qwen", "suites = [\"mul_ladder\"]", 32, 1, "0.05");
}
