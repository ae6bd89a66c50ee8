//! Evidence that is made for the purpose: a matrix file's cells and gates, and whatever their traces shall hold.

pub(crate) mod cases;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    path::Path,
    sync::{LazyLock, Mutex},
};

use reprocheck::{
    cell::Cell,
    compare::{Level, Output, Tally},
    digest::Digest,
    engine::environment::Environment,
    model::{Checkpoint, Cost, embedded::MODELS},
    numerics::{Numerics, choice::Candidate},
    plan::Plan,
    record::{About, Asked, Model},
    report::{Missing, Report},
    suite::{
        answer::{Answer, Kind},
        question::Question,
        score,
        style::Style,
    },
    trace::{Launches, Seen, Sight, Token, chain},
    verdict::{
        Outcome, Ruling,
        evidence::{Evidence, Known},
        judge, worst,
    },
};

/// What a trace holds of an item: its tokens, each with what stands for its logits, and its answer, of which 1 is right.
pub(crate) type Made = (Vec<(u32, u8)>, u8);

/// Cells of which each has the trace of its number, unless they are the same; some have not run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) traces: Vec<Option<usize>>,
    pub(crate) launches: Vec<Launches>,
    /// How many prompts of a cell had a copy that was answered otherwise; none where there is no number.
    pub(crate) unlike_copies: Vec<u64>,
    /// How much is seen of each trace.
    pub(crate) sights: Vec<Sight>,
    /// Were the tokens given, and not chosen?
    pub(crate) replayed: bool,
    /// Cells that ran on another machine than the rest.
    pub(crate) elsewhere: Vec<usize>,
    /// Cells whose engine says something else of its settings.
    pub(crate) configured: Vec<usize>,
    /// The text of every output, and of every token.
    pub(crate) text: String,
    /// What the model, the matrix file and every item are called.
    pub(crate) name: String,
    /// How many suites items belong to, in turn.
    pub(crate) suites: u64,
    /// How many items in a row make a cluster; none where there is no number.
    pub(crate) cluster: Option<u64>,
}

/// A thousand cells, the reference among them, and no two of them alike: the later ones part more often, and sooner.
pub(crate) fn thousand(items: u64) -> Report {
    let world = World::new(
        "[reference]\norder = \"exact\"\n[matrix]\nprecision = [\"fp32\", \"bf16\", \"fp16\", \"layercast\", \"lmul\"]\n\
         order = [\"exact\", \"sequential\", \"pairwise\", \"split-k:4\", \"split-k:rows\"]\n\
         threads = [1, 2, 3, 4]\nbatch = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n\
         [[gate]]\nvary = [\"threads\", \"batch\"]\nrequire = \"bits\"\n\
         [[gate]]\nagainst = \"reference\"\nmax-accuracy-drop = \"5pp\"\n",
    );
    assert_eq!(world.plan.cells.len(), 1000);
    world.report(items, |trace, item| {
        let number = trace as u64;
        let draw = (item * 613 + number * 389) % 1000;
        // Two bytes of logits tell all traces apart.
        let moved = |part: u64| if draw < 3 * number { part as u8 } else { 0 };
        let place = (item + number) % 4;
        let token = |at: u64| {
            let token = 1 + u32::from(2 * draw < number && at == place);
            (token, moved(if at == 0 { number / 251 } else { number % 251 }))
        };
        ((0..5).map(token).collect(), if 2 * draw < number && item % 3 == 0 { 2 } else { 1 })
    })
}

/// What the precision of a cell costs the first model of the binary.
fn cost(cell: &Cell) -> Option<Cost> {
    static MODEL: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::embedded(&MODELS[0]).unwrap());
    static COSTS: LazyLock<Mutex<HashMap<(Numerics, NonZeroUsize), Cost>>> = LazyLock::new(Mutex::default);
    let (numerics, batch) = (cell.compute.stored()?, cell.serving.batch);
    let mut costs = COSTS.lock().unwrap();
    Some(*costs.entry((numerics, batch)).or_insert_with(|| Cost::of(&MODEL, numerics, batch).unwrap()))
}

const HEAD: &str = "suites = [\"carry_chain\"]\n";

impl World {
    /// Of a matrix without suites; every cell has a trace of its own and launches like no other.
    pub(crate) fn new(matrix: &str) -> World {
        let text = HEAD.to_owned() + matrix;
        let plan =
            Plan::read(Path::new("m.toml"), &text, None).unwrap_or_else(|problems| panic!("{problems}"));
        let launches = |at: usize| Launches {
            prefill_rows: Some(at),
            decode_rows: Some(at),
            chunks: Some(at),
            threads: Some(at),
            groups: Some(Digest::of(&at.to_le_bytes())),
            tree: None,
            functions: None,
            history: None,
        };
        let count = plan.cells.len();
        World {
            plan,
            traces: (0..count).map(Some).collect(),
            launches: (0..count).map(launches).collect(),
            unlike_copies: Vec::new(),
            sights: vec![Sight::Logits; count],
            replayed: false,
            elsewhere: Vec::new(),
            configured: Vec::new(),
            text: String::new(),
            name: "m".to_owned(),
            suites: 1,
            cluster: None,
        }
    }

    pub(crate) fn about(&self, items: u64) -> About {
        About {
            matrix: format!("{}.toml", self.name),
            profile: None,
            model: Model {
                name: self.name.clone(),
                origin: "nowhere".to_owned(),
                architecture: "none".to_owned(),
                parameters: 0,
                digest: Digest::of(b"model"),
            },
            suites: vec![Asked {
                name: self.name.clone(),
                version: 1,
                items,
                item_seed: 0,
                style: Style::Compact,
                shots: 0,
            }],
            questions: items,
            items: Digest::of(b"items"),
            vocabulary: None,
            generation: self.plan.generation.clone(),
            reference: self.plan.reference,
            cells: self.plan.cells.clone(),
            beside: self.plan.beside.clone(),
            scripts: BTreeMap::new(),
            gates: self.plan.gates.clone(),
        }
    }

    fn question(&self, item: u64) -> Question {
        let suite = match self.suites {
            1 => self.name.clone(),
            suites => format!("{}{}", self.name, item % suites),
        };
        Question {
            item,
            id: format!("{suite}-{item}"),
            stratum: "all".to_owned(),
            cluster: self.cluster.map(|size| (item / size).to_string()),
            prompt: format!("{suite}?"),
            tokens: vec![1],
            max_new_tokens: 3,
            stop: Vec::new(),
            answer: Answer::new(Kind::Integer, 1),
            read_as: Style::Compact,
            suite,
        }
    }

    /// What the run says.
    pub(crate) fn report(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Report {
        let evidence = self.evidence(items, made);
        let missing = self.plan.cells.iter().zip(&self.traces).filter(|(_, trace)| trace.is_none());
        let missing = missing.map(|(cell, _)| Missing { cell: *cell, reason: "it has not run".to_owned() });
        let text = |token: u32| format!("{}{token}", self.text);
        Report::new(&self.about(items), missing.collect(), &evidence, None, &text)
    }

    pub(crate) fn evidence(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Evidence {
        let about = self.about(items);
        let cells = self.plan.cells.iter().zip(&self.traces).zip(&self.launches).enumerate();
        let known = cells.filter_map(|(at, ((cell, trace), launches))| {
            Some(Known {
                cell: *cell,
                trace: (*trace)?,
                root: Digest::of(&(*trace)?.to_le_bytes()),
                sight: self.sights[(*trace)?],
                launches: launches.clone(),
                unlike_copies: self.unlike_copies.get(at).copied().unwrap_or_default(),
                environment: environment(self.elsewhere.contains(&at), self.configured.contains(&at)),
                cost: cost(cell),
            })
        });
        let mut evidence = Evidence::new(&about, known.collect(), Digest::of(b"about"));
        let traces = self.traces.iter().flatten().max().map_or(0, |most| most + 1);
        for item in 0..items {
            let made = Outputs::new(self, (0..traces).map(|trace| (trace, made(trace, item))));
            evidence.add(&self.question(item), &made.all());
        }
        evidence
    }

    /// What a run says of this one that came before it.
    pub(crate) fn change(
        &self,
        after: &World,
        items: u64,
        level: Level,
        was: impl Fn(usize, u64) -> Made,
        is: impl Fn(usize, u64) -> Made,
    ) -> Report {
        let mut tallies = Vec::new();
        for (cell, now) in after.plan.cells.iter().zip(&after.traces) {
            let at = self.plan.cells.iter().position(|other| other == cell);
            let (Some(now), Some(then)) = (*now, at.and_then(|at| self.traces[at])) else { continue };
            let mut tally = Tally::default();
            for item in 0..items {
                let outputs = [
                    Outputs::new(self, [(then, was(then, item))]),
                    Outputs::new(after, [(now, is(now, item))]),
                ];
                let [one, other] = outputs.each_ref().map(|outputs| outputs.all()[0]);
                tally.add(&self.question(item), one, other);
            }
            tallies.push((*cell, tally));
        }
        let pairs: Vec<_> = tallies.iter().map(|(cell, tally)| (*cell, tally)).collect();
        let text = |token: u32| format!("{}{token}", after.text);
        Report::of_change(self.report(items, was), after.report(items, is), level, &pairs, &text)
    }

    pub(crate) fn rulings(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Vec<Ruling> {
        judge(&self.plan.gates, &self.evidence(items, made), None)
    }

    /// The outcome of the only gate.
    pub(crate) fn outcome(&self, items: u64, made: impl Fn(usize, u64) -> Made) -> Outcome {
        let rulings = self.rulings(items, made);
        assert_eq!(rulings.len(), 1);
        assert_eq!(worst(&rulings), rulings[0].outcome);
        assert_eq!(rulings[0].outcome == Outcome::Pass, rulings[0].findings.is_empty());
        rulings[0].outcome
    }
}

/// What several traces hold of an item.
struct Outputs<'w> {
    world: &'w World,
    made: Vec<(Sight, Vec<Token>, u8, String)>,
}

impl<'w> Outputs<'w> {
    /// Of traces by their numbers.
    fn new(world: &'w World, made: impl IntoIterator<Item = (usize, Made)>) -> Outputs<'w> {
        let made = made.into_iter().map(|(trace, (tokens, answer))| {
            let sight = world.sights[trace];
            // What shows nothing else has a text of its own.
            let is_text = sight == Sight::Text;
            let ids: Vec<_> = tokens.iter().map(|(id, _)| id).collect();
            let text = if is_text { format!("{ids:?}") } else { world.text.clone() };
            (sight, tokens.into_iter().map(|made| token(made, sight)).collect(), answer, text)
        });
        Outputs { world, made: made.collect() }
    }

    fn all(&self) -> Vec<Output<'_>> {
        let outputs = self.made.iter().map(|(sight, tokens, answer, text)| Output {
            tokens,
            sight: *sight,
            text,
            root: chain(*sight, tokens),
            answer: Some(["0", "1", "2"][usize::from(*answer)]),
            outcome: if *answer == 1 { score::Outcome::Correct } else { score::Outcome::Wrong },
            flexible: *answer == 1,
            replayed: self.world.replayed,
        });
        outputs.collect()
    }
}

/// One that is the same on every machine, or another, or of an engine that is set otherwise.
fn environment(is_another: bool, is_configured: bool) -> Environment {
    let mut facts: BTreeMap<_, _> =
        [("built for", "x86_64-linux"), ("widest vectors", "avx512")].into_iter().collect();
    if is_another {
        facts.insert("processor", "another");
    }
    if is_configured {
        facts.insert("context", "8192");
    }
    let facts = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.to_owned())).collect();
    Environment { engine: "lab 0.0.0".to_owned(), facts }
}

/// The logits are a byte, of which the best log-probabilities tell all but the last bit.
fn token((id, logits): (u32, u8), sight: Sight) -> Token {
    let candidate = |token, logit| Candidate { token, logit };
    let seen = match sight {
        Sight::Text | Sight::Tokens => Seen::Nothing,
        Sight::Top => {
            let below = f32::from(logits / 2);
            Seen::Top(vec![candidate(id, -0.5 - below), candidate(id + 1, -1.5 - below)])
        }
        Sight::Logits => Seen::Logits {
            digest: Digest::of(&[logits]),
            candidates: vec![candidate(id, 2.0), candidate(id + 1, 1.0)],
            margin: 1.0,
            probability: 0.5,
        },
    };
    Token { id, seen }
}
