//! Writes the files of the model `qwen`, the stand-in until there is a trained one: `cargo run --release --example
//! stand_in` puts them where the binary takes them from, the same bytes every time.

mod layout;

use std::{fs, path::Path};

use layout::Shape;
use reprocheck::model::Config;

const SEED: u64 = 0x7265_7072_6f63_6865;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/embedded/qwen");
    for (name, bytes) in files()? {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// A file's name and its bytes.
pub(crate) type File = (&'static str, Vec<u8>);

/// Every file, in the order of their names.
pub(crate) fn files() -> Result<Vec<File>, Box<dyn std::error::Error>> {
    let shape = Shape { width: 64, inner_width: 128, layers: 2, heads: 4, kv_heads: 2, head_width: 16 };
    let config = layout::config(shape);
    let weights = weights(&Config::read("config.json", &config)?)?;
    Ok(vec![
        ("config.json", config),
        ("generation_config.json", layout::generation_config()),
        ("model.safetensors", weights),
        ("tokenizer.json", layout::tokenizer()),
    ])
}

/// Norms are 1, the rest is uniform and so wide that a layer keeps the size of what goes through it.
fn weights(config: &Config) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut random = SplitMix64(SEED);
    let tensors = config.tensors().map(|(name, shape)| {
        let count = shape.iter().product();
        // The deviation is half the width over the square root of 3.
        let width = (12.0 / *shape.last().expect("every tensor has a shape") as f32).sqrt();
        let weight = || if shape.len() == 1 { 1.0 } else { width * (random.next_unit() - 0.5) };
        let values = std::iter::repeat_with(weight).take(count).collect();
        (name, (shape, values))
    });
    Ok(layout::weights(&tensors.collect())?)
}

/// Steele, Lea and Flood's generator.
struct SplitMix64(u64);

impl SplitMix64 {
    /// From 0 up to 1, a multiple of 2^-24.
    fn next_unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / 16_777_216.0
    }
}
