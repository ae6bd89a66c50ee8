//! The fast kernel is the definition, bit for bit: every precision, order, launch and instruction set.

use std::num::NonZeroUsize;

use reprocheck::numerics::{
    Numerics,
    kernel::{Definition, Fast, Fault, Isa, Job, Kernel},
    order::{Launch, ORDERS, Order},
    precision::{PRECISIONS, Precision, Site},
    reveal::{RevealError, reveal},
};

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
    }
}

fn values(kind: Kind, count: usize, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| value(kind, random)).collect()
}

fn precisions() -> Vec<Precision> {
    let more = [
        "lmul:m=1",
        "lmul:m=4,scope=attention",
        "lmul:variant=formula",
        "lmul:m=3,variant=formula",
        "int8:threshold=0.9",
        "e2m1",
        "e8m4",
        "e6m9:round=zero",
        "e6m22",
        "fp8-e4m3:saturate=no",
        "fp8-e5m2:round=up,saturate=no",
    ];
    PRECISIONS
        .iter()
        .map(|entry| entry.example)
        .chain(more.iter().map(|name| name.parse().unwrap()))
        .collect()
}

fn orders() -> Vec<Order> {
    let more = ["lanes:3", "blocks:5", "split-k:3", "shuffled:0"];
    ORDERS.iter().map(|entry| entry.example).chain(more.iter().map(|name| name.parse().unwrap())).collect()
}

fn numerics(precision: Precision, order: Order, threads: usize) -> Numerics {
    Numerics { precision, order, threads: NonZeroUsize::new(threads).unwrap() }
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
        let weights = kernel.pack(site, self.columns, self.depth, &mut |column, terms| {
            terms.copy_from_slice(&self.w[column * self.depth..][..self.depth]);
        });
        let launch = Launch { rows: self.rows, threads: kernel.numerics().threads.get() };
        let mut out = vec![f32::NAN; self.rows * self.columns];
        let job = Job {
            activations: &self.x,
            rows: self.rows,
            weights: &weights,
            start: self.start.as_deref(),
            out: &mut out,
        };
        kernel.run(site, launch, vec![job]);
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
        for order in orders() {
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
fn the_smallest_shapes_are_their_definition() {
    check_all(&[Kind::Random], &[[1, 0, 3], [1, 1, 1], [2, 2, 1], [4, 3, 32], [8, 4, 64], [1, 5, 129]], 3);
}

#[test]
fn the_head_and_attention_are_their_definition_too() {
    let mut random = Random(4);
    for precision in precisions() {
        for site in [Site::Attention, Site::Head] {
            for order in [Order::Sequential, Order::Pairwise, Order::Exact] {
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
        for order in orders().into_iter().filter(|order| !order.depends_on_launch()) {
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
    for precision in precisions() {
        for order in orders() {
            let kernel = Fast::new(numerics(precision, order, 1)).unwrap();
            let definition = Definition { numerics: kernel.numerics() };
            let site = Site::Attention;
            let x = values(Kind::Random, rows * depth, &mut random);
            let w = values(Kind::Zeros, columns * depth, &mut random);
            let column = |column: usize| &w[column * depth..][..depth];
            let mut keys = kernel.pack(site, 0, depth, &mut |_, _| {});
            (0..columns).for_each(|index| kernel.push_column(&mut keys, column(index)));
            let mut values = kernel.pack(site, columns, 0, &mut |_, _| {});
            for term in 0..depth {
                let row: Vec<f32> = (0..columns).map(|index| column(index)[term]).collect();
                kernel.push_row(&mut values, &row);
            }
            // A row may meet the first values only: the tokens up to its own.
            for shorter in [depth, 8] {
                let x: Vec<f32> = x.chunks(depth).flat_map(|row| &row[..shorter]).copied().collect();
                let packed = definition.pack(site, columns, shorter, &mut |index, terms| {
                    terms.copy_from_slice(&column(index)[..shorter]);
                });
                let mut expected = vec![0.0; rows * columns];
                definition.matmul(site, &x, rows, &packed, &mut expected);
                for (name, grown) in [("keys", &keys), ("values", &values)] {
                    if name == "keys" && shorter != depth {
                        continue;
                    }
                    let mut out = vec![0.0; rows * columns];
                    kernel.matmul(site, &x, rows, grown, &mut out);
                    assert_eq!(bits(&out), bits(&expected), "{} {name} {shorter}", kernel.numerics());
                }
            }
        }
    }
}

#[test]
fn many_jobs_in_one_call_are_each_their_own() {
    let mut random = Random(8);
    let kernel = Fast::new("bf16/split-k:rows/t2".parse().unwrap()).unwrap();
    let cases: Vec<_> = (0..40).map(|_| Case::new(Kind::Random, [4, 130, 70], &mut random)).collect();
    let pack = |case: &Case| {
        kernel.pack(Site::Attention, case.columns, case.depth, &mut |column, terms| {
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
    kernel.run(Site::Attention, Launch { rows: 4, threads: 2 }, jobs.collect());
    for (case, out) in cases.iter().zip(&outs) {
        assert_eq!(bits(out), case.run(&Definition { numerics: kernel.numerics() }, Site::Attention));
    }
}

#[test]
fn packed_weights_take_their_own_bytes_and_nothing_twice() {
    let (columns, depth) = (96, 1000);
    let bytes = |name: &str| {
        let kernel = Fast::new(format!("{name}/sequential/t1").parse().unwrap()).unwrap();
        kernel.pack(Site::Linear, columns, depth, &mut |_, terms| terms.fill(1.0)).bytes()
    };
    let weights = columns * depth;
    assert_eq!(bytes("fp32"), 4 * weights);
    assert_eq!([bytes("bf16"), bytes("layercast"), bytes("fp16"), bytes("e6m9")], [2 * weights; 4]);
    assert_eq!([bytes("fp8-e4m3"), bytes("e3m4"), bytes("e2m1")], [weights; 3]);
    // One scale a column.
    assert_eq!([bytes("int8"), bytes("w8a8")], [weights + 4 * columns; 2]);
}

#[test]
fn the_revealed_tree_is_the_declared_one() {
    let mut fitting = 0;
    for precision in precisions() {
        let site = precision.own_site();
        for order in orders() {
            for launch in [(1, 1), (2, 1), (5, 3)].map(|(rows, threads)| Launch { rows, threads }) {
                for terms in [1, 2, 3, 9, 24, 41] {
                    let kernel = Fast::new(numerics(precision, order, launch.threads)).unwrap();
                    match reveal(&kernel, site, launch, terms) {
                        Ok(tree) => {
                            fitting += 1;
                            let declared = order.tree_seen_by_masks(terms, launch);
                            assert_eq!(tree, declared, "{} {launch:?} {terms}", kernel.numerics());
                        }
                        Err(RevealError::NoRoom { .. }) => {
                            let narrow = ["fp8-e4m3", "fp8-e5m2", "eXmY", "int8", "w8a8"];
                            assert!(narrow.contains(&precision.entry().name), "{precision} has room");
                        }
                        Err(error) => panic!("{} {launch:?} {terms}: {error}", kernel.numerics()),
                    }
                }
            }
        }
    }
    assert!(fitting > 2000, "only {fitting} combinations had room for masks");
}

#[test]
fn every_instruction_set_reveals_the_same_tree() {
    for isa in Isa::available() {
        for order in orders() {
            let kernel = Fast::on(isa, numerics(Precision::Fp32, order, 1)).unwrap();
            let launch = Launch { rows: 3, threads: 1 };
            let tree = reveal(&kernel, Site::Linear, launch, 20);
            assert_eq!(tree, Ok(order.tree_seen_by_masks(20, launch)), "{order} on {isa}");
        }
    }
}

#[test]
fn sabotage_is_seen_by_conformance_and_by_the_revealed_tree() {
    let mut random = Random(9);
    for (fault, kind) in [(Fault::Reversed, Kind::Spread), (Fault::Dropped, Kind::Random)] {
        let case = Case::new(kind, [3, 50, 40], &mut random);
        for order in orders() {
            // Reversing a sum that has no order is no fault, and Neumaier's is so good that its order hardly
            // shows: masks see it as flat.
            if fault == Fault::Reversed && [Order::Exact, Order::Neumaier].contains(&order) {
                continue;
            }
            let sound = numerics(Precision::Fp32, order, 1);
            let expected = case.run(&Definition { numerics: sound }, Site::Linear);
            let launch = Launch { rows: 3, threads: 1 };
            let declared = order.tree_seen_by_masks(21, launch);
            for isa in Isa::available() {
                let kernel = Fast::on(isa, sound).unwrap();
                assert_eq!(case.run(&kernel, Site::Linear), expected);
                let kernel = kernel.with_fault(fault);
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
