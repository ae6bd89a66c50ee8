//! What is published: the tables beside the runs say what the runs say, and the reports have the form that they name.

use std::{fs, path::Path};

use crate::validate::Validator;
use reprocheck::{
    report::{CONFIDENCE, Report},
    stats::{
        paired::{Change, Paired},
        proportion::Proportion,
    },
};
use serde_json::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn report(name: &str) -> Value {
    serde_json::from_str(&read(&format!("results/{name}/report.json"))).unwrap()
}

/// Does the page say this, wherever its lines end?
#[track_caller]
fn says(page: &str, sentence: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(page).contains(&words(sentence)), "the page does not say\n{sentence}");
}

const RUNS: [&str; 17] = [
    "paper",
    "approximate",
    "formats",
    "replayed",
    "served/free",
    "served/replayed",
    "smollm2",
    "causes/bf16",
    "causes/fp32",
    "causes/layercast",
    "causes/smollm2-bf16",
    "causes/smollm2-fp32",
    "causes/smollm2-layercast",
    "ladders",
    "candle",
    "serving/vllm",
    "serving/transformers",
];

#[test]
fn every_published_report_holds_to_the_schema() {
    let schema = Validator::new(&Report::schema()).unwrap();
    for name in RUNS {
        assert_eq!(schema.holds(&report(name)), Ok(()), "{name}");
    }
}

/// A share that is written as its counts.
fn counted(share: &Value) -> Proportion {
    Proportion { hits: share["hits"].as_u64().unwrap(), of: share["of"].as_u64().unwrap() }
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A row of the table of precisions.
fn row(of: &Value) -> String {
    let all = &of["all"];
    let (accuracy, apart) = (counted(&all["accuracy"]), counted(&all["agreement"]["tokens"]["unstable"]));
    let interval = apart.wilson(CONFIDENCE).unwrap();
    let field = |name: &str, scale: f64, digits: usize| {
        let shown = |value: &Value| format!("{:.digits$}", scale * value.as_f64().unwrap());
        let value = &all[name];
        let value = if value.is_null() { "-".to_owned() } else { shown(value) };
        match &all["redrawn"][name] {
            Value::Null => value,
            interval => format!("{value} ({} to {})", shown(&interval["lower"]), shown(&interval["upper"])),
        }
    };
    format!(
        "| `{}` | {} | {} | {} % | {} | {} % ({} to {}) | {} | {} | {} |",
        of["precision"].as_str().unwrap(),
        of["cells"],
        of["distinct"],
        percent(accuracy.rate().unwrap()),
        field("deviation_of_accuracy", 100.0, 3),
        percent(apart.rate().unwrap()),
        percent(interval.lower),
        percent(interval.upper),
        field("divergence_index", 1.0, 1),
        field("deviation_of_lengths", 1.0, 3),
        field("deviation_of_probabilities", 1e4, 3),
    )
}

#[test]
fn the_tables_say_what_the_runs_say() {
    let page = read("results/README.md");
    for (name, precisions) in [("paper", 4), ("approximate", 4), ("smollm2", 9)] {
        let report = report(name);
        let rows: Vec<_> = report["precisions"].as_array().unwrap().iter().map(row).collect();
        assert_eq!(rows.len(), precisions, "{name}");
        for row in &rows {
            assert!(page.contains(row), "{name}: the page lacks\n{}", rows.join("\n"));
        }
    }
}

#[test]
fn every_published_run_came_to_the_verdict_that_the_page_tells() {
    let page = read("results/README.md");
    for name in RUNS {
        let report = report(name);
        let verdict = report["verdict"].as_str().unwrap();
        let [cells, items] = ["cells", "questions"].map(|what| &report["run"][what]);
        let items = items.as_u64().unwrap();
        let items =
            if items < 1000 { items.to_string() } else { format!("{},{:03}", items / 1000, items % 1000) };
        let told = page.lines().find(|line| line.contains(&format!("({name}/report.md)"))).unwrap();
        let end = format!("| {verdict} | {} x {items} |", cells.as_array().unwrap().len());
        assert!(told.ends_with(&end), "{told}: {end}");
    }
}

#[test]
fn what_is_said_of_sixteen_draws_is_what_the_run_said() {
    let (page, run) = (read("results/README.md"), read("results/sampled/report.md"));
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.contains(" | 12 | 16 | "));
        rows.map(str::to_owned).collect()
    };
    assert_eq!((rows(&run).len(), rows(&page)), (4, rows(&run)));
    let told = run.lines().find(|line| line.contains("784 cells")).unwrap();
    assert!(
        told.contains("96 items") && page.contains("(sampled/report.md), without its `report.json`"),
        "{told}"
    );
    // Of 1,536 draws of a precision so many have one text in all twelve configurations.
    for (precision, others) in [("bf16", 35), ("fp16", 23), ("fp32", 0), ("layercast", 0)] {
        let row = run.lines().find(|line| line.starts_with(&format!("| `{precision}` | 192 |"))).unwrap();
        let same = format!("{:.1} %", 100.0 * (1.0 - f64::from(others) / 1536.0));
        assert!(row.contains(if others == 0 { "100 %" } else { &same }), "{row}: {same}");
    }
    says(
        &page,
        "in `bf16` 35 of 1,536 draws are not the same in all twelve, in `fp16` 23, in `fp32` and `layercast` none",
    );
}

/// The cell of this name.
fn cell<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut cells = report["cells"].as_array().unwrap().iter();
    cells.find(|row| row["cell"] == name).unwrap_or_else(|| panic!("{name}"))
}

fn precision<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut rows = report["precisions"].as_array().unwrap().iter();
    rows.find(|row| row["precision"] == name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn what_is_said_of_all_sixteen_suites_is_so() {
    let (page, report) = (read("results/README.md"), report("ladders"));
    let cells = report["cells"].as_array().unwrap();
    for cell in cells {
        let suites = cell["suites"].as_object().unwrap();
        assert_eq!(suites.len(), 16);
        assert!(suites.values().all(|suite| suite["right"]["of"] == 24 && !suite["strata"][0].is_null()));
    }
    let same = |level: &str| {
        let apart = counted(&precision(&report, "bf16")["all"]["agreement"][level]["unstable"]);
        percent(1.0 - apart.rate().unwrap())
    };
    let right = |cell: usize| cells[cell]["accuracy"]["hits"].as_u64().unwrap();
    says(&page, &format!("{} % of the texts and {} % of the answers", same("tokens"), same("answers")));
    says(&page, &format!("{} and {} of 384 answers are right", right(0), right(1)));
    assert_eq!(report["cut"], "single");
}

#[test]
fn what_is_said_of_the_papers_protocol_is_so() {
    let (page, report) = (read("results/README.md"), report("paper"));
    let bf16 = &precision(&report, "bf16")["all"];
    let apart = counted(&bf16["agreement"]["tokens"]["unstable"]).rate().unwrap();
    let first = cell(&report, "lab/bf16/sequential/t1/b8");
    let items = counted(&first["accuracy"]).of;
    let tokens = first["tokens"].as_f64().unwrap() / items as f64;
    says(
        &page,
        &format!(
            "here {} % of the items part in `bf16`, there 99.6 %, because an output here has {tokens:.0} tokens",
            percent(apart)
        ),
    );
    says(&page, "the number of right answers stays within one of 1,024");
    for name in ["bf16", "fp16"] {
        let range = precision(&report, name)["all"]["range_of_accuracy"].as_f64().unwrap();
        assert!(items == 1024 && range * 1024.0 <= 1.0, "{name}: {range} of {items}");
    }
    says(&page, "`layercast` has the bits of `fp32` here");
    let layercast = report["cells"].as_array().unwrap().iter();
    let layercast =
        layercast.filter_map(|row| Some((row["cell"].as_str()?.strip_prefix("lab/layercast/")?, row)));
    let same = layercast.map(|(rest, row)| row["root"] == cell(&report, &format!("lab/fp32/{rest}"))["root"]);
    assert_eq!(same.collect::<Vec<_>>(), [true; 12]);
    // Of each precision, by how much probabilities move.
    let moved = |name: &str| precision(&report, name)["all"]["deviation_of_probabilities"].as_f64().unwrap();
    says(&page, "the probabilities of BF16 move several times as far as those of FP16");
    assert!(moved("bf16") > 2.0 * moved("fp16") && moved("fp16") > 2.0 * moved("fp32"));
}

#[test]
fn what_is_said_of_a_real_model_is_so() {
    let (page, report) = (read("results/README.md"), report("smollm2"));
    let apart = |name: &str| {
        counted(&precision(&report, name)["all"]["agreement"]["tokens"]["unstable"]).rate().unwrap()
    };
    says(
        &page,
        &format!(
            "alone gives {} % of the items another text in `bf16`, {} % in `fp16` and none in `fp32` and in `layercast`",
            percent(apart("bf16")),
            percent(apart("fp16"))
        ),
    );
    for name in ["fp32", "layercast"] {
        assert!(apart(name) == 0.0);
        let bits = counted(&precision(&report, name)["all"]["agreement"]["bits"]["unstable"]);
        assert_eq!(bits.hits, bits.of, "{name}: no item keeps all its bits");
    }
    let number = |name: &str, of: &str| precision(&report, name)["all"][of].as_f64().unwrap();
    let index = |name: &str| number(name, "divergence_index");
    let sentence =
        format!("after {:.0} tokens in the mean, in `fp16` after {:.0}", index("bf16"), index("fp16"));
    says(&page, &sentence);
    let moved = number("bf16", "deviation_of_probabilities") / number("fp16", "deviation_of_probabilities");
    says(&page, &format!("the probabilities of BF16 move {moved:.1} times as far as those of FP16"));
    let reference = cell(&report, "lab/fp32/exact/t2/b16");
    let right = counted(&reference["accuracy"]);
    says(&page, &format!("the model gets {} of {} right", right.hits, right.of));
    let tokens = reference["tokens"].as_f64().unwrap() / right.of as f64;
    says(&page, &format!("greedy answers of up to 256 tokens, {tokens:.0} in the mean under the reference"));
    let others =
        |name: &str| 1.0 - counted(&cell(&report, name)["against"]["items"]["tokens"]).rate().unwrap();
    says(
        &page,
        &format!(
            "so that {} % of its texts are not those of `fp32`",
            percent(others("lab/layercast/lanes:16/t2/b16"))
        ),
    );
    let layercast = ["sequential/t2/b8", "lanes:16/t2/b16", "split-k:4/t2/b16"];
    let layercast = layercast.map(|rest| &cell(&report, &format!("lab/layercast/{rest}"))["tokens"]);
    assert!(layercast.iter().all(|tokens| tokens == &layercast[0]));
    for name in ["int8", "w8a8", "lmul:m=3", "lmul:m=4"] {
        assert!(apart(name) > 0.5, "{name}");
        assert!(others(&format!("lab/{name}/sequential/t2/b8")) > 0.87, "{name}");
    }
    says(
        &page,
        &format!(
            "from {} to {} % of their texts are others",
            percent(apart("int8")),
            percent(apart("lmul:m=3"))
        ),
    );
    let broken = cell(&report, "lab/cast:e4m3/sequential/t2/b8");
    assert_eq!((broken["tokens"].as_f64().unwrap() / 206.0).round(), 2.0);
    assert_eq!(counted(&broken["accuracy"]).hits, 0);
}

#[test]
fn what_is_said_of_servers_is_so() {
    let (page, report) = (read("results/README.md"), report("serving/vllm"));
    let axis = |name: &str| {
        let mut axes = report["axes"].as_array().unwrap().iter();
        axes.find(|axis| axis["axis"] == name).unwrap()
    };
    says(&page, "vLLM fails both gates, and none of it shows in a text");
    for name in ["concurrency", "neighbors", "cache"] {
        assert_eq!(axis(name)["agree"]["tokens"], axis(name)["pairs"], "{name}");
    }
    let rulings = report["rulings"].as_array().unwrap();
    assert!(rulings.len() == 2 && rulings.iter().all(|ruling| ruling["outcome"] == "fail"));
    let found = |gate: usize| {
        let findings = rulings[gate]["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["sentence"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let count = |gate: usize, dtype: &str, items: &str| {
        let other = "other numbers of the best";
        let is_it = |sentence: &&String| {
            sentence.contains(dtype)
                && sentence.contains(other)
                && sentence.ends_with(&format!("on {items} of 16 items"))
        };
        found(gate).iter().filter(is_it).count()
    };
    says(&page, "other log-probabilities than for one on 16 of 16 items in float32, and on 11 in bfloat16");
    assert_eq!((count(0, "float32", "16"), count(0, "bfloat16", "11")), (3, 3));
    says(&page, "From a warm cache one item of 16 has other numbers in float32, and none in bfloat16");
    assert_eq!((found(1).len(), count(1, "float32/n1/warm", "1")), (1, 1));
    // No pair of neighbors is seen to differ.
    says(&page, "other prompts, noise and copies give the same numbers");
    assert!(axis("neighbors")["agree"]["bits"].is_null() && axis("neighbors")["first"].is_null());
    let dtype = counted(&axis("dtype")["items"]["tokens"]);
    assert_eq!((dtype.of - dtype.hits, dtype.of), (2 * 6, 16 * 6));
    says(&page, "another text than float32 on 2 of 16 items");
}

#[test]
fn what_is_said_of_approximate_arithmetic_is_so() {
    let (page, report) = (read("results/README.md"), report("approximate"));
    let against = |name: &str| {
        let against = &cell(&report, &format!("lab/{name}/sequential/t1/b8"))["against"];
        let [both, lost, gained, neither] =
            ["both", "lost", "gained", "neither"].map(|count| against["paired"][count].as_u64().unwrap());
        (Paired { both, lost, gained, neither }, against)
    };
    // In percentage points, and how likely that is by chance.
    let change = |paired: Paired, digits: usize| {
        let interval = Change::from(paired).interval(CONFIDENCE).unwrap();
        let [lower, upper] = [interval.lower, interval.upper].map(|end| format!("{:+.1}", 100.0 * end));
        format!("{lower} to {upper} pp, p = {:.digits$}", Change::from(paired).p_value())
    };
    let (lmul, others) = against("lmul");
    says(
        &page,
        &format!(
            "L-Mul loses {} of 1,024 answers and gains {} (95 %: {}), so no loss was seen, though {:.0} % of the texts are others",
            lmul.lost,
            lmul.gained,
            change(lmul, 2),
            100.0 * (1.0 - counted(&others["items"]["tokens"]).rate().unwrap())
        ),
    );
    for name in ["int8", "w8a8"] {
        let (paired, _) = against(name);
        says(&page, &format!("`{name}` loses {} and gains {}", paired.lost, paired.gained));
    }
    let (fp8, _) = against("cast:e4m3");
    says(&page, &format!("`cast:e4m3` loses {} and gains {} ({})", fp8.lost, fp8.gained, change(fp8, 5)));
    let bits = &precision(&report, "cast:e4m3")["all"]["agreement"]["bits"]["unstable"];
    says(
        &page,
        &format!(
            "{} % of its items have the same bits in all twelve cells",
            percent(1.0 - counted(bits).rate().unwrap())
        ),
    );
}

#[test]
fn the_page_on_parity_says_what_was_measured() {
    let (page, measured) = (read("docs/parity.md"), read("results/parity.txt"));
    for (row, pair) in [
        ("the lab in fp32, and candle in f32", "A B"),
        ("the lab in fp32, and transformers in f32", "A C"),
        ("the lab in fp32, and vLLM in f32", "A E"),
        ("the lab in fp32, and llama-server in f32", "A D"),
        ("the lab in fp32, and transformers in bf16", "A F"),
        ("the lab in fp32, and vLLM in bf16", "A G"),
        ("transformers in bf16, and vLLM in bf16", "F G"),
    ] {
        let line = measured.lines().find(|line| line.starts_with(&format!("{pair} "))).unwrap();
        let [.., mean, _, flips, might, off] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        says(&page, &format!("| {row} | {mean} | {flips} | {might} | {off} |"));
    }
    // Of all pairs, the places where every number is the same.
    let same = measured
        .lines()
        .filter_map(|line| line.get(3..)?.trim().strip_prefix("1,066")?.split_whitespace().next());
    assert!(same.collect::<Vec<_>>().iter().all(|same| *same == "0"));
    says(&page, "No two have one row in common");
}

#[test]
fn the_page_on_speed_says_what_was_measured_beside_other_engines() {
    let (page, measured) = (read("docs/speed.md"), read("results/peers.txt"));
    for (row, engine) in [
        ("lab, fp32", "reprocheck fp32/sequential/t2"),
        ("llama.cpp, f32", "llama.cpp f32"),
        ("transformers, f32", "transformers f32"),
        ("lab, bf16", "reprocheck bf16/sequential/t2"),
        ("lab, bf16 in `dpbf16`", "reprocheck bf16/dpbf16/t2"),
        ("llama.cpp, bf16", "llama.cpp bf16"),
        ("transformers, bf16", "transformers bf16"),
    ] {
        // The real model comes first.
        let rates = measured.lines().find_map(|line| line.strip_prefix(engine)).unwrap();
        let rates = rates.split_whitespace().map(|rate| rate.parse::<f64>().unwrap());
        // Three digits.
        let short = rates.map(|rate| {
            if rate < 100.0 { format!("{rate:.1}") } else { format!("{:.0}", (rate + 0.5).floor()) }
        });
        says(&page, &format!("| {row} | {} |", short.collect::<Vec<_>>().join(" | ")));
    }
}

#[test]
fn what_is_said_of_candle_is_so() {
    let (page, report) = (read("results/README.md"), report("candle"));
    let products = read("results/candle_matmul.txt");
    // Of a product of 896 terms: how many of 4,864 outputs differ, and the one in the middle of them.
    let [f32, f16, bf16] = ["f32", "f16", "bf16"].map(|kind| {
        let begin = format!("| {kind} | 896 | 4864 |");
        let row = products.lines().find(|line| line.starts_with(&begin)).unwrap();
        let fields: Vec<_> =
            row.split('|').map(str::trim).filter(|field| !field.is_empty()).skip(3).collect();
        assert!(fields.iter().all(|field| field == &fields[0]), "{row}");
        let (count, middle) = fields[0].split_once(" (").unwrap_or((fields[0], "0,"));
        (count.parse::<u64>().unwrap(), middle.split(',').next().unwrap().parse::<u64>().unwrap())
    });
    assert_eq!(bf16, (0, 0));
    says(
        &page,
        &format!(
            "of 4,864 outputs of 896 terms, {},{:03} have other bits in f32 ({} units of the last place in the middle), {} in f16 ({} unit) and none in bf16",
            f32.0 / 1000,
            f32.0 % 1000,
            f32.1,
            f16.0,
            f16.1
        ),
    );
    // Of each precision: items with other bits, and with another text, among the cells of an engine.
    let parts = |engine: &str, name: &str| {
        let mut rows = report["precisions"].as_array().unwrap().iter();
        let row = rows.find(|row| row["engine"] == engine && row["precision"] == name).unwrap();
        let [bits, tokens] =
            ["bits", "tokens"].map(|level| counted(&row["all"]["agreement"][level]["unstable"]));
        assert_eq!((bits.of, tokens.hits), (64, 0));
        bits.hits
    };
    says(
        &page,
        &format!(
            "`candle` in fp32 has other bits in a batch of 4 than alone on {} of 64 items, and in bf16 on {}, where the lab has the same on all",
            parts("candle", "fp32"),
            parts("candle", "bf16")
        ),
    );
    assert_eq!([parts("lab", "fp32"), parts("lab", "bf16")], [0; 2]);
    let threads = report["axes"].as_array().unwrap().iter().find(|axis| axis["axis"] == "threads").unwrap();
    assert_eq!(counted(&threads["items"]["bits"]).misses(), 0, "it is the batch alone");
}

/// The fields of each row that a benchmark drew.
fn drawn(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('│'));
    rows.map(|row| row.trim_matches('│').split('│').map(str::trim).collect())
}

#[test]
fn the_kernels_tables_say_what_the_benchmark_said() {
    let (page, measured) = (read("docs/speed.md"), read("results/kernel.txt"));
    let (_, section) = measured.split_once("K=896 N=4864 threads=1\n").unwrap();
    let section = section.split("K=").next().unwrap();
    let field = |rows: &str, precision: &str, order: &str, at: usize| -> String {
        let found = drawn(section).find(|row| row[..3] == [rows, precision, order]);
        found.unwrap_or_else(|| panic!("{rows} {precision} {order}"))[at].to_owned()
    };
    for rows in ["1", "2", "4", "8", "16", "64"] {
        let of_fp32 = |at: usize| field(rows, "fp32", "sequential", at);
        let rate = of_fp32(3).parse::<f64>().unwrap();
        let [fp32, bf16, w8a8] = ["fp32", "bf16", "w8a8"].map(|name| field(rows, name, "sequential", 5));
        says(&page, &format!("| {rows} | {rate:.0} | {} | {fp32} | {bf16} | {w8a8} |", of_fp32(4)));
    }
    let (_, orders) = page.split_once("| rows | lanes:16 |").unwrap();
    let orders: Vec<_> = format!("lanes:16 |{orders}")
        .lines()
        .next()
        .unwrap()
        .split('|')
        .map(|name| name.trim().to_owned())
        .collect();
    let longer = |rows: &str, name: &str| {
        let (precision, order) = if name == "lmul" { (name, "sequential") } else { ("fp32", name) };
        let ratio = field(rows, precision, order, 6).parse::<f64>().unwrap();
        format!("{:.1}", 1.0 / ratio)
    };
    for rows in ["1", "8", "16", "64"] {
        let names = orders.iter().filter(|name| !name.is_empty());
        let row: Vec<_> = names.map(|name| longer(rows, name)).collect();
        assert_eq!(row.len(), 9);
        says(&page, &format!("| {rows} | {} |", row.join(" | ")));
    }
    // Of all that the benchmark measured.
    let exact = drawn(&measured).filter(|row| row[1..3] == ["fp32", "exact"]);
    let least = exact.map(|row| row[6].parse::<f64>().unwrap()).fold(f64::INFINITY, f64::min);
    says(&page, &format!("`exact` up to {:.1} times `sequential`", 1.0 / least));
    // Every weight is read once, and makes two operations.
    let weights = 4.0 * 896.0 * 4864.0;
    let rate = field("1", "fp32", "sequential", 3).parse::<f64>().unwrap();
    says(&page, &format!("at one row {:.0} MB come at {:.0} GB/s", weights / 1e6, 2.0 * rate));
}

#[test]
fn the_decoders_table_says_what_the_benchmark_said() {
    let (page, measured) = (read("docs/speed.md"), read("results/decoder.txt"));
    let rates = |cell: &str| -> Vec<f64> {
        let row = drawn(&measured).find(|row| row[0] == cell).unwrap_or_else(|| panic!("{cell}"));
        row[1..].iter().map(|field| field.parse().unwrap()).collect()
    };
    for (name, cell) in [
        ("lab, fp32", "fp32/sequential/t2"),
        ("lab, bf16", "bf16/sequential/t2"),
        ("candle, F32", "candle/fp32/t2"),
        ("candle, BF16", "candle/bf16/t2"),
    ] {
        let fields: Vec<_> = rates(cell)
            .iter()
            .enumerate()
            .map(|(at, rate)| {
                // The slowest has one digit more.
                let digits = usize::from(at == 1);
                format!("{rate:.digits$}")
            })
            .collect();
        says(&page, &format!("| {name} | {} |", fields.join(" | ")));
    }
    for (name, cell) in [("two threads", "bf16/sequential/t2"), ("one thread", "bf16/sequential/t1")] {
        let row = drawn(&measured).find(|row| row[0] == cell && row[1].contains(" of ")).unwrap();
        let shares: Vec<_> = row[1..].iter().map(|field| field.split_once(": ").unwrap().1).collect();
        says(&page, &format!("| {name} | {} |", shares.join(" | ")));
    }
}

#[test]
fn what_a_trace_costs_is_what_the_benchmark_said() {
    let (page, measured) = (read("docs/speed.md"), read("results/trace.txt"));
    let shares = measured.lines().filter(|line| line.starts_with("lab/"));
    let shares = shares.map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let shares =
            fields.windows(2).filter(|pair| pair[1] == "%").map(|pair| pair[0].parse::<f64>().unwrap());
        shares.collect::<Vec<_>>()
    });
    let shares: Vec<_> = shares.collect();
    let range = |at: usize| {
        let of = shares.iter().map(|row| row[at]);
        let (least, most) = (of.clone().fold(f64::INFINITY, f64::min), of.fold(0.0, f64::max));
        format!("{least:.0} to {most:.0} %")
    };
    says(&page, &format!("they take {}, and scoring and writing the trace {} more", range(0), range(1)));
}

#[test]
fn what_is_said_of_certificates_is_what_they_say() {
    let (page, all) = (read("results/README.md"), read("results/certificates.txt"));
    let mut cells = 0;
    for certificate in all.split("$ reprocheck certify ").skip(1) {
        let (command, told) = certificate.split_once('\n').unwrap();
        let cell = command.split(' ').nth(1).unwrap();
        let own = if command.ends_with(" --own") { ", `--own`" } else { "" };
        let rows = told.split_once("Held against cells that ran\n").unwrap().1.lines().skip(1);
        let mut counts = [0_u64; 5];
        for row in rows.take_while(|row| !row.is_empty()) {
            let row = row.split_whitespace().skip(1).map(|count| count.parse::<u64>().unwrap());
            counts.iter_mut().zip(row).for_each(|(all, one)| *all += one);
            cells += u64::from(own.is_empty());
        }
        let [parted, foreseen, missed, absent, untold] = counts;
        assert_eq!((missed, absent, foreseen + untold), (0, 0, parted), "{command}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{cell}`{own} |"))).expect(command);
        assert!(row.ends_with(&format!("| {parted} | {foreseen} | {untold} |")), "{row}");
        let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let settled = row.split(" | ").nth(2).unwrap().split(" (").next().unwrap();
        let said = [format!("{settled} answers change in none"), "none of 1,024 answers changes".to_owned()];
        assert!(said.iter().any(|said| words.contains(said)), "{row}");
        assert!(!words.contains("none of 1,024 answers changes") || settled == "1,024 of 1,024", "{row}");
    }
    says(&page, &format!("No answer of these {cells} cells parts at a certified token"));
}

#[test]
fn every_prompt_at_the_border_is_one_that_orders_part() {
    let lines = read("suites/border/probes.jsonl");
    let ids: std::collections::BTreeSet<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), lines.lines().count()), (80, 80));
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let matrix = format!(
        "suites = [\"{}\"]\n[reference]\nprecision = \"bf16\"\norder = \"sequential\"\n[matrix]\nprecision = \"bf16\"\norder = \
         [\"lanes:16\", \"reversed\", \"pairwise\", \"blocks:64\", \"split-k:4\", \"shuffled:7\", \"kahan\", \"neumaier\", \"dpbf16\", \
         \"exact\"]\n",
        root.join("suites/border").display()
    );
    fs::write(folder.path().join("m.toml"), matrix).unwrap();
    let program = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        command.args(args).current_dir(folder.path()).output().unwrap()
    };
    program(&["run", "--model", "qwen", "--matrix", "m.toml", "--out", "r"]);
    let report: Value =
        serde_json::from_slice(&program(&["report", "r", "--format", "json"]).stdout).unwrap();
    let same = &report["precisions"][0]["all"]["agreement"]["tokens"]["unstable"];
    assert_eq!(counted(same), Proportion { hits: 77, of: 80 });
    let others: Vec<u64> = report["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|cell| cell["against"]["items"]["tokens"].as_object())
        .map(|tokens| tokens["of"].as_u64().unwrap() - tokens["hits"].as_u64().unwrap())
        .collect();
    assert_eq!((others.iter().min(), others.iter().max(), others.len()), (Some(&22), Some(&39), 10));
    says(&read("docs/certify.md"), "gives another first token to 22 to 39 of them");
    says(&read("docs/certify.md"), "All but three of the 80 part in one of the ten");
}

#[test]
fn what_is_said_of_formats_is_so() {
    let (page, formats, replayed) = (read("results/README.md"), report("formats"), report("replayed"));
    let grouped = |number: u64| {
        let digits = number.to_string();
        let parts = digits.as_bytes().rchunks(3).rev().map(|part| std::str::from_utf8(part).unwrap());
        parts.collect::<Vec<_>>().join(",")
    };
    let names: Vec<_> = formats["precisions"].as_array().unwrap().iter().collect();
    let cell_of = |precision: &str| format!("lab/{precision}/sequential/t1/b8");
    let paired = |precision: &str| {
        let paired = &cell(&formats, &cell_of(precision))["against"]["paired"];
        let [both, lost, gained, neither] =
            ["both", "lost", "gained", "neither"].map(|count| paired[count].as_u64().unwrap());
        Paired { both, lost, gained, neither }
    };
    let change = |paired: Paired| {
        let interval = Change::from(paired).interval(CONFIDENCE).unwrap();
        let [lower, upper] = [interval.lower, interval.upper].map(|end| format!("{:+.1}", 100.0 * end));
        format!("{lower} to {upper}")
    };
    let others = |precision: &str| {
        let best = counted(&cell(&replayed, &cell_of(precision))["against"]["best"]);
        Proportion { hits: best.misses(), of: best.of }
    };
    let shares = |share: Proportion| {
        let interval = share.wilson(CONFIDENCE).unwrap();
        format!(
            "{:.2} % ({:.2} to {:.2})",
            100.0 * share.rate().unwrap(),
            100.0 * interval.lower,
            100.0 * interval.upper
        )
    };
    let rows = names.iter().map(|row| {
        let precision = row["precision"].as_str().unwrap();
        let (one, paired) = (cell(&formats, &cell_of(precision)), paired(precision));
        let right = counted(&one["accuracy"]);
        format!(
            "| `{precision}` | {} | {} % | {} and {} | {} | {} | {:.1e} |",
            grouped(one["cost"]["weight_bytes"].as_u64().unwrap()),
            percent(right.rate().unwrap()),
            paired.lost,
            paired.gained,
            change(paired),
            shares(others(precision)),
            cell(&replayed, &cell_of(precision))["against"]["divergence"].as_f64().unwrap(),
        )
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 30);
    for row in &rows {
        assert!(page.contains(row), "the page lacks\n{}", rows.join("\n"));
    }
    // What the paper on L-Mul says, held in tokens that change and in answers.
    let pairs = [
        ("lmul:m=4,scope=attention", "map:fp32;scores,context=cast:e4m3"),
        ("lmul:m=3,scope=attention", "map:fp32;scores,context=cast:e5m2"),
        ("lmul:m=3", "cast:e4m3,sum=e4m3"),
    ];
    for (lmul, cast) in pairs {
        says(
            &page,
            &format!("{} of the tokens, and the cast {}", shares(others(lmul)), shares(others(cast))),
        );
        let interval = |precision| others(precision).wilson(CONFIDENCE).unwrap();
        assert!(interval(lmul).upper < interval(cast).lower, "{lmul}");
        assert!(paired(lmul).lost < paired(cast).lost, "{lmul}");
    }
    // No quantizer minds the batch, and int8 does.
    for name in &names {
        let precision = name["precision"].as_str().unwrap();
        let [alone, beside] = ["t1/b1", "t1/b8"]
            .map(|end| &cell(&formats, &format!("lab/{precision}/sequential/{end}"))["root"]);
        assert_eq!(alone == beside, precision != "int8", "{precision}");
    }
    says(&page, "All but `int8` have the same bits in a batch of 1 and of 8");
}

#[test]
fn what_is_said_of_formats_on_a_real_model_is_so() {
    let (page, free, replayed) =
        (read("results/README.md"), report("served/free"), report("served/replayed"));
    let cells = replayed["cells"].as_array().unwrap().iter().filter(|row| !row["against"].is_null());
    let rows: Vec<String> = cells
        .map(|row| {
            let name = row["cell"].as_str().unwrap();
            let one = cell(&free, name);
            let (right, same) = (counted(&one["accuracy"]), counted(&one["against"]["items"]["tokens"]));
            let best = counted(&row["against"]["best"]);
            let other = Proportion { hits: best.misses(), of: best.of };
            let interval = other.wilson(CONFIDENCE).unwrap();
            format!(
                "| {} of {} | {} of {} | {} % ({} to {}) | {:.1e} |",
                right.hits,
                right.of,
                same.misses(),
                same.of,
                percent(other.rate().unwrap()),
                percent(interval.lower),
                percent(interval.upper),
                row["against"]["divergence"].as_f64().unwrap()
            )
        })
        .collect();
    assert_eq!(rows.len(), 16);
    for row in &rows {
        assert!(page.contains(row), "the page lacks\n{}", rows.join("\n"));
    }
    let right = counted(&cell(&free, "lab/fp32/sequential/t2/b16")["accuracy"]);
    says(&page, &format!("{} of {} answers is right under f32", right.hits, right.of));
}

/// One cause alone: what it is, and the cells that have it, under a GPU's matrix unit and in ordinary sums. `R` is how many ranks share
/// the model.
const CAUSES: [(&str, &str, &str); 15] = [
    ("another unit, `mma:a100`; `lanes:32`", "mma:a100/t2/b8", "lanes:32/t2/b8"),
    ("K in 4 parts, `split-k:4`", "split-k:4+mma:h100/t2/b8", "split-k:4/t2/b8"),
    ("K by the rows, `split-k:rows`", "split-k:rows+mma:h100/t2/b8", "split-k:rows/t2/b8"),
    ("the same at batch 1", "split-k:rows+mma:h100/t2/b1", "split-k:rows/t2/b1"),
    ("nothing but batch 1", "mma:h100/t2/b1", "sequential/t2/b1"),
    ("ranks, `tree`", "mma:h100/t2/tpR/b8", "sequential/t2/tpR/b8"),
    ("ranks, `ring`", "mma:h100/t2/tpR/ring/b8", "sequential/t2/tpR/ring/b8"),
    ("ranks, `one-shot`", "mma:h100/t2/tpR/one-shot/b8", "sequential/t2/tpR/one-shot/b8"),
    ("ranks, `ring:bf16`", "mma:h100/t2/tpR/ring:bf16/b8", "sequential/t2/tpR/ring:bf16/b8"),
    ("`functions = libm`", "mma:h100/t2/fn:libm/b8", "sequential/t2/fn:libm/b8"),
    ("`functions = poly:5`", "mma:h100/t2/fn:poly:5/b8", "sequential/t2/fn:poly:5/b8"),
    ("`functions = exp2-fast`", "mma:h100/t2/fn:exp2-fast/b8", "sequential/t2/fn:exp2-fast/b8"),
    ("`attention = online:64`", "mma:h100/t2/online:64/b8", "sequential/t2/online:64/b8"),
    ("`attention = split-kv:4`", "mma:h100/t2/split-kv:4/b8", "sequential/t2/split-kv:4/b8"),
    ("`attention = split-kv:rows`", "mma:h100/t2/split-kv:rows/b8", "sequential/t2/split-kv:rows/b8"),
];

#[test]
fn what_one_cause_alone_moves_is_what_the_runs_said() {
    let page = read("results/README.md");
    // The share that is not the same, in percent, and where it may lie.
    let moved = |share: &Value| {
        let same = counted(share);
        let moved = Proportion { hits: same.of - same.hits, of: same.of };
        let interval = moved.wilson(CONFIDENCE).unwrap();
        let [lower, upper] = [interval.lower, interval.upper].map(percent);
        format!("{} ({lower} to {upper})", percent(moved.rate().unwrap()))
    };
    for (model, ranks) in [("", "4"), ("smollm2-", "3")] {
        let reports = ["bf16", "fp32", "layercast"]
            .map(|precision| (precision, report(&format!("causes/{model}{precision}"))));
        let against = |precision: usize, (_, of_unit, ordinary): (&str, &str, &str)| {
            let (name, report) = &reports[precision];
            let rest = if *name == "bf16" { of_unit } else { ordinary };
            &cell(report, &format!("lab/{name}/{}", rest.replace("tpR", &format!("tp{ranks}"))))["against"]
        };
        for cause in CAUSES {
            let cells = [0, 1, 2].map(|precision| {
                let against = against(precision, cause);
                let logits = counted(&against["places"]);
                let [tokens, answers] = ["tokens", "answers"].map(|level| moved(&against["items"][level]));
                format!("{} | {tokens} | {answers}", percent(1.0 - logits.rate().unwrap()))
            });
            let row = format!("| {} | {} |", cause.0, cells.join(" | "));
            assert!(page.contains(&row), "the page lacks\n{row}");
        }
        let others = |precision: usize, cause| {
            let same = counted(&against(precision, cause)["items"]["tokens"]);
            Proportion { hits: same.of - same.hits, of: same.of }
        };
        // Without rounding to 16 bits on the way, and but for an exponential that is none, no text moves in f32.
        for cause in CAUSES {
            let is_coarse = cause.0.contains("ring:bf16") || cause.0.contains("exp2-fast");
            let moves = [0, 1, 2].map(|precision| others(precision, cause).hits > 0);
            assert_eq!(moves, [!cause.0.contains("nothing but"), is_coarse, is_coarse], "{}", cause.0);
        }
        if model == "smollm2-" {
            let causes = CAUSES.into_iter().filter(|cause| !cause.0.contains("nothing but"));
            let shares: Vec<_> = causes.map(|cause| others(0, cause)).collect();
            let rates = shares.iter().map(|share| share.rate().unwrap());
            let [low, high] = [rates.clone().fold(1.0, f64::min), rates.fold(0.0, f64::max)].map(percent);
            says(&page, &format!("each cause moves from {low} to {high} % of these texts"));
            let intervals: Vec<_> = shares.iter().map(|share| share.wilson(CONFIDENCE).unwrap()).collect();
            let lowest = intervals.iter().map(|interval| interval.upper).fold(1.0, f64::min);
            assert!(intervals.iter().all(|interval| interval.lower < lowest), "two intervals are apart");
        }
    }
}
