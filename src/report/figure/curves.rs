//! What happens along the tokens: how long outputs stay the same, how far their logits are apart, and near which margins
//! another token comes to rank first.

use super::{EDGE, Figure, MOST_LETTERS, MOST_SERIES, Svg, WIDTH, series, shortened};
use crate::{
    compare::MARGINS,
    numerics::elementary::log,
    report::{
        CONFIDENCE, CourseRow, Report, SurvivalRow,
        data::Family,
        words::{self, of_one_cell, share},
    },
    stats::proportion::Proportion,
};

const LEFT: f64 = 48.0;
const WIDE: f64 = WIDTH - LEFT - 20.0;
const HIGH: f64 = 230.0;
/// Places on the way from left to right; what lies between two of them is pooled.
const COLUMNS: usize = 240;

/// A curve in units of the frame: 0 is left and at the bottom, 1 is right and at the top.
#[derive(Default)]
struct Curve {
    points: Vec<[f64; 2]>,
    /// From where to where the truth may lie: at a place the lower and the upper end.
    around: Vec<[f64; 3]>,
}

pub(super) struct Ticks {
    pub(super) label: String,
    pub(super) at: Vec<(f64, String)>,
}

/// The four, as far as there is a reference and something beside it.
pub(super) fn all(report: &Report) -> Vec<Figure> {
    let with_course = report.precisions.iter().filter(|row| row.course.is_some());
    let with_course = with_course.map(|row| Family { name: row.name(), row, was: None });
    let (rows, names, rest) = series(with_course.collect());
    let courses: Vec<_> = rows.iter().filter_map(|row| row.course.as_ref()).collect();
    if courses.is_empty() {
        return Vec::new();
    }
    let standard = words::standard(report);
    let mut figures = vec![
        survival(&courses, &names, standard),
        drift(&courses, &names),
        moved(&courses, &names, standard),
        margins(&courses, &names, standard),
    ];
    for figure in &mut figures {
        figure.sentence.push_str(&rest);
    }
    figures
}

fn survival(courses: &[&CourseRow], names: &[String], standard: &str) -> Figure {
    let end = places(courses);
    let across = |tokens: u64| tokens as f64 / end as f64;
    let curves = courses.iter().map(|course| {
        // Of the steps that fall on one place of the picture the last one stands for all.
        let column = |step: &SurvivalRow| step.tokens * COLUMNS as u64 / end;
        let steps = course.survival.chunk_by(|one, other| column(one) == column(other));
        let mut curve = Curve { points: vec![[0.0, 1.0]], around: vec![[0.0, 1.0, 1.0]] };
        for step in steps.filter_map(<[_]>::last) {
            let x = across(step.tokens);
            let before = curve.points.last().map_or(1.0, |[_, y]| *y);
            curve.points.extend([[x, before], [x, step.share]]);
            let [_, low, high] = curve.around.last().copied().unwrap_or([0.0, 1.0, 1.0]);
            let interval = step.interval.map_or([step.share; 2], |interval| [interval.lower, interval.upper]);
            curve.around.extend([[x, low, high], [x, interval[0], interval[1]]]);
        }
        let last = curve.points.last().map_or(1.0, |[_, y]| *y);
        curve.points.push([1.0, last]);
        if let Some([_, low, high]) = curve.around.last().copied() {
            curve.around.push([1.0, low, high]);
        }
        curve
    });
    let curves: Vec<_> = curves.collect();
    let left: Vec<_> =
        courses.iter().map(|course| course.survival.last().map_or(1.0, |step| step.share)).collect();
    let least = (0..left.len()).min_by(|one, other| left[*one].total_cmp(&left[*other])).unwrap_or_default();
    let outputs: u64 = courses.iter().map(|course| course.outputs).sum();
    let sentence = format!(
        "The share of outputs that still have every token of {standard}, over {} outputs, with {:.0} % intervals as bands for \
         as many outputs as one cell has; the least is left of {}, with {:.1} %.",
        words::grouped(outputs),
        100.0 * CONFIDENCE,
        names[least],
        100.0 * left[least]
    );
    let ticks = [tokens(end), percents("outputs that have not parted, %", 1.0)];
    chart("survival", "How long outputs stay the same", sentence, names, &curves, ticks, Look::Band)
}

fn drift(courses: &[&CourseRow], names: &[String]) -> Figure {
    let end = places(courses);
    let all = courses.iter().flat_map(|course| &course.drift).filter_map(|drift| drift.most);
    let scale = Decades::of(all);
    let curves = courses.iter().map(|course| {
        // Where logits are not seen there is no point.
        let points = pooled(course, end).filter_map(|(x, drifts)| {
            let most = drifts.iter().try_fold(0.0, |most: f32, drift| Some(most.max(drift.most?)));
            Some([x, scale.up(most?)])
        });
        Curve { points: points.collect(), around: Vec::new() }
    });
    let curves: Vec<_> = curves.collect();
    let most = scale.most;
    let largest = if most > 0.0 { format!(", at most {most}") } else { String::new() };
    let sentence = format!(
        "The largest difference of a logit that any output has after so many tokens, as long as both cells have read the \
         same{largest}; 0 is where no logit differs{}.",
        bundled(end)
    );
    let up = scale.ticks("largest difference of a logit, log scale");
    chart("drift", "How far logits drift apart", sentence, names, &curves, [tokens(end), up], Look::Plain)
}

/// How a difference grows through the model, from its first operation to its logits, at the token where two cells part.
pub(super) fn growth(report: &Report) -> Option<Figure> {
    let cause = report.first.as_ref()?.cause.as_ref()?;
    let relatives: Vec<f32> =
        cause.growth.iter().map(|growth| growth.apart.relative.unwrap_or_default() as f32).collect();
    let (scale, last) = (Decades::of(relatives.iter().copied()), relatives.len().saturating_sub(1).max(1));
    let across = |at: usize| at as f64 / last as f64;
    let points = relatives.iter().enumerate().map(|(at, relative)| [across(at), scale.up(*relative)]);
    let curve = Curve { points: points.collect(), around: Vec::new() };
    // The layers by their numbers, as many as can be read.
    let stations = cause.growth.iter().enumerate();
    let every = (relatives.len() / 8).max(1);
    let at = stations.filter_map(|(at, growth)| match growth.operation.layer {
        Some(layer) => layer.is_multiple_of(every).then(|| (across(at), layer.to_string())),
        None if at == last => Some((1.0, "logits".to_owned())),
        None => None,
    });
    let across = Ticks { label: "after layer".to_owned(), at: at.collect() };
    let sentence = format!(
        "How far B is from A after each layer, as a part of the length of what A has there, at the last of the {} tokens that both have \
         read; 0 is where no bit differs.",
        words::grouped(cause.tokens as u64)
    );
    let ticks = [across, scale.ticks("relative difference, log scale")];
    let names = ["B from A".to_owned()];
    Some(chart("growth", "How the difference grows", sentence, &names, &[curve], ticks, Look::Plain))
}

/// How soon changes are told from what a precision leaves free.
pub(super) fn detection(precision: &str, told: f64, changes: Vec<(String, Vec<(u64, f64)>)>) -> Figure {
    let changes: Vec<_> =
        changes.into_iter().filter(|(_, curve)| !curve.is_empty()).take(MOST_SERIES).collect();
    let last = changes.iter().filter_map(|(_, curve)| Some(curve.last()?.0)).max().unwrap_or(1);
    let end = decades(last as f32).ceil().max(1.0);
    // Chance alone is at the bottom.
    let point = |(tokens, auc): &(u64, f64)| [decades(*tokens as f32) / end, 2.0 * auc - 1.0];
    let curve = |(_, curve): &(String, Vec<(u64, f64)>)| Curve {
        points: curve.iter().map(point).collect(),
        around: Vec::new(),
    };
    let curves: Vec<_> = changes.iter().map(curve).collect();
    let names: Vec<_> = changes.iter().map(|(name, _)| shortened(name, MOST_LETTERS)).collect();
    let sentence = format!(
        "How well the mean distance of so many tokens tells each change from what {precision} leaves free, as the area below the ROC curve: \
         0.5 is chance. A curve ends at twice the tokens after which it reaches {told}, or where there are no more."
    );
    let across = (0..=end as i32).map(|power| (f64::from(power) / end, power_of_ten(power)));
    let up =
        (5..=10_u32).map(|tenths| (f64::from(tenths) / 5.0 - 1.0, format!("{}", f64::from(tenths) / 10.0)));
    let ticks = [
        Ticks { label: "tokens, log scale".to_owned(), at: across.collect() },
        Ticks { label: "area below the ROC curve".to_owned(), at: up.collect() },
    ];
    chart("detection", "How soon a change is told", sentence, &names, &curves, ticks, Look::Plain)
}

/// How much each step of a sweep moves.
pub(super) fn sweep(axis: &str, steps: &[(&str, [Proportion; 2])], sentence: String) -> Figure {
    let rate = |share: Proportion| share.rate().unwrap_or_default() as f32;
    let ends =
        |share: Proportion| share.wilson(CONFIDENCE).map(|ends| [ends.lower as f32, ends.upper as f32]);
    let shares = || steps.iter().flat_map(|(_, shares)| *shares);
    // The whiskers of what moves nothing reach as high as it might.
    let uppers = shares().filter_map(ends).map(|[_, upper]| upper);
    let scale = Decades::of(shares().map(rate).chain(uppers));
    let across = |at: usize, aside: f64| (at as f64 + 0.5 + aside) / steps.len().max(1) as f64;
    // Beside each other, so that none hides another.
    let curves = [-0.12, 0.12].into_iter().enumerate().map(|(kind, aside)| {
        let mut curve = Curve::default();
        for (at, (_, shares)) in steps.iter().enumerate() {
            let x = across(at, aside);
            curve.points.push([x, scale.up(rate(shares[kind]))]);
            let ends = ends(shares[kind]).map(|ends| ends.map(|end| scale.up(end)));
            curve.around.extend(ends.map(|[lower, upper]| [x, lower, upper]));
        }
        curve
    });
    let curves: Vec<_> = curves.collect();
    let names = ["tokens".to_owned(), "texts".to_owned()];
    let labels = steps.iter().enumerate().step_by(steps.len().div_ceil(12).max(1));
    let ticks = [
        Ticks {
            label: format!("{axis}, from the widest to the narrowest"),
            at: labels.map(|(at, (width, _))| (across(at, 0.0), (*width).to_owned())).collect(),
        },
        scale.ticks("share that moves, log scale"),
    ];
    chart("sweep", "What each width moves", sentence, &names, &curves, ticks, Look::Whiskers)
}

/// A scale by powers of ten, below which there is room for those that are nought.
struct Decades {
    from: f64,
    to: f64,
    most: f32,
}

impl Decades {
    /// From the least of these that is not nought to the largest.
    fn of(values: impl Iterator<Item = f32>) -> Decades {
        let finite = values.filter(|value| *value > 0.0 && value.is_finite());
        let (least, most) = finite.fold((f32::MAX, 0.0_f32), |(least, most), x| (least.min(x), most.max(x)));
        let (from, to) = if most > 0.0 {
            let (from, to) = (decades(least).floor(), decades(most).ceil());
            (from, to.max(from + 1.0))
        } else {
            (-1.0, 0.0)
        };
        Decades { from, to, most }
    }

    fn above(&self, exponent: f64) -> f64 {
        0.08 + 0.92 * (exponent - self.from) / (self.to - self.from)
    }

    /// How far up a value is.
    fn up(&self, value: f32) -> f64 {
        match value {
            value if value.is_infinite() => 1.0,
            value if value > 0.0 => self.above(decades(value)),
            _ => 0.0,
        }
    }

    fn ticks(&self, label: &str) -> Ticks {
        let step = ((self.to - self.from) / 7.0).ceil().max(1.0) as usize;
        let exponents = (self.from as i32..=self.to as i32).step_by(step);
        let powers = exponents.map(|exponent| (self.above(f64::from(exponent)), power_of_ten(exponent)));
        let at = [(0.0, "0".to_owned())].into_iter().chain(powers).collect();
        Ticks { label: label.to_owned(), at }
    }
}

fn moved(courses: &[&CourseRow], names: &[String], standard: &str) -> Figure {
    let end = places(courses);
    let curves = courses.iter().map(|course| {
        let points = pooled(course, end).filter_map(|(x, drifts)| {
            let moved = drifts.iter().map(|drift| Some(Proportion { hits: drift.moved?, of: drift.outputs }));
            Some([x, moved.sum::<Option<Proportion>>()?.rate().unwrap_or_default()])
        });
        Curve { points: points.collect(), around: Vec::new() }
    });
    let curves: Vec<_> = curves.collect();
    let sentence = format!(
        "Of the outputs that have not parted after so many tokens, the share of those whose logits are not those of \
         {standard} to the last bit{}.",
        bundled(end)
    );
    let ticks = [tokens(end), percents("outputs with other logits, %", 1.0)];
    chart("moved", "How many outputs have other logits", sentence, names, &curves, ticks, Look::Plain)
}

fn margins(courses: &[&CourseRow], names: &[String], standard: &str) -> Figure {
    let rows = || {
        courses.iter().map(|course| {
            let interval = |range| of_one_cell(range, course.cells).wilson(CONFIDENCE);
            course.margins.iter().map(move |range| Some((range.rate()?, interval(*range)?)))
        })
    };
    let highest = rows().flatten().flatten().map(|(_, interval)| interval.upper).fold(0.0, f64::max);
    let most = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|most| highest <= *most).unwrap_or(1.0);
    let ranges = MARGINS.len() + 1;
    let curves = rows().enumerate().map(|(series, rates)| {
        // Beside each other, so that none hides another.
        let aside = 0.6 * ((series as f64 + 0.5) / names.len() as f64 - 0.5);
        let mut curve = Curve::default();
        for (range, found) in rates.enumerate() {
            let Some((rate, interval)) = found else { continue };
            let x = (range as f64 + 0.5 + aside) / ranges as f64;
            curve.points.push([x, rate / most]);
            curve.around.push([x, interval.lower / most, interval.upper / most]);
        }
        curve
    });
    let curves: Vec<_> = curves.collect();
    let by_range = |range: usize| courses.iter().map(|course| course.margins[range]).sum::<Proportion>();
    let known = (0..ranges).map(|range| (range, by_range(range))).filter(|(_, all)| all.of > 0);
    let ends: Vec<_> = known
        .map(|(range, all)| {
            let place = match (range.checked_sub(1).map(|at| MARGINS[at]), MARGINS.get(range)) {
                (None, Some(end)) => format!("below {end}"),
                (Some(begin), Some(end)) => format!("from {begin} to {end}"),
                (begin, None) => format!("from {} up", begin.unwrap_or_default()),
            };
            format!("{} {place}", share(all))
        })
        .collect();
    let ends = match &ends[..] {
        [] => String::new(),
        [only] => format!(": {only}"),
        [first, .., last] => format!(": {first}, and {last}"),
    };
    let sentence = format!(
        "How often another token ranks first than in {standard}, by the lead that the first had over the second there, with \
         {:.0} % Wilson intervals for as many places as one cell has, which take places for independent{ends}.",
        100.0 * CONFIDENCE
    );
    let edges = MARGINS.iter().enumerate();
    let ticks = [
        Ticks {
            label: format!("margin in {standard}, in logits"),
            at: edges.map(|(at, edge)| ((at + 1) as f64 / ranges as f64, edge.to_string())).collect(),
        },
        percents("places with another first token, %", most),
    ];
    chart("margins", "Near which margins tokens change", sentence, names, &curves, ticks, Look::Whiskers)
}

/// How many places there are: at least one, so that there is a width.
fn places(courses: &[&CourseRow]) -> u64 {
    let ends = courses.iter().map(|course| {
        let parted = course.survival.last().map_or(0, |step| step.tokens);
        parted.max(course.drift.len() as u64)
    });
    ends.max().unwrap_or_default().max(1)
}

/// The places of each column, and where it lies.
fn pooled(course: &CourseRow, end: u64) -> impl Iterator<Item = (f64, &[crate::compare::Drift])> {
    let size = bundle(end);
    course.drift.chunks(size).enumerate().map(move |(at, drifts)| ((at * size) as f64 / end as f64, drifts))
}

fn bundle(end: u64) -> usize {
    (end as usize).div_ceil(COLUMNS)
}

fn bundled(end: u64) -> String {
    match bundle(end) {
        1 => String::new(),
        size => format!("; every point stands for {size} tokens"),
    }
}

pub(super) fn decades(x: f32) -> f64 {
    f64::from(log(x)) / std::f64::consts::LN_10
}

fn power_of_ten(exponent: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize],
    };
    match exponent {
        -2..=2 => ["0.01", "0.1", "1", "10", "100"][(exponent + 2) as usize].to_owned(),
        _ => format!("10{}", exponent.to_string().chars().map(raised).collect::<String>()),
    }
}

fn tokens(end: u64) -> Ticks {
    let steps = (0..20)
        .flat_map(|zeros| [1, 2, 5].map(|digit: u64| digit.saturating_mul(10_u64.saturating_pow(zeros))));
    let step = steps.into_iter().find(|step| end / step <= 7).unwrap_or(end);
    let at = (0..=end / step).map(|number| (number * step) as f64 / end as f64);
    Ticks {
        label: "tokens that both have in common".to_owned(),
        at: at.enumerate().map(|(number, x)| (x, (number as u64 * step).to_string())).collect(),
    }
}

pub(super) fn percents(label: &str, most: f64) -> Ticks {
    let at = |fifth: u32| {
        let share = f64::from(fifth) / 5.0;
        // A tenth of a percent is the least step there is.
        let tenths = (1000.0 * share * most).round();
        (share, (tenths / 10.0).to_string())
    };
    Ticks { label: label.to_owned(), at: (0..=5).map(at).collect() }
}

/// What is drawn of a curve beside its line.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    Plain,
    Band,
    Whiskers,
}

fn chart(
    name: &'static str,
    title: &'static str,
    sentence: String,
    names: &[String],
    curves: &[Curve],
    ticks: [Ticks; 2],
    look: Look,
) -> Figure {
    let mut body = Svg::default();
    let frame = Frame::new(&mut body, names, ticks);
    let place = |at| frame.place(at);
    for (series, curve) in curves.iter().enumerate() {
        body.open(series);
        let ends = |end: usize| curve.around.iter().map(move |around| [around[0], around[end]]);
        match look {
            Look::Plain => {}
            Look::Band => body.path("band", "", ends(1).chain(ends(2).rev()).map(place), true),
            Look::Whiskers => {
                for [x, low, high] in &curve.around {
                    body.line("whisker", place([*x, *low]), place([*x, *high]));
                }
            }
        }
        body.path("curve", super::dashes(series), curve.points.iter().copied().map(place), false);
        let marks = match look {
            Look::Whiskers => curve.points.clone(),
            // Each series has its own places, so that marks show where curves lie on each other.
            _ => along(&curve.points, (series as f64 + 0.5) / curves.len() as f64),
        };
        marks.into_iter().for_each(|mark| body.mark(series, place(mark)));
        body.close();
    }
    Figure { name, title: title.to_owned(), sentence, height: frame.height(), body }
}

/// Two axes with their ticks, below a legend.
pub(super) struct Frame {
    bottom: f64,
}

impl Frame {
    pub(super) fn new(body: &mut Svg, names: &[String], [across, up]: [Ticks; 2]) -> Frame {
        let head = body.legend(names) + 8.0;
        let (top, bottom) = (head + 12.0, head + 12.0 + HIGH);
        let frame = Frame { bottom };
        body.text(EDGE, head, "axis", "start", &up.label);
        for (at, label) in &across.at {
            let [x, y] = frame.place([*at, 0.0]);
            body.line("grid", [x, y], [x, top]);
            body.text(x, y + 18.0, "soft", "middle", label);
        }
        for (at, label) in &up.at {
            let [x, y] = frame.place([0.0, *at]);
            body.line("grid", [x, y], [x + WIDE, y]);
            body.text(x - 8.0, y + 4.5, "soft", "end", label);
        }
        body.line("frame", [LEFT, top], [LEFT, bottom]);
        body.line("frame", [LEFT, bottom], [LEFT + WIDE, bottom]);
        body.text(LEFT + WIDE / 2.0, bottom + 38.0, "axis", "middle", &across.label);
        frame
    }

    /// Where something lies whose place is 0 at the left and at the bottom, and 1 at the right and at the top.
    pub(super) fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [LEFT + WIDE * x.clamp(0.0, 1.0), self.bottom - HIGH * y.clamp(0.0, 1.0)]
    }

    /// Of the whole figure.
    pub(super) fn height(&self) -> f64 {
        self.bottom + 48.0
    }
}

/// A few places on a curve, evenly from left to right.
fn along(points: &[[f64; 2]], aside: f64) -> Vec<[f64; 2]> {
    let on = |x: f64| {
        let after = points.partition_point(|point| point[0] <= x);
        let ([from, low], [to, high]) = (*points.get(after.checked_sub(1)?)?, *points.get(after)?);
        Some([x, low + (high - low) * (x - from) / (to - from)])
    };
    let marks: Vec<_> = (0..5).filter_map(|fifth| on((f64::from(fifth) + aside) / 5.0)).collect();
    if marks.is_empty() { points.first().copied().into_iter().collect() } else { marks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lies_on_its_curve() {
        let steps = [[0.0, 1.0], [0.5, 1.0], [0.5, 0.25], [1.0, 0.25]];
        assert_eq!(along(&steps, 0.5), [[0.1, 1.0], [0.3, 1.0], [0.5, 0.25], [0.7, 0.25], [0.9, 0.25]]);
        let [_, [x, y], ..] = along(&[[0.0, 0.0], [1.0, 1.0]], 0.5)[..] else { panic!("too few marks") };
        assert_eq!(x, y);
        assert_eq!(along(&[[0.0, 0.3]], 0.5), [[0.0, 0.3]], "a point alone is marked");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (end, last, count) in [(1, "1", 2), (7, "7", 8), (8, "8", 5), (99, "80", 5), (32_768, "30000", 7)]
        {
            let ticks = tokens(end).at;
            assert_eq!((ticks.last().unwrap().1.as_str(), ticks.len()), (last, count), "{end}");
        }
        assert_eq!(percents("", 0.01).at[1].1, "0.2");
        assert_eq!([-8, -1, 0, 3, 12].map(power_of_ten), ["10⁻⁸", "0.1", "1", "10³", "10¹²"]);
    }
}
