//! What the matrix units of real GPUs answered, and what this program says they answer.

use std::{fs, num::NonZeroUsize, path::Path};

use reprocheck::numerics::{
    Numerics,
    kernel::{At, Fast, Isa, Job, Kernel, Op},
    order::{Launch, Order},
    precision::{Precision, Site},
    unit::Gpu,
};

/// A dot product as it was recorded.
struct Recorded {
    gpu: Gpu,
    precision: Precision,
    a: Vec<f32>,
    b: Vec<f32>,
    c: f32,
    sum: f32,
}

fn float(hex: &str) -> f32 {
    f32::from_bits(u32::from_str_radix(&format!("{hex:0<8}"), 16).unwrap())
}

/// Whose unit a GPU has.
fn unit_of(gpu: &str) -> Gpu {
    match gpu {
        "a2" => Gpu::A100,
        "l40s" => Gpu::Ada,
        "h200" => Gpu::H100,
        own => own.parse().unwrap(),
    }
}

fn precision_of(operands: &str, sum: &str) -> Precision {
    let name = match (operands, sum) {
        ("fp16", "fp16") => "fp16-acc16".to_owned(),
        ("e4m3" | "e5m2", "fp16") => format!("cast:{operands},sum=f16"),
        ("e4m3" | "e5m2", _) => format!("cast:{operands}"),
        _ => operands.to_owned(),
    };
    name.parse().unwrap()
}

fn recorded() -> Vec<Recorded> {
    let text = include_str!("gpu/recorded.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let [gpu, operands, sum, a, b, c, d] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let all = |words: &str| words.split(',').map(float).collect();
        Recorded {
            gpu: unit_of(gpu),
            precision: precision_of(operands, sum),
            a: all(a),
            b: all(b),
            c: float(c),
            sum: float(d),
        }
    };
    lines.map(read).collect()
}

fn numerics(precision: Precision, order: Order) -> Numerics {
    Numerics::new(precision, order, NonZeroUsize::MIN).unwrap()
}

/// The sum of one output, unrounded, on an instruction set.
fn sum_on(isa: Isa, precision: Precision, order: Order, a: &[f32], b: &[f32], c: f32) -> f32 {
    let kernel = Fast::on(isa, numerics(precision, order)).unwrap().unrounded();
    let at = At::alone(Site::Linear);
    let weights = kernel.pack(at, 1, a.len(), &mut |_: usize, terms: &mut [f32]| terms.copy_from_slice(b));
    let mut out = [f32::NAN];
    let job = Job { activations: a, rows: 1, weights: &weights, start: Some(&[c]), out: &mut out };
    kernel.apply(at, Launch::default(), Op::Product(vec![job]));
    out[0]
}

fn order(gpu: Gpu) -> Order {
    format!("mma:{gpu}").parse().unwrap()
}

#[test]
fn the_units_of_eight_gpus_answer_what_they_answered() {
    let recorded = recorded();
    assert_eq!(recorded.len(), 1392);
    for Recorded { gpu, precision, a, b, c, sum } in &recorded {
        for isa in Isa::available() {
            let own = sum_on(isa, *precision, order(*gpu), a, b, *c);
            assert_eq!(
                own.to_bits(),
                sum.to_bits(),
                "{precision}/mma:{gpu} on {isa}: {own:e}, not {sum:e}, of {a:?} {b:?} {c:e}"
            );
        }
    }
}

#[test]
fn an_ordinary_sum_answers_none_of_them_as_they_did() {
    // So that the test before this one is of something.
    let (mut same, mut all) = (0, 0);
    for Recorded { precision, a, b, c, sum, .. } in recorded() {
        all += 1;
        same += usize::from(
            sum_on(Isa::best(), precision, Order::SEQUENTIAL, &a, &b, c).to_bits() == sum.to_bits(),
        );
    }
    assert!(same * 2 < all, "{same} of {all}");
}

#[test]
#[ignore = "needs the recordings: REPROCHECK_RECORDINGS=FOLDER names model_validation/ of MATLAB-tensor-core"]
fn every_recording_is_answered_as_it_was() {
    let folder = std::env::var("REPROCHECK_RECORDINGS").expect("REPROCHECK_RECORDINGS names the folder");
    let lines = |path: &Path| {
        fs::read_to_string(path).ok().map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (mut sets, mut products) = (0, 0);
    for gpu in ["A100", "A2", "Ada", "B200", "H100", "H200", "L40S", "V100"] {
        for operands in ["fp16", "bf16", "tf32", "E4M3", "E5M2"] {
            let file = |kind: &str, of: &str| {
                Path::new(&folder).join(gpu).join(operands).join(format!("{kind}_{gpu}_{of}.txt"))
            };
            let Some(a) = lines(&file("a", operands)) else { continue };
            let (b, c) = (lines(&file("b", operands)).unwrap(), lines(&file("c", "fp32")).unwrap());
            for of in ["fp32", "fp16"] {
                let Some(d) = lines(&file("d", of)) else { continue };
                let precision = precision_of(&operands.to_lowercase(), of);
                let gpu = unit_of(&gpu.to_lowercase());
                // Of a product of its own the instruction of Hopper begins at nothing.
                let from_zero = gpu == Gpu::H100 && operands.starts_with('E') && of == "fp32";
                for (((a, b), c), d) in a.iter().zip(&b).zip(&c).zip(&d) {
                    let words = |line: &String| line.split_whitespace().map(float).collect::<Vec<_>>();
                    let binary = |line: &String| f32::from_bits(u32::from_str_radix(line.trim(), 2).unwrap());
                    let start = if from_zero { 0.0 } else { binary(c) };
                    let own = sum_on(Isa::best(), precision, order(gpu), &words(a), &words(b), start);
                    assert_eq!(own.to_bits(), binary(d).to_bits(), "{precision}/mma:{gpu}: {a} {b} {c}");
                    products += 1;
                }
                sets += 1;
            }
        }
    }
    assert_eq!((sets, products), (48, 240_000), "all of them lie in {folder}");
}

#[test]
fn what_a_block_cuts_off_tells_the_generations_apart() {
    // One, and then so many powers of two, as products of two numbers that every format has.
    const PART: i32 = -12;
    let small =
        |exponent: i32, count: usize| [vec![1.0], vec![f32::powi(2.0, exponent - PART); count]].concat();
    let ones = |count: usize| vec![1.0; count];
    let parts = |count: usize| [vec![1.0], vec![f32::powi(2.0, PART); count - 1]].concat();
    let next = f32::from_bits(0x3F80_0001);
    for isa in Isa::available() {
        let sum = |precision: &str, gpu: Gpu, a: &[f32]| {
            sum_on(isa, precision.parse().unwrap(), order(gpu), a, &ones(a.len()), 0.0)
        };
        // By the rule: digits that are kept behind the leading one of the largest.
        let and_small = |precision: &str, gpu: Gpu, exponent: i32, count: usize| {
            let a = small(exponent, count);
            sum_on(isa, precision.parse().unwrap(), order(gpu), &a, &parts(a.len()), 0.0)
        };
        let gpus = [Gpu::V100, Gpu::A100, Gpu::H100];
        assert_eq!(gpus.map(|gpu| and_small("fp16", gpu, -24, 2)), [1.0, next, next]);
        assert_eq!(gpus.map(|gpu| and_small("fp16", gpu, -25, 4)), [1.0, 1.0, next]);
        assert_eq!(and_small("cast:e5m2", Gpu::H100, -14, 4), 1.0);
        assert_eq!(and_small("cast:e5m2", Gpu::B200, -14, 4), 1.0 + f32::powi(2.0, -12));
        // Where a block of eight ends the sum so far is rounded.
        let tiny = [f32::powi(2.0, -24); 8];
        let first = [&tiny[..], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]].concat();
        let last = [&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &tiny[..]].concat();
        assert_eq!(sum("fp16", Gpu::H100, &first), sum("fp16", Gpu::H100, &last));
        let cut = [&[1.0][..], &tiny[..7], &tiny[..1], &[0.0; 7]].concat();
        assert_ne!(sum("fp16", Gpu::A100, &cut), sum("fp16", Gpu::H100, &cut));
        // Too large, and what is no number.
        let huge = [f32::from_bits(0x7F00_0000); 2];
        assert_eq!(sum("bf16", Gpu::H100, &huge), f32::INFINITY);
        assert!(sum("bf16", Gpu::H100, &[f32::INFINITY, f32::NEG_INFINITY]).is_nan());
        assert_eq!(sum("fp16-acc16", Gpu::H100, &[60000.0, 60000.0]), f32::INFINITY);
    }
}

#[test]
fn a_block_of_the_largest_products_fits() {
    let precisions = ["fp16", "fp16-acc16", "bf16", "tf32", "cast:e4m3", "cast:e5m2", "cast:e4m3,sum=f16"];
    let mut seen = 0;
    for gpu in Gpu::ALL {
        for precision in precisions.map(|name| name.parse::<Precision>().unwrap()) {
            let Ok(Some(unit)) = gpu.unit_for(&precision.recipe(At::alone(Site::Linear))) else { continue };
            // As near to two as each format comes: four blocks of them are more than an integer holds, and one may be.
            let [format, _] = precision.recipe(At::alone(Site::Linear)).factors().unwrap();
            let step = 1.0 / f32::powi(2.0, format.mantissa_bits().cast_signed());
            let factors = [2.0 - step, step - 2.0, 1.0];
            for terms in [8, 16, 17, 31, 32, 33, 64] {
                for (a, b) in factors.into_iter().flat_map(|a| factors.map(|b| (a, b))) {
                    for start in [0.0, 1.0, 3.75, -3.75, 61.0, -250.0] {
                        let defined = unit.run(start, terms, |_| (a, b));
                        for isa in Isa::available() {
                            let (a, b) = (vec![a; terms], vec![b; terms]);
                            let own = sum_on(isa, precision, order(gpu), &a, &b, start);
                            let case =
                                format!("{precision}/mma:{gpu} on {isa}: {terms} times {a:?}, {start}");
                            assert_eq!(own.to_bits(), defined.to_bits(), "{case}: {own} for {defined}");
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 10_000, "{seen}");
}
