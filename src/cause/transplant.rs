//! A kernel that carries out some operations as another cell does, in the launches that both cells had.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    CauseError,
    heads::{Heads, Part},
    passage::{Follows, Rows},
    tap::given,
};
use crate::numerics::{
    Numerics,
    format::Format,
    kernel::{At, Copied, End, Fast, Kernel, Op, Source, Workers},
    order::Launch,
};

/// The host's kernel, and the donor's in some places.
#[derive(Debug)]
pub struct Transplant<H, D = H> {
    /// Which of the two cells is the host.
    side: usize,
    host: H,
    /// Nothing where the donor computes as the host does and only its launches differ.
    donor: Option<D>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    tokens: Range<usize>,
    rows: [Rows; 2],
    donated: Donated,
}

/// Which operations are the donor's.
#[derive(Clone, Debug)]
pub enum Donated {
    /// Those at these places.
    At(BTreeSet<At>),
    /// At these places such parts of what they give.
    Parts(Heads, BTreeMap<At, BTreeSet<Part>>),
    /// None: but each is carried out by the donor as well, from what the host has, and what it gives is compared.
    Compared(BTreeMap<At, Moved>),
}

impl Donated {
    /// What was compared, if anything was.
    pub fn compared(self) -> BTreeMap<At, Moved> {
        match self {
            Donated::Compared(moved) => moved,
            Donated::At(_) | Donated::Parts(..) => BTreeMap::new(),
        }
    }
}

/// How much of what an operation gives is moved by carrying it out as the donor does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moved {
    /// How many values it gave.
    pub values: u64,
    /// How many of them are other bits.
    pub moved: u64,
}

/// A matrix of such a kernel.
#[derive(Debug)]
pub struct Both<W, V> {
    host: W,
    donor: Option<V>,
}

impl Transplant<Fast> {
    /// One of two cells as the host, the other one as the donor.
    ///
    /// # Errors
    ///
    /// When the threads of one cannot be started.
    pub fn of(numerics: [Numerics; 2], side: usize) -> Result<Transplant<Fast>, CauseError> {
        let kernel = |numerics| {
            Fast::new(numerics).map_err(|error| CauseError::Threads { numerics: Box::new(numerics), error })
        };
        let [host, donor] = [numerics[side], numerics[1 - side]];
        let donor = (donor != host).then(|| kernel(donor)).transpose()?;
        Ok(Transplant::new(side, kernel(host)?, donor))
    }
}

impl<H: Kernel, D: Kernel> Transplant<H, D> {
    /// With the first cell or the second one as the host, and nothing of the donor's yet.
    pub fn new(side: usize, host: H, donor: Option<D>) -> Transplant<H, D> {
        let rows = [Rows { layers: 1, head: 1 }; 2];
        let now = Now { tokens: 0..1, rows, donated: Donated::At(BTreeSet::new()) };
        Transplant { side, host, donor, now: Mutex::new(now) }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these operations are the donor's; what was so before.
    pub fn donate(&self, donated: Donated) -> Donated {
        std::mem::replace(&mut self.now().donated, donated)
    }

    fn host(&self, at: At, rows: [Rows; 2], op: &mut Op<'_, Both<H::Weights, D::Weights>>) {
        let launch = Launch { rows: rows[self.side].at(at), threads: self.host.numerics().threads().get() };
        self.host.apply(at, launch, op.lend(|weights| &weights.host));
    }

    /// Carries it out as the donor does, looks at that, and carries it out as the host does.
    fn both<'o, T>(
        &self,
        at: At,
        rows: [Rows; 2],
        op: &mut Op<'o, Both<H::Weights, D::Weights>>,
        look: impl FnOnce(&mut Op<'o, Both<H::Weights, D::Weights>>) -> T,
    ) -> T {
        // What computes in place finds what it reads where it writes.
        let before = copied(op);
        self.donor(at, rows, op);
        let seen = look(op);
        for (out, before) in op.outputs().into_iter().zip(&before) {
            out.copy_from_slice(before);
        }
        self.host(at, rows, op);
        seen
    }

    fn donor(&self, at: At, rows: [Rows; 2], op: &mut Op<'_, Both<H::Weights, D::Weights>>) {
        let rows = rows[1 - self.side].at(at);
        let launch = |numerics: Numerics| Launch { rows, threads: numerics.threads().get() };
        match &self.donor {
            Some(donor) => {
                const PACKED: &str = "every matrix is packed for both";
                let format = donor.numerics().precision().vectors(at);
                let stored = self.host.numerics().precision().vectors(at);
                let vectors = if format == stored { Vec::new() } else { rounded(op, format) };
                let mut op = op.lend(|weights| weights.donor.as_ref().expect(PACKED));
                exchange(&mut op, &vectors);
                donor.apply(at, launch(donor.numerics()), op);
            }
            None => {
                let op = op.lend(|weights| &weights.host);
                self.host.apply(at, launch(self.host.numerics()), op);
            }
        }
    }
}

/// The small vectors of an operation, a norm's weights and a product's biases, as they are stored in this format: the decoder has
/// them as the host stores them.
fn rounded<W>(op: &Op<'_, W>, format: Format) -> Vec<Vec<f32>> {
    let stored = |vector: &[f32]| {
        let mut vector = vector.to_vec();
        format.round_slice(&mut vector);
        vector
    };
    match op {
        Op::Product(jobs) => jobs.iter().filter_map(|job| job.start).map(stored).collect(),
        Op::Norm { weight, .. } => vec![stored(weight)],
        _ => Vec::new(),
    }
}

/// Puts these in their place, if there are any.
fn exchange<'s, W>(op: &mut Op<'s, W>, vectors: &'s [Vec<f32>]) {
    let mut vectors = vectors.iter();
    match op {
        Op::Product(jobs) => {
            let starts = jobs.iter_mut().filter_map(|job| job.start.as_mut());
            starts.zip(vectors).for_each(|(start, vector)| *start = vector);
        }
        Op::Norm { weight, .. } => {
            if let Some(vector) = vectors.next() {
                *weight = vector;
            }
        }
        _ => {}
    }
}

/// What stands where an operation writes.
fn copied<W>(op: &mut Op<'_, W>) -> Vec<Vec<f32>> {
    op.outputs().iter().map(|out| out.to_vec()).collect()
}

impl<H: Kernel, D: Kernel> Kernel for Transplant<H, D> {
    type Weights = Both<H::Weights, D::Weights>;

    fn numerics(&self) -> Numerics {
        self.host.numerics()
    }

    fn workers(&self) -> &Workers {
        self.host.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        let Some(donor) = &self.donor else {
            return Both { host: self.host.pack(at, columns, depth, source), donor: None };
        };
        let mut copied = Copied::new(source, depth);
        let host = self.host.pack(at, columns, depth, &mut copied);
        Both { host, donor: Some(donor.pack(at, columns, depth, &mut copied.again())) }
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        self.host.push(&mut weights.host, end);
        if let (Some(donor), Some(weights)) = (&self.donor, &mut weights.donor) {
            donor.push(weights, end);
        }
    }

    /// The launch is that of the passage, whatever the call is that reads it here.
    fn apply(&self, at: At, _: Launch, mut op: Op<'_, Self::Weights>) {
        let mut now = self.now();
        let Now { tokens, rows, donated } = &mut *now;
        match donated {
            Donated::At(places) if places.contains(&at) => self.donor(at, *rows, &mut op),
            Donated::At(_) => self.host(at, *rows, &mut op),
            Donated::Parts(heads, places) => match places.get(&at) {
                None => self.host(at, *rows, &mut op),
                Some(parts) if parts.len() == heads.parts(at.step).len() => self.donor(at, *rows, &mut op),
                Some(parts) => {
                    let donors = self.both(at, *rows, &mut op, copied);
                    let pieces = heads.pieces(at, &op, tokens.len());
                    for ((out, donors), pieces) in op.outputs().into_iter().zip(&donors).zip(pieces) {
                        for (piece, _) in pieces.into_iter().filter(|(_, part)| parts.contains(part)) {
                            out[piece.clone()].copy_from_slice(&donors[piece]);
                        }
                    }
                }
            },
            Donated::Compared(found) => {
                let donors: Vec<f32> =
                    self.both(at, *rows, &mut op, |op| given(at, op, tokens, 1).flatten().copied().collect());
                let moved = found.entry(at).or_default();
                moved.values += donors.len() as u64;
                let pairs = given(at, &op, tokens, 1).flatten().zip(&donors);
                moved.moved += pairs.filter(|(own, donors)| own.to_bits() != donors.to_bits()).count() as u64;
            }
        }
    }
}

impl<H: Kernel, D: Kernel> Follows for Transplant<H, D> {
    fn follow(&self, tokens: Range<usize>, rows: [Rows; 2]) {
        let mut now = self.now();
        (now.tokens, now.rows) = (tokens, rows);
    }
}
