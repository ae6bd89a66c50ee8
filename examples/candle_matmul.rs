//! The finding about candle's matrix product on the CPU: has a row other bits when other rows are multiplied with it?
//!
//! ```sh
//! cargo run --release --example candle_matmul
//! ```

#![expect(clippy::print_stdout, reason = "it prints its table")]

use candle_core::{DType, Device, Result, Tensor};
use reprocheck::numerics::random::Stream;

/// Terms and outputs of linear layers: of the model in the binary, of Qwen2.5-0.5B, and one that is long.
const SHAPES: [(usize, usize); 6] =
    [(128, 128), (128, 384), (384, 128), (896, 896), (896, 4864), (4864, 896)];
const ROWS: [usize; 5] = [2, 3, 4, 8, 16];

fn main() -> Result<()> {
    println!(
        "The first row of x(M, K) W(K, N) by candle {CANDLE}, beside the same row alone: outputs with other bits, and"
    );
    println!("the largest difference in units of the last place of the type.\n");
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
                let pairs = || alone.iter().zip(&beside);
                let other = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                let units =
                    pairs().map(|(a, b)| place(*a, dtype).abs_diff(place(*b, dtype))).max().unwrap_or(0);
                Ok(if other == 0 { "0".to_owned() } else { format!("{other} ({units})") })
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
    let bits = i64::from(value.to_bits() & 0x7fff_ffff);
    let bits = match dtype {
        // Its own last place; far from its subnormal numbers all that counts is how many bits are kept.
        DType::F16 => bits >> 13,
        DType::BF16 => bits >> 16,
        _ => bits,
    };
    if value.is_sign_negative() { -bits } else { bits }
}
