//! Seeded faults: a matrix runs once with each of them, and each has an observer that must see it.

use std::{fmt, path::Path, sync::Arc, sync::atomic::AtomicBool};

use serde::Serialize;

use super::{
    Options, Present, RunFailure,
    review::{self, Reviewed},
};
use crate::{
    cell::Axis,
    engine::{
        Engines,
        faulty::{EngineFault, FaultyEngines, When, Witness},
    },
    model::Subject,
    numerics::kernel::KernelFault,
    plan::{
        Plan,
        gate::{Comparison, Gate, Limit},
    },
    source::Blame,
    store::{
        faulty::{StoreFault, spoil},
        run::RunError,
    },
    verdict::{Outcome, Ruling},
};

/// A fault: a row of [`FAULTS`].
pub struct FaultEntry {
    /// What it is called.
    pub name: &'static str,
    /// What is wrong, as a sentence says it.
    pub sentence: &'static str,
    /// Where it lies.
    pub defect: Defect,
    /// When it shows.
    pub when: When,
    /// Who must see it.
    pub observer: Observer,
}

/// Where a fault lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// In the lab, its kernel or how it serves.
    Engine(EngineFault),
    /// In what is stored of a run.
    Store(StoreFault),
}

/// Who sees a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observer {
    /// A gate that lets this axis vary, and wants cells to be alike.
    Alike(Axis),
    /// A gate that lets it vary, and wants cells to differ.
    Differ(Axis),
    /// A gate that lets it vary, and cannot pass where it made no difference to what ran.
    Exercised(Axis),
    /// A gate that holds cells to what was approved.
    Baseline,
    /// Whoever reads the run again.
    Reading,
}

impl Observer {
    /// Is this the gate?
    fn is(self, gate: &Gate) -> bool {
        let varies =
            |axis: Axis| matches!(&gate.comparison, Comparison::Within(vary) if vary.contains(&axis));
        let differ = gate.limits.contains(&Limit::Diverges);
        match self {
            Observer::Alike(axis) | Observer::Exercised(axis) => varies(axis) && !differ,
            Observer::Differ(axis) => varies(axis) && differ,
            Observer::Baseline => gate.comparison == Comparison::Baseline,
            Observer::Reading => false,
        }
    }

    /// Does the gate say what this observer says of a fault?
    fn sees(self, sound: Outcome, faulty: Outcome) -> bool {
        match self {
            Observer::Exercised(_) => sound == Outcome::Pass && faulty == Outcome::Unknown,
            _ => sound != Outcome::Fail && faulty == Outcome::Fail,
        }
    }

    /// What a matrix needs for it.
    fn way_out(self) -> String {
        match self {
            Observer::Alike(axis) => format!("vary `{axis}` and require bits"),
            Observer::Differ(axis) => {
                format!("vary `{axis}` where it must move something, and expect that cells differ")
            }
            Observer::Exercised(axis) => format!("vary `{axis}` and require bits, with enough to do for it"),
            Observer::Baseline => "approve a run, and hold the next ones `against` the baseline".to_owned(),
            Observer::Reading => "read the run again with `reprocheck report`".to_owned(),
        }
    }
}

impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observer::Alike(axis) => write!(f, "alike across {axis}"),
            Observer::Differ(axis) => write!(f, "different across {axis}"),
            Observer::Exercised(axis) => write!(f, "{axis} was exercised"),
            Observer::Baseline => f.write_str("as approved"),
            Observer::Reading => f.write_str("read again"),
        }
    }
}

const fn kernel(
    name: &'static str,
    sentence: &'static str,
    fault: KernelFault,
    when: When,
    observer: Observer,
) -> FaultEntry {
    FaultEntry { name, sentence, defect: Defect::Engine(EngineFault::Kernel(fault)), when, observer }
}

const fn engine(
    name: &'static str,
    sentence: &'static str,
    fault: EngineFault,
    when: When,
    observer: Observer,
) -> FaultEntry {
    FaultEntry { name, sentence, defect: Defect::Engine(fault), when, observer }
}

const fn store(
    name: &'static str,
    sentence: &'static str,
    fault: StoreFault,
    observer: Observer,
) -> FaultEntry {
    FaultEntry { name, sentence, defect: Defect::Store(fault), when: When::Always, observer }
}

/// Every fault that is tried.
pub const FAULTS: &[FaultEntry] = &[
    kernel(
        "dropped-term",
        "the last term of every sum is dropped",
        KernelFault::DropsLastTerm,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "thread-order",
        "threads add in another order than one thread",
        KernelFault::AddsInAnotherOrder,
        When::OnThreads,
        Observer::Alike(Axis::Threads),
    ),
    kernel(
        "batch-order",
        "a batch adds in another order than one prompt",
        KernelFault::AddsInAnotherOrder,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    kernel(
        "partial-sum-twice",
        "the partial sum of the last thread is added twice",
        KernelFault::CountsLastTermTwice,
        When::OnThreads,
        Observer::Alike(Axis::Threads),
    ),
    kernel(
        "launch-ignored",
        "an order that follows the launch is carried out as for one row",
        KernelFault::IgnoresLaunch,
        When::Always,
        Observer::Differ(Axis::Batch),
    ),
    kernel(
        "stale-key",
        "of every fourth key the one before stays in the cache",
        KernelFault::KeepsKey,
        When::InParts,
        Observer::Alike(Axis::PrefillChunk),
    ),
    kernel(
        "mask-off-by-one",
        "the softmax of attention sees a key too many",
        KernelFault::LooksAhead,
        When::Always,
        Observer::Alike(Axis::PrefillChunk),
    ),
    kernel(
        "query-of-neighbor",
        "keys meet the queries of the neighbor",
        KernelFault::ReadsNeighbor,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    kernel(
        "position-off-by-one",
        "a token has the position of the one before it",
        KernelFault::TurnsLate,
        When::Always,
        Observer::Alike(Axis::PrefillChunk),
    ),
    kernel(
        "rounding-toward-zero",
        "products round toward zero",
        KernelFault::RoundsTowardZero,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "flushed-subnormals",
        "subnormal results are flushed to zero",
        KernelFault::FlushesSubnormals,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "bf16-for-fp32",
        "bfloat16 stands in for the precision that is declared",
        KernelFault::ComputesInBf16,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "flipped-bit",
        "a bit of the last row is flipped in every product of a batch",
        KernelFault::FlipsBit,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    kernel(
        "scale-of-neighbor",
        "each column of weights has the scale of the next",
        KernelFault::ScalesByNeighbor,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "lost-update",
        "the residual stream misses the last update",
        KernelFault::LosesUpdate,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "lost-epsilon",
        "norms add nothing to the mean square",
        KernelFault::LosesEpsilon,
        When::Always,
        Observer::Baseline,
    ),
    kernel(
        "skipped-operation",
        "what threads should share is not carried out",
        KernelFault::SkipsOperation,
        When::OnThreads,
        Observer::Alike(Axis::Threads),
    ),
    engine(
        "samples-swapped",
        "two samples of a batch change places",
        EngineFault::SwapsSamples,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    engine(
        "seed-ignored",
        "every seed draws the same",
        EngineFault::IgnoresSeed,
        When::Always,
        Observer::Differ(Axis::Seed),
    ),
    engine(
        "temperature-ignored",
        "the best token is taken whatever the temperature",
        EngineFault::IgnoresTemperature,
        When::Always,
        Observer::Differ(Axis::Seed),
    ),
    engine(
        "noise-of-place",
        "the noise of a draw follows the place in the batch",
        EngineFault::DrawsByPlace,
        When::Always,
        Observer::Alike(Axis::Batch),
    ),
    engine(
        "batch-ignored",
        "every prompt is decoded alone whatever the batch",
        EngineFault::IgnoresBatch,
        When::Always,
        Observer::Exercised(Axis::Batch),
    ),
    engine(
        "threads-ignored",
        "one thread does the work of all",
        EngineFault::IgnoresThreads,
        When::Always,
        Observer::Exercised(Axis::Threads),
    ),
    engine(
        "stop-ignored",
        "a sample of a batch goes on after its stop token",
        EngineFault::IgnoresStop,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    engine(
        "token-repeated",
        "a token comes twice after its cache was evicted",
        EngineFault::RepeatsToken,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    engine(
        "late-digest",
        "a token is filed with the digest of the one before",
        EngineFault::FilesLateDigest,
        When::InCompany,
        Observer::Alike(Axis::Batch),
    ),
    engine(
        "state-of-start",
        "a second start computes in another way than the first",
        EngineFault::RemembersStart,
        When::Always,
        Observer::Alike(Axis::Repeat),
    ),
    engine(
        "stale-page",
        "pages of a prefix cache are used again for prompts that begin otherwise",
        EngineFault::KeepsPages,
        When::FromPages,
        Observer::Alike(Axis::Cache),
    ),
    store("trace-cut", "a trace ends before its end", StoreFault::EndsEarly, Observer::Reading),
    store("byte-flipped", "a bit of a trace is flipped", StoreFault::FlipsBit, Observer::Reading),
    store(
        "answer-of-another",
        "an answer is taken from another item, and every digest mended",
        StoreFault::TakesAnotherAnswer,
        Observer::Reading,
    ),
    store(
        "items-swapped",
        "two items of a trace change places, and every digest is mended",
        StoreFault::SwapsItems,
        Observer::Baseline,
    ),
];

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its observer saw it.
    Killed,
    /// Others saw it, and its observer did not.
    WrongReason,
    /// It ran and changed something, and was not seen.
    Survived,
    /// It ran, and changed nothing.
    Harmless,
    /// It never ran.
    Idle,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Killed => "killed",
            Fate::WrongReason => "killed for the wrong reason",
            Fate::Survived => "survived",
            Fate::Harmless => "changed nothing",
            Fate::Idle => "did not run",
        })
    }
}

/// A fault that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tried {
    /// What it is called.
    pub name: &'static str,
    /// What was wrong.
    pub sentence: &'static str,
    /// Who must see it.
    pub observer: String,
    /// What became of it.
    pub fate: Fate,
    /// How often its code ran.
    pub ran: u64,
    /// How many samples were others because of it.
    pub changed: u64,
    /// Who saw it, the observer first: names of gates, or what the reading said.
    pub seen_by: Vec<String>,
    /// What the matrix lacks, where the observer did not see it.
    pub lacks: Option<String>,
}

/// The power of a matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SelfTest {
    /// How many faults their observers saw.
    pub killed: usize,
    /// Of so many.
    pub of: usize,
    /// Each of them.
    pub faults: Vec<Tried>,
}

/// Why a matrix cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// It does not run.
    #[error(transparent)]
    Run(#[from] RunFailure),
    /// What it left cannot be read.
    #[error(transparent)]
    Read(#[from] RunError),
    /// Without a fault a gate does not hold.
    #[error(
        "without any fault gate `{gate}` is {outcome}: {why}; mend the matrix first, or it sees what is not there"
    )]
    Unsound {
        /// Which.
        gate: String,
        /// What became of it.
        outcome: Outcome,
        /// Its first finding.
        why: String,
    },
}

impl Blame for SelfTestError {
    fn is_environment(&self) -> bool {
        match self {
            SelfTestError::Run(error) => error.is_environment(),
            SelfTestError::Read(error) => error.is_environment(),
            SelfTestError::Unsound { .. } => false,
        }
    }
}

/// Runs a plan without a fault and then with each, in folders within this one, and tells of each fault when it was tried. Gates
/// against the baseline are held to the run without a fault.
///
/// # Errors
///
/// When the plan does not run, or a gate of it does not hold without a fault.
pub fn selftest(
    plan: &Plan,
    subject: &Subject<'_>,
    engines: Engines<'_>,
    (folder, matrix): (&Path, &str),
    stop: &Arc<AtomicBool>,
    told: &mut dyn FnMut(&Tried),
) -> Result<SelfTest, SelfTestError> {
    let all = Options::of_all(folder.to_owned(), Present::Replace, (matrix.to_owned(), None));
    let options = Options { stop: stop.clone(), ..all };
    super::run(plan, subject, &engines, &options, &mut |_| {})?;
    let Reviewed { baseline, .. } = review::review(folder, None)?;
    let sound = review::review(folder, Some(&baseline))?.report.rulings;
    if let Some(ruling) = sound.iter().find(|ruling| ruling.outcome != Outcome::Pass) {
        return Err(SelfTestError::Unsound {
            gate: ruling.gate.clone(),
            outcome: ruling.outcome,
            why: ruling.findings.first().map_or_else(String::new, |finding| finding.sentence.clone()),
        });
    }
    let mut faults = Vec::new();
    for entry in FAULTS {
        let (ran, changed) = match entry.defect {
            Defect::Engine(fault) => {
                let opener = FaultyEngines { engines, fault, when: entry.when, witness: Witness::default() };
                super::run(plan, subject, &opener, &options, &mut |_| {})?;
                (opener.witness.ran(), opener.witness.changed())
            }
            Defect::Store(fault) => {
                super::run(plan, subject, &engines, &options, &mut |_| {})?;
                spoil(folder, fault)?;
                (1, 1)
            }
        };
        let tried = entry.judge(plan, &sound, review::review(folder, Some(&baseline)), (ran, changed));
        told(&tried);
        faults.push(tried);
    }
    let killed = faults.iter().filter(|tried| tried.fate == Fate::Killed).count();
    Ok(SelfTest { killed, of: faults.len(), faults })
}

impl FaultEntry {
    /// What became of it, by what the gates say without it and with it.
    fn judge(
        &self,
        plan: &Plan,
        sound: &[Ruling],
        read: Result<Reviewed, RunError>,
        (ran, changed): (u64, u64),
    ) -> Tried {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        match read {
            Err(error) => {
                let seen = if self.observer == Observer::Reading { &mut own } else { &mut others };
                seen.push(error.to_string());
            }
            Ok(Reviewed { report, .. }) => {
                // What cannot be read of one cell is told beside the rulings.
                if self.observer == Observer::Reading {
                    own.extend(report.missing.iter().map(|missing| missing.reason.clone()));
                }
                for ((gate, sound), faulty) in plan.gates.iter().zip(sound).zip(&report.rulings) {
                    let is_own = self.observer.is(gate) && self.observer.sees(sound.outcome, faulty.outcome);
                    if is_own {
                        own.push(gate.name.clone());
                    } else if faulty.outcome > sound.outcome {
                        others.push(gate.name.clone());
                    }
                }
            }
        }
        let fate = match (ran, changed) {
            (0, _) => Fate::Idle,
            (_, 0) => Fate::Harmless,
            _ if !own.is_empty() => Fate::Killed,
            _ if !others.is_empty() => Fate::WrongReason,
            _ => Fate::Survived,
        };
        let lacks = (fate != Fate::Killed).then(|| self.lacks(plan, fate, others.first()));
        let seen_by = [own, others].concat();
        let observer = self.observer.to_string();
        Tried { name: self.name, sentence: self.sentence, observer, fate, ran, changed, seen_by, lacks }
    }

    /// Why its observer did not see it, in a sentence; `other` is who did.
    fn lacks(&self, plan: &Plan, fate: Fate, other: Option<&String>) -> String {
        let FaultEntry { sentence, observer, .. } = self;
        match fate {
            Fate::Idle => {
                let when = match self.when {
                    When::InCompany => "no cell has prompts in company: vary `batch`",
                    When::OnThreads => "no cell has several threads: vary `threads`",
                    When::InParts => "no cell reads prompts in parts: vary `prefill-chunk`",
                    When::FromPages => "no cell has a prefix cache: vary `cache`",
                    When::Always => "no cell is computed by the lab: add one",
                };
                format!("it is not tried whether {sentence}, because {when}")
            }
            Fate::Harmless => {
                let way_out = match observer {
                    Observer::Baseline => "add a precision in which it would".to_owned(),
                    observer => observer.way_out(),
                };
                format!("it changes no sample here that {sentence}: {way_out}")
            }
            _ => match plan.gates.iter().find(|gate| observer.is(gate)) {
                Some(gate) => {
                    format!("`{}` does not see that {sentence}: {}", gate.name, observer.way_out())
                }
                None => {
                    let other = other.map_or_else(
                        || "no gate sees".to_owned(),
                        |other| format!("`{other}` fails and does not say"),
                    );
                    format!("{other} that {sentence}: {}", observer.way_out())
                }
            },
        }
    }
}
