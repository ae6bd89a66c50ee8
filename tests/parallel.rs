//! Tensor parallelism on whole models: which degrees are one digest, which are refused, and what finds a degree as the cause.

use std::{collections::BTreeSet, fs};

use reprocheck::{
    engine::goes_with,
    model::{
        Checkpoint, Decoder, Subject,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::{Numerics, kernel::Fast},
};
use tempfile::TempDir;

use crate::support::{fixed_prompts, fixture};

/// A fixture whose heads are cut in two: eight of four channels, behind them 32 terms for `output` and 56 for `down`.
fn of_eight_heads(name: &str) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let file = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let double = |key: &str| config[key].as_u64().map(|count| 2 * count);
    for (key, value) in [
        ("num_attention_heads", double("num_attention_heads")),
        ("num_key_value_heads", double("num_key_value_heads")),
        ("head_dim", config["head_dim"].as_u64().map(|width| width / 2)),
    ] {
        config[key] = value.into();
    }
    fs::write(file, config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!((checkpoint.config.heads, checkpoint.config.head_width), (8, 4));
    (folder, checkpoint)
}

/// The bits of all logits of one call that reads every prompt.
fn logits(checkpoint: &Checkpoint, numerics: &str) -> Vec<u32> {
    let numerics: Numerics = numerics.parse().unwrap_or_else(|error| panic!("{numerics}: {error}"));
    let decoder = Decoder::load(Fast::new(numerics).unwrap(), checkpoint).unwrap();
    let prompts = fixed_prompts(checkpoint);
    let mut caches: Vec<_> = prompts.iter().map(|_| decoder.cache()).collect();
    let spans = caches.iter_mut().zip(&prompts);
    let spans = spans.map(|(cache, prompt)| Span { cache, tokens: &prompt.tokens, logits: Wanted::All });
    decoder.forward(&mut spans.collect::<Vec<_>>()).into_iter().map(f32::to_bits).collect()
}

/// How many different bits the degrees give, each named behind the same numerics.
fn distinct(checkpoint: &Checkpoint, numerics: &str, degrees: &[&str]) -> usize {
    degrees.iter().map(|tp| logits(checkpoint, &format!("{numerics}{tp}"))).collect::<BTreeSet<_>>().len()
}

#[test]
fn a_pairwise_order_reduced_in_a_tree_has_one_digest_under_every_degree() {
    // Of 32 and 56 terms eight ranks have four and seven: the balanced tree over all of them has the ranks' at its third level.
    for name in ["llama-plain", "llama-llama3-narrow"] {
        let (_folder, checkpoint) = of_eight_heads(name);
        let degrees = ["", "/tp2", "/tp4", "/tp8"];
        for numerics in [
            "fp32/pairwise/t1",
            "bf16/pairwise/t2",
            "fp16/pairwise/t1",
            "layercast/pairwise/t1",
            "tf32/pairwise/t1",
            "cast:e4m3/pairwise/t1",
            "lmul/pairwise/t1",
            "w8a16:channel/pairwise/t1",
            "bf16/pairwise/t1/kv:int8",
        ] {
            assert_eq!(distinct(&checkpoint, numerics, &degrees), 1, "{name}: {numerics}");
        }
        // Sums that are kept in 16 bits are sent in them.
        let degrees = ["", "/tp2/tree:bf16", "/tp4/tree:bf16", "/tp8/tree:bf16"];
        assert_eq!(distinct(&checkpoint, "bf16-acc16/pairwise/t1", &degrees), 1, "{name}");
    }
}

#[test]
fn every_other_order_and_reduction_gives_every_degree_bits_of_its_own() {
    let (_folder, checkpoint) = of_eight_heads("llama-plain");
    for (numerics, degrees) in [
        // One rounding of all is not one of each part and one of their sum.
        ("fp32/exact/t1", ["", "/tp2", "/tp4", "/tp8"]),
        ("fp32/sequential/t1", ["", "/tp2", "/tp4", "/tp8"]),
        ("fp32/pairwise/t1", ["", "/tp2/ring:bf16", "/tp4/ring", "/tp8/ring"]),
        ("fp32/pairwise/t1", ["", "/tp2/tree:bf16", "/tp4/one-shot", "/tp8/one-shot"]),
        ("fp32/pairwise/t1", ["/tp8", "/tp8/ring", "/tp8/one-shot", "/tp8/tree:bf16"]),
        ("bf16/pairwise/t1", ["/tp8", "/tp8/ring:bf16", "/tp8/one-shot:bf16", "/tp8/tree:bf16"]),
    ] {
        assert_eq!(distinct(&checkpoint, numerics, &degrees), degrees.len(), "{numerics}: {degrees:?}");
    }
    // Two ranks have one tree.
    assert_eq!(distinct(&checkpoint, "fp32/pairwise/t1", &["/tp2", "/tp2/ring", "/tp2/one-shot"]), 1);
}

#[test]
fn a_degree_that_a_model_does_not_have_is_refused_with_its_number_and_those_that_it_has() {
    let embedded = Checkpoint::embedded(&MODELS[0]).unwrap();
    let (_folder, keys) = of_eight_heads("llama-llama3-narrow");
    let biased = fixture("qwen3-untied-bias");
    for (checkpoint, numerics, what) in [
        (
            &embedded,
            "fp32/exact/t1/tp8",
            "8 ranks cannot share the 4 heads of attention of qwen alike: set tp to 1, 2 or 4",
        ),
        (
            &embedded,
            "w4a16/exact/t1/tp4",
            "4 ranks cannot share the 128 terms of output of layer 0 in groups of 128 of qwen alike: set tp to 1",
        ),
        (&embedded, "map:fp32;down@2-=mxfp8/exact/t1/tp4", ""),
        (
            &embedded,
            "map:fp32;down@2-=w8a16:g128/exact/t1/tp4",
            "the 256 terms of down of layer 2 in groups of 128 of qwen alike: set tp to 1 or 2,",
        ),
        (&keys, "fp32/exact/t1/tp8", ""),
        (&keys, "fp32/exact/t1/tp3", "3 ranks cannot share the 8 heads of attention"),
        (&biased, "fp32/exact/t1/tp4", ""),
        (&biased, "mxfp8/exact/t1/tp2", "the 32 terms of output of layer 0 in groups of 32"),
    ] {
        let numerics: Numerics = numerics.parse().unwrap();
        let loaded = Decoder::load(Fast::new(numerics).unwrap(), checkpoint).map(|_| ());
        let subject = Subject::of(checkpoint).unwrap();
        let planned = goes_with(reprocheck::cell::Compute::Lab(numerics), &subject);
        if what.is_empty() {
            assert_eq!((loaded.map_err(|error| error.to_string()), planned), (Ok(()), Ok(())), "{numerics}");
            continue;
        }
        let (loaded, planned) = (loaded.unwrap_err().to_string(), planned.unwrap_err().to_string());
        assert!(loaded.contains(what) && loaded.ends_with(", or leave such cells out"), "{loaded}");
        assert!(planned.ends_with(&loaded) && planned.starts_with("lab/"), "{planned}");
    }
}
