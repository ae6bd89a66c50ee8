//! What a report holds, as data: its types, its JSON, and the schema of that.

use std::collections::{BTreeMap, HashMap};

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cause::Cause,
    cell::{Axis, Cell, Setting},
    compare::{ByLevel, Divergence, Drift, Level, MARGINS, Spreads},
    digest::Digest,
    engine::environment::Environment,
    json_float,
    model::Cost,
    record::About,
    stats::{
        Interval,
        ballot::FirstToEnd,
        coverage::PowerLaw,
        paired::{Odds, Paired},
        proportion::Proportion,
    },
    suite::{answer::product::Carry, cut::Cut, score},
    trace::{Launches, Sight},
    verdict::{Outcome, Ruling, evidence::Attribution},
};

/// Of its form.
pub(super) const FORM: u32 = 10;
/// Of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// What a run says: what held, and where and how far the cells of its matrix came apart.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The number of this form. It is raised whenever a field is added, taken away or renamed, or comes to mean something
    /// else; new names of engines, precisions, orders and axes come without that.
    #[schemars(extend("const" = FORM))]
    pub form: u32,
    /// The program that wrote this, and its version.
    pub program: String,
    /// The worst outcome of all gates; unknown where there are none, and no better than unknown where a cell is missing.
    pub verdict: Outcome,
    /// What ran.
    pub run: About,
    /// The run that it is held against, where two are compared: then a cell stands beside what it was, and not beside the
    /// reference.
    pub before: Option<Before>,
    /// How the model's tokenizer cuts numbers, where the suite that asks for that (`tok_chunk`) is among those asked.
    pub cut: Option<Cut>,
    /// Where cells ran: one, unless shards were merged.
    pub environments: Vec<Environment>,
    /// What surrounds the cells of an engine and is not the same for all of them, where it may move a bit.
    pub surroundings: Vec<Surrounding>,
    /// What became of every gate.
    pub rulings: Vec<Ruling>,
    /// What to look at first, if anything parts.
    pub first: Option<First>,
    /// What each axis alone moves.
    pub axes: Vec<Attribution>,
    /// How far the cells of each precision are apart.
    pub precisions: Vec<PrecisionRow>,
    /// Every cell that has run.
    pub cells: Vec<CellRow>,
    /// Every cell that has not run, and why.
    pub missing: Vec<Missing>,
    /// The texts of all tokens that are named in what parts, by their numbers.
    pub tokens: BTreeMap<u32, String>,
}

/// Something that surrounds the cells of an engine and is not the same for all of them: what sets them apart may come from it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Surrounding {
    /// The engine, as the names of cells have it.
    pub engine: String,
    /// What it is: `engine`, which has its version, or the name of a fact.
    pub what: String,
    /// What is said of it.
    pub values: Vec<Stated>,
}

/// What is said of something, and for which cells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Stated {
    /// What they have there; nothing where it is not told.
    pub value: Option<String>,
    /// For which cells.
    pub cells: Vec<Cell>,
}

/// Where two cells first part.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct First {
    /// The two cells.
    pub cells: [Cell; 2],
    /// The axes on which they differ.
    pub axes: Vec<Axis>,
    /// Where and how they part.
    pub divergence: Divergence,
    /// How they add the same terms, where they add them in different ways.
    pub trees: Option<Trees>,
    /// Why they part, where that was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// In which order two cells add the same terms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Trees {
    /// How many terms are added: as few as show it.
    pub terms: usize,
    /// The orders, and the calls that they follow where they follow any.
    pub orders: [String; 2],
    /// In each, which terms are added first: every number is a term.
    pub trees: [String; 2],
}

/// All cells of one engine in one precision that draw alike.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PrecisionRow {
    /// Who computes.
    #[schemars(regex(pattern = Axis::Engine.whole_pattern()))]
    pub engine: String,
    /// In which precision, and with keys and values kept in what, if in another format than attention's (`bf16/kv:int4`); or `its own`
    /// where the engine takes none.
    #[schemars(regex(pattern = PrecisionRow::pattern()))]
    pub precision: String,
    /// What the names of its cells say of how they draw, such as `T0.6/k20`; nothing where they draw as the run says.
    pub drawing: String,
    /// How many cells there are.
    pub cells: usize,
    /// How many configurations of these left other traces behind. Those that are alike to the last bit, under every seed, are
    /// one, whatever their settings: `Std@Acc` and its kin are formed over all, and say as much as so many tell.
    pub distinct: usize,
    /// How far those of one seed are apart on all items, over all seeds.
    pub all: Spreads,
    /// How far they are apart on the items of each suite, by its name.
    pub suites: BTreeMap<String, Spreads>,
    /// Every digit of the products that are asked for, by its place and by what is carried into it.
    pub digits: Vec<DigitRow>,
    /// How outputs come apart from those of the reference along their tokens, over all cells; nothing without a reference,
    /// or where not all tokens are told.
    pub course: Option<CourseRow>,
    /// What they draw; nothing where there is a single seed.
    pub draws: Option<DrawsRow>,
}

impl PrecisionRow {
    /// What its precision looks like: a regular expression.
    fn pattern() -> String {
        let (precision, kv) = (Axis::Precision.pattern(), Axis::KvFormat);
        let kv = format!("/{}{}", kv.entry().tag, kv.pattern());
        let functions = format!("/{}{}", Axis::Functions.entry().tag, Axis::Functions.pattern());
        format!("^({precision}({kv})?({functions})?|{})$", Setting::Own(Axis::Precision))
    }

    /// What it is called: a precision of the usual engine by itself, and an engine that takes none likewise.
    pub(crate) fn name(&self) -> String {
        let mut name = PrecisionRow::named(&self.engine, &self.precision);
        if !self.drawing.is_empty() {
            name = format!("{name} {}", self.drawing);
        }
        name
    }

    /// What a precision of an engine is called, however it draws.
    pub(super) fn named(engine: &str, precision: &str) -> String {
        let usual = Cell::default().compute.engine().to_string();
        match (engine == usual, precision == Setting::Own(Axis::Precision).to_string()) {
            (true, _) => precision.to_owned(),
            (false, true) => engine.to_owned(),
            (false, false) => format!("{engine} {precision}"),
        }
    }
}

/// What the cells of a precision draw under several seeds.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct DrawsRow {
    /// Under how many.
    pub seeds: u64,
    /// `Std@Pass@1`: the deviation of the means over items and seeds, from configuration to configuration under the same seeds;
    /// nothing with a single configuration, or without items.
    pub deviation: Option<f64>,
    /// Its floor by the draw alone: the deviation of the mean of one configuration, if the same items were drawn under as many
    /// other seeds; nothing without items.
    pub deviation_of_draws: Option<f64>,
    /// What `deviation` would be if every answer that is right in some configurations, and in others not, were the toss of a coin
    /// of its own.
    pub deviation_of_flips: Option<f64>,
    /// Every configuration that ran under all of these seeds: the cells that differ in their seed alone.
    pub configurations: Vec<ConfigurationRow>,
    /// How many configurations did not, and are in none of these numbers.
    pub left_out: u64,
}

/// What the cells draw that differ in their seed alone.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct ConfigurationRow {
    /// Their name without a seed.
    pub cell: Cell,
    /// How many of all answers are right: its rate is `pass@1`.
    pub right: Proportion,
    /// For several numbers of answers, by the number.
    pub sizes: BTreeMap<u64, SizeRow>,
    /// The power law through `pass@k` of these numbers; nothing where fewer than two are between 0 and 1.
    pub law: Option<PowerLaw>,
}

/// What so many answers amount to.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SizeRow {
    /// `pass@k`: how often one of them is right, in the mean of the items.
    pub pass: Option<f64>,
    /// Where that mostly lies for other items; nothing where all draws of items give the same.
    pub interval: Option<Interval>,
    /// `maj@k`: how often the answer that most of them give is right, in the mean of the items.
    pub majority: Option<f64>,
    /// Best of k: how often the answer is right whose tokens have the highest mean log-probability, in the mean of the items;
    /// nothing where the probability of a token is not seen.
    pub best: Option<f64>,
    /// `short-m@k`, by m: what a vote of the m answers that end first amounts to.
    pub shortest: BTreeMap<u64, FirstToEnd>,
}

/// A precision under the name that stands beside its numbers.
pub(crate) struct Family<'r> {
    pub(crate) name: String,
    pub(crate) row: &'r PrecisionRow,
    /// What it was before.
    pub(crate) was: Option<&'r PrecisionRow>,
}

/// A digit of products, over all cells of a precision.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct DigitRow {
    /// Its place from the right, from 0.
    pub place: usize,
    /// What is carried into it when the product is worked out column by column: nothing, one digit, or more.
    pub carry: Carry,
    /// How often it is right, over all products and cells.
    pub right: Proportion,
    /// For how many products some cells have it right and others do not.
    pub unstable: Proportion,
}

/// How outputs come apart along their tokens.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct CourseRow {
    /// How many cells were compared. All of them answer the same items, so more of them tell nothing more about others:
    /// intervals are those of one cell.
    pub cells: usize,
    /// How many outputs were compared, over all cells.
    pub outputs: u64,
    /// What share is still the same, at the places where that changes.
    pub survival: Vec<SurvivalRow>,
    /// After how many tokens half of all outputs have parted; nothing where fewer do.
    pub median: Option<u64>,
    /// How far logits are apart at each place: before any token, after one, and so on.
    pub drift: Vec<Drift>,
    /// Where the reference's margin lay in a range, at how many places another token came to rank first: below 0.01, from
    /// there to 0.03, to 0.1, to 0.3, to 1, to 3, and from 3 up; only places where both are seen.
    // The ranges between `MARGINS`.
    #[schemars(length(equal = MARGINS.len() + 1))]
    pub margins: Vec<Proportion>,
}

/// The share of outputs that are still the same.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SurvivalRow {
    /// After so many tokens.
    pub tokens: u64,
    /// How many outputs had not parted or ended before.
    pub at_risk: u64,
    /// How many outputs part here.
    pub part: u64,
    /// The share that does not part here or before, by the estimate of Kaplan and Meier.
    #[schemars(range(min = 0, max = 1))]
    pub share: f64,
    /// The interval of the share, with a confidence of 95 %, for as many outputs as one cell has; nothing where none are left.
    pub interval: Option<Interval>,
}

/// A cell that has run.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct CellRow {
    /// Which cell.
    pub cell: Cell,
    /// Which of the environments it ran in, from 0.
    pub environment: usize,
    /// How much its engine shows of what tokens were chosen from.
    pub sight: Sight,
    /// One value for all its tokens, and for what is seen of what they were chosen from: equal in two cells of one sight if
    /// and only if all of these are.
    pub root: Digest,
    /// The launches that ran.
    pub launches: Launches,
    /// What its precision costs; not there where its engine does not keep the model's weights here, or where the run was made
    /// before costs were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How many tokens it chose.
    pub tokens: u64,
    /// How many answers are right.
    pub accuracy: Proportion,
    /// Where its accuracy lies among all questions that might have been asked, with a confidence of 95 %; nothing without
    /// items, and where all are in one cluster.
    pub interval: Option<Interval>,
    /// How many times as large the variance of its accuracy is as that of as many questions without clusters; nothing where no
    /// questions come in clusters, or where all answers are right or none is.
    pub design_effect: Option<f64>,
    /// What it made of each suite, by its name.
    pub suites: BTreeMap<String, SuiteRow>,
    /// The cell beside the reference, or beside what it was; nothing for the reference itself, and without one that has run.
    pub against: Option<Against>,
}

/// What a cell made of one suite.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct SuiteRow {
    /// How many answers are right.
    pub right: Proportion,
    /// Where its accuracy lies among all questions of the suite, with a confidence of 95 %; nothing without items, and where
    /// all are in one cluster.
    pub interval: Option<Interval>,
    /// The design effect of the clusters; nothing where there are none, or where all answers are right or none is.
    pub design_effect: Option<f64>,
    /// How many answers are right where the last number of a text will do for one.
    pub flexible: Proportion,
    /// Of the clusters of several questions, those in which every answer is right; nothing where there are no such clusters.
    pub whole_clusters: Option<Proportion>,
    /// The right answers of each stratum, in the order of the suite.
    pub strata: Vec<StratumRow>,
    /// What became of the questions.
    pub outcomes: OutcomesRow,
    /// How many tokens were chosen.
    pub tokens: u64,
    /// How near estimates came; nothing where none is asked for.
    pub closeness: Option<ClosenessRow>,
    /// How many digits are right; nothing where no answer is a number of a fixed form.
    pub digits: Option<DigitsRow>,
}

/// What became of how many questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct OutcomesRow {
    /// The right answer.
    pub correct: u64,
    /// Another answer.
    pub wrong: u64,
    /// No answer.
    pub no_answer: u64,
    /// A text that met its limit before its answer was whole.
    pub truncated: u64,
}

/// How near estimates came, by the labels of StreetMath. Where no number was found there is no label.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ClosenessRow {
    /// Off by at most a millionth, in absolute terms.
    pub exact: u64,
    /// Off by at most a fifth of the right value.
    pub good: u64,
    /// Off by at most three fifths of it.
    pub mild: u64,
    /// Off by more.
    pub off: u64,
}

/// The right answers of a stratum.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct StratumRow {
    /// Its name.
    pub stratum: String,
    /// How many answers are right.
    pub right: Proportion,
}

/// How many digits of answers are right: the metrics of "Number Cookbook" (NUPA, 2024).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct DigitsRow {
    /// `exact match`: the answers that have every digit.
    pub exact: Proportion,
    /// `digit match`: the digits that are right where they stand, of those of all right answers.
    pub matched: Proportion,
    /// `dlength`: how many digits an answer has too many or too few, in the mean.
    pub length_error: f64,
}

/// What became of questions that became something else in the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct TransitionRow {
    /// What became of them in the reference, or before.
    pub reference: score::Outcome,
    /// What became of them in the cell.
    pub cell: score::Outcome,
    /// Of how many.
    pub items: u64,
}

/// What a cell lost and gained in one suite.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct ChangeRow {
    /// What was lost and gained.
    pub paired: Paired,
    /// The interval of the accuracy less that of the reference, with a confidence of 95 %; nothing without items.
    pub difference: Option<Interval>,
    /// How likely losses and gains at least as uneven are by chance.
    #[schemars(range(min = 0, max = 1))]
    pub p_value: f64,
}

/// A cell beside the reference, or beside what it was.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Against {
    /// The items that agree on each level; nothing where that is not told of each item.
    pub items: ByLevel<Option<Proportion>>,
    /// Comparable places with the same logits; nothing where that is not told of each place.
    pub places: Option<Proportion>,
    /// Places at which both rank the same token first; nothing where that is not told of each place.
    pub best: Option<Proportion>,
    /// The largest difference of a logit before tokens part; nothing where not all logits are seen.
    #[serde(with = "json_float::option")]
    #[schemars(schema_with = "json_float::option::schema")]
    pub drift: Option<f32>,
    /// The mean Kullback-Leibler divergence from the reference at the comparable places, in nats, of the tokens that both kept
    /// and of all others taken together: at most that of all. Nothing where not all logits are seen, nor beside a run before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub divergence: Option<f64>,
    /// After how many tokens half of all outputs have parted; nothing where fewer do.
    pub median_first_divergence: Option<u64>,
    /// What was lost and gained.
    pub paired: Paired,
    /// The interval of the accuracy less that of the reference, with a confidence of 95 %; nothing without items.
    pub difference: Option<Interval>,
    /// How likely losses and gains at least as uneven are by chance: McNemar's exact test, with what a cluster gained in all for
    /// one item where questions come in clusters.
    #[schemars(range(min = 0, max = 1))]
    pub p_value: f64,
    /// How many times as large the variance of the difference is as that of as many questions without clusters; nothing where
    /// no questions come in clusters, or where none or all have changed alike.
    pub design_effect: Option<f64>,
    /// The matched odds ratio: gains over losses; nothing without losses.
    pub odds: Option<f64>,
    /// Its exact interval, with a confidence of 95 %, without an end where it has none; nothing without losses and gains, and
    /// where questions come in clusters.
    pub odds_interval: Option<Odds>,
    /// What became of questions that became something else.
    pub outcomes: Vec<TransitionRow>,
    /// What was lost and gained in each suite, by its name.
    pub suites: BTreeMap<String, ChangeRow>,
}

/// A cell that has not run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// Which cell.
    pub cell: Cell,
    /// Why, in a sentence.
    pub reason: String,
}

/// The run that another one is held against.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Before {
    /// What ran.
    pub run: About,
    /// Where its cells ran.
    pub environments: Vec<Environment>,
    /// What surrounds the cells of an engine and is not what it was: whatever is other may come from it.
    pub surroundings: Vec<Change>,
    /// On which level every cell must be as it was.
    pub level: Level,
    /// What the gates of the run before came to by themselves, and those of the run after it.
    pub verdicts: [Outcome; 2],
    /// In what the two runs differ, beside what their cells left behind.
    pub others: Vec<Other>,
    /// How many cells are as they were, for every setting of an axis that has several.
    pub settings: Vec<SettingRow>,
    /// How far the cells of each precision were apart.
    pub precisions: Vec<PrecisionRow>,
}

/// Something that surrounds the cells of an engine and is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Change {
    /// The engine, as the names of cells have it.
    pub engine: String,
    /// What it is: `engine`, which has its version, the name of a fact, or what is declared of a server or a script, by its
    /// digest.
    pub what: String,
    /// What it was; nothing where it was not told.
    pub before: Option<String>,
    /// What it is now; nothing where it is not told.
    pub after: Option<String>,
    /// For how many cells.
    pub cells: usize,
}

/// Something that is not the same in two runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Other {
    /// What differs.
    pub what: String,
    /// What it was in the run before.
    pub before: String,
    /// What it is in the run after.
    pub after: String,
}

/// All cells with one setting of an axis, beside what they were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SettingRow {
    /// Which axis.
    pub axis: Axis,
    /// Which setting.
    pub setting: String,
    /// How many cells have it.
    pub cells: usize,
    /// How many of these cells are as they were, on each level; nothing where that is not told of each cell.
    pub agree: ByLevel<Option<usize>>,
}

impl Report {
    /// All precisions by their names, those of the run before just ahead of what they are now, if
    /// they are not what they were.
    pub(crate) fn families(&self) -> Vec<Family<'_>> {
        let Some(before) = &self.before else {
            let families = self.precisions.iter();
            return families.map(|row| Family { name: row.name(), row, was: None }).collect();
        };
        let mut families = Vec::new();
        for row in &self.precisions {
            let name = row.name();
            let was = before.precisions.iter().find(|was| was.name() == name);
            if was.is_some_and(|was| (&was.all, &was.suites) == (&row.all, &row.suites)) {
                families.push(Family { name, row, was });
                continue;
            }
            families.extend(was.map(|row| Family { name: format!("{name} before"), row, was: None }));
            families.push(Family { name: format!("{name} after"), row, was });
        }
        families
    }

    /// The rulings, the worst first; of equally bad ones in the order of their gates.
    pub(crate) fn worst_first(&self) -> Vec<&Ruling> {
        let mut rulings: Vec<_> = self.rulings.iter().collect();
        rulings.sort_by_key(|ruling| std::cmp::Reverse(ruling.outcome));
        rulings
    }

    /// All of it as JSON, indented as long as somebody may read it: of a large report half would be white space.
    pub fn json(&self) -> String {
        /// More than that is for programs alone.
        const MOST: usize = 4 << 20;
        let json = serde_json::to_string_pretty(self);
        let json = if json.as_ref().is_ok_and(|json| json.len() > MOST) {
            serde_json::to_string(self)
        } else {
            json
        };
        let mut json = json.expect("a report holds nothing that JSON has no form for");
        json.push('\n');
        json
    }

    /// The JSON Schema of [`Report::json`], draft 2020-12: every field that it names must be there, and no other may.
    pub fn schema() -> Value {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with_transform(RecursiveTransform(plain));
        let mut schema = settings.into_generator().into_root_schema_for::<Report>();
        schema.insert("title".to_owned(), json!(format!("report of reprocheck, form {FORM}")));
        schema.to_value()
    }
}

/// Takes out of a schema what only Rust means, and closes its objects.
fn plain(schema: &mut Schema) {
    // The width of a number in memory.
    schema.remove("format");
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        // Where a line of the source ends.
        *description = description.replace('\n', " ");
    }
}

/// Cells that are proven to have the same bits as one, under the name of the first, and how many there are. Those that are beside what they
/// were, and not beside one reference, must have been alike, too.
pub(crate) fn alike<'r>(cells: impl IntoIterator<Item = &'r CellRow>) -> Vec<(&'r CellRow, u64)> {
    let mut groups: Vec<(&CellRow, u64)> = Vec::new();
    let mut numbers: HashMap<Digest, Vec<usize>> = HashMap::new();
    for row in cells {
        let numbers = numbers.entry(row.root).or_default();
        // The reference stands beside nothing, and cells that are alike to it beside it.
        // Where too little is seen, equal roots are not equal bits.
        let is_same = |other: &CellRow| match (&row.against, &other.against) {
            _ if row.sight < Sight::Logits || other.sight < Sight::Logits => false,
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        match numbers.iter().find(|number| is_same(groups[**number].0)) {
            Some(number) => groups[*number].1 += 1,
            None => {
                numbers.push(groups.len());
                groups.push((row, 1));
            }
        }
    }
    groups
}
