//! The finding about candle's matrix product on the CPU: has a row other bits when other rows are multiplied with it?
//!
//! ```sh
//! cargo run --release --example candle_matmul
//! ```

#![expect(clippy::print_stdout, reason = "it prints its table")]

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use reprocheck::numerics::random::Stream;

/// Terms and outputs of linear layers: of the model in the binary, of Qwen2.5-0.5B, and one that is long.
const SHAPES: [(usize, usize); 6] =
    [(128, 128), (128, 384), (384, 128), (896, 896), (896, 4864), (4864, 896)];
const ROWS: [usize; 5] = [2, 3, 4, 8, 16];

fn main() -> Result<()> {
    println!(
        "The first row of x(M, K) W(K, N) by candle {CANDLE}, beside the same row alone: how many outputs"
    );
    println!(
        "have other bits, by how many units of the last place the one in the middle of them differs, and by"
    );
    println!("how many the worst, which lies near 0.\n");
    println!("| type | K | N | {} |", ROWS.map(|rows| format!("M = {rows}")).join(" | "));
    println!("|---|---|---|{}", "---|".repeat(ROWS.len()));
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (terms, outputs) in SHAPES {
            let most = ROWS[ROWS.len() - 1];
            let [x, weights] = [(most, terms, 1), (outputs, terms, 2)].map(|(rows, terms, seed)| {
                let mut stream = Stream::new(seed, 0);
                let values: Vec<f32> = (0..rows * terms).map(|_| 2.0 * stream.unit() as f32 - 1.0).collect();
                Tensor::from_vec(values, (rows, terms), &Device::Cpu)?.to_dtype(dtype)
            });
            let (x, weights) = (x?, weights?.t()?);
            let row = |rows: usize| -> Result<Vec<f32>> {
                let product = x.narrow(0, 0, rows)?.contiguous()?.matmul(&weights)?;
                product.get(0)?.to_dtype(DType::F32)?.to_vec1()
            };
            let alone = row(1)?;
            let cells = ROWS.map(|rows| -> Result<String> {
                let beside = row(rows)?;
                let pairs = alone.iter().zip(&beside);
                let units = pairs.map(|(a, b)| place(*a, dtype).abs_diff(place(*b, dtype)));
                let mut units: Vec<_> = units.filter(|units| *units > 0).collect();
                units.sort_unstable();
                Ok(match units.last() {
                    None => "0".to_owned(),
                    Some(most) => format!("{} ({}, {most})", units.len(), units[units.len() / 2]),
                })
            });
            let cells = cells.into_iter().collect::<Result<Vec<_>>>()?;
            println!("| {} | {terms} | {outputs} | {} |", dtype.as_str(), cells.join(" | "));
        }
    }
    Ok(())
}

/// Of `Cargo.lock`; a test of the library holds it.
const CANDLE: &str = "0.11.1";

/// Where a value stands among all of its type.
fn place(value: f32, dtype: DType) -> i64 {
    let magnitude = value.abs();
    let place = match dtype {
        DType::F16 => f16::from_f32(magnitude).to_bits().into(),
        DType::BF16 => bf16::from_f32(magnitude).to_bits().into(),
        _ => i64::from(magnitude.to_bits()),
    };
    if value.is_sign_negative() { -place } else { place }
}
