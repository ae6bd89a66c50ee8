//! What configurations cost against how far they are from the reference, and a line through those that no other beats.

use super::{
    Figure, MOST_LETTERS, MOST_SERIES, Svg,
    curves::{Frame, Ticks, decades, percents},
    shortened,
};
use crate::report::{
    Report,
    cost::{self, Point},
    words::{plural, scaled},
};

/// Nothing where there is nothing to choose between.
pub(super) fn cost(report: &Report) -> Option<Figure> {
    let points = cost::points(report);
    let front = cost::front(&points);
    if front.is_empty() {
        return None;
    }
    let mut precisions: Vec<&str> = Vec::new();
    for point in &points {
        if !precisions.contains(&point.precision.as_str()) {
            precisions.push(&point.precision);
        }
    }
    let left = precisions.len().saturating_sub(MOST_SERIES);
    precisions.truncate(MOST_SERIES);
    let names: Vec<_> = precisions.iter().map(|name| shortened(name, MOST_LETTERS)).collect();
    let bytes = || points.iter().map(|point| point.bytes);
    let scale = Scale::of(bytes().min()?, bytes().max()?);
    let farthest = points.iter().map(Point::distance).fold(0.0, f64::max);
    let most = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|most| farthest <= *most).unwrap_or(1.0);
    let mut body = Svg::default();
    let ticks = [
        scale.ticks("bytes that are read for a token, log scale"),
        percents("answers that are not the reference's, %", most),
    ];
    let frame = Frame::new(&mut body, &names, ticks);
    let place = |point: &Point| frame.place([scale.across(point.bytes), point.distance() / most]);
    body.path("curve", "2 3", front.iter().map(place), false);
    let is_in_front = |point: &Point| {
        front.iter().any(|best| (best.bytes, best.distance()) == (point.bytes, point.distance()))
    };
    for (series, precision) in precisions.iter().enumerate() {
        body.open(series);
        points.iter().filter(|point| point.precision == **precision).for_each(|point| {
            body.mark(series, place(point));
            if is_in_front(point) {
                body.ring(place(point));
            }
        });
        body.close();
    }
    let rest = if left == 0 {
        String::new()
    } else {
        format!(" {} are left out; the JSON has them.", plural(left as u64, "more precision"))
    };
    let sentence = format!(
        "Every configuration by what it costs and by the answers in which it is not like the reference. {} These have a ring, and \
         a dotted line joins them.{rest}",
        cost::sentence(&front)
    );
    let title = "What precision costs, and what it changes".to_owned();
    Some(Figure { name: "cost", title, sentence, height: frame.height(), body })
}

/// From 1, 2 or 5 times a power of ten to another, by the logarithm.
struct Scale {
    marks: Vec<u64>,
}

impl Scale {
    fn of(least: u64, most: u64) -> Scale {
        let all = (0..19_u32).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
        let all: Vec<u64> = all.collect();
        let from = all.partition_point(|mark| *mark <= least).saturating_sub(1);
        let to = all.partition_point(|mark| *mark < most).max(from + 1).min(all.len() - 1);
        Scale { marks: all[from..=to].to_vec() }
    }

    fn across(&self, bytes: u64) -> f64 {
        let at = |bytes: u64| decades(bytes.max(1) as f32);
        let [from, to] = [0, self.marks.len() - 1].map(|end| at(self.marks[end]));
        (at(bytes) - from) / (to - from)
    }

    fn ticks(&self, label: &str) -> Ticks {
        // As many as can be read.
        let every = self.marks.len().div_ceil(7);
        let marks = self.marks.iter().step_by(every);
        let at = marks.map(|mark| {
            (self.across(*mark), scaled(*mark, "B").replace(".000", "").replace(".00", "").replace(".0", ""))
        });
        Ticks { label: label.to_owned(), at: at.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_beyond_what_it_shows() {
        assert_eq!(Scale::of(1_207_296, 4_900_000).marks, [1_000_000, 2_000_000, 5_000_000]);
        assert_eq!(Scale::of(200, 500).marks, [200, 500]);
        assert_eq!(Scale::of(200, 201).marks, [200, 500]);
        assert_eq!(Scale::of(0, 0).marks, [1, 2]);
        let scale = Scale::of(150, 90_000);
        assert_eq!([100, 100_000].map(|bytes| scale.across(bytes)), [0.0, 1.0]);
        let labels: Vec<_> = scale.ticks("").at.into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["100 B", "500 B", "2 kB", "10 kB", "50 kB"]);
    }
}
