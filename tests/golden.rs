//! The bits of every precision in every order, pinned, of one product and of a whole model, and the items of every suite:
//! a change that moves one is on purpose, or does not pass.

use std::{collections::BTreeSet, env, fmt::Write, fs, num::NonZeroUsize, path::Path};

use crate::support::{fixed_prompts, fixture, request};
use reprocheck::{
    digest::Digest,
    engine::{in_groups, lab::Lab},
    model::{Checkpoint, embedded::MODELS},
    numerics::{
        Numerics,
        kernel::{At, Fast, Isa, Job, Kernel, Op},
        order::{Launch, ORDERS},
        pairs,
    },
    suite::{Suite, style::Style},
    trace::Sight,
};

const ACCEPT: &str = "REPROCHECK_ACCEPT";

const ROWS: usize = 3;
const DEPTH: usize = 67;
const COLUMNS: usize = 40;
const HALF: usize = DEPTH / 2;
const THREADS: usize = 2;

/// One input for all cells. It is made of integers only, so that it is the same on every machine.
struct Input {
    activations: Vec<f32>,
    weights: Vec<f32>,
    start: Vec<f32>,
}

impl Input {
    fn new() -> Input {
        let mut state = 2026_u64;
        let mut word = move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        // A sign, all mantissa bits, and an exponent that puts the value between 2^-8 and 2^2.
        let mut values = |count: usize| -> Vec<f32> {
            let value = |word: u64| {
                let exponent = 127 - 8 + (word >> 32) % 10;
                f32::from_bits((word as u32 & 0x807F_FFFF) | (exponent as u32) << 23)
            };
            (0..count).map(|_| value(word())).collect()
        };
        let mut activations = values(ROWS * DEPTH);
        let (mut weights, mut start) = (values(COLUMNS * DEPTH), values(COLUMNS));
        // Outliers for int8, each in one row only.
        for (index, outlier) in [6.0, -19.25, 8.1, -6.5, 31.7, 12.4, -7.3].into_iter().enumerate() {
            activations[index % ROWS * DEPTH + 4 * index + 1] = outlier;
        }
        // In every other column the second half of the terms cancels the first, so that the result is what
        // rounding left: enough to tell orders apart in 16 bits, too.
        for row in activations.chunks_exact_mut(DEPTH) {
            row.copy_within(..HALF, HALF);
        }
        for (column, start) in weights.chunks_exact_mut(DEPTH).zip(&mut start).step_by(2) {
            for term in 0..HALF {
                column[HALF + term] = -column[term];
            }
            *start = 0.0;
            column[DEPTH - 1] = 0.0;
        }
        Input { activations, weights, start }
    }

    /// SHA-256 of the result's words, little endian.
    fn digest(&self, numerics: Numerics, isa: Isa) -> Digest {
        let kernel = Fast::on(isa, numerics).unwrap();
        let at = At::alone(numerics.precision().own_site());
        let weights = kernel.pack(at, COLUMNS, DEPTH, &mut |column: usize, terms: &mut [f32]| {
            terms.copy_from_slice(&self.weights[column * DEPTH..][..DEPTH]);
        });
        let mut out = [0.0; ROWS * COLUMNS];
        let job = Job {
            activations: &self.activations,
            rows: ROWS,
            weights: &weights,
            start: Some(&self.start),
            out: &mut out,
        };
        kernel.apply(at, Launch { rows: ROWS, threads: THREADS }, Op::Product(vec![job]));
        Digest::of_logits(&out)
    }
}

/// One line a cell: `precision/order digest`.
fn table(digest: impl Fn(Numerics) -> Digest) -> String {
    let threads = NonZeroUsize::new(THREADS).unwrap();
    let mut table = String::new();
    for (precision, order) in pairs() {
        let digest = digest(Numerics::new(precision, order, threads).unwrap());
        writeln!(table, "{precision}/{order} {digest}").unwrap();
    }
    table
}

/// One product.
fn kernel_table(isa: Isa) -> String {
    let input = Input::new();
    table(|numerics| input.digest(numerics, isa))
}

/// Greedy samples of a whole model, in batches of three: their roots, which hold all tokens and logits.
fn decoder_table(isa: Isa) -> String {
    model_table(&fixture("qwen3-untied-bias"), isa)
}

/// The model that ships.
fn qwen_table(isa: Isa) -> String {
    model_table(&Checkpoint::embedded(&MODELS[0]).unwrap(), isa)
}

fn model_table(checkpoint: &Checkpoint, isa: Isa) -> String {
    let three = NonZeroUsize::new(3).unwrap();
    table(|numerics| {
        let mut samples = Vec::new();
        let mut lab = Lab::on(checkpoint, Fast::on(isa, numerics).unwrap()).unwrap();
        in_groups(&mut lab, three, &fixed_prompts(checkpoint), &request(6), &mut samples).unwrap();
        let roots: Vec<_> = samples.iter().map(|sample| sample.root(Sight::Logits).0).collect();
        Digest::of(roots.as_flattened())
    })
}

/// The cells in which two tables differ, in the order in which they stand.
fn changed<'a>(golden: &'a str, now: &'a str) -> Vec<String> {
    let (golden_lines, now_lines): (BTreeSet<_>, BTreeSet<_>) =
        (golden.lines().collect(), now.lines().collect());
    let cell = |line: &'a str| line.split(' ').next().unwrap_or_default();
    let golden_cells: BTreeSet<_> = golden.lines().map(cell).collect();
    let now_cells: BTreeSet<_> = now.lines().map(cell).collect();
    let gone = golden.lines().map(cell).filter(|cell| !now_cells.contains(cell));
    let gone = gone.map(|cell| format!("{cell} (gone)"));
    let moved = now.lines().filter(|line| !golden_lines.contains(line)).map(cell);
    let moved = moved.map(|cell| {
        let kind = if golden_cells.contains(cell) { "other bits" } else { "new" };
        format!("{cell} ({kind})")
    });
    let changed: Vec<_> = gone.chain(moved).collect();
    if changed.is_empty() && golden_lines == now_lines && golden != now {
        return vec!["only the order of the lines".to_owned()];
    }
    changed
}

/// Compares a table, as it comes out in several ways, with the file that pins it.
fn holds(name: &str, tables: impl IntoIterator<Item = (String, String)>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut tables = tables.into_iter().peekable();
    // Whoever accepts must look: a machine cannot.
    if env::var_os(ACCEPT).is_some_and(|value| value == "1") && env::var_os("CI").is_none() {
        fs::create_dir_all(file.parent().expect("it has just been joined")).unwrap();
        fs::write(&file, &tables.peek().expect("there is at least one").1).unwrap();
    }
    // Git may have given the file the line ends of the system.
    let golden = fs::read_to_string(&file).unwrap_or_default().replace('\r', "");
    for (way, table) in tables {
        let changed = changed(&golden, &table);
        assert!(
            changed.is_empty(),
            "{way}, {} lines of tests/golden/{name} changed:\n  {}\n\
             Results of earlier versions are no longer reproduced. If that is on purpose, run\n  \
             {ACCEPT}=1 cargo test --release --test all golden::\n\
             and commit the file with the reason. (It is never rewritten where CI is set.)",
            changed.len(),
            changed.join("\n  "),
        );
    }
}

/// A table on every instruction set, plain scalar code first.
fn on_each_isa(table: fn(Isa) -> String) -> impl Iterator<Item = (String, String)> {
    Isa::available().into_iter().rev().map(move |isa| (format!("on {isa}"), table(isa)))
}

#[test]
fn every_cell_of_the_kernel_has_its_golden_bits_on_every_instruction_set() {
    holds("kernel.txt", on_each_isa(kernel_table));
}

#[test]
fn every_cell_of_the_decoder_has_its_golden_bits_on_every_instruction_set() {
    holds("decoder.txt", on_each_isa(decoder_table));
}

#[test]
fn every_cell_of_the_shipped_model_has_its_golden_bits_on_every_instruction_set() {
    holds("qwen.txt", on_each_isa(qwen_table));
}

/// The items of seed 0 that a run takes by default, with their prompts and answers. They hold no floats, so nothing
/// but the code can change them; whoever changes it gives the suite its next version.
#[test]
fn every_suite_has_its_golden_items() {
    let mut table = String::new();
    for suite in Suite::all() {
        for style in Style::ALL.iter().filter(|style| suite.limits.of(**style).is_some()) {
            let digest = suite.digest(0, *style, suite.sizes.std as usize);
            writeln!(table, "{}-v{}/{style} {digest}", suite.name, suite.version).unwrap();
        }
    }
    holds("suites.txt", [("at seed 0".to_owned(), table)]);
}

#[test]
fn the_golden_inputs_tell_the_cells_apart() {
    // Integers have one sum in all orders; what they show is the sum of the outliers. Neumaier's sum may be the exact
    // one. In so small a model the orders differ by less than 16 bits of a result show: only those of the kernel do.
    let plain = ORDERS.iter().filter(|entry| !entry.example.is_of_unit()).count();
    let (most, some) = (plain - 1, 7);
    let fine = |most| ["fp32", "bf16-acc16", "fp16-acc16", "layercast", "lmul"].map(|name| (name, most));
    let coarse = [("bf16", most), ("fp16", most), ("int8", some)];
    tells_apart(&kernel_table(Isa::best()), &[&fine(most)[..], &coarse[..]].concat());
    // Its sums have few terms more than a block has, so each of the two orders in blocks may be the one without.
    tells_apart(&decoder_table(Isa::best()), &fine(most - 1));
    tells_apart(&qwen_table(Isa::best()), &fine(most));
}

/// Gives each of these precisions at least so many results.
fn tells_apart(table: &str, least: &[(&str, usize)]) {
    assert_eq!(table.lines().count(), pairs().len());
    for (precision, least) in least {
        let of_precision = table.lines().filter(|line| line.split('/').next() == Some(*precision));
        let digests: BTreeSet<_> = of_precision.filter_map(|line| line.split(' ').nth(1)).collect();
        assert!(digests.len() >= *least, "{precision} has only {} results", digests.len());
    }
}

#[test]
fn a_changed_cell_is_named() {
    assert_eq!(changed("a/b 1\na/c 2\n", "a/b 1\na/c 2\n"), Vec::<String>::new());
    assert_eq!(changed("a/b 1\na/c 2\n", "a/b 1\na/c 3\n"), ["a/c (other bits)"]);
    assert_eq!(changed("a/b 1\na/x 2\n", "a/b 1\na/c 2\n"), ["a/x (gone)", "a/c (new)"]);
    assert_eq!(changed("a/b 1\na/c 2\n", "a/c 2\na/b 1\n"), ["only the order of the lines"]);
    assert_eq!(changed("", "a/b 1\n"), ["a/b (new)"]);
}
