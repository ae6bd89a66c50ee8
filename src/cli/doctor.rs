//! `reprocheck doctor`: what this machine is, whether it computes as it should, and what is within its reach.

use std::{
    fs::{self, File},
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tabled::builder::Builder;

use super::{Ended, Exit};
use crate::{
    cell::ENGINES,
    engine::environment,
    model::hub::{self, HubError, HubSettings, Ping},
    numerics::{
        Numerics,
        kernel::{At, Definition, Fast, Isa, Kernel, matmul},
        pairs,
        precision::Precision,
        random::Stream,
    },
    report::{text::aligned, words::wrapped},
    store::shared::NEEDS,
};

#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Do not ask the Hub whether it is there
    #[arg(long)]
    offline: bool,
    /// See whether several machines may share a run in a folder, and which schedulers are there: run it on a node, with the folder that
    /// parts will write to
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        writeln!(out, "reprocheck {}\n", env!("CARGO_PKG_VERSION"))?;
        let isas = Isa::available();
        let checked = self_check(&isas);
        let settings = HubSettings::from_environment();
        let cache = &settings.cache;
        let cache_state = cache_state(cache);
        let hub = self.hub(&settings);

        let mut table = Builder::default();
        let mut row = |name: &str, value: &str| table.push_record([name, &wrapped(value, VALUE)]);
        row("processor", &environment::processor().unwrap_or_else(|| "unknown".to_owned()));
        row("features", &features());
        row("kernel", &kernel(&isas));
        row(
            "self-check",
            &match &checked {
                Ok(products) => {
                    format!("{products} products per instruction set, each with the bits of its definition")
                }
                Err(_) => "FAILED".to_owned(),
            },
        );
        row(
            "threads",
            &thread::available_parallelism()
                .map_or_else(|_| "unknown".to_owned(), |threads| threads.to_string()),
        );
        let engines: Vec<_> = ENGINES.iter().map(|entry| entry.name).collect();
        row("engines", &engines.join(", "));
        row("memory", &memory().unwrap_or_else(|| "unknown".to_owned()));
        row("cache", &format!("{}: {}", cache.display(), cache_state.as_ref().map_or("not usable", |s| s)));
        row("Hub", &hub.as_ref().map_or_else(|_| "not within reach".to_owned(), Clone::clone));
        writeln!(out, "{}", aligned(table, []))?;

        let lacking = self.cluster.as_deref().map(|folder| shared(folder, out)).transpose()?;
        for trouble in [cache_state.err(), hub.err()].into_iter().flatten() {
            writeln!(out, "\n{}.", wrapped(&format!("{trouble:#}"), SENTENCE))?;
        }
        out.flush()?;
        checked.map_err(Ended::environment)?;
        lacking.flatten().map_or(Ok(Exit::Held), |lacking| Err(Ended::environment(lacking)))
    }

    fn hub(&self, settings: &HubSettings) -> Result<String, anyhow::Error> {
        if !cfg!(feature = "hub") {
            return Ok("not in this build: models come from folders".to_owned());
        }
        if settings.offline {
            return Ok("not asked, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set".to_owned());
        }
        if self.offline {
            return Ok("not asked, because of --offline".to_owned());
        }
        hub_reachable(settings)
    }
}

/// So wide that a row fits a terminal of 80 columns, and a sentence.
const VALUE: usize = 66;
const SENTENCE: usize = 80;

// --------------------------------------------------------------------------------------------- the processor

/// Lists those of these features that are there.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! detected {
    ($detected:ident, $($feature:tt)*) => {
        [$(($feature, std::arch::$detected!($feature))),*]
    };
}

/// The features of the processor that can matter to the speed of this program, and to no bit of it.
fn features() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = detected!(
        is_x86_feature_detected,
        "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "sha"
    );
    #[cfg(target_arch = "aarch64")]
    let features = detected!(is_aarch64_feature_detected, "neon" "fp16" "bf16" "dotprod" "i8mm" "sve" "sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let there: Vec<_> = features.into_iter().filter_map(|(name, there)| there.then_some(name)).collect();
    if there.is_empty() { "none that matters".to_owned() } else { there.join(" ") }
}

fn kernel(isas: &[Isa]) -> String {
    let others: Vec<_> = isas.iter().skip(1).map(ToString::to_string).collect();
    let also = if others.is_empty() { String::new() } else { format!(" (and can do {})", others.join(", ")) };
    format!("{}{also}", Isa::best())
}

// -------------------------------------------------------------------------------------------- the self-check

const ROWS: usize = 3;
const COLUMNS: usize = 37;
const DEPTH: usize = 67;

/// Every precision in every order, on each of these instruction sets: how many products that were, on one of
/// them, or the first that is not what its definition says.
fn self_check(isas: &[Isa]) -> Result<usize, anyhow::Error> {
    let mut products = 0;
    for (precision, order) in pairs() {
        let numerics = Numerics::new(precision, order, NonZeroUsize::MIN)?;
        let expected = product(&Definition { numerics }, precision);
        for &isa in isas {
            let kernel = Fast::on(isa, numerics).context("cannot start the threads of a kernel")?;
            agree(&kernel, isa, &expected)?;
        }
        products += 1;
    }
    Ok(products)
}

/// Does this kernel, on these vectors, give these bits?
fn agree(kernel: &impl Kernel, isa: Isa, expected: &[f32]) -> Result<(), anyhow::Error> {
    let numerics = kernel.numerics();
    let given = product(kernel, numerics.precision());
    let Some(at) = given.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits()) else {
        return Ok(());
    };
    bail!(
        "the {isa} kernel gives {:#010x} where the definition of {numerics} has {:#010x}: this build on this processor \
         must not be relied on, please report it with the table above",
        given[at].to_bits(),
        expected[at].to_bits(),
    )
}

/// One product of numbers that are the same everywhere.
fn product(kernel: &impl Kernel, precision: Precision) -> Vec<f32> {
    let mut stream = Stream::new(0, 0);
    let mut number = || (2.0 * stream.unit() - 1.0) as f32;
    let activations: Vec<_> = (0..ROWS * DEPTH).map(|_| number()).collect();
    let site = precision.own_site();
    let weights = kernel.pack(At::alone(site), COLUMNS, DEPTH, &mut |_: usize, terms: &mut [f32]| {
        terms.fill_with(&mut number)
    });
    let mut out = vec![0.0; ROWS * COLUMNS];
    matmul(kernel, site, &activations, ROWS, &weights, &mut out);
    out
}

// ------------------------------------------------------------------------------------------ memory and cache

/// How much there is and how much of it is left, where the system tells.
fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let gibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes / f64::from(1 << 20))
    };
    Some(format!("{:.1} GiB, {:.1} GiB of it available", gibibytes("MemTotal")?, gibibytes("MemAvailable")?))
}

/// Can the folder in which models of the Hub are kept be written to, or made?
fn cache_state(cache: &Path) -> Result<&'static str, anyhow::Error> {
    let there = cache.ancestors().find(|folder| folder.exists());
    let there = there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    try_to_write(there).with_context(|| {
        format!(
            "cannot write to the cache at {}, so nothing can be downloaded: make the folder writable, or set \
             HF_HUB_CACHE to another; models in folders work without it",
            cache.display()
        )
    })?;
    Ok(if there == cache { "writable" } else { "not there yet, made when needed" })
}

/// A file that comes and goes: permissions alone do not tell.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".reprocheck-doctor-{}", process::id()));
    File::create_new(&file)?;
    fs::remove_file(file)
}

// ------------------------------------------------------------------------------------------------- a cluster

/// What a scheduler is asked for its version.
const SCHEDULERS: [(&str, &[&str]); 3] =
    [("sbatch", &["--version"]), ("snakemake", &["--version"]), ("kubectl", &["version", "--client"])];

/// What a folder that parts are to share can do, and what is there to run them; what is lacking, if anything is.
fn shared(folder: &Path, out: &mut impl Write) -> Result<Option<anyhow::Error>, Ended> {
    let mut table = Builder::default();
    let mut lacking = None;
    for need in &NEEDS {
        let tried = need.tried(folder);
        table.push_record([need.name.to_owned(), tried.as_ref().map_or("NO", |()| "yes").to_owned()]);
        if let Err(error) = tried
            && lacking.is_none()
        {
            let folder = folder.display();
            lacking = Some(anyhow!("{folder} cannot be shared ({}: {error}): {}", need.name, need.otherwise));
        }
    }
    for (program, arguments) in SCHEDULERS {
        let asked = process::Command::new(program).args(arguments).output();
        let version = asked.ok().filter(|asked| asked.status.success()).map(|asked| {
            String::from_utf8_lossy(&asked.stdout).lines().next().unwrap_or_default().trim().to_owned()
        });
        table.push_record([program.to_owned(), version.unwrap_or_else(|| "not found".to_owned())]);
    }
    let program = super::program()?;
    table.push_record(["this program".to_owned(), format!("{}: nodes need it there", program.display())]);
    writeln!(out, "\n{}", aligned(table, []))?;
    Ok(lacking)
}

// --------------------------------------------------------------------------------------------------- the Hub

const PATIENCE: Duration = Duration::from_secs(10);

fn hub_reachable(settings: &HubSettings) -> Result<String, anyhow::Error> {
    let endpoint = &settings.endpoint;
    let way_out =
        "check the network, the proxy and HF_ENDPOINT; models in folders and in the cache work without it";
    match hub::ping(settings, PATIENCE) {
        Ok(Ping::Known) => Ok(format!("{endpoint} answers and accepts the token")),
        Ok(Ping::Stranger) => {
            Ok(format!("{endpoint} answers; no token that it accepts, which only gated models need"))
        }
        // Whatever it says, it is there.
        Ok(Ping::Answers(status)) => Ok(format!("{endpoint} answers: {status}")),
        Err(HubError::NotAHub { .. }) => bail!("{endpoint} answers, but not as a Hub does: {way_out}"),
        Err(HubError::Unreachable { why, .. }) => bail!("{endpoint} cannot be reached ({why}): {way_out}"),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::kernel::{Faulty, KernelFault};

    #[test]
    fn the_self_check_sees_a_broken_kernel() {
        let numerics: Numerics = "fp32/sequential/t1".parse().unwrap();
        let expected = product(&Definition { numerics }, numerics.precision());
        for isa in Isa::available() {
            let kernel = Fast::on(isa, numerics).unwrap();
            assert!(agree(&kernel, isa, &expected).is_ok(), "{isa}");
            for fault in KernelFault::OF_SUMS {
                let kernel = Faulty::new(numerics, fault, None, |numerics| Fast::on(isa, numerics)).unwrap();
                let complaint = agree(&kernel, isa, &expected).unwrap_err().to_string();
                let begins = format!("the {isa} kernel gives 0x");
                assert!(
                    complaint.starts_with(&begins) && complaint.contains("fp32/sequential/t1"),
                    "{complaint}"
                );
            }
        }
    }

    #[test]
    fn the_self_check_passes_over_every_precision_and_order() {
        assert_eq!(self_check(&Isa::available()).unwrap(), pairs().len());
    }
}
