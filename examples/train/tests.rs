//! The gradients are those of the cost, the network is the one that the lab computes, and a training goes on as if it had
//! never stopped.

use std::num::NonZeroUsize;

use reprocheck::{
    cell::Asking,
    digest::Digest,
    engine::{Engine as _, Observer, Prompt, Request, lab::Lab},
    model::Checkpoint,
    numerics::{choice::Choice, random::Stream},
    trace::Sample,
};

use crate::{
    Trainer,
    data::{Line, Mixture},
    files,
    network::{self, Network},
    optimizer::State,
    recipe::Recipe,
};

/// A recipe of a small model, and weights far from where they begin.
fn prepared() -> (Recipe, Vec<Vec<f32>>) {
    let recipe =
        Recipe { layers: 2, width: 48, inner_width: 64, initial_scale: 1.5, ..Recipe::of("qwen").unwrap() };
    let parameters = network::parameters(&recipe);
    let mut values = network::initial(&parameters, 5);
    let spread = network::initial(&network::parameters(&Recipe { layers: 3, ..recipe.clone() }), 6);
    let mut noise = spread.iter().flatten().filter(|&&value| value != 1.0);
    for value in values.iter_mut().filter(|values| values.len() < 100).flatten() {
        *value += noise.next().unwrap();
    }
    (recipe, values)
}

fn lines(recipe: &Recipe, count: u64) -> Vec<Line> {
    let mixture = Mixture::new(recipe).unwrap();
    (0..count).map(|number| mixture.line(number)).collect()
}

#[test]
fn a_gradient_is_how_the_cost_moves() {
    let (recipe, values) = prepared();
    let parameters = network::parameters(&recipe);
    let network = Network::new(&recipe, &parameters, &values).unwrap();
    let lines = lines(&recipe, 4);
    let lines: Vec<_> = lines.iter().collect();
    let (_, gradients) = network.gradients(&lines, 1.0).unwrap();
    let mut stream = Stream::new(8, 0);
    for (at, gradient) in gradients.iter().enumerate() {
        let length = gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        // A step of the same size in every weight, up or down: no part of the gradient can be missing.
        let signs: Vec<_> =
            gradient.iter().map(|_| if stream.bits().is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        let expected: f64 = signs.iter().zip(gradient).map(|(sign, g)| sign * f64::from(*g)).sum();
        let distance = 0.2 / length;
        let cost = |factor: f64| {
            let mut moved = values.clone();
            for (value, sign) in moved[at].iter_mut().zip(&signs) {
                *value += (factor * distance * sign) as f32;
            }
            network.set(&moved).unwrap();
            f64::from(network.gradients(&lines, 1.0).unwrap().0)
        };
        let slope = (cost(1.0) - cost(-1.0)) / (2.0 * distance);
        assert!((slope - expected).abs() < 0.02 * length, "{at}: {slope}, {expected} of {length}");
        network.set(&values).unwrap();
    }
}

struct Logits(Vec<f32>);

impl Observer for Logits {
    fn finished(&mut self, _: Sample) {}

    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, _: u64, _: usize, logits: &[f32]) {
        self.0.extend(logits);
    }
}

#[test]
fn the_lab_computes_the_network_that_is_trained() {
    let (recipe, mut values) = prepared();
    // As they are shipped.
    values.iter_mut().flatten().for_each(|value| *value = f32::from_bits(value.to_bits() & 0xFFFF_0000));
    let parameters = network::parameters(&recipe);
    let folder = tempfile::tempdir().unwrap();
    files::export(folder.path(), &recipe, &parameters, &values).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let names: Vec<_> = checkpoint.config.tensors().map(|(name, _)| name).collect();
    assert_eq!(names.len(), checkpoint.tensor_names().count());
    let mut lab = Lab::load(&checkpoint, "fp32/sequential/t1".parse().unwrap()).unwrap();
    let network = Network::new(&recipe, &parameters, &values).unwrap();
    let request = Request {
        prefill_chunk: None,
        asking: Asking::default(),
        max_new_tokens: 0,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: 1,
    };
    // Two lines at once here, one after the other there.
    let lines = lines(&recipe, 2);
    let mut seen = Logits(Vec::new());
    for (line, item) in lines.iter().zip(0..) {
        let prompt = Prompt { item, tokens: line.tokens.clone(), replay: None };
        lab.generate(&[prompt], &request, &mut seen).unwrap();
    }
    let tokens: Vec<_> = lines.iter().map(|line| &line.tokens[..]).collect();
    let rows: Vec<u32> = (0..tokens.concat().len() as u32).collect();
    let logits = network.logits(&tokens, &rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(logits.len(), seen.0.len());
    let apart = logits.iter().zip(&seen.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = logits.iter().fold(0.0, |largest: f32, logit| largest.max(logit.abs()));
    assert!(largest > 1.0, "{largest}: these logits say nothing");
    assert!(apart < 1e-4, "{apart} of {largest}");
    eprintln!("logits up to {largest}, apart by {apart} at most");
}

/// The state after these steps of a small recipe, written and read after each of `stops`.
fn trained(threads: usize, steps: u64, stops: &[u64]) -> State {
    let (recipe, _) = prepared();
    let recipe = Recipe { batch: 12, steps, schedule: steps, warm_up: 2, ..recipe };
    let parameters = network::parameters(&recipe);
    let mut state = State::new(network::initial(&parameters, recipe.weight_seed));
    let folder = tempfile::tempdir().unwrap();
    let trainer = |state: &State| {
        Trainer::new(&recipe, network::parameters(&recipe), state, NonZeroUsize::new(threads)).unwrap()
    };
    let mut present = trainer(&state);
    while state.step < steps {
        present.step(&mut state).unwrap();
        if stops.contains(&state.step) {
            files::save(folder.path(), &recipe, &state).unwrap();
            state = files::load(folder.path(), &recipe).unwrap();
            present = trainer(&state);
        }
    }
    state
}

#[test]
fn a_training_that_stopped_and_went_on_ends_in_the_same_bits() {
    let whole = files::digest(&trained(1, 6, &[]));
    assert_eq!(files::digest(&trained(1, 6, &[2, 3])), whole);
    assert_ne!(files::digest(&trained(1, 5, &[])), whole);
}

#[test]
fn threads_move_no_bit() {
    let alone = files::digest(&trained(1, 4, &[]));
    for threads in [2, 3, 5] {
        assert_eq!(files::digest(&trained(threads, 4, &[])), alone, "{threads}");
    }
}

#[test]
fn a_checkpoint_of_another_recipe_is_refused() {
    let (recipe, values) = prepared();
    let folder = tempfile::tempdir().unwrap();
    files::save(folder.path(), &recipe, &State::new(values)).unwrap();
    let other = Recipe { data_seed: 1, ..recipe };
    let error = files::load(folder.path(), &other).err().unwrap().to_string();
    assert!(error.ends_with("holds another recipe: begin in another folder"), "{error}");
}

#[test]
fn every_recipe_has_lines_and_says_all_that_it_is() {
    for name in ["qwen", "qwen-full"] {
        let recipe = Recipe::of(name).unwrap();
        let text = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        let (first, second) = (lines(&recipe, 300), lines(&recipe, 300));
        for (line, again) in first.iter().zip(&second) {
            assert_eq!(line.tokens, again.tokens);
            assert!(0 < line.prompt && line.prompt < line.tokens.len() && line.tokens.len() < 512);
        }
    }
}

#[test]
fn the_recipes_are_those_beside_the_models_that_ship() {
    for name in ["qwen", "qwen-full"] {
        let shipped = format!("{}/src/model/embedded/{name}/recipe.json", env!("CARGO_MANIFEST_DIR"));
        let shipped = std::fs::read_to_string(shipped).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&shipped).unwrap(), Recipe::of(name).unwrap());
    }
}

#[test]
fn the_recipes_still_draw_the_lines_that_their_models_were_trained_on() {
    // Another digest here means that the models must be trained again.
    for (name, digest) in [
        ("qwen", "9c861a68ac9a212970b10a24114ad7f50fbb705d04baf7617dc8a461a785fc0f"),
        ("qwen-full", "af95bc72ee75a2aeb0a5c41ec53a9fb2d68e3de9ce54dd6a87434757c2cb2924"),
    ] {
        let lines = lines(&Recipe::of(name).unwrap(), 2000);
        let bytes: Vec<u8> = lines.iter().flat_map(|line| &line.tokens).map(|&token| token as u8).collect();
        assert_eq!(Digest::of(&bytes).to_string(), digest, "{name}");
    }
}
