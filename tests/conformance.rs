//! The fast kernel is the definition, bit for bit: every precision, order, launch and instruction set.

use std::{
    num::NonZeroUsize,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
    thread,
};

use crate::functions::EVERY_OPERATION;
use reprocheck::cell::program;
use reprocheck::numerics::{
    Numerics,
    activation::Activation,
    attention::Attention,
    elementary::{exp, rsqrt},
    format::Format,
    functions::Functions,
    kernel::{
        At, Attended, Definition, End, Fast, Faulty, Isa, Job, Kernel, KernelFault, Op, Packed, Source, Step,
        Workers, matmul,
    },
    kv::Kv,
    order::{Launch, ORDERS, Order},
    parallel::{Parallel, Reduce},
    precision::{Calibration, Channels, PRECISIONS, Precision, Site},
    reveal::{RevealError, reveal},
    rotary::{Rotary, Scaling, Turn},
};

/// A product that ranks share along its terms.
const BY_RANKS: At = At::layer(0, Step::Down);

/// Numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }
}

/// Kinds of input, each a way for a kernel to go wrong.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Random,
    Outliers,
    Spread,
    Denormal,
    Huge,
    Zeros,
    Ties,
    Special,
    Brink,
}

fn value(kind: Kind, random: &mut Random) -> f32 {
    let unit = random.unit();
    match kind {
        Kind::Random => unit,
        Kind::Outliers => {
            if random.below(20) == 0 {
                unit * 40.0
            } else {
                unit
            }
        }
        Kind::Spread => unit * f32::powi(2.0, random.below(60) as i32 - 30),
        Kind::Denormal => {
            if random.below(2) == 0 {
                f32::from_bits((random.word() as u32) & 0x807F_FFFF)
            } else {
                unit * f32::powi(2.0, random.below(30) as i32 - 100)
            }
        }
        Kind::Huge => unit * f32::powi(2.0, 100 + random.below(28) as i32),
        Kind::Zeros => [0.0, -0.0, unit][random.below(3) as usize],
        // Few bits: sums that are often exactly halfway.
        Kind::Ties => (unit * 8.0).round() * f32::powi(2.0, random.below(24) as i32 - 12),
        Kind::Special => match random.below(40) {
            0 => f32::NAN,
            1 => f32::from_bits(0xFFA1_2345),
            2 => f32::INFINITY,
            3 => f32::NEG_INFINITY,
            4 => -0.0,
            _ => unit,
        },
        // Products, and sometimes the number itself, around the smallest normal number: where they cancel, and where they
        // are about half of its last digit.
        Kind::Brink => match random.below(8) {
            0 => f32::from_bits((random.word() as u32 & 0x8000_0003) | 0x0080_0000),
            1 => f32::from_bits(random.word() as u32 & 0x807F_0000),
            2 => [0.0, -0.0][random.below(2) as usize],
            3 => unit,
            _ => {
                let power = f32::powi(2.0, -58 - random.below(20) as i32);
                [power, -power, power * (1.0 + f32::powi(2.0, -7)), unit * power][random.below(4) as usize]
            }
        },
    }
}

fn values(kind: Kind, count: usize, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| value(kind, random)).collect()
}

fn precisions() -> Vec<Precision> {
    let more = [
        "lmul:m=1",
        "lmul:m=4,scope=attention",
        "lmul:scope=everything",
        "lmul:m=3,scope=everything",
        "lmul:variant=formula",
        "lmul:m=3,variant=formula",
        "int8:threshold=0.9",
        "cast:e2m1",
        "cast:e8m4",
        "cast:e6m9,round=zero",
        "cast:e6m22",
        "cast:e4m3,saturate=no",
        "cast:e5m2,round=up,saturate=no",
        "fp8:s16,a=g8",
        "fp8:sum=e8m13",
        "w3a16:channel,sum=f16",
        "fp8:tensor,compute=fp16",
        "mxfp8:compute=fp32",
        "w4a16:g16,compute=fp32",
        "scaled:w=int5-f16-channel-zero,a=int7-f32-token-zero",
        "scaled:w=int6-f32-g24-zero",
        "scaled:w=odd3-e8m0up-g8,a=int4-e8m0-g16",
        "scaled:w=odd2-f32-channel,a=int8-f32-token",
        "scaled:w=e2m1-e4m3-g16,compute=fp32",
        "scaled:w=e2m3-f32-s8,a=e5m2-f32-token",
        "scaled:w=e3m3-f32-tensor",
        "scaled:w=e3m0-f16-g16",
        "scaled:w=e2m0-f32-channel,a=e4m3-f32-token",
        "scaled:w=int4of8-f32-channel,a=int8-f32-token",
        "scaled:w=int3of6-f16-g8",
        "scaled:w=bitmod3-f16-g16",
        "scaled:w=bitmod4-f32-g24,a=int8-f32-token",
        "scaled:w=bitmod4-f16-channel",
        "scaled:w=e2m1-fit-g16",
        "cast:e4m3,sum=e4m3",
        "cast:e3m4,subnormal=no",
        "cast:e8m7,subnormal=no",
        "cast:e5m2,round=half-zero,subnormal=no",
        "cast:e5m2,sum=f16",
        "cast:e2m1,sum=e2m1",
        "bf16:sum=e8m13",
        "bf16:sum=e8m7",
        "fp16:sum=e6m9",
        "layercast:sum=bf16",
        "layercast:scope=layers",
        "tf32:sum=e8m23",
        "tf32:sum=e3m4",
    ];
    // Limits that were measured: some values lie beyond them.
    let channels = Channels { low: vec![-0.3, 0.0], high: vec![0.1, 0.8], smooth: None };
    let places = [At::alone(Site::Linear), BY_RANKS].map(|at| (at, channels.clone()));
    let measured = Calibration::learned(&"5a".repeat(32), "conformance", "no model", places).unwrap();
    let with_limits = [
        "w8a8:a=tensor",
        "fp8:tensor,a=tensor",
        "scaled:w=int4-f16-g16,a=int8-f32-tensor-zero",
        "scaled:w=e2m1-f32-channel,a=odd3-f32-tensor",
    ];
    let with_limits = with_limits.map(|name| format!("{name},calibration={measured}").parse().unwrap());
    PRECISIONS
        .iter()
        .map(|entry| entry.example)
        .chain(more.iter().map(|name| name.parse().unwrap()))
        .chain(with_limits)
        .collect()
}

fn orders() -> Vec<Order> {
    let more = [
        "lanes:3",
        "blocks:5",
        "split-k:3",
        "shuffled:0",
        "dpbf16-blocks:5",
        "mma:v100",
        "blocks:5+mma:a100",
        "mma:ada",
        "split-k:3+mma:h100",
        "split-k:rows+mma:b200",
        "mma:b200-tcgen05",
    ];
    ORDERS.iter().map(|entry| entry.example).chain(more.iter().map(|name| name.parse().unwrap())).collect()
}

fn numerics(precision: Precision, order: Order, threads: usize) -> Numerics {
    Numerics::new(precision, order, NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Every order that goes with a precision.
fn orders_for(precision: Precision) -> impl Iterator<Item = Order> {
    orders().into_iter().filter(move |order| Numerics::new(precision, *order, NonZeroUsize::MIN).is_ok())
}

struct Case {
    rows: usize,
    depth: usize,
    columns: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    start: Option<Vec<f32>>,
}

impl Case {
    fn new(kind: Kind, [rows, depth, columns]: [usize; 3], random: &mut Random) -> Case {
        Case {
            rows,
            depth,
            columns,
            x: values(kind, rows * depth, random),
            w: values(kind, columns * depth, random),
            start: random.below(2).eq(&0).then(|| values(kind, columns, random)),
        }
    }

    fn run<K: Kernel>(&self, kernel: &K, site: Site) -> Vec<u32> {
        self.run_at(kernel, At::alone(site))
    }

    fn run_at<K: Kernel>(&self, kernel: &K, at: At) -> Vec<u32> {
        let weights = kernel.pack(at, self.columns, self.depth, &mut |column: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&self.w[column * self.depth..][..self.depth]);
        });
        let launch = Launch { rows: self.rows, threads: kernel.numerics().threads().get() };
        let mut out = vec![f32::NAN; self.rows * self.columns];
        let job = Job {
            activations: &self.x,
            rows: self.rows,
            weights: &weights,
            start: self.start.as_deref(),
            out: &mut out,
        };
        kernel.apply(at, launch, Op::Product(vec![job]));
        bits(&out)
    }

    /// Panics with the first difference between `kernel` and what is expected.
    fn check<K: Kernel>(&self, kernel: &K, isa: Isa, site: Site, kind: Kind, expected: &[u32]) {
        let got = self.run(kernel, site);
        if let Some(index) = (0..got.len()).find(|&index| got[index] != expected[index]) {
            panic!(
                "{} on {isa}, {site:?}, {kind:?}, {}x{}x{}{}: row {} column {} is {:#010x}, must be {:#010x}",
                kernel.numerics(),
                self.rows,
                self.depth,
                self.columns,
                if self.start.is_some() { " with a start" } else { "" },
                index / self.columns,
                index % self.columns,
                got[index],
                expected[index],
            );
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check_all(kinds: &[Kind], shapes: &[[usize; 3]], seed: u64) {
    let mut random = Random(seed);
    for precision in precisions() {
        let site = precision.own_site();
        for order in orders_for(precision) {
            let definition = Definition { numerics: numerics(precision, order, 2) };
            let kernels =
                Isa::available().into_iter().map(|isa| (isa, Fast::on(isa, definition.numerics).unwrap()));
            let kernels: Vec<_> = kernels.collect();
            for &kind in kinds {
                for &shape in shapes {
                    let case = Case::new(kind, shape, &mut random);
                    let expected = case.run(&definition, site);
                    for (isa, kernel) in &kernels {
                        case.check(kernel, *isa, site, kind, &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn every_precision_and_order_is_its_definition_on_ordinary_numbers() {
    check_all(
        &[Kind::Random, Kind::Outliers, Kind::Spread, Kind::Ties],
        &[[1, 37, 33], [3, 19, 5], [9, 70, 40]],
        1,
    );
}

#[test]
fn every_precision_and_order_is_its_definition_on_numbers_at_the_edge() {
    check_all(
        &[Kind::Denormal, Kind::Huge, Kind::Zeros, Kind::Special],
        &[[1, 21, 33], [2, 8, 7], [5, 45, 35]],
        2,
    );
}

#[test]
fn pairs_of_terms_are_their_definition_where_subnormal_numbers_are_zero() {
    let mut random = Random(16);
    let order = Order::DPBF16;
    for precision in precisions() {
        let definition = Definition { numerics: numerics(precision, order, 1) };
        let kernels = Isa::available().into_iter().map(|isa| Fast::on(isa, definition.numerics).unwrap());
        let kernels: Vec<_> = kernels.collect();
        let sites = [Site::Linear, Site::Attention, Site::Head];
        let kinds = [Kind::Brink, Kind::Denormal, Kind::Zeros, Kind::Special];
        for index in 0..if precision == Precision::Bf16 { 400 } else { 40 } {
            let (site, kind) = (sites[index % 3], kinds[index % 4]);
            let [rows, depth] = [10, 12].map(|below| random.below(below) as usize);
            let case = Case::new(kind, [rows + 1, depth, 1 + random.below(140) as usize], &mut random);
            let expected = case.run(&definition, site);
            for kernel in &kernels {
                case.check(kernel, kernel.isa(), site, kind, &expected);
            }
        }
    }
}

#[test]
fn a_pair_of_terms_is_two_steps_the_second_term_first_and_an_odd_one_a_step_of_its_own() {
    let least = f32::MIN_POSITIVE;
    let half = f32::powi(2.0, -75);
    let below = f32::from_bits(0x007F_0000);
    let quiet = f32::from_bits(0x7FC0_0000);
    // Four factors whose products differ by 2^-14 of their size.
    let near = |x: i32, w: i32| {
        let [x, w] = [x, w].map(|exponent| f32::powi(2.0, exponent));
        let more = |digit: i32| 1.0 + f32::powi(2.0, digit);
        ([x * more(-7), x], [w * more(-7), -w * more(-6)])
    };
    let (below_by_7, below_by_1, at) = (near(-60, -59), near(-57, -56), near(-56, -56));
    let cases: &[(&[f32], &[f32], f32, f32)] = &[
        // By twos, what begins at 1 is even before the large one swallows it.
        (&[f32::powi(2.0, 24), 1.0, 1.0], &[1.0, 1.0, -f32::powi(2.0, 24)], 1.0, 2.0),
        // A factor, a start, a result: none of them is subnormal.
        (&[below], &[f32::powi(2.0, 100)], 0.0, 0.0),
        (&[0.0], &[0.0], below, 0.0),
        (&[4.0 * half], &[4.0 * half], 0.0, 0.0),
        (&[half, half], &[half, half], 0.0, 0.0),
        (&[below], &[f32::INFINITY], 0.0, quiet),
        // Tiny is what lies more than half of the last digit below the smallest normal number.
        (&[half], &[-half], least, 0.0),
        (&[half], &[-half / 2.0], least, least),
        (&[-half], &[-half], -least, -0.0),
        (&[-half], &[-half / 2.0], -least, -least),
        // The difference of two normal numbers, where it is none, and where it is the smallest.
        (&below_by_7.0, &below_by_7.1, 0.0, 0.0),
        (&below_by_1.0, &below_by_1.1, 0.0, 0.0),
        (&at.0, &at.1, 0.0, least),
        // No zero is added behind an odd term.
        (&[0.0], &[-1.0], -0.0, -0.0),
        (&[0.0, 0.0, 0.0], &[-1.0, -1.0, -1.0], -0.0, -0.0),
        (&[0.0], &[1.0], -0.0, 0.0),
    ];
    for isa in Isa::available() {
        let numerics = numerics(Precision::Bf16, Order::DPBF16, 1);
        for &(x, w, start, expected) in cases {
            // The other output alone may be what keeps a kernel from an easier way to both.
            for other in [1.0, below, f32::powi(2.0, 100)] {
                let case = Case {
                    rows: 1,
                    depth: x.len(),
                    columns: 2,
                    x: x.to_vec(),
                    w: [w, &vec![other; w.len()]].concat(),
                    start: Some(vec![start, 0.0]),
                };
                let fast = case.run(&Fast::on(isa, numerics).unwrap(), Site::Linear);
                let definition = case.run(&Definition { numerics }, Site::Linear);
                assert_eq!(fast, definition, "{x:?} {w:?} {start:e} {other:e} on {isa}");
                assert_eq!(fast[0], expected.to_bits(), "{x:?} {w:?} {start:e}");
            }
        }
    }
}

#[test]
fn the_smallest_shapes_are_their_definition() {
    check_all(&[Kind::Random], &[[1, 0, 3], [1, 1, 1], [2, 2, 1], [4, 3, 32], [8, 4, 64], [1, 5, 129]], 3);
}

#[test]
fn the_head_and_attention_are_their_definition_too() {
    let mut random = Random(4);
    for precision in precisions() {
        for site in [Site::Attention, Site::Head] {
            for order in [Order::SEQUENTIAL, Order::PAIRWISE, Order::EXACT] {
                let definition = Definition { numerics: numerics(precision, order, 1) };
                let case = Case::new(Kind::Outliers, [3, 24, 34], &mut random);
                let expected = case.run(&definition, site);
                for isa in Isa::available() {
                    let kernel = Fast::on(isa, definition.numerics).unwrap();
                    case.check(&kernel, isa, site, Kind::Outliers, &expected);
                }
            }
        }
    }
}

#[test]
fn threads_share_the_work_and_change_no_bit() {
    let mut random = Random(5);
    for precision in ["fp32", "bf16", "fp16-acc16", "lmul", "int8", "w8a8"] {
        for order in ["sequential", "lanes:16", "exact", "split-k:threads"] {
            let (precision, order): (Precision, Order) = (precision.parse().unwrap(), order.parse().unwrap());
            // Large enough to be worth sharing, and no multiple of anything.
            let case = Case::new(Kind::Outliers, [13, 303, 331], &mut random);
            for threads in [1, 2, 3] {
                let definition = Definition { numerics: numerics(precision, order, threads) };
                let kernel = Fast::new(definition.numerics).unwrap();
                let expected = case.run(&definition, Site::Linear);
                case.check(&kernel, Isa::best(), Site::Linear, Kind::Outliers, &expected);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    let mut random = Random(6);
    for precision in precisions() {
        // int8 is the exception that the method itself makes: an outlier takes its column out for the whole batch.
        let batch_is_apart = precision.entry().name == "int8";
        for order in orders_for(precision).filter(|order| !order.depends_on_launch()) {
            let kernel = Fast::new(numerics(precision, order, 1)).unwrap();
            let batch = Case::new(Kind::Outliers, [13, 40, 35], &mut random);
            let together = batch.run(&kernel, precision.own_site());
            let apart: Vec<u32> = (0..batch.rows)
                .flat_map(|row| {
                    let x = batch.x[row * batch.depth..][..batch.depth].to_vec();
                    let alone = Case { rows: 1, x, w: batch.w.clone(), start: batch.start.clone(), ..batch };
                    alone.run(&kernel, precision.own_site())
                })
                .collect();
            assert_eq!(together == apart, !batch_is_apart, "{precision}/{order}");
        }
    }
}

#[test]
fn caches_grow_into_the_matrices_that_packing_makes() {
    let mut random = Random(7);
    let (rows, depth, columns) = (3, 21, 45);
    let cells = precisions()
        .into_iter()
        .flat_map(|precision| orders_for(precision).map(move |order| (precision, order)));
    for (precision, order) in cells {
        // Where numbers are at the edge of f32, kernels take other ways.
        for [kind, kind_of_weights] in [[Kind::Random, Kind::Zeros], [Kind::Brink; 2]] {
            let kernel = Fast::new(numerics(precision, order, 1)).unwrap();
            let definition = Definition { numerics: kernel.numerics() };
            let (site, at) = (Site::Attention, At::alone(Site::Attention));
            let x = values(kind, rows * depth, &mut random);
            let w = values(kind_of_weights, columns * depth, &mut random);
            let column = |column: usize| &w[column * depth..][..depth];
            let mut keys = kernel.pack(at, 0, depth, &mut |_: usize, _: &mut [f32]| {});
            (0..columns).for_each(|index| kernel.push(&mut keys, End::Column(column(index))));
            let mut values = kernel.pack(at, columns, 0, &mut |_: usize, _: &mut [f32]| {});
            for term in 0..depth {
                let row: Vec<f32> = (0..columns).map(|index| column(index)[term]).collect();
                kernel.push(&mut values, End::Row(&row));
            }
            // A row may meet the first values only: the tokens up to its own.
            for shorter in [depth, 8] {
                let x: Vec<f32> = x.chunks(depth).flat_map(|row| &row[..shorter]).copied().collect();
                let packed = definition.pack(at, columns, shorter, &mut |index: usize, terms: &mut [f32]| {
                    terms.copy_from_slice(&column(index)[..shorter]);
                });
                let mut expected = vec![0.0; rows * columns];
                matmul(&definition, site, &x, rows, &packed, &mut expected);
                for (name, grown) in [("keys", &keys), ("values", &values)] {
                    if name == "keys" && shorter != depth {
                        continue;
                    }
                    let mut out = vec![0.0; rows * columns];
                    matmul(&kernel, site, &x, rows, grown, &mut out);
                    assert_eq!(bits(&out), bits(&expected), "{} {name} {shorter}", kernel.numerics());
                }
            }
        }
    }
}

#[test]
fn keys_and_values_of_every_format_are_the_definition_s_on_every_instruction_set() {
    let mut random = Random(17);
    // Neither a panel nor a block is full at the end.
    let (rows, depth, columns) = (3, 37, 45);
    let kinds = [[Kind::Random, Kind::Outliers], [Kind::Random, Kind::Special], [Kind::Brink; 2]];
    let plain = ["fp32", "layercast", "bf16", "bf16-acc16", "fp16", "bf16:sum=e8m13", "int8"];
    // Eleven formats, so that no precision comes round with one twice before all others did.
    let mut plain = plain.iter().cycle();
    let at = At::alone(Site::Attention);
    for order in orders() {
        for kv in Kv::NAMES.into_iter().chain(["bfp12:8", "int4:16", "fp8:24", "int8:40"]) {
            let precision = plain.next().unwrap().parse().unwrap();
            let numerics = Numerics::new(precision, order, NonZeroUsize::MIN)
                .and_then(|numerics| numerics.with_kv(kv.parse().unwrap()));
            // No matrix unit multiplies what is kept otherwise.
            let Ok(numerics) = numerics else { continue };
            let kernels: Vec<_> =
                Isa::available().into_iter().map(|isa| Fast::on(isa, numerics).unwrap()).collect();
            let pairs = kernels.iter().flat_map(|kernel| kinds.map(|kinds| (kernel, kinds)));
            for (kernel, [kind, kind_of_kept]) in pairs {
                let definition = Definition { numerics };
                let x = values(kind, rows * columns, &mut random);
                let kept = values(kind_of_kept, columns * depth, &mut random);
                let tokens = || kept.chunks_exact(depth);
                let none = || |_: usize, _: &mut [f32]| {};
                let [mut keys, mut values] = [(0, depth), (depth, 0)]
                    .map(|(columns, depth)| kernel.pack(at, columns, depth, &mut none()));
                let [mut keys_of_it, mut values_of_it] = [(0, depth), (depth, 0)]
                    .map(|(columns, depth)| definition.pack(at, columns, depth, &mut none()));
                for token in tokens() {
                    kernel.push(&mut keys, End::Column(token));
                    definition.push(&mut keys_of_it, End::Column(token));
                    kernel.push(&mut values, End::Row(token));
                    definition.push(&mut values_of_it, End::Row(token));
                }
                let queries: Vec<f32> = x[..rows * depth].to_vec();
                // A row may meet the first values only: the tokens up to its own.
                let shorter: Vec<f32> = x.chunks(columns).flat_map(|row| &row[..33]).copied().collect();
                for (name, x, own, of_it, columns) in [
                    ("keys", &queries, &keys, &keys_of_it, columns),
                    ("one key", &queries[..depth].to_vec(), &keys, &keys_of_it, columns),
                    ("values", &x, &values, &values_of_it, depth),
                    ("values to here", &shorter, &values, &values_of_it, depth),
                ] {
                    let rows = if name == "one key" { 1 } else { rows };
                    let [mut out, mut expected] = [(); 2].map(|()| vec![0.0; rows * columns]);
                    matmul(kernel, Site::Attention, x, rows, own, &mut out);
                    matmul(&definition, Site::Attention, x, rows, of_it, &mut expected);
                    assert_eq!(
                        bits(&out),
                        bits(&expected),
                        "{numerics} on {}: {name} of {kind_of_kept:?}",
                        kernel.isa()
                    );
                }
            }
        }
    }
}

#[test]
fn what_ranks_share_is_the_definition_s_in_every_precision_order_and_reduction_on_every_instruction_set() {
    let mut random = Random(23);
    let kinds = [Kind::Random, Kind::Outliers, Kind::Spread, Kind::Ties, Kind::Special, Kind::Brink];
    let mut refused = 0;
    let mut at = 0;
    for precision in precisions() {
        let Some(group) = precision.recipe(BY_RANKS).uncut() else {
            refused += 1;
            continue;
        };
        // The terms of a rank: whole groups, and no whole vector where there are none.
        let own = if group == 1 { 19 } else { group * if group > 64 { 1 } else { 3 } };
        for order in orders_for(precision) {
            let ranks = [2, 3, 4, 8][at % 4];
            let reduce: Reduce = Reduce::NAMES[at % Reduce::NAMES.len()].parse().unwrap();
            let parallel = Parallel::new(NonZeroUsize::new(ranks).unwrap(), reduce);
            let numerics = numerics(precision, order, 2).with_parallel(parallel).unwrap();
            // A width that ranks do not share alike, and one that is less than a rank each.
            let columns = [37, 5][at / 4 % 2];
            let case = Case::new(kinds[at % kinds.len()], [1 + at % 3, ranks * own, columns], &mut random);
            at += 1;
            let expected = case.run_at(&Definition { numerics }, BY_RANKS);
            for isa in Isa::available() {
                let found = case.run_at(&Fast::on(isa, numerics).unwrap(), BY_RANKS);
                assert_eq!(found, expected, "{numerics} on {isa}, {}x{}x{columns}", case.rows, case.depth);
            }
        }
    }
    // LLM.int8() with either threshold.
    assert_eq!(refused, 2);
}

#[test]
fn ranks_add_what_each_has_in_the_order_and_the_format_that_the_reduction_names() {
    // One term for each of four ranks, so that a term is a part; eight outputs, so that two are a chunk of the ring.
    let random = &mut Random(5);
    let w: Vec<f32> = values(Kind::Spread, 8 * 4, random);
    let start: Vec<f32> = values(Kind::Random, 8, random);
    let case =
        Case { rows: 1, depth: 4, columns: 8, x: vec![1.0; 4], w: w.clone(), start: Some(start.clone()) };
    let found = |reduce: &str| {
        let numerics = format!("fp32/sequential/t1/tp4/{reduce}").trim_end_matches("/tree").parse().unwrap();
        case.run_at(&Definition { numerics }, BY_RANKS)
    };
    for (sent, format) in [("", Format::F32), (":bf16", Format::BF16), (":f16", Format::F16)] {
        let of_output = |column: usize, add: &dyn Fn([f32; 4]) -> f32| {
            let part = |rank: usize| {
                let own = w[column * 4 + rank];
                // The first rank's sum begins where the whole one would.
                format.round(if rank == 0 { start[column] + own } else { own })
            };
            add([part(0), part(1), part(2), part(3)]).to_bits()
        };
        let all = |add: &dyn Fn(usize, [f32; 4]) -> f32| -> Vec<u32> {
            (0..8).map(|column| of_output(column, &|parts| add(column, parts))).collect()
        };
        let join = |one: f32, other: f32| format.round(one + other);
        assert_eq!(
            found(&format!("tree{sent}")),
            all(&|_, [a, b, c, d]| join(join(a, b), join(c, d))),
            "{sent}"
        );
        let in_turn = |_, [a, b, c, d]: [f32; 4]| format.round(((a + b) + c) + d);
        assert_eq!(found(&format!("one-shot{sent}")), all(&in_turn), "{sent}");
        // Chunk c is summed in the order c + 1, c + 2, …, c.
        let ring = |column: usize, parts: [f32; 4]| {
            let [a, b, c, d] = [1, 2, 3, 4].map(|step| parts[(column / 2 + step) % 4]);
            join(join(join(a, b), c), d)
        };
        assert_eq!(found(&format!("ring{sent}")), all(&ring), "{sent}");
    }
}

#[test]
fn weights_are_codes_of_the_whole_matrix_and_activations_of_the_rank_that_has_them() {
    let of = |x: &[f32; 16], w: &[f32; 16], numerics: &str| {
        let case = Case { rows: 1, depth: 16, columns: 1, x: x.to_vec(), w: w.to_vec(), start: None };
        f32::from_bits(case.run_at(&Definition { numerics: numerics.parse().unwrap() }, BY_RANKS)[0])
    };
    // The first rank has a weight that decides the scale of all, beside which one of the second's is nothing.
    let (mut x, mut w) = ([0.0; 16], [0.3; 16]);
    (x[0], x[8], w[0]) = (1.0, 1.0, 127.0);
    for name in ["w8a8", "w8a16", "scaled:w=int8-f32-tensor"] {
        let whole = of(&x, &w, &format!("{name}/sequential/t1"));
        assert_eq!([whole, of(&x, &w, &format!("{name}/sequential/t1/tp2"))], [127.0; 2], "{name}");
    }
    // A group has a scale of its own, and is one rank's.
    assert!(of(&x, &w, "w8a8:g8/sequential/t1/tp2") > 127.2);
    // Beside the activation of the first rank that of the second is nothing, unless it is scaled alone.
    (x[8], w[0]) = (0.003, 0.3);
    let [whole, ranks] = ["", "/tp2"].map(|tp| of(&x, &w, &format!("w8a8/sequential/t1{tp}")));
    assert!(whole < 0.3001 && ranks > 0.3008, "{whole} {ranks}");
}

#[test]
fn many_jobs_in_one_call_are_each_their_own() {
    let mut random = Random(8);
    let kernel = Fast::new("bf16/split-k:rows/t2".parse().unwrap()).unwrap();
    let cases: Vec<_> = (0..40).map(|_| Case::new(Kind::Random, [4, 130, 70], &mut random)).collect();
    let at = At::alone(Site::Attention);
    let pack = |case: &Case| {
        kernel.pack(at, case.columns, case.depth, &mut |column: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&case.w[column * case.depth..][..case.depth]);
        })
    };
    let weights: Vec<_> = cases.iter().map(pack).collect();
    let mut outs: Vec<_> = cases.iter().map(|case| vec![0.0; case.rows * case.columns]).collect();
    let jobs = cases.iter().zip(&weights).zip(&mut outs).map(|((case, weights), out)| Job {
        activations: &case.x,
        rows: case.rows,
        weights,
        start: case.start.as_deref(),
        out,
    });
    kernel.apply(at, Launch { rows: 4, threads: 2 }, Op::Product(jobs.collect()));
    for (case, out) in cases.iter().zip(&outs) {
        assert_eq!(bits(out), case.run(&Definition { numerics: kernel.numerics() }, Site::Attention));
    }
}

#[test]
fn packed_weights_take_their_own_bytes_and_nothing_twice() {
    let (columns, depth) = (96, 1000);
    let bytes = |name: &str| {
        let kernel = Fast::new(format!("{name}/sequential/t1").parse().unwrap()).unwrap();
        kernel
            .pack(At::alone(Site::Linear), columns, depth, &mut |_: usize, terms: &mut [f32]| terms.fill(1.0))
            .bytes()
    };
    let weights = columns * depth;
    assert_eq!(bytes("fp32"), 4 * weights);
    assert_eq!([bytes("bf16"), bytes("layercast"), bytes("fp16"), bytes("cast:e6m9")], [2 * weights; 4]);
    assert_eq!([bytes("cast:e4m3"), bytes("cast:e3m4"), bytes("cast:e2m1")], [weights; 3]);
    // One scale a column.
    assert_eq!([bytes("int8"), bytes("w8a8"), bytes("fp8")], [weights + 4 * columns; 3]);
    assert_eq!(bytes("w8a16"), weights + 4 * columns);
    // Every 128 terms, or what is left of them, have a scale of two bytes; all have one of four, which is 1.
    assert_eq!(bytes("w4a16"), weights / 2 + 2 * 8 * columns + 4);
    assert_eq!(bytes("w3a16"), weights * 3 / 8 + 2 * 8 * columns + 4);
    assert_eq!(bytes("mxfp4"), weights / 2 + 32 * columns + 4);
    assert_eq!(bytes("nvfp4"), weights / 2 + 63 * columns + 4);
}

#[test]
fn the_revealed_tree_is_the_declared_one() {
    let (mut fitting, mut of_units) = (0, 0);
    // What codes leave room for is a test of its own: of those with parameters, masks were not worked out for all.
    let of_table = |own: &Precision| PRECISIONS.iter().any(|entry| entry.example == *own);
    let tried = |own: &Precision| !matches!(own, Precision::Scaled(_)) || of_table(own);
    for precision in precisions().into_iter().filter(tried) {
        let site = precision.own_site();
        for order in orders_for(precision) {
            for launch in [(1, 1), (2, 1), (5, 3)].map(|(rows, threads)| Launch { rows, threads }) {
                for terms in [1, 2, 3, 9, 24, 41] {
                    let kernel = Fast::new(numerics(precision, order, launch.threads)).unwrap();
                    match reveal(&kernel, site, launch, terms) {
                        Ok(tree) => {
                            fitting += 1;
                            of_units += usize::from(order.is_of_unit());
                            let declared =
                                kernel.numerics().tree_seen_by_masks(At::alone(site), launch, terms);
                            assert_eq!(tree, declared, "{} {launch:?} {terms}", kernel.numerics());
                        }
                        Err(RevealError::NoRoom { .. }) => {
                            let narrow = ["cast:e4m3", "cast:e5m2", "cast:eXmY", "int8"];
                            let is_narrow = narrow.contains(&precision.entry().name)
                                || matches!(precision, Precision::Scaled(_))
                                || precision.recipe(At::alone(site)).sum.bits() <= 8;
                            assert!(is_narrow, "{precision} has room");
                        }
                        Err(error) => panic!("{} {launch:?} {terms}: {error}", kernel.numerics()),
                    }
                }
            }
        }
    }
    assert!(fitting > 2000, "only {fitting} combinations had room for masks");
    assert!(of_units > 400, "only {of_units} of matrix units had room for masks");
}

#[test]
fn what_is_added_exactly_is_one_node_of_the_revealed_tree() {
    // Rows of the table whose groups are 16, 32 and 256 terms, blocks of both sides, and one group of all.
    for (name, terms, exact) in [
        ("mxfp8", 100, 32),
        ("mxfp6", 100, 32),
        ("mxfp4", 100, 32),
        ("nvfp4", 70, 16),
        ("w4a8-fp", 270, 256),
        ("w4a8-fp:g24,a=g8", 50, 8),
        ("fp8:s16,a=g8", 50, 8),
        ("mxfp8:g64,a=g32,compute=fp32", 100, 32),
        ("w8a8", 100, 100),
        ("w8a8:g16", 50, 16),
        ("w8a8:tensor", 50, 50),
        ("fp8", 20, 1),
        ("w4a16", 20, 1),
    ] {
        let precision: Precision = name.parse().unwrap();
        let at = At::alone(Site::Linear);
        assert_eq!(precision.recipe(at).exact_terms(terms), exact, "{name}");
        for order in [
            "sequential",
            "reversed",
            "pairwise",
            "lanes:3",
            "split-k:rows",
            "shuffled:3",
            "neumaier",
            "exact",
        ] {
            let order: Order = order.parse().unwrap();
            for isa in [Isa::best(), Isa::Scalar] {
                let numerics = numerics(precision, order, 1);
                let launch = Launch { rows: 3, threads: 1 };
                let tree = reveal(&Fast::on(isa, numerics).unwrap(), Site::Linear, launch, terms);
                assert_eq!(tree, Ok(numerics.tree_seen_by_masks(at, launch, terms)), "{numerics} on {isa}");
            }
        }
    }
    let tree = |precision: &str, order: &str, terms| {
        let numerics = numerics(precision.parse().unwrap(), order.parse().unwrap(), 1);
        numerics.tree(At::alone(Site::Linear), Launch::default(), terms).to_string()
    };
    assert_eq!(
        tree("mxfp8:g8,a=g8", "reversed", 18),
        "(((16+17)+(8+9+10+11+12+13+14+15))+(0+1+2+3+4+5+6+7))"
    );
    assert_eq!(tree("w8a8", "pairwise", 3), "(0+1+2)");
    assert_eq!(tree("fp8", "pairwise", 3), "(0+(1+2))");
}

#[test]
fn every_instruction_set_reveals_the_same_tree() {
    for isa in Isa::available() {
        for order in orders_for(Precision::Fp32) {
            let kernel = Fast::on(isa, numerics(Precision::Fp32, order, 1)).unwrap();
            let launch = Launch { rows: 3, threads: 1 };
            let tree = reveal(&kernel, Site::Linear, launch, 20);
            assert_eq!(tree, Ok(order.tree_seen_by_masks(20, launch)), "{order} on {isa}");
        }
    }
}

/// The fast kernel with a fault everywhere.
fn faulty(isa: Isa, numerics: Numerics, fault: KernelFault) -> Faulty<Fast> {
    Faulty::new(numerics, fault, None, |numerics| Fast::on(isa, numerics)).unwrap()
}

#[test]
fn sabotage_is_seen_by_conformance_and_by_the_revealed_tree() {
    let mut random = Random(9);
    for fault in KernelFault::OF_SUMS {
        let case = Case::new(Kind::Spread, [3, 50, 40], &mut random);
        for order in orders_for(Precision::Fp32) {
            let sound = numerics(Precision::Fp32, order, 1);
            let expected = case.run(&Definition { numerics: sound }, Site::Linear);
            let launch = Launch { rows: 3, threads: 1 };
            let declared = order.tree_seen_by_masks(21, launch);
            for isa in Isa::available() {
                assert_eq!(case.run(&Fast::on(isa, sound).unwrap(), Site::Linear), expected);
                let kernel = faulty(isa, sound, fault);
                assert_ne!(
                    case.run(&kernel, Site::Linear),
                    expected,
                    "{fault:?} of {order} passed conformance"
                );
                let revealed = reveal(&kernel, Site::Linear, launch, 21);
                assert_ne!(revealed, Ok(declared.clone()), "{fault:?} of {order} kept its tree");
            }
        }
    }
}

#[test]
fn a_kernel_refuses_a_matrix_that_another_order_or_recipe_has_packed() {
    let kernel = |name: &str| Fast::new(name.parse::<Numerics>().unwrap()).unwrap();
    let host = kernel("fp32/sequential/t1");
    let multiply = |packed_by: &Fast| {
        let weights = packed_by
            .pack(At::alone(Site::Linear), 2, 20, &mut |_: usize, terms: &mut [f32]| terms.fill(1.0));
        let mut out = [0.0; 2];
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            matmul(&host, Site::Linear, &[1.0; 20], 1, &weights, &mut out);
        }));
        let sentence = refused.err().map(|panic| *panic.downcast::<String>().unwrap());
        sentence.map_or(Ok(out), Err)
    };
    assert_eq!(multiply(&kernel("fp32/sequential/t2")), Ok([20.0; 2]));
    assert_eq!(
        multiply(&kernel("fp32/lanes:3/t1")).unwrap_err(),
        "a matrix packed for the order lanes:3 is not one for sequential: pack it with the kernel that multiplies"
    );
    // It is walked alike, but exact sums need bounds.
    assert!(multiply(&kernel("fp32/exact/t1")).unwrap_err().contains("the order exact"));
    let sentence = multiply(&kernel("bf16/sequential/t1")).unwrap_err();
    assert!(sentence.ends_with("pack it at the place where it is multiplied"), "{sentence}");
    let table =
        kernel("fp32/reversed/t1").pack(At::alone(Site::Table), 2, 20, &mut |_: usize, _: &mut [f32]| {});
    let mut row = [0.0; 20];
    let lookup = std::panic::AssertUnwindSafe(|| {
        let op = Op::Lookup { table: &table, columns: &[0], out: &mut row };
        host.apply(At::alone(Site::Table), Launch::default(), op);
    });
    assert!(std::panic::catch_unwind(lookup).is_err(), "a table in another order was looked up");
}

/// What goes row by row, with all that it is given.
struct RowByRow {
    width: usize,
    rows: Vec<f32>,
    weight: Vec<f32>,
    seen: Vec<Range<usize>>,
    turns: Vec<Turn>,
    launch: Launch,
}

/// What goes row by row needs no site of its own.
const HERE: At = At::alone(Site::Linear);

/// One operation on it: its name, and the bits of its result.
type Operation<K> = (&'static str, fn(&RowByRow, &K) -> Vec<u32>);

impl RowByRow {
    fn new(kind: Kind, rows: usize, width: usize, random: &mut Random) -> RowByRow {
        let position = |random: &mut Random| random.below(width as u64 + 1) as usize;
        RowByRow {
            width,
            rows: values(kind, rows * width, random),
            weight: values(Kind::Random, width, random),
            seen: (0..rows)
                .map(|_| {
                    let (one, other) = (position(random), position(random));
                    // Often from the first key on, and often as far as the row before.
                    if random.below(2) == 0 { 0..one.max(other) } else { one.min(other)..one.max(other) }
                })
                .collect(),
            turns: (0..rows)
                .map(|_| {
                    Rotary::new(2 * width, 1e4, Scaling::None)
                        .turn(Functions::Exact, random.below(5000) as usize)
                })
                .collect(),
            launch: Launch { rows, threads: 2 },
        }
    }

    fn norm<K: Kernel>(&self, kernel: &K) -> Vec<u32> {
        let mut out = vec![f32::NAN; self.rows.len()];
        let op = Op::Norm { rows: &self.rows, weight: &self.weight, epsilon: 1e-6, out: &mut out };
        kernel.apply(HERE, self.launch, op);
        bits(&out)
    }

    fn softmax<K: Kernel>(&self, kernel: &K) -> Vec<u32> {
        let mut scores = self.rows.clone();
        let op = Op::Softmax { scores: &mut scores, width: self.width, seen: &self.seen, scale: 0.125 };
        kernel.apply(HERE, self.launch, op);
        bits(&scores)
    }

    /// Every row is two heads of which one is as wide as the row, seen as tokens of two heads.
    fn rotate<K: Kernel>(&self, kernel: &K) -> Vec<u32> {
        let mut values: Vec<f32> = self.rows.iter().flat_map(|&x| [x, 1.0 - x, x, -x]).collect();
        let turns: Vec<_> = self.turns.iter().collect();
        kernel.apply(HERE, self.launch, Op::Rotate { values: &mut values, heads: 2, turns: &turns });
        bits(&values)
    }

    fn gate<K: Kernel>(&self, kernel: &K) -> Vec<u32> {
        let mut all = Vec::new();
        let gate_up: Vec<f32> = self
            .rows
            .chunks(self.width.max(1))
            .flat_map(|row| [row, &self.weight])
            .flatten()
            .copied()
            .collect();
        for activation in Activation::ALL {
            let mut out = vec![f32::NAN; self.rows.len()];
            let op = Op::Gate { activation, gate_up: &gate_up, width: self.width, out: &mut out };
            kernel.apply(HERE, self.launch, op);
            all.extend(bits(&out));
        }
        all
    }

    fn add<K: Kernel>(&self, kernel: &K) -> Vec<u32> {
        let mut stream = self.rows.clone();
        let update: Vec<f32> = self.rows.iter().rev().copied().collect();
        kernel.apply(HERE, self.launch, Op::Add { stream: &mut stream, update: &update });
        bits(&stream)
    }

    /// Those that add come first.
    fn operations<K: Kernel>() -> [Operation<K>; 5] {
        [
            ("norm", Self::norm),
            ("softmax", Self::softmax),
            ("rotate", Self::rotate),
            ("gate", Self::gate),
            ("add", Self::add),
        ]
    }

    /// Panics with the first difference between `kernel` and the definition.
    fn check(&self, kernel: &Fast, definition: &[Vec<u32>], kind: Kind) {
        for ((name, operation), expected) in Self::operations().into_iter().zip(definition) {
            let got = operation(self, kernel);
            assert_eq!(got.len(), expected.len());
            if let Some(index) = (0..got.len()).find(|&index| got[index] != expected[index]) {
                panic!(
                    "{name} of {} on {}, {kind:?}, rows of {}: value {index} is {:#010x}, must be {:#010x}",
                    kernel.numerics(),
                    kernel.isa(),
                    self.width,
                    got[index],
                    expected[index],
                );
            }
        }
    }
}

/// Rows of scores, and a cache of values that grows by keys.
struct Attends {
    scores: Vec<f32>,
    values: Vec<f32>,
    rows: usize,
    keys: usize,
    columns: usize,
    /// Of every group of rows.
    seen: Vec<Range<usize>>,
}

impl Attends {
    fn new(kind: Kind, [rows, keys, columns]: [usize; 3], random: &mut Random) -> Attends {
        let end = 1 + random.below(keys as u64) as usize;
        let seen = vec![0..keys, 0..end, random.below(end as u64) as usize..end];
        Attends {
            scores: values(kind, seen.len() * rows * keys, random),
            values: values(kind, keys * columns, random),
            rows,
            keys,
            columns,
            seen,
        }
    }

    fn run<K: Kernel>(&self, kernel: &K, at: At) -> Vec<u32> {
        let mut values = kernel.pack(at, self.columns, 0, &mut |_: usize, _: &mut [f32]| {});
        self.values.chunks(self.columns).for_each(|value| kernel.push(&mut values, End::Row(value)));
        let launch = Launch { rows: self.rows, threads: kernel.numerics().threads().get() };
        let mut out = vec![f32::NAN; self.seen.len() * self.rows * self.columns];
        let groups = self.scores.chunks(self.rows * self.keys).zip(&self.seen);
        let groups = groups.zip(out.chunks_mut(self.rows * self.columns)).map(|((scores, seen), out)| {
            Attended { scores, rows: self.rows, seen: seen.clone(), values: &values, out }
        });
        kernel.apply(at, launch, Op::Attend { rows: groups.collect(), scale: 0.625 });
        bits(&out)
    }
}

/// Every form of attention, those that cut keys with numbers that divide nothing.
fn forms() -> impl Iterator<Item = Attention> {
    let more = ["online:5", "split-kv:3", "split-kv:rows+online:7", "split-kv:threads+online:1"];
    Attention::NAMES.into_iter().chain(more).map(|name| name.parse().unwrap())
}

#[test]
fn attention_is_its_definition_however_it_is_computed() {
    const CONTEXT: At = At::layer(0, Step::Context);
    let mut random = Random(21);
    let kinds =
        [Kind::Random, Kind::Spread, Kind::Special, Kind::Zeros, Kind::Huge, Kind::Denormal, Kind::Brink];
    let (mut kinds, mut rarely) =
        (kinds.into_iter().cycle(), forms().collect::<Vec<_>>().into_iter().cycle());
    // Many precisions have one attention.
    let mut known = Vec::new();
    for precision in precisions() {
        let own = (precision.recipe(CONTEXT), precision.elementwise(CONTEXT.weighing()));
        if known.contains(&own) {
            continue;
        }
        known.push(own);
        for order in orders_for(precision) {
            let own = numerics(precision, order, 2);
            // What codes are worth is multiplied as any other value is: a form each.
            let kept = ["int4:8", "fp8"].map(|kv| own.with_kv(kv.parse().unwrap())).into_iter().flatten();
            let kept: Vec<_> = kept.map(|own| own.with_attention(rarely.next().unwrap())).collect();
            for numerics in forms().map(|attention| own.with_attention(attention)).chain(kept) {
                let kind = kinds.next().unwrap();
                let shapes = [[1, 37, 33], [3, 19, 8]];
                let case = Attends::new(kind, shapes[random.below(2) as usize], &mut random);
                let expected = case.run(&Definition { numerics }, CONTEXT);
                for isa in Isa::available() {
                    let got = case.run(&Fast::on(isa, numerics).unwrap(), CONTEXT);
                    assert_eq!(got, expected, "{numerics} on {isa}, {kind:?}, {} rows", case.rows);
                }
            }
        }
    }
    assert!(known.len() > 25, "{}", known.len());
}

#[test]
fn attention_that_threads_share_has_the_bits_of_one() {
    const CONTEXT: At = At::layer(0, Step::Context);
    let mut random = Random(22);
    let case = Attends {
        scores: values(Kind::Random, 64 * 4 * 64, &mut random),
        seen: (1..=64).map(|end| 0..end).collect(),
        ..Attends::new(Kind::Random, [4, 64, 40], &mut random)
    };
    for attention in forms().filter(|attention| !attention.depends_on_launch()) {
        let [one, three] = [1, 3].map(|threads| {
            let own = numerics(Precision::Bf16, Order::SEQUENTIAL, threads).with_attention(attention);
            let kernel = Fast::new(own).unwrap();
            (case.run(&kernel, CONTEXT), kernel.workers().used())
        });
        assert_eq!((one.0, one.1, three.1), (three.0, 1, 3), "{attention}");
    }
}

#[test]
fn what_goes_row_by_row_is_its_definition() {
    let mut random = Random(10);
    let kinds = [
        Kind::Random,
        Kind::Outliers,
        Kind::Spread,
        Kind::Denormal,
        Kind::Huge,
        Kind::Zeros,
        Kind::Ties,
        Kind::Special,
        Kind::Brink,
    ];
    let shapes = [(1, 1), (1, 37), (2, 8), (3, 64), (9, 21), (17, 35), (4, 0), (1, 150)];
    for precision in precisions() {
        for order in orders_for(precision) {
            let definition = Definition { numerics: numerics(precision, order, 1) };
            let kernels = Isa::available().into_iter().map(|isa| Fast::on(isa, definition.numerics).unwrap());
            let kernels: Vec<_> = kernels.collect();
            // Each shape with a kind of its own, and the next cell with others.
            let first = random.below(9) as usize;
            for (index, (rows, width)) in shapes.into_iter().enumerate() {
                let kind = kinds[(first + index) % kinds.len()];
                let case = RowByRow::new(kind, rows, width, &mut random);
                let operations = RowByRow::operations::<Definition>();
                let expected: Vec<_> =
                    operations.into_iter().map(|(_, operation)| operation(&case, &definition)).collect();
                for kernel in &kernels {
                    case.check(kernel, &expected, kind);
                }
            }
        }
    }
}

#[test]
fn functions_of_every_kind_are_the_definition_s_on_every_instruction_set() {
    let mut random = Random(29);
    let program = program::read("every.txt", EVERY_OPERATION).unwrap();
    let all =
        Functions::NAMES.map(|name| name.parse().unwrap()).into_iter().chain([Functions::Program(program)]);
    let shapes = [(1, 1), (2, 8), (9, 21), (17, 35), (1, 150)];
    for functions in all {
        for (precision, order) in [("fp32", "sequential"), ("bf16", "pairwise"), ("cast:e5m2", "exact")] {
            let plain = numerics(precision.parse().unwrap(), order.parse().unwrap(), 1);
            let definition = Definition { numerics: plain.with_functions(functions) };
            for isa in Isa::available() {
                let kernel = Fast::on(isa, definition.numerics).unwrap();
                for kind in
                    [Kind::Random, Kind::Spread, Kind::Denormal, Kind::Huge, Kind::Special, Kind::Brink]
                {
                    let (rows, width) = shapes[random.below(5) as usize];
                    let case = RowByRow::new(kind, rows, width, &mut random);
                    let operations = RowByRow::operations::<Definition>();
                    let expected: Vec<_> =
                        operations.into_iter().map(|(_, operation)| operation(&case, &definition)).collect();
                    case.check(&kernel, &expected, kind);
                }
            }
        }
    }
}

/// The bits of a norm that adds nothing to the mean square.
fn norm_without_epsilon<K: Kernel>(kernel: &K, rows: &[f32], width: usize) -> Vec<u32> {
    let mut out = vec![f32::NAN; rows.len()];
    let op = Op::Norm { rows, weight: &vec![1.0; width], epsilon: 0.0, out: &mut out };
    kernel.apply(HERE, Launch { rows: rows.len() / width, threads: 1 }, op);
    bits(&out)
}

#[test]
fn squares_too_small_for_f32_are_summed_as_defined() {
    let mut random = Random(17);
    let width = 21;
    for order in orders_for(Precision::Fp32) {
        let numerics = numerics(Precision::Fp32, order, 1);
        for rows in [1, 3, 9] {
            let size = f32::powi(2.0, -62 - random.below(8) as i32);
            let values: Vec<f32> = (0..rows * width).map(|_| size * random.unit()).collect();
            let expected = norm_without_epsilon(&Definition { numerics }, &values, width);
            for isa in Isa::available() {
                let norm = norm_without_epsilon(&Fast::on(isa, numerics).unwrap(), &values, width);
                assert_eq!(norm, expected, "{order} on {isa}");
            }
        }
    }
}

#[test]
fn threads_share_rows_and_change_no_bit() {
    let mut random = Random(11);
    // Large enough to be worth sharing, and no multiple of anything.
    let case = RowByRow::new(Kind::Spread, 301, 1003, &mut random);
    for order in ["sequential", "pairwise", "exact", "split-k:threads"] {
        let definition = Definition { numerics: numerics(Precision::Bf16, order.parse().unwrap(), 1) };
        let operations = RowByRow::operations::<Definition>();
        let expected: Vec<_> =
            operations.into_iter().map(|(_, operation)| operation(&case, &definition)).collect();
        for threads in [1, 2, 3] {
            let kernel = Fast::new(numerics(Precision::Bf16, order.parse().unwrap(), threads)).unwrap();
            case.check(&kernel, &expected, Kind::Spread);
            for (name, operation) in RowByRow::operations() {
                kernel.workers().used();
                operation(&case, &kernel);
                assert_eq!(kernel.workers().used(), threads, "{name}");
            }
        }
    }
}

#[test]
fn a_row_is_normed_and_weighed_alike_alone_and_among_others() {
    let mut random = Random(12);
    let (rows, width) = (19, 45);
    let case = RowByRow::new(Kind::Spread, rows, width, &mut random);
    for order in orders_for(Precision::Fp16).filter(|order| !order.depends_on_launch()) {
        let kernel = Fast::new(numerics(Precision::Fp16, order, 1)).unwrap();
        let alone = |row: usize| RowByRow {
            width,
            rows: case.rows[row * width..][..width].to_vec(),
            weight: case.weight.clone(),
            seen: vec![case.seen[row].clone()],
            turns: vec![case.turns[row].clone()],
            launch: Launch { rows: 1, threads: 1 },
        };
        let apart = |operation: fn(&RowByRow, &Fast) -> Vec<u32>| -> Vec<u32> {
            (0..rows).flat_map(|row| operation(&alone(row), &kernel)).collect()
        };
        assert_eq!(case.norm(&kernel), apart(RowByRow::norm), "{order}");
        assert_eq!(case.softmax(&kernel), apart(RowByRow::softmax), "{order}");
    }
}

fn softmax_of_one(kernel: &Fast, scores: &mut [f32], seen: Range<usize>, scale: f32) {
    let width = scores.len();
    kernel.apply(HERE, Launch::default(), Op::Softmax { scores, width, seen: &[seen], scale });
}

#[test]
fn a_window_is_zeros_before_it_and_nothing_behind_it_is_touched() {
    for order in orders_for(Precision::Fp32) {
        let kernel = Fast::new(numerics(Precision::Fp32, order, 1)).unwrap();
        let mut scores = [9.0, f32::NAN, 1.0, 1.0, 7.0, -3.0];
        softmax_of_one(&kernel, &mut scores, 2..4, 2.0);
        assert_eq!(scores, [0.0, 0.0, 0.5, 0.5, 7.0, -3.0], "{order}");
    }
}

#[test]
fn a_softmax_without_an_answer_is_nan() {
    for order in orders_for(Precision::Fp32) {
        let kernel = Fast::new(numerics(Precision::Fp32, order, 1)).unwrap();
        for spoiler in [f32::NAN, f32::INFINITY] {
            let mut scores = [0.0, spoiler, 1.0];
            softmax_of_one(&kernel, &mut scores, 0..3, 1.0);
            assert_eq!(bits(&scores), [0x7FC0_0000; 3], "{spoiler} in {order}");
        }
        let mut scores = [f32::NEG_INFINITY; 3];
        softmax_of_one(&kernel, &mut scores, 1..3, 1.0);
        assert_eq!(bits(&scores), [0, 0x7FC0_0000, 0x7FC0_0000], "{order}");
    }
}

#[test]
fn operations_round_where_the_models_of_a_16_bit_type_do() {
    // Worked out by hand in bfloat16, whose step from 1 to 2 is 1/128: rounded once less, each would be another.
    let kernel = Fast::new("bf16/sequential/t1".parse().unwrap()).unwrap();
    let apply = |op: Op<'_, Packed>| kernel.apply(HERE, Launch::default(), op);
    // The root mean square is 1/1.0125, which becomes 130/128 before the weight meets it.
    let mut out = [0.0, 0.0];
    apply(Op::Norm { rows: &[1.0, 0.975_15], weight: &[1.5, 1.0], epsilon: 0.0, out: &mut out });
    assert_eq!(out, [195.0 / 128.0, 253.0 / 256.0]);
    // 129.5/128 becomes 130/128 before it opens the gate.
    let mut out = [0.0];
    let gate_up = &[129.5 / 128.0, 1.5];
    apply(Op::Gate { activation: Activation::Relu, gate_up, width: 1, out: &mut out });
    assert_eq!(out, [195.0 / 128.0]);
    let mut stream = [256.0];
    apply(Op::Add { stream: &mut stream, update: &[1.0] });
    assert_eq!(stream, [256.0]);
    // Both products stay in f32.
    let mut values = [1.0, 1.0];
    let turn = Turn::given(vec![1.0117], vec![0.003]);
    apply(Op::Rotate { values: &mut values, heads: 1, turns: &[&turn] });
    assert_eq!(values, [129.0 / 128.0, 130.0 / 128.0]);
    // Scores round before the softmax: 256.5 is 256 to it.
    let mut scores = [513.0, 512.0];
    softmax_of_one(&kernel, &mut scores, 0..2, 0.5);
    assert_eq!(scores, [0.5, 0.5]);
}

#[test]
fn everything_by_lmul_is_every_product_of_two_values_and_nothing_else() {
    // By hand: a product is the sum of both words less 0x3f780000.
    let lmul = |x: f32, y: f32| {
        let (x, y) = (x.to_bits(), y.to_bits());
        let magnitude = (x & 0x7FFF_FFFF) + (y & 0x7FFF_FFFF) - 0x3F78_0000;
        f32::from_bits(((x ^ y) & 0x8000_0000) | magnitude)
    };
    let kernel = |name: &str| Fast::new(format!("{name}/sequential/t1").parse().unwrap()).unwrap();
    let (own, all, fp32) = (kernel("lmul:scope=everything"), kernel("lmul"), kernel("fp32"));
    let apply = |kernel: &Fast, op: Op<'_, Packed>| kernel.apply(HERE, Launch::default(), op);
    let (x, w) = ([1.3_f32, -2.7], [0.6_f32, 1.9]);
    let norm = |kernel: &Fast| {
        let mut out = [0.0; 2];
        apply(kernel, Op::Norm { rows: &x, weight: &w, epsilon: 0.0, out: &mut out });
        out
    };
    let scale = rsqrt((lmul(x[0], x[0]) + lmul(x[1], x[1])) / 2.0);
    assert_eq!(norm(&own), [0, 1].map(|i| lmul(w[i], lmul(x[i], scale))));
    let rotated = |kernel: &Fast| {
        let mut values = x;
        let turn = Turn::given(vec![w[0]], vec![w[1]]);
        apply(kernel, Op::Rotate { values: &mut values, heads: 1, turns: &[&turn] });
        values
    };
    let by_hand = [lmul(x[0], w[0]) - lmul(x[1], w[1]), lmul(x[1], w[0]) + lmul(x[0], w[1])];
    assert_eq!(rotated(&own), by_hand);
    let gated = |kernel: &Fast| {
        let mut out = [0.0];
        let gate_up = &[x[0], w[1]];
        apply(kernel, Op::Gate { activation: Activation::Relu, gate_up, width: 1, out: &mut out });
        out
    };
    assert_eq!(gated(&own), [lmul(x[0], w[1])]);
    let softmax = |kernel: &Fast| {
        let mut scores = x;
        softmax_of_one(kernel, &mut scores, 0..2, 0.3);
        scores
    };
    let terms = [1.0, exp(lmul(0.3, x[1]) - lmul(0.3, x[0]))];
    assert_eq!(softmax(&own), terms.map(|term| term / (terms[0] + terms[1])));
    // Additions have no product, and `all` leaves all of these alone.
    let added = |kernel: &Fast| {
        let mut stream = x;
        apply(kernel, Op::Add { stream: &mut stream, update: &w });
        stream
    };
    assert_eq!(added(&own), added(&fp32));
    assert_eq!(
        (norm(&all), rotated(&all), gated(&all), softmax(&all)),
        (norm(&fp32), rotated(&fp32), gated(&fp32), softmax(&fp32))
    );
}

#[test]
fn a_table_gives_back_what_it_stores() {
    let mut random = Random(13);
    let (columns, depth) = (70, 45);
    for precision in precisions() {
        for site in [Site::Table, Site::Head] {
            let format: Format = precision.recipe(At::alone(site)).weights.format();
            for order in orders_for(precision) {
                let w = values(Kind::Special, columns * depth, &mut random);
                let fill = &mut |column: usize, terms: &mut [f32]| {
                    terms.copy_from_slice(&w[column * depth..][..depth]);
                };
                let kernel = Fast::new(numerics(precision, order, 1)).unwrap();
                let definition = Definition { numerics: kernel.numerics() };
                let looked_up = [0, 1, 15, 16, 31, 32, 69];
                let stored = looked_up.iter().flat_map(|&column| &w[column as usize * depth..][..depth]);
                let stored: Vec<f32> = stored.map(|&x| format.round(x)).collect();
                let ours = rows_of(&kernel, site, [columns, depth], fill, &looked_up);
                let theirs = rows_of(&definition, site, [columns, depth], fill, &looked_up);
                assert_eq!(ours, bits(&stored), "{} {site:?}", kernel.numerics());
                assert_eq!(theirs, bits(&stored), "{} {site:?}", kernel.numerics());
            }
        }
    }
}

/// What a table gives back.
fn rows_of<K: Kernel>(
    kernel: &K,
    site: Site,
    [columns, depth]: [usize; 2],
    source: &mut dyn Source,
    looked_up: &[u32],
) -> Vec<u32> {
    let table = kernel.pack(At::alone(site), columns, depth, source);
    let mut out = vec![0.0; looked_up.len() * depth];
    let op = Op::Lookup { table: &table, columns: looked_up, out: &mut out };
    kernel.apply(At::alone(Site::Table), Launch::default(), op);
    bits(&out)
}

#[test]
fn sabotage_is_seen_in_everything_that_goes_row_by_row() {
    let mut random = Random(14);
    let mut case = RowByRow::new(Kind::Random, 40, 50, &mut random);
    case.seen = vec![0..50; 40];
    for fault in KernelFault::OF_SUMS {
        for order in orders_for(Precision::Fp32) {
            for isa in Isa::available() {
                let numerics = numerics(Precision::Fp32, order, 1);
                let definition = Definition { numerics };
                let broken = faulty(isa, numerics, fault);
                let operations = RowByRow::operations().into_iter().zip(RowByRow::operations());
                for ((name, operation), (_, defined)) in operations {
                    let passed = operation(&case, &broken) == defined(&case, &definition);
                    // Only what adds can add otherwise.
                    let concerned =
                        fault == KernelFault::SkipsOperation || ["norm", "softmax"].contains(&name);
                    assert_eq!(passed, !concerned, "{fault:?} of {order} on {isa} in {name}");
                }
            }
        }
    }
}

#[test]
fn a_table_that_is_not_looked_up_is_seen() {
    let numerics = numerics(Precision::Fp32, Order::SEQUENTIAL, 1);
    let fill = &mut |column: usize, terms: &mut [f32]| terms.fill(1.0 + column as f32);
    let sound = rows_of(&Definition { numerics }, Site::Table, [3, 4], fill, &[2, 0]);
    let skipping = faulty(Isa::best(), numerics, KernelFault::SkipsOperation);
    assert_ne!(rows_of(&skipping, Site::Table, [3, 4], fill, &[2, 0]), sound);
}

#[test]
fn shared_jobs_are_done_once_each_and_are_no_evidence_of_arithmetic() {
    for threads in [1, 2, 3] {
        let workers = Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let (done, calls) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        workers.share((0..20).collect(), |job: usize| {
            calls.fetch_add(1, Ordering::Relaxed);
            done.lock().unwrap().push(job);
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
        assert_eq!((calls.into_inner(), workers.threads(), workers.used()), (20, threads, 1));
    }
}

#[test]
fn what_is_led_shares_its_jobs_and_gives_back_what_it_found() {
    for threads in [1, 2, 3, 64] {
        let workers = Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        // Several calls in a row, each with a leader of its own, and one inside another.
        for call in 0..20 {
            let mut done = vec![0; 50];
            let sum = workers.within(|| {
                workers.share(done.iter_mut().enumerate().collect(), |(at, done)| *done += at + call);
                workers.within(|| workers.share(done.iter_mut().collect(), |done| *done *= 2));
                done.iter().sum::<usize>()
            });
            assert_eq!(sum, 2 * (49 * 50 / 2 + 50 * call));
        }
    }
}

#[test]
fn two_callers_lead_the_same_threads_and_both_come_back() {
    let workers = Workers::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let lead = || {
        for _ in 0..200 {
            let sum = AtomicUsize::new(0);
            workers.within(|| {
                workers.share((1..=8).collect(), |n| {
                    sum.fetch_add(n, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), 36);
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(lead))));
}

#[test]
fn a_panic_of_a_leader_or_of_its_share_is_the_callers_and_leaves_the_threads_at_work() {
    let workers = Workers::new(NonZeroUsize::new(2).unwrap()).unwrap();
    for share in [false, true] {
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            workers.within(|| match share {
                true => workers.share((0..8).collect(), |n: usize| assert!(n < 5, "five is too much")),
                false => panic!("the leader gives up"),
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(workers.within(|| 42), 42);
    }
}

#[test]
fn threads_used_tells_of_calls_since_it_was_asked() {
    let mut random = Random(15);
    let kernel = Fast::new(numerics(Precision::Fp32, Order::SEQUENTIAL, 2)).unwrap();
    Case::new(Kind::Random, [2, 20, 20], &mut random).run(&kernel, Site::Linear);
    assert_eq!(kernel.workers().used(), 1, "a small product is not shared");
    Case::new(Kind::Random, [40, 300, 300], &mut random).run(&kernel, Site::Linear);
    assert_eq!([kernel.workers().used(), kernel.workers().used()], [2, 1]);
}
