//! Precisions by place: which steps of which layers have which, and the one name of that.

use std::{
    array,
    collections::HashSet,
    fmt,
    str::FromStr,
    sync::{LazyLock, Mutex, PoisonError},
};

use super::Precision;
use crate::{
    name::{NameError, shortened},
    numerics::{
        at::{At, Step},
        format::Format,
    },
};

/// A precision that is another one at some places of a model: at every place it is the one that holds there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Map(&'static Table);

/// What holds where. Two maps that give every place the same have the same table.
#[derive(PartialEq, Eq, Hash)]
struct Table {
    /// What most steps of a layer have behind the last that differs, and whatever stands alone.
    base: Precision,
    /// Every layer up to the last that differs from those behind it.
    layers: &'static [Row],
    /// All layers behind them.
    beyond: Row,
}

/// One of every step, in their order. Those outside of the layers have theirs in every row.
type Row = [Precision; Step::ALL.len()];

/// Every table that this process has met, kept for as long as it runs. A matrix has few.
static TABLES: LazyLock<Mutex<HashSet<&'static Table>>> = LazyLock::new(Mutex::default);

/// Layers in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layers {
    first: usize,
    /// All from the first one on where there is none.
    last: Option<usize>,
}

/// Where something holds: at these steps of these layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Where {
    /// In all layers, before and behind them where there are none.
    layers: Vec<Layers>,
    /// At every step where there are none.
    steps: Vec<Step>,
}

/// One line of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Where it holds.
    pub places: Where,
    /// What holds there.
    pub precision: Precision,
}

/// More layers than any model has.
const MOST_LAYERS: usize = 1024;

/// Why a text is no map, or no part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A name that only a file could explain.
    #[error(
        "`map:{}` names a file, and here none is read: write what it says, such as map:bf16;head=fp32 (a map in its own words has a \
         `;`, and the name of a file has none)", shortened(.0)
    )]
    File(String),
    /// Something else where a rule should be.
    #[error("`{}` gives no place a precision: write for example down@0-3=bf16", shortened(.0))]
    Rule(String),
    /// No such step.
    #[error(transparent)]
    Step(#[from] NameError),
    /// A step that no layer takes.
    #[error("`{}` stands outside of the layers: name it without any", .0.name())]
    Outside(Step),
    /// No number of a layer, and no range of them.
    #[error("`{}` is not a layer: write a number from 0 up, or a range such as 0-3 or 12-", shortened(.0))]
    Layer(String),
    /// Layers from a larger number to a smaller one.
    #[error("layers {0}-{1} end before they begin: write {1}-{0}")]
    Reversed(usize, usize),
    /// A layer that no model has.
    #[error("no model has a layer {0}: layers are counted from 0, up to {last} at most", last = MOST_LAYERS - 1)]
    TooMany(usize),
    /// A map in a map.
    #[error("a map cannot stand in a map: write what it says of these places")]
    Nested,
    /// A precision that is none.
    #[error("{0}")]
    Precision(String),
}

impl Layers {
    fn has(self, layer: usize) -> bool {
        self.first <= layer && self.last.is_none_or(|last| layer <= last)
    }

    /// The layer behind the last that it names.
    fn end(self) -> usize {
        self.last.unwrap_or(self.first) + 1
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(f, "{}-", self.first),
            Some(last) if last == self.first => write!(f, "{last}"),
            Some(last) => write!(f, "{}-{last}", self.first),
        }
    }
}

/// `3`, `0-3`, or `12-` for all from there on.
impl FromStr for Layers {
    type Err = MapError;

    fn from_str(text: &str) -> Result<Layers, MapError> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| digits.parse().unwrap_or(usize::MAX));
            let number = number.ok_or_else(|| MapError::Layer(text.to_owned()))?;
            if number < MOST_LAYERS { Ok(number) } else { Err(MapError::TooMany(number)) }
        };
        let (first, last) = match text.split_once('-') {
            None => (number(text)?, Some(number(text)?)),
            Some((first, "")) => (number(first)?, None),
            Some((first, last)) => (number(first)?, Some(number(last)?)),
        };
        match last {
            Some(last) if last < first => Err(MapError::Reversed(first, last)),
            _ => Ok(Layers { first, last }),
        }
    }
}

impl Where {
    /// At these steps of these layers: at all steps where none is named, and where no layer is, in all of them and outside.
    ///
    /// # Errors
    ///
    /// When a step is named that no layer takes, and layers are.
    pub fn new(layers: Vec<Layers>, steps: Vec<Step>) -> Result<Where, MapError> {
        match steps.iter().find(|step| !layers.is_empty() && !step.is_of_layer()) {
            Some(step) => Err(MapError::Outside(*step)),
            None => Ok(Where { layers, steps }),
        }
    }

    /// The layers; all, and what is outside of them, where there are none.
    pub fn layers(&self) -> &[Layers] {
        &self.layers
    }

    /// The steps; all where there are none.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn has(&self, at: At) -> bool {
        let in_layer = |layer| self.layers.iter().any(|layers| layers.has(layer));
        (self.layers.is_empty() || at.layer.is_some_and(in_layer))
            && (self.steps.is_empty() || self.steps.contains(&at.step))
    }
}

/// That place alone.
impl From<At> for Where {
    fn from(At { layer, step }: At) -> Where {
        let layers = layer.map(|layer| Layers { first: layer, last: Some(layer) });
        Where { layers: layers.into_iter().collect(), steps: vec![step] }
    }
}

/// `down,gate-up@0-3.7`
impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|step| step.name()).collect();
        let layers: Vec<_> = self.layers.iter().map(Layers::to_string).collect();
        let at = if layers.is_empty() { "" } else { "@" };
        write!(f, "{}{at}{}", steps.join(","), layers.join("."))
    }
}

impl FromStr for Where {
    type Err = MapError;

    fn from_str(text: &str) -> Result<Where, MapError> {
        let (steps, layers) = match text.split_once('@') {
            Some((steps, layers)) => (steps, Some(layers)),
            None => (text, None),
        };
        let layers = layers.into_iter().flat_map(|layers| layers.split('.')).map(str::parse);
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let steps = steps.split(',').filter(|_| !steps.is_empty() || layers.is_empty()).map(str::parse);
        Where::new(layers.clone(), steps.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.places, self.precision)
    }
}

impl FromStr for Rule {
    type Err = MapError;

    fn from_str(text: &str) -> Result<Rule, MapError> {
        let (places, precision) = text.split_once('=').ok_or_else(|| MapError::Rule(text.to_owned()))?;
        Ok(Rule { places: places.parse()?, precision: plain(precision)? })
    }
}

/// A precision that is no map.
pub(crate) fn plain(text: &str) -> Result<Precision, MapError> {
    if text == "map" || text.starts_with(PREFIX) {
        return Err(MapError::Nested);
    }
    text.parse::<Precision>().map_err(|error| MapError::Precision(error.to_string()))
}

/// What the name of every map begins with.
pub(crate) const PREFIX: &str = "map:";
/// What stands between its rules. No other precision has one in its name.
const BETWEEN: char = ';';

/// The file that a precision is to be read from, if its name is that of a map which says nothing itself.
pub fn file_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|rest| !rest.contains(BETWEEN))
}

/// The map whose name goes on like this.
pub(super) fn parse(rest: &str) -> Result<Precision, MapError> {
    let Some((base, rules)) = rest.split_once(BETWEEN) else {
        return Err(MapError::File(rest.to_owned()));
    };
    let rules = rules.split(BETWEEN).map(str::parse).collect::<Result<Vec<Rule>, _>>()?;
    Ok(Map::new(plain(base)?, rules.into_iter().map(|Rule { places, precision }| (places, precision))))
}

/// What the name of a map looks like, if the others look like this.
pub(super) fn pattern(plain: &str) -> String {
    format!("{PREFIX}{plain}({BETWEEN}[a-z,-]*(@[0-9.-]+)?={plain})+")
}

/// The first of those that come most often.
fn most_common(values: impl Iterator<Item = Precision> + Clone) -> Option<Precision> {
    let count = |one: Precision| values.clone().filter(|other| *other == one).count();
    let most = values.clone().map(count).max()?;
    values.clone().find(|one| count(*one) == most)
}

impl Map {
    /// The example of the table of precisions: `map:bf16;gate-up,down@1-=cast:e4m3;head=fp32`.
    pub(super) const EXAMPLE: Map = {
        const fn with(mut row: Row, step: Step, precision: Precision) -> Row {
            if let Some(number) = step.number() {
                row[number] = precision;
            }
            row
        }
        const E4M3: Precision = Precision::Minifloat(Format::E4M3);
        const FIRST: Row = with([Precision::Bf16; Step::ALL.len()], Step::Head, Precision::Fp32);
        const OTHERS: Row = with(with(FIRST, Step::GateUp, E4M3), Step::Down, E4M3);
        Map(&Table { base: Precision::Bf16, layers: &[FIRST], beyond: OTHERS })
    };

    /// What gives every place the precision of the last of these rules that holds there, and the base where none does. That
    /// is a map only where two places differ. Of another map among these, a place has what that gives it.
    ///
    /// What belongs to no forward pass has the precision that most steps have behind the last layer that differs.
    ///
    /// # Panics
    ///
    /// If a rule names a layer that no model has.
    #[expect(clippy::new_ret_no_self, reason = "where all places agree there is no map")]
    pub fn new<W: Into<Where>>(
        base: Precision,
        rules: impl IntoIterator<Item = (W, Precision)>,
    ) -> Precision {
        let rules: Vec<(Where, Precision)> =
            rules.into_iter().map(|(places, precision)| (places.into(), precision)).collect();
        let depth = |precision: Precision| match precision {
            Precision::Map(map) => map.0.layers.len(),
            _ => 0,
        };
        let named = rules.iter().flat_map(|(places, _)| places.layers.iter().map(|layers| layers.end()));
        let depths = rules.iter().map(|(_, precision)| depth(*precision));
        let depth = named.chain(depths).chain([depth(base)]).max().unwrap_or(0);
        assert!(depth <= MOST_LAYERS, "no model has {depth} layers");
        let row = |layer: usize| -> Row {
            array::from_fn(|number| {
                let step = Step::ALL[number];
                let at = if step.is_of_layer() { At::layer(layer, step) } else { At::outside(step) };
                let holds = rules.iter().rev().find(|(places, _)| places.has(at));
                holds.map_or(base, |(_, precision)| *precision).at(at)
            })
        };
        let beyond = row(depth);
        let mut layers: Vec<Row> = (0..depth).map(row).collect();
        layers.truncate(layers.iter().rposition(|row| *row != beyond).map_or(0, |last| last + 1));
        if layers.is_empty() && beyond.iter().all(|precision| *precision == beyond[0]) {
            return beyond[0];
        }
        let base = most_common(of_layers(&beyond)).expect("a layer takes steps");
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Table { base, layers: Vec::leak(layers), beyond };
        Precision::Map(Map(tables.get(&table).copied().unwrap_or_else(|| {
            let kept: &'static Table = Box::leak(Box::new(table));
            tables.insert(kept);
            kept
        })))
    }

    /// What holds at a place.
    #[inline]
    pub fn at(self, at: At) -> Precision {
        let Some(number) = at.step.number() else { return self.0.base };
        let row = at.layer.and_then(|layer| self.0.layers.get(layer)).unwrap_or(&self.0.beyond);
        row[number]
    }

    /// What most steps have, and whatever belongs to no forward pass.
    pub fn base(self) -> Precision {
        self.0.base
    }

    /// All that hold somewhere, each once.
    pub fn parts(self) -> Vec<Precision> {
        let mut parts = vec![self.0.base];
        parts.extend(self.rules().into_iter().map(|rule| rule.precision));
        let mut seen = HashSet::new();
        parts.retain(|part| seen.insert(*part));
        parts
    }

    /// From which layer on all are alike.
    pub(super) fn alike_from(self) -> usize {
        self.0.layers.len()
    }

    /// All that hold at these steps of a layer, each once.
    pub(super) fn in_steps(self, steps: &[Step]) -> Vec<Precision> {
        let Table { layers, beyond, .. } = self.0;
        let numbers = || steps.iter().filter_map(|step| step.number());
        let rows = layers.iter().chain([beyond]);
        distinct(&rows.flat_map(|row| numbers().map(move |number| row[number])).collect::<Vec<_>>())
    }

    /// Where something else holds than the base: the same rules for the same map, the later of two that meet being right.
    pub fn rules(self) -> Vec<Rule> {
        let Table { base, layers, beyond } = self.0;
        let rows: Vec<&Row> = layers.iter().chain([beyond]).collect();
        // What a layer has as a whole: then a rule need not name all of its steps.
        let whole = |row: &&Row| {
            let most = most_common(of_layers(row)).expect("a layer takes steps");
            let count = |one: Precision| of_layers(row).filter(|other| *other == one).count();
            if count(*base) == count(most) { *base } else { most }
        };
        let wholes: Vec<Precision> = rows.iter().map(whole).collect();
        let mut rules: Vec<Rule> = Vec::new();
        for precision in distinct(&wholes).into_iter().filter(|precision| precision != base) {
            let layers = in_rows(wholes.iter().map(|whole| *whole == precision));
            rules.push(Rule { places: Where { layers, steps: Vec::new() }, precision });
        }
        let first = rules.len();
        for (number, &step) in Step::ALL.iter().enumerate() {
            let own: Vec<Precision> = rows.iter().map(|row| row[number]).collect();
            for precision in distinct(&own) {
                let differs = |(own, whole): (&Precision, &Precision)| {
                    let usual = if step.is_of_layer() { whole } else { base };
                    *own == precision && own != usual
                };
                let layers = in_rows(own.iter().zip(&wholes).map(differs));
                // In every layer, or outside of them.
                let everywhere = matches!(layers[..], [Layers { first: 0, last: None }]);
                let layers = if everywhere {
                    Some(Vec::new())
                } else {
                    Some(layers).filter(|layers| !layers.is_empty())
                };
                let Some(layers) = layers else { continue };
                let is_like = |rule: &&mut Rule| rule.places.layers == layers && rule.precision == precision;
                match rules[first..].iter_mut().find(is_like) {
                    Some(rule) => rule.places.steps.push(step),
                    None => rules.push(Rule { places: Where { layers, steps: vec![step] }, precision }),
                }
            }
        }
        rules
    }

    /// A layer that a model of so many has not, and of which this says something all the same. What holds in all layers but the
    /// last says of those behind it that it holds there again: that is no such thing.
    pub fn layer_beyond(self, layers: usize) -> Option<usize> {
        let beyond = |rule: Rule| {
            let named = rule.places.layers;
            let is_idle = !named.is_empty() && named.iter().all(|named| named.first >= layers);
            let begins = |named: &Layers| match named.last {
                Some(last) => (last >= layers).then_some(last),
                None => (named.first > layers || is_idle).then_some(named.first),
            };
            named.iter().filter_map(begins).max()
        };
        self.rules().into_iter().filter_map(beyond).max()
    }

    /// A step among these to which its rules give something of its own.
    pub fn singles_out(self, steps: &[Step]) -> Option<Step> {
        let rules = self.rules();
        let own = rules.iter().filter(|rule| rule.precision != self.0.base);
        own.flat_map(|rule| &rule.places.steps).copied().find(|step| steps.contains(step))
    }
}

/// What the steps of a layer have.
fn of_layers(row: &Row) -> impl Iterator<Item = Precision> + Clone {
    Step::ALL.iter().zip(row).filter(|(step, _)| step.is_of_layer()).map(|(_, precision)| *precision)
}

/// Each once, in the order in which they come.
fn distinct(values: &[Precision]) -> Vec<Precision> {
    let mut seen = HashSet::new();
    values.iter().copied().filter(|value| seen.insert(*value)).collect()
}

/// The rows of which it holds, as layers: the last row stands for all that follow.
fn in_rows(holds: impl Iterator<Item = bool>) -> Vec<Layers> {
    let mut found: Vec<Layers> = Vec::new();
    let mut rows = holds.enumerate().peekable();
    while let Some((row, holds)) = rows.next() {
        let is_last = rows.peek().is_none();
        if !holds {
            continue;
        }
        let last = (!is_last).then_some(row);
        match found.last_mut().filter(|layers| layers.end() == row) {
            Some(layers) => layers.last = last,
            None => found.push(Layers { first: row, last }),
        }
    }
    found
}

/// `map:cast:e4m3;down@0-3=bf16;head=fp32`
impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.base)?;
        self.rules().iter().try_for_each(|rule| write!(f, "{BETWEEN}{rule}"))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
