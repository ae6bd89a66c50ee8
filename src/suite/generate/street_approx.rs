//! Sums of daily life that people estimate: shopping, taxes, tips, distances.

use serde::Deserialize;

use crate::suite::{
    answer::{Answer, Kind},
    draw::Draw,
    problem::{Generator, Problem},
};

const HINT: &str =
    "A good estimate is enough. The last line of your response must be \"Answer: N\", where N is a number.";

/// Eight topics, some of them with subtopics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreetApprox {
    /// Is a chat told that an estimate is enough?
    hint: bool,
}

/// A question and what is right, before it is rounded.
struct Made {
    question: String,
    operands: Vec<String>,
    value: Hundredths,
}

/// So many hundredths of a dollar, a minute or a person, as a fraction.
#[derive(Clone, Copy, Debug)]
struct Hundredths {
    numerator: i64,
    denominator: i64,
}

/// A topic, a subtopic where there is more than one, how many of the cells are its own, and what makes its
/// problems.
type Row = (&'static str, Option<&'static str>, usize, fn(&mut Draw) -> Made);

/// The topics weigh 1.4, 1.4, 1, 1, 1, 0.8, 0.8 and 0.8: five times that is 7, 7, 5, 5, 5, 4, 4 and 4 cells,
/// exactly.
const TOPICS: [Row; 14] = [
    ("basket_sum", None, 7, basket_sum),
    ("discounts", Some("percent"), 2, percent_off),
    ("discounts", Some("bogo"), 1, buy_one_get_one),
    ("discounts", Some("buy_n_get_m"), 1, buy_n_get_m),
    ("discounts", Some("threshold"), 2, threshold_coupon),
    ("discounts", Some("stacked"), 1, stacked),
    ("taxes", Some("after_discount"), 3, tax_after_discount),
    ("taxes", Some("before_discount"), 2, tax_before_discount),
    ("units", Some("pound"), 3, by_the_pound),
    ("units", Some("kilogram"), 2, by_the_kilogram),
    ("tips", None, 5, tip),
    ("fermi", None, 4, crowd),
    ("travel_time", None, 4, travel_time),
    ("physics_estimate", None, 4, filling_time),
];
/// All of these cells.
const CELLS: usize = 41;
/// From one cell to the next the topics go on by so many, so that they take turns: 41 divided by the golden
/// ratio.
const STRIDE: usize = 25;

/// Taxes in thousandths.
const TAXES: [i64; 5] = [60, 70, 75, 80, 85];
const THINGS: [&str; 8] = ["jacket", "lamp", "backpack", "toaster", "chair", "blender", "suitcase", "rug"];
const FOODS: [&str; 8] = ["apples", "cheese", "coffee", "rice", "salmon", "almonds", "grapes", "potatoes"];
const SMALL_THINGS: [&str; 8] = ["mug", "candle", "notebook", "towel", "plate", "puzzle", "scarf", "vase"];
const MEALS: [&str; 8] = [
    "A breakfast",
    "A brunch",
    "A lunch",
    "A dinner",
    "A pizza delivery",
    "A taxi ride",
    "A haircut",
    "A buffet",
];
const EVENTS: [&str; 8] =
    ["concert", "rally", "street fair", "market", "parade", "film night", "food festival", "chess event"];
const VEHICLES: [&str; 6] = ["car", "bus", "truck", "tram", "ferry", "train"];
const VESSELS: [&str; 6] = ["tub", "tank", "pool", "barrel", "pond", "cistern"];

impl Generator for StreetApprox {
    fn cells(&self) -> usize {
        CELLS
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let &(topic, subtopic, _, make) = row(cell * STRIDE % CELLS);
        let Made { question, operands, value } = make(draw);
        let stratum = subtopic.map_or_else(|| topic.to_owned(), |subtopic| format!("{topic}/{subtopic}"));
        let answer = Answer::new(Kind::Estimate, value.text());
        let request = self.hint.then_some(HINT.into());
        vec![Problem { request, ..Problem::new(stratum, topic, question, answer).of(operands) }]
    }
}

/// Whose cell this is.
fn row(mut at: usize) -> &'static Row {
    for row in &TOPICS {
        if at < row.2 {
            return row;
        }
        at -= row.2;
    }
    unreachable!("the topics have {CELLS} cells")
}

impl Hundredths {
    /// Rounded once, half a hundredth up: `12.34`.
    fn text(self) -> String {
        let Hundredths { numerator, denominator } = self;
        let rounded = (2 * numerator + denominator) / (2 * denominator);
        format!("{}.{:02}", rounded / 100, rounded % 100)
    }
}

impl Made {
    fn new(question: String, operands: Vec<String>, numerator: i64, denominator: i64) -> Made {
        Made { question, operands, value: Hundredths { numerator, denominator } }
    }
}

fn basket_sum(draw: &mut Draw) -> Made {
    let prices = prices(draw);
    let count = prices.len();
    let question = format!(
        "The {count} items in a basket cost {}. About how many dollars is that together?",
        list(&prices)
    );
    Made::new(question, texts(&prices), prices.iter().sum(), 1)
}

fn percent_off(draw: &mut Draw) -> Made {
    let (thing, price) = (draw.pick(&THINGS), draw.between(500, 20_000));
    let off = *draw.pick(&[10, 15, 20, 25, 30]);
    let question = format!(
        "A {thing} for {} is sold at {off}% off. About how many dollars does it cost?",
        dollars(price)
    );
    Made::new(question, vec![dollars(price), format!("{off}%")], price * (100 - off), 100)
}

fn buy_one_get_one(draw: &mut Draw) -> Made {
    let prices = prices(draw);
    let question = format!(
        "You take items for {}. The shop sorts them from the most to the least expensive and pairs them in \
         that order; in each pair, the second item is free. About how many dollars do you pay?",
        list(&prices)
    );
    let mut sorted = prices.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    Made::new(question, texts(&prices), sorted.iter().step_by(2).sum(), 1)
}

fn buy_n_get_m(draw: &mut Draw) -> Made {
    let (thing, price) = (draw.pick(&SMALL_THINGS), draw.between(79, 1999));
    let (paid, free) = (draw.between(2, 4), draw.between(1, 2));
    let count = draw.between(paid + free, 20);
    let question = format!(
        "Each {thing} costs {}. After every {paid} that you pay for, the next {free} {} free. About how many \
         dollars do you pay for {count} of them?",
        dollars(price),
        if free == 1 { "is" } else { "are" }
    );
    let (sets, rest) = (count / (paid + free), count % (paid + free));
    let operands = vec![dollars(price), paid.to_string(), free.to_string(), count.to_string()];
    Made::new(question, operands, price * (sets * paid + rest.min(paid)), 1)
}

fn threshold_coupon(draw: &mut Draw) -> Made {
    let prices = prices(draw);
    let (off, from) = (*draw.pick(&[500, 800, 1000]), draw.between(4, 10) * 500);
    let question = format!(
        "A coupon takes ${} off if the items come to at least ${}. They cost {}. About how many dollars do \
         you pay?",
        off / 100,
        from / 100,
        list(&prices)
    );
    let sum: i64 = prices.iter().sum();
    let mut operands = texts(&prices);
    operands.extend([off, from].map(dollars));
    Made::new(question, operands, if sum >= from { sum - off } else { sum }, 1)
}

fn stacked(draw: &mut Draw) -> Made {
    let (thing, price) = (draw.pick(&THINGS), draw.between(500, 20_000));
    let (first, second) = (*draw.pick(&[10, 20, 30, 40]), *draw.pick(&[5, 10, 15]));
    let question = format!(
        "A {thing} for {} is {first}% off, and a code takes another {second}% off the reduced price. About \
         how many dollars does it cost?",
        dollars(price)
    );
    let operands = vec![dollars(price), format!("{first}%"), format!("{second}%")];
    Made::new(question, operands, price * (100 - first) * (100 - second), 10_000)
}

fn tax_after_discount(draw: &mut Draw) -> Made {
    let (thing, price) = (draw.pick(&THINGS), draw.between(500, 20_000));
    let (tax, off) = (*draw.pick(&TAXES), *draw.pick(&[0, 10, 15, 20]));
    let (discount, taxed) = match off {
        0 => (String::new(), "price"),
        _ => (format!(" is {off}% off. It"), "reduced price"),
    };
    let question = format!(
        "A {thing} for {}{discount} is sold with a tax of {} on the {taxed}. About how many dollars do you \
         pay in all?",
        dollars(price),
        percent(tax)
    );
    let operands = vec![dollars(price), format!("{off}%"), percent(tax)];
    Made::new(question, operands, price * (100 - off) * (1000 + tax), 100_000)
}

fn tax_before_discount(draw: &mut Draw) -> Made {
    let (thing, price) = (draw.pick(&THINGS), draw.between(500, 20_000));
    let (tax, off) = (*draw.pick(&TAXES), *draw.pick(&[10, 15, 20]));
    let question = format!(
        "A {thing} for {} is {off}% off, but a tax of {} is charged on the full price. About how many \
         dollars do you pay in all?",
        dollars(price),
        percent(tax)
    );
    let operands = vec![dollars(price), format!("{off}%"), percent(tax)];
    Made::new(question, operands, price * (10 * (100 - off) + tax), 1000)
}

fn by_the_pound(draw: &mut Draw) -> Made {
    let (food, price, tenths) = (draw.pick(&FOODS), draw.between(79, 1999), draw.between(5, 95));
    let question = format!(
        "At {} a pound, about how many dollars do {} pounds of {food} cost?",
        dollars(price),
        with_tenths(tenths)
    );
    Made::new(question, vec![dollars(price), with_tenths(tenths)], price * tenths, 10)
}

fn by_the_kilogram(draw: &mut Draw) -> Made {
    let (food, price, grams) = (draw.pick(&FOODS), draw.between(150, 3999), draw.between(250, 900));
    let question =
        format!("At {} a kilogram, about how many dollars do {grams} grams of {food} cost?", dollars(price));
    Made::new(question, vec![dollars(price), grams.to_string()], price * grams, 1000)
}

fn tip(draw: &mut Draw) -> Made {
    let (meal, price) = (draw.pick(&MEALS), draw.between(1200, 12_000));
    let (tip, fee) = (*draw.pick(&[15, 18, 20, 22]), *draw.pick(&[0, 3, 5]));
    let added = match fee {
        0 => format!("a {tip}% tip"),
        _ => format!("a {tip}% tip and a {fee}% service fee, each"),
    };
    let question = format!(
        "{meal} costs {}. You add {added} on that price. About how many dollars do you pay in all?",
        dollars(price)
    );
    let operands = vec![dollars(price), format!("{tip}%"), format!("{fee}%")];
    Made::new(question, operands, price * (100 + tip + fee), 100)
}

fn crowd(draw: &mut Draw) -> Made {
    let event = draw.pick(&EVENTS);
    let (length, width, density) = (draw.between(30, 199), draw.between(20, 120), draw.between(1, 4));
    let people = if density == 1 { "person" } else { "people" };
    let question = format!(
        "A {event} fills a field of {length} meters by {width} meters, with {density} {people} on each \
         square meter. About how many people is that?"
    );
    let operands = [length, width, density].map(|number| number.to_string()).to_vec();
    Made::new(question, operands, length * width * density * 100, 1)
}

fn travel_time(draw: &mut Draw) -> Made {
    let (vehicle, tenths, speed) = (draw.pick(&VEHICLES), draw.between(20, 6000), draw.between(25, 65));
    let miles = with_tenths(tenths);
    let question = format!(
        "A {vehicle} goes {miles} miles at {speed} miles an hour. About how many minutes does that take?"
    );
    // An hour has 60 minutes, and a minute 100 hundredths.
    Made::new(question, vec![miles, speed.to_string()], tenths * 600, speed)
}

fn filling_time(draw: &mut Draw) -> Made {
    let (vessel, liters, tenths) = (draw.pick(&VESSELS), draw.between(40, 4000), draw.between(20, 400));
    let flow = with_tenths(tenths);
    let question = format!(
        "A {vessel} of {liters} liters is filled at {flow} liters a minute. About how many minutes does that \
         take?"
    );
    Made::new(question, vec![liters.to_string(), flow], liters * 1000, tenths)
}

/// Three to six prices in cents.
fn prices(draw: &mut Draw) -> Vec<i64> {
    (0..draw.between(3, 6)).map(|_| draw.between(79, 1999)).collect()
}

/// `$7.04`
fn dollars(cents: i64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

fn texts(prices: &[i64]) -> Vec<String> {
    prices.iter().copied().map(dollars).collect()
}

/// `$7.04, $1.25 and $3.50`
fn list(prices: &[i64]) -> String {
    let mut texts = texts(prices);
    let last = texts.pop().unwrap_or_default();
    format!("{} and {last}", texts.join(", "))
}

/// `3.5`, and `3` for a whole number.
fn with_tenths(tenths: i64) -> String {
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

/// `7.5%` from thousandths.
fn percent(thousandths: i64) -> String {
    with_tenths(thousandths) + "%"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_have_all_cells() {
        assert_eq!(TOPICS.iter().map(|row| row.2).sum::<usize>(), CELLS);
    }

    #[test]
    fn half_a_hundredth_is_rounded_up() {
        let of = |numerator, denominator| Hundredths { numerator, denominator }.text();
        assert_eq!(
            [of(1234, 1), of(12_345, 10), of(12_344, 10), of(5, 10), of(199, 2)],
            ["12.34", "12.35", "12.34", "0.01", "1.00"]
        );
    }
}
