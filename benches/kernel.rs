//! Our kernel beside the `gemm` crate, which is what candle calls, and beside the machine's own peak, in one run.
//!
//! `cargo bench --bench kernel` measures every shape with every precision (in sequential order) and every order (in fp32),
//! and bf16 in the order of the instruction that is made for it.
//! Words after `--` choose: `cargo bench --bench kernel -- 896x4864 M=8 t1 fp32/sequential` keeps the rows that hold them all,
//! `a|b` holds either. A rate is the median over calls in a row, as a model makes them. For the ratio each of our
//! calls is paired with one of gemm's right before it, and the median of the pairs' ratios is taken, so that a
//! machine whose speed drifts tells the same story; each of the two then finds the other's data in the caches.

#![allow(missing_docs, reason = "a benchmark has no readers of its items")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    hint::black_box,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use pulp::{Simd, WithSimd};
use reprocheck::numerics::{
    Numerics,
    kernel::{At, Fast, Isa, Kernel, matmul},
    order::{ORDERS, Order},
    precision::{PRECISIONS, Precision, Site},
};
use tabled::{builder::Builder, settings::Style};

const SHAPES: [(usize, usize); 3] = [(896, 4864), (4864, 896), (128, 384)];
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 64];
const THREADS: [usize; 2] = [1, 2];
/// How long one figure is measured, and how often at least.
const BUDGET: Duration = Duration::from_millis(60);
const REPEATS: usize = 7;

fn main() {
    // cargo passes `--bench` to a benchmark.
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |label: &str| filters.iter().all(|f| f.split('|').any(|part| label.contains(part)));

    let isa = Isa::best();
    println!("vectors: {isa}; peak and all figures from this run\n");
    for threads in THREADS {
        let peak = peak(isa, threads);
        println!("fused multiply-add peak, {threads} thread(s): {peak:.0} GFLOP/s");
        for (depth, columns) in SHAPES {
            let mut table = Builder::default();
            table.push_record([
                "M",
                "precision",
                "order",
                "GFLOP/s",
                "of peak",
                "x gemm f32",
                "x fp32/sequential",
            ]);
            let empty = table.count_records();
            for rows in ROWS {
                let cells = cells().into_iter().filter(|(precision, order)| {
                    wanted(&format!("{depth}x{columns} M={rows} t{threads} {precision}/{order}"))
                });
                let cells: Vec<_> = cells.collect();
                if cells.is_empty() {
                    continue;
                }
                let shape = Shape::new(depth, columns, rows, threads);
                let base = shape.ours(isa, Precision::Fp32, Order::SEQUENTIAL);
                for (precision, order) in cells {
                    let figure = if (precision, order) == (Precision::Fp32, Order::SEQUENTIAL) {
                        base
                    } else {
                        shape.ours(isa, precision, order)
                    };
                    let rate = shape.flop() / figure.seconds / 1e9;
                    table.push_record([
                        rows.to_string(),
                        precision.to_string(),
                        order.to_string(),
                        format!("{rate:.1}"),
                        format!("{:.0} %", 100.0 * rate / peak),
                        format!("{:.2}", figure.ratio),
                        format!("{:.2}", base.seconds / figure.seconds),
                    ]);
                }
            }
            if table.count_records() > empty {
                println!("\nK={depth} N={columns} threads={threads}");
                println!("{}", table.build().with(Style::sharp()));
            }
        }
        println!();
    }
}

/// Every precision in sequential order, then bf16 in that of its instruction and of matrix units, then every other order in fp32.
fn cells() -> Vec<(Precision, Order)> {
    let mut cells: Vec<_> = PRECISIONS.iter().map(|entry| (entry.example, Order::SEQUENTIAL)).collect();
    let of_bf16 =
        ["dpbf16", "mma:a100", "mma:h100", "split-k:4+mma:h100"].map(|name| name.parse().expect("an order"));
    cells.extend(of_bf16.map(|order| (Precision::Bf16, order)));
    let plain = |order: &Order| *order != Order::SEQUENTIAL && !order.is_of_unit();
    let orders = ORDERS.iter().map(|entry| entry.example).filter(plain);
    cells.extend(orders.map(|order| (Precision::Fp32, order)));
    cells
}

#[derive(Clone, Copy)]
struct Figure {
    /// The median time of one call.
    seconds: f64,
    /// The median of gemm's time over ours.
    ratio: f64,
}

/// The median of what `measure` returns, once warm.
fn median(measure: &mut (dyn FnMut() -> f64 + Send)) -> f64 {
    let begun = Instant::now();
    measure();
    let mut values = Vec::new();
    while values.len() < REPEATS || begun.elapsed() < BUDGET {
        values.push(measure());
    }
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Shape {
    depth: usize,
    columns: usize,
    rows: usize,
    threads: usize,
    x: Vec<f32>,
    w: Vec<f32>,
}

impl Shape {
    fn new(depth: usize, columns: usize, rows: usize, threads: usize) -> Shape {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let x = (0..rows * depth).map(|_| next()).collect();
        let w = (0..columns * depth).map(|_| next()).collect();
        Shape { depth, columns, rows, threads, x, w }
    }

    fn flop(&self) -> f64 {
        2.0 * (self.rows * self.depth * self.columns) as f64
    }

    fn ours(&self, isa: Isa, precision: Precision, order: Order) -> Figure {
        let threads = NonZeroUsize::new(self.threads).expect("threads are counted from one");
        let kernel = Fast::on(isa, Numerics::new(precision, order, threads).expect("it can be computed"))
            .expect("threads start");
        let weights = kernel.pack(
            At::alone(Site::Linear),
            self.columns,
            self.depth,
            &mut |column: usize, terms: &mut [f32]| {
                terms.copy_from_slice(&self.w[column * self.depth..][..self.depth]);
            },
        );
        let mut out = vec![0.0; self.rows * self.columns];
        let mut theirs = out.clone();
        // As an engine calls it: the other threads stand by.
        let workers = kernel.workers();
        let call = |out: &mut [f32]| {
            let begun = Instant::now();
            matmul(&kernel, Site::Linear, black_box(&self.x), self.rows, &weights, out);
            begun.elapsed().as_secs_f64()
        };
        let ours = workers.within(|| median(&mut || call(&mut out)));
        let ratio = median(&mut || {
            // Outside, where no thread of ours stands in its way.
            let before = Instant::now();
            self.gemm(&mut theirs);
            before.elapsed().as_secs_f64() / workers.within(|| call(&mut out))
        });
        black_box((&out, &theirs));
        Figure { seconds: ours, ratio }
    }

    /// x times the transpose of w, both in f32 and row after row: the call that candle makes for a linear layer.
    fn gemm(&self, out: &mut [f32]) {
        let parallelism = match self.threads {
            1 => gemm::Parallelism::None,
            threads => gemm::Parallelism::Rayon(threads),
        };
        let [depth, columns] =
            [self.depth, self.columns].map(|n| isize::try_from(n).expect("sizes are small"));
        #[expect(unsafe_code, reason = "gemm takes pointers")]
        // SAFETY: the pointers, sizes and strides are those of the three whole matrices.
        unsafe {
            gemm::gemm(
                self.rows,
                self.columns,
                self.depth,
                out.as_mut_ptr(),
                1,
                columns,
                false,
                self.x.as_ptr(),
                1,
                depth,
                self.w.as_ptr(),
                depth,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// GFLOP/s of fused multiply-adds that never leave the registers, on so many threads at once.
fn peak(isa: Isa, threads: usize) -> f64 {
    let run = || (0..9).map(|_| peak_of_one(isa)).fold(0.0, f64::max);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a sum does not panic")).sum()
    })
}

fn peak_of_one(isa: Isa) -> f64 {
    struct Registers;
    impl WithSimd for Registers {
        type Output = f64;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f64 {
            const STEPS: usize = 2_000_000;
            const CHAINS: usize = 12;
            let mut sums = [simd.splat_f32s(black_box(0.0)); CHAINS];
            let (x, w) = (simd.splat_f32s(black_box(1.0)), simd.splat_f32s(black_box(1e-9)));
            let begun = Instant::now();
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = simd.mul_add_f32s(x, w, *sum);
                }
            }
            let elapsed = begun.elapsed();
            black_box(sums);
            2.0 * (STEPS * CHAINS * S::F32_LANES) as f64 / elapsed.as_secs_f64() / 1e9
        }
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Simd::vectorize(pulp::x86::V4::try_new().expect("the best there is"), Registers),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Simd::vectorize(pulp::x86::V3::try_new().expect("the best there is"), Registers),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Simd::vectorize(pulp::aarch64::Neon::try_new().expect("the best there is"), Registers),
        _ => Simd::vectorize(pulp::Scalar::new(), Registers),
    }
}
