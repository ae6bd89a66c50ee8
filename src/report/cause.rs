//! Why two cells part, in sentences for somebody who has to mend it.

use super::{
    Trees,
    words::{grouped, plural},
};
use crate::{
    cause::{Apart, Cause, Culprit, Effect, Manner, Smallest, Transplants},
    numerics::{Numerics, order::Launch},
};

/// So many operations are named; more are counted.
const NAMED: usize = 6;

/// What a person reads of a cause: the operation, how either cell carries it out, what transplants say.
pub(crate) fn sentences(cause: &Cause) -> Vec<String> {
    let mut sentences = vec![first(cause)];
    sentences.extend(manners(&cause.first));
    sentences.extend(transplants(cause));
    sentences
}

/// Which operation is the first that gives something else, and how much of what it gives.
fn first(Cause { tokens, prompt, first, .. }: &Cause) -> String {
    let Culprit { operation, position, head, read_otherwise, apart, .. } = first;
    let head = head.map_or_else(String::new, |head| format!(", head {head}"));
    let whose = if position < prompt { "in the prompt" } else { "behind the prompt" };
    let place = format!("{operation}{head}, for position {position} of {tokens} ({whose})");
    if *read_otherwise {
        return format!(
            "Every operation gives the same up to {place}, which reads something else: the difference arises between operations."
        );
    }
    let Apart { values, moved, steps, format, .. } = apart;
    format!(
        "The first operation that reads the same and gives something else: {place}. Of its {} {} other bits, by at most {} of {format}.",
        plural(*values as u64, "result"),
        if *moved == 1 { "1 has".to_owned() } else { format!("{} have", grouped(*moved as u64)) },
        plural(*steps, "step")
    )
}

/// How either cell carries the first operation out.
fn manners(Culprit { sides: [one, other], terms, .. }: &Culprit) -> Vec<String> {
    let call = |manner: &Manner| format!("a call of {}", plural(manner.rows as u64, "row"));
    let carried = match (one.numerics == other.numerics, one.rows == other.rows) {
        (true, true) => format!("Both carry it out as {}, in {}", one.numerics, call(one)),
        (true, false) => {
            format!("Both carry it out as {}, A in {} and B in {}", one.numerics, call(one), call(other))
        }
        (false, true) => {
            format!("A carries it out as {} and B as {}, in {}", one.numerics, other.numerics, call(one))
        }
        (false, false) => format!(
            "A carries it out as {} in {}, B as {} in {}",
            one.numerics,
            call(one),
            other.numerics,
            call(other)
        ),
    };
    let Some(terms) = terms else { return vec![carried + "."] };
    let added_by = |manner: &Manner| {
        let order = manner.numerics.parse::<Numerics>().ok()?.order();
        Some((order, Launch { rows: manner.rows, threads: manner.threads }))
    };
    let trees = added_by(one).zip(added_by(other)).and_then(|(one, other)| Trees::of([one, other]));
    let carried = format!("{carried}, and add {} for each result.", plural(*terms as u64, "term"));
    [Some(carried), trees.as_ref().map(added)].into_iter().flatten().collect()
}

/// How two cells add the same terms.
pub(super) fn added(Trees { terms, orders, trees }: &Trees) -> String {
    let [one, other] = orders;
    let [tree, other_tree] = trees;
    format!("Of {terms} terms {one} adds {tree}, and {other} adds {other_tree}.")
}

/// What carrying operations out as the other cell does has shown.
fn transplants(Cause { transplants, first, .. }: &Cause) -> Vec<String> {
    let Transplants { suspects, complete, first: alone, smallest, tried } = transplants;
    let mut sentences = vec![format!("By transplant, {} alone {}.", first.operation, effect(*alone, false))];
    match smallest {
        None => sentences.push("No set of operations that was tried makes A do what B does.".to_owned()),
        // What the first does alone has been told.
        Some(Smallest { operations, .. }) if operations[..] == [first.operation.clone()] => {}
        Some(Smallest { operations, minimal, effect: together }) => {
            let is_one = operations.len() == 1;
            let named: Vec<String> = operations.iter().take(NAMED).map(ToString::to_string).collect();
            let more = operations.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {} more", grouped(more as u64)) } else { String::new() };
            let proof = if *minimal || is_one { "" } else { " (there may be fewer)" };
            sentences.push(format!(
                "{}{more}, the fewest found in {}{proof}, {}.",
                named.join(", "),
                plural(*tried as u64, "trial"),
                effect(*together, !is_one),
            ));
        }
    }
    let count = plural(suspects.len() as u64, "operation");
    sentences.push(match complete {
        true => format!(
            "In all, {count} of the model {} something else from the same inputs; with all of them as in B, A has the logits of B to the \
             last bit.",
            if suspects.len() == 1 { "gives" } else { "give" }
        ),
        false => format!(
            "In all, {count} of the model {} something else from the same inputs, but with all of them as in B, A does not have the \
             logits of B to the last bit: what lies between operations differs, too, such as the weights of norms.",
            if suspects.len() == 1 { "gives" } else { "give" }
        ),
    });
    sentences
}

/// What a transplant of one operation or of several does.
fn effect(Effect { sufficient, necessary }: Effect, are_several: bool) -> String {
    let (is, it) = if are_several { ("are", "them") } else { ("is", "it") };
    match (sufficient, necessary) {
        (true, true) => format!(
            "{is} the cause: with {it} as in B, A does what B does (sufficient), and with {it} as in A, B does what A does (necessary)"
        ),
        (true, false) => format!(
            "{is} sufficient, not necessary: with {it} as in B, A does what B does, but with {it} as in A, B does so all the same"
        ),
        (false, true) => format!(
            "{is} necessary, not sufficient: with {it} as in A, B does what A does, but with {it} as in B, A goes its own way"
        ),
        (false, false) => {
            format!("{is} neither sufficient nor necessary: either cell goes its own way without {it}")
        }
    }
}
