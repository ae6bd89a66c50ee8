//! What is found in a text, by which rule, and what becomes of it: real-looking outputs and hostile ones.

use proptest::prelude::*;
use reprocheck::suite::{
    answer::{Answer, Kind},
    extract::{Filter, Found, extract},
    score::{Outcome, Score, Scores, score},
    style::Style::{self, Chat, Compact, Completion},
};

const WHOLE: bool = false;
const CUT: bool = true;
/// Flexible, as under strict.
const SAME: &str = "";

/// A text, how it was asked for, the right answer, whether the text was cut; outcome, rule and answer under the
/// strict filter, and under the flexible one.
type Row = (&'static str, Style, Kind, &'static str, bool, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Plain chat.
    ("We add 2 and 3.\nAnswer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("The answer is 5.", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("answer is: -5", Chat, Kind::Integer, "-5", WHOLE, "correct answer-line `-5`", SAME),
    ("**Answer: 5**", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("**Answer:** 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("**Answer**: `5`", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("### Answer\n5", Chat, Kind::Integer, "5", WHOLE, "no_answer", "correct last-number `5`"),
    ("Final Answer:\n\n28,811", Chat, Kind::Integer, "28811", WHOLE, "correct answer-line `28,811`", SAME),
    ("FINAL ANSWER IS 28811.0", Chat, Kind::Integer, "28811", WHOLE, "correct answer-line `28811.0`", SAME),
    ("Answer: 12 apples", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer: $1,234.50", Chat, Kind::Number, "1234.5", WHOLE, "correct answer-line `1,234.50`", SAME),
    ("Answer: 613 * 47 = 28811", Chat, Kind::Integer, "28811", WHOLE, "correct answer-line `28811`", SAME),
    ("The answer is 5 because 2 + 3 = 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("The answer is 4? No: 2 + 3 is 5.\nAnswer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("Answer: 4\nWait, I made a mistake.\nAnswer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("Answer: 5\nThe answer is clear.", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("Answer: −17", Chat, Kind::Integer, "-17", WHOLE, "correct answer-line `-17`", SAME),
    ("Answer: +0017", Chat, Kind::Integer, "17", WHOLE, "correct answer-line `+0017`", SAME),
    ("Answer: - 5", Chat, Kind::Integer, "-5", WHOLE, "correct answer-line `- 5`", SAME),
    ("Answer: 10-5", Chat, Kind::Integer, "5", WHOLE, "wrong answer-line `10`", SAME),
    ("Answer: 50%", Chat, Kind::Number, "50", WHOLE, "correct answer-line `50`", SAME),
    ("Answer: 3/4", Chat, Kind::Integer, "3", WHOLE, "wrong answer-line `3/4`", SAME),
    ("Answer: 2.8811e4", Chat, Kind::Integer, "28811", WHOLE, "wrong answer-line `2.8811e4`", SAME),
    ("Answer: five", Chat, Kind::Integer, "5", WHOLE, "no_answer", SAME),
    ("The unanswered questions were 3.", Chat, Kind::Integer, "3", WHOLE, "no_answer", "correct last-number `3`"),
    ("The answer isn't 7", Chat, Kind::Integer, "7", WHOLE, "no_answer", "correct last-number `7`"),
    ("My answers: 3", Chat, Kind::Integer, "3", WHOLE, "no_answer", "correct last-number `3`"),
    // Thousands and lists and europe.
    ("Answer: 1,234,567", Chat, Kind::Integer, "1234567", WHOLE, "correct answer-line `1,234,567`", SAME),
    ("Answer: 1,2,3", Chat, Kind::Integer, "1", WHOLE, "wrong answer-line `1,2,3`", SAME),
    ("Answer: 1.234,56", Chat, Kind::Decimal, "1.234", WHOLE, "wrong answer-line `1.234,56`", SAME),
    ("Answer: 1.234,56", Chat, Kind::Decimal, "1234.56", WHOLE, "wrong answer-line `1.234,56`", SAME),
    ("Answer: 1,2345", Chat, Kind::Integer, "12345", WHOLE, "wrong answer-line `1,2345`", SAME),
    ("Answer: 0,123", Chat, Kind::Integer, "123", WHOLE, "wrong answer-line `0,123`", SAME),
    ("Answer: [1, 2, 3]", Chat, Kind::List, "[1,2,3]", WHOLE, "correct answer-line `[1, 2, 3]`", SAME),
    ("Answer: 1,2,3.", Chat, Kind::List, "[1, 2, 3]", WHOLE, "correct answer-line `1,2,3.`", SAME),
    ("The sorted list: no. The answer is **[3, 1, 2]**", Chat, Kind::List, "[1, 2, 3]", WHOLE, "wrong answer-line `[3, 1, 2]`", SAME),
    ("\\boxed{[1, 2, 3]}", Chat, Kind::List, "1,2,3", WHOLE, "correct boxed `[1, 2, 3]`", SAME),
    // Boxes.
    ("So $x = \\boxed{5}$.", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("\\boxed{1} \\boxed{2} \\boxed{3} \\boxed{4} \\boxed{5} \\boxed{6} \\boxed{7} \\boxed{8} \\boxed{9} \\boxed{10}", Chat, Kind::Integer, "10", WHOLE, "correct boxed `10`", SAME),
    ("\\boxed{5", Chat, Kind::Integer, "5", WHOLE, "no_answer", "correct last-number `5`"),
    ("\\boxed{5}}}}}", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("\\boxed{{5}", Chat, Kind::Integer, "5", WHOLE, "no_answer", "correct last-number `5`"),
    ("Answer: 5, or \\boxed{6", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("\\boxed{4} and then \\boxed{5", Chat, Kind::Integer, "4", WHOLE, "correct boxed `4`", SAME),
    ("\\fbox{5}", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("$\\boxed 5$", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("Use \\boxed for the answer: 7", Chat, Kind::Integer, "7", WHOLE, "correct answer-line `7`", SAME),
    ("\\boxed{}", Chat, Kind::Integer, "5", WHOLE, "no_answer", SAME),
    ("\\boxed{x = 5}", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("\\boxed{12 \\text{ apples}}", Chat, Kind::Integer, "12", WHOLE, "correct boxed `12 \\text{ apples}`", SAME),
    ("\\boxed{12 apples}", Chat, Kind::Integer, "12", WHOLE, "correct boxed `12`", SAME),
    ("\\boxed{5 \\text{ or } 6}", Chat, Kind::Integer, "5", WHOLE, "wrong boxed `5 \\text{ or } 6`", SAME),
    ("\\boxed{28{,}811}", Chat, Kind::Integer, "28811", WHOLE, "correct boxed `28{,}811`", SAME),
    ("\\boxed{10,\\!000}", Chat, Kind::Integer, "10000", WHOLE, "correct boxed `10,\\!000`", SAME),
    ("\\boxed{\\$1{,}234}", Chat, Kind::Number, "1234", WHOLE, "correct boxed `\\$1{,}234`", SAME),
    ("\\boxed{\\text{no solution}} ... Answer: 5", Chat, Kind::Integer, "5", WHOLE, "wrong boxed `\\text{no solution}`", SAME),
    ("\\boxed{\\boxed{5}}", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("\\boxed{\\frac{3}{4}}", Chat, Kind::Irreducible, "3/4", WHOLE, "correct boxed `\\frac{3}{4}`", SAME),
    ("\\boxed{\\dfrac{6}{8}}", Chat, Kind::Irreducible, "3/4", WHOLE, "wrong boxed `\\dfrac{6}{8}`", SAME),
    ("\\boxed{\\dfrac{6}{8}}", Chat, Kind::Fraction, "3/4", WHOLE, "correct boxed `\\dfrac{6}{8}`", SAME),
    ("\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", Chat, Kind::Latex, "\\left(3,\\frac{\\pi}2\\right)", WHOLE, "correct boxed `\\left( 3, \\frac{\\pi}{2} \\right)`", SAME),
    ("\\boxed{\\{1, 2\\}}", Chat, Kind::Latex, "\\{2,1\\}", WHOLE, "correct boxed `\\{1, 2\\}`", SAME),
    // Formulas.
    ("Answer: $\\frac{3}{4}$", Chat, Kind::Fraction, "3/4", WHOLE, "correct answer-line `3/4`", SAME),
    ("Answer: $\\frac{3}{4}$", Chat, Kind::Latex, "\\frac34", WHOLE, "correct answer-line `\\frac{3}{4}`", SAME),
    ("Answer: \\(0.75\\).", Chat, Kind::Latex, "\\frac34", WHOLE, "correct answer-line `0.75`", SAME),
    ("The answer is:\n\n$$\n\\sqrt{8}\n$$", Chat, Kind::Latex, "2\\sqrt2", WHOLE, "correct answer-line `\\sqrt{8}`", SAME),
    ("The answer is $x=5$, since $x>0$.", Chat, Kind::Latex, "5", WHOLE, "correct answer-line `x=5`", SAME),
    ("Answer: 1.23 × 10^4", Chat, Kind::Scientific, "1.23e4", WHOLE, "correct answer-line `1.23 × 10^4`", SAME),
    ("Answer: $1.23 \\times 10^{4}$", Chat, Kind::Scientific, "1.23e4", WHOLE, "correct answer-line `1.23 * 10^{4}`", SAME),
    ("Answer: 12300", Chat, Kind::Scientific, "1.23e4", WHOLE, "wrong answer-line `12300`", SAME),
    ("Answer: 1.2e-4", Chat, Kind::Scientific, "1.2e4", WHOLE, "wrong answer-line `1.2e-4`", SAME),
    ("Answer: 1e999999999", Chat, Kind::Number, "5", WHOLE, "wrong answer-line `1e999999999`", SAME),
    ("Answer: 1e99999999999999999999999", Chat, Kind::Number, "5", WHOLE, "wrong answer-line `1e99999999999999999999999`", SAME),
    // Labels and digits.
    ("Answer: Unanswerable.", Chat, Kind::Label, "unanswerable", WHOLE, "correct answer-line `Unanswerable`", SAME),
    ("The answer is **Incorrect** because step 3 fails.", Chat, Kind::Label, "Incorrect", WHOLE, "correct answer-line `Incorrect`", SAME),
    ("Answer: (B) 42", Chat, Kind::Label, "b", WHOLE, "correct answer-line `B`", SAME),
    ("Answer: Step 3: the sum is wrong", Chat, Kind::Label, "Step 3", WHOLE, "correct answer-line `Step 3`", SAME),
    ("\\boxed{\\text{Correct}}", Chat, Kind::Label, "Correct", WHOLE, "correct boxed `\\text{Correct}`", SAME),
    ("It is correct, 3 times.", Chat, Kind::Label, "correct", WHOLE, "no_answer", SAME),
    ("Answer: 007", Chat, Kind::Digits, "007", WHOLE, "correct answer-line `007`", SAME),
    ("Answer: 7", Chat, Kind::Digits, "007", WHOLE, "wrong answer-line `7`", SAME),
    ("Answer: $1A3F_{16}$", Chat, Kind::Digits, "1a3f", WHOLE, "correct answer-line `1A3F`", SAME),
    ("Answer: the digits are 0123", Chat, Kind::Digits, "0123", WHOLE, "correct answer-line `0123`", SAME),
    // Hashes.
    ("She has 9 * 2 = $18 left.\n#### 18", Chat, Kind::Number, "18", WHOLE, "correct hashes `18`", SAME),
    ("#### 1,000", Chat, Kind::Number, "1000", WHOLE, "correct hashes `1,000`", SAME),
    ("#### 18.00", Chat, Kind::Number, "18", WHOLE, "correct hashes `18.00`", SAME),
    ("#### 5\n\nQuestion: next?\n#### 6", Chat, Kind::Number, "5", WHOLE, "correct hashes `5`", SAME),
    ("#### Step 1\nAdd.\n#### $7.", Chat, Kind::Number, "7", WHOLE, "correct hashes `7`", SAME),
    ("####", Chat, Kind::Number, "7", WHOLE, "no_answer", SAME),
    // Last number.
    ("First 2, then 3, so 5.", Chat, Kind::Integer, "5", WHOLE, "no_answer", "correct last-number `5`"),
    ("It is 5. See step 2.", Chat, Kind::Integer, "5", WHOLE, "no_answer", "wrong last-number `2`"),
    ("1. Add 2 and 3.\n2. The sum is 5...", Chat, Kind::Integer, "5", WHOLE, "no_answer", "correct last-number `5`"),
    ("I do not know.", Chat, Kind::Integer, "5", WHOLE, "no_answer", SAME),
    ("", Chat, Kind::Integer, "5", WHOLE, "no_answer", SAME),
    ("   \n\t ", Chat, Kind::Integer, "5", WHOLE, "no_answer", SAME),
    // Thinking.
    ("<think>Answer: 4</think>Answer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("<think>Answer: 4", Chat, Kind::Integer, "4", WHOLE, "truncated", SAME),
    ("Answer: 4</think>", Chat, Kind::Integer, "4", WHOLE, "no_answer", SAME),
    ("<THINK>\\boxed{4}</THINK>\n\\boxed{5}", Chat, Kind::Integer, "5", WHOLE, "correct boxed `5`", SAME),
    ("<thinking>a</thinking>Answer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("<think>a</think>b<think>c</think>Answer: 5", Chat, Kind::Integer, "5", WHOLE, "correct answer-line `5`", SAME),
    ("Answer: 5<think>hm", Chat, Kind::Integer, "5", WHOLE, "truncated", SAME),
    // Hostile characters.
    ("Answer:\u{200b} 1\u{200b}2\u{200f}", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("\u{202e}Answer: 12\u{202c}", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer:\u{a0}12", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer: 12😀", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("😀😀 answer is 😀 12", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer: 12\r\nDone.\r\n", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("\0Answer:\0 12\0", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer: \u{1b}[1m12\u{1b}[0m", Chat, Kind::Integer, "12", WHOLE, "wrong answer-line `1`", SAME),
    ("İİ ANSWERİ: 3 answer: 12", Chat, Kind::Integer, "12", WHOLE, "correct answer-line `12`", SAME),
    ("Answer: ١٢", Chat, Kind::Integer, "12", WHOLE, "no_answer", SAME),
    ("\u{feff}12", Completion, Kind::Integer, "12", WHOLE, "correct whole `12`", SAME),
    ("Answer: 1\u{61c}2\u{e0041}3\u{fe0f}", Chat, Kind::Integer, "123", WHOLE, "correct answer-line `123`", SAME),
    // Completion.
    (" 143", Completion, Kind::Integer, "143", WHOLE, "correct whole `143`", SAME),
    (" 143\n\nQuestion: What is 5 plus 5?\nAnswer: 10", Completion, Kind::Integer, "143", WHOLE, "correct whole `143`", SAME),
    (" 143 apples", Completion, Kind::Integer, "143", WHOLE, "no_answer", "correct last-number `143`"),
    ("\n\n 143.", Completion, Kind::Integer, "143", WHOLE, "correct whole `143.`", SAME),
    (" The answer is 143.", Completion, Kind::Integer, "143", WHOLE, "correct answer-line `143`", SAME),
    (" She has 9 * 2 = 18.\n#### 18\n\nQuestion: b\n#### 20", Completion, Kind::Number, "18", WHOLE, "correct hashes `18`", SAME),
    (" Correct\nQuestion: b\nAnswer: Incorrect", Completion, Kind::Label, "Correct", WHOLE, "correct whole `Correct`", SAME),
    (" 1, 2, 3", Completion, Kind::List, "[1,2,3]", WHOLE, "correct whole `1, 2, 3`", SAME),
    (" $\\frac12$", Completion, Kind::Latex, "0.5", WHOLE, "correct whole `$\\frac12$`", SAME),
    (" We see that $x$ is one half. The final answer is $\\frac12$. I hope it is correct.", Completion, Kind::Latex, "0.5", WHOLE, "correct answer-line `\\frac12`", SAME),
    (" x", Completion, Kind::Latex, "x", WHOLE, "correct whole `x`", SAME),
    (" 0x1f", Completion, Kind::Digits, "1f", WHOLE, "wrong whole `0x1f`", SAME),
    ("", Completion, Kind::Integer, "1", WHOLE, "no_answer", SAME),
    // Compact.
    ("3311;1402>43", Compact, Kind::Integer, "43", WHOLE, "correct scratchpad `43`", SAME),
    ("3311;1402>43\n1+1=2>9", Compact, Kind::Integer, "43", WHOLE, "correct scratchpad `43`", SAME),
    ("a=7;b=3>[1,2]", Compact, Kind::List, "1,2", WHOLE, "correct scratchpad `[1,2]`", SAME),
    ("3311;1402", Compact, Kind::Integer, "1402", WHOLE, "no_answer", "correct last-number `1402`"),
    ("3311>", Compact, Kind::Integer, "3311", WHOLE, "no_answer", "correct last-number `3311`"),
    ("1>2>3>", Compact, Kind::Integer, "3", WHOLE, "no_answer", "correct last-number `3`"),
    (">-7", Compact, Kind::Integer, "-7", WHOLE, "correct scratchpad `-7`", SAME),
    ("<think>1>43", Compact, Kind::Integer, "43", WHOLE, "correct scratchpad `43`", SAME),
    // Cut.
    ("Answer: 12", Chat, Kind::Integer, "12", CUT, "truncated answer-line `12`", SAME),
    ("Answer: 12\nThis is bec", Chat, Kind::Integer, "12", CUT, "correct answer-line `12`", SAME),
    ("So \\boxed{12} is ri", Chat, Kind::Integer, "12", CUT, "correct boxed `12`", SAME),
    ("So \\boxed{12", Chat, Kind::Integer, "12", CUT, "truncated", "truncated last-number `12`"),
    ("So $\\boxed 12", Chat, Kind::Integer, "12", CUT, "truncated boxed `12`", SAME),
    ("First 2, then 12", Chat, Kind::Integer, "12", CUT, "truncated", "truncated last-number `12`"),
    ("3311;1402>43", Compact, Kind::Integer, "43", CUT, "truncated scratchpad `43`", SAME),
    ("3311;1402>43\n", Compact, Kind::Integer, "43", CUT, "correct scratchpad `43`", SAME),
    (" 143", Completion, Kind::Integer, "143", CUT, "truncated whole `143`", SAME),
    (" 143\n", Completion, Kind::Integer, "143", CUT, "correct whole `143`", SAME),
    ("thinking", Chat, Kind::Integer, "143", CUT, "truncated", SAME),
    ("#### 14", Chat, Kind::Number, "14", CUT, "truncated hashes `14`", SAME),
    // Names, values and signs that are no part of a number.
    (" She has 9 eggs.\nThen she", Completion, Kind::Number, "18", CUT, "truncated", "truncated last-number `9`"),
    (" x^2+1\n", Completion, Kind::Latex, "x^2 + 1", WHOLE, "correct whole `x^2+1`", SAME),
    ("\\boxed{1-2}", Chat, Kind::Digits, "12", WHOLE, "wrong boxed `1-2`", SAME),
    ("\\boxed{1A3F_{16}}", Chat, Kind::Digits, "1a3f", WHOLE, "correct boxed `1A3F_{16}`", SAME),
    ("\\boxed{<}", Chat, Kind::Label, ">", WHOLE, "wrong boxed `<`", SAME),
    ("The answer is $x \\in[1,2]$", Chat, Kind::Latex, "[1, 2]", WHOLE, "correct answer-line `x \\in[1,2]`", SAME),
];

fn shown(score: &Score) -> String {
    let found = score.rule.map(|rule| format!(" {rule} `{}`", score.answer.as_deref().unwrap_or_default()));
    format!("{}{}", score.outcome, found.unwrap_or_default())
}

#[test]
fn every_text_is_read_as_the_table_says() {
    assert!(ROWS.len() >= 80);
    for &(text, style, kind, gold, cut, strict, flexible) in ROWS {
        let scores = score(&answer(kind, gold), style, text, cut);
        assert_eq!(shown(&scores.strict), strict, "strict: {text:?}");
        assert_eq!(
            shown(&scores.flexible),
            if flexible == SAME { strict } else { flexible },
            "flexible: {text:?}"
        );
    }
}

fn answer(kind: Kind, text: &str) -> Answer {
    Answer { kind, text: text.to_owned() }
}

fn outcomes(kind: Kind, gold: &str, style: Style, text: &str) -> (Outcome, Outcome) {
    let Scores { strict, flexible } = score(&answer(kind, gold), style, text, false);
    (strict.outcome, flexible.outcome)
}

const MILLION: usize = 1_000_000;

/// Texts of a million characters that would take a scanner of quadratic time minutes.
#[test]
fn hostile_texts_of_a_million_characters_take_linear_time() {
    let again = [
        "9",
        "{",
        "}",
        "(",
        "\\boxed{",
        "\\boxed ",
        "\\boxed1",
        "\\",
        "\\frac",
        "\\sqrt[",
        "\\text{",
        "answer is ",
        "answer is\n",
        "answer: x = \n",
        "answer:",
        "answer ",
        "#### ",
        "#### -$",
        "1/",
        "1e",
        "1 * 10^{",
        "1,",
        "1.",
        ".",
        "-",
        "$",
        "$1",
        ">",
        "</think>",
        "<think>",
        "\n",
        "\r",
        "\u{200b}",
        "\0",
        "\u{1f600}",
    ];
    let again = again.into_iter().map(|piece| piece.repeat(MILLION / piece.len()));
    let others = [
        "\\boxed{".repeat(MILLION / 14) + &"}".repeat(MILLION / 2),
        format!("answer{0}answer{0}", " ".repeat(MILLION / 2)),
        format!("answer{}", "*".repeat(MILLION)),
        format!("Answer: {}", "=".repeat(MILLION)),
        format!("Answer: {}", "x = ".repeat(MILLION / 4)),
        format!("Answer: [{}", "1, ".repeat(MILLION / 3)),
        format!("####{}", " ".repeat(MILLION)),
    ];
    for text in again.chain(others) {
        let start: String = text.chars().take(20).collect();
        for (style, kinds) in [
            (Chat, &[Kind::Integer, Kind::Label, Kind::List, Kind::Latex, Kind::Digits][..]),
            (Completion, &[Kind::Integer, Kind::Latex]),
            (Compact, &[Kind::Integer]),
        ] {
            for kind in kinds {
                // The flexible filter tries every rule.
                if let Found::Answer(found) = extract(&text, style, Filter::Flexible, *kind) {
                    assert!(!answer(*kind, "5").is(&found.text).equal, "{style} {kind} {start}");
                }
            }
        }
        for kind in &Kind::ALL {
            assert!(!answer(*kind, "5").is(&text).equal, "{kind} {start}");
        }
    }
}

#[test]
fn a_right_answer_of_millions_of_digits_is_right() {
    let digits = "1234567890".repeat(MILLION / 5);
    let both = (Outcome::Correct, Outcome::Correct);
    for kind in [Kind::Integer, Kind::Digits, Kind::Decimal, Kind::Fraction, Kind::Irreducible, Kind::Number]
    {
        assert_eq!(outcomes(kind, &digits, Chat, &format!("Answer: {digits}.")), both, "{kind}");
    }
    assert_eq!(outcomes(Kind::Latex, &digits, Chat, &format!("\\boxed{{{digits}.0}}")), both);
    assert_eq!(outcomes(Kind::Integer, &digits, Chat, &format!("Answer: {digits}000.0")).0, Outcome::Wrong);
    let list = vec!["7"; MILLION].join(", ");
    assert_eq!(outcomes(Kind::List, &format!("[{list}]"), Chat, &format!("Answer: [{list}]")), both);
    let ratio = format!("1{digits}/3");
    assert_eq!(outcomes(Kind::Fraction, &ratio, Chat, &format!("Answer: {ratio}")), both);
    assert_eq!(outcomes(Kind::Fraction, &ratio, Chat, &format!("Answer: {digits}/3")).0, Outcome::Wrong);
}

/// A right answer of some kind.
fn gold() -> impl Strategy<Value = Answer> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,40})".prop_map(|text| answer(Kind::Integer, &text)),
        "[0-9]{1,30}".prop_map(|text| answer(Kind::Digits, &text)),
        "-?[1-9][0-9]{0,20}/[1-9][0-9]{0,20}".prop_map(|text| answer(Kind::Fraction, &text)),
        "-?[1-9][0-9]{0,20}/[1-9][0-9]{0,20}".prop_map(|text| answer(Kind::Irreducible, &text)),
        "-?[0-9]{1,20}\\.[0-9]{1,20}".prop_map(|text| answer(Kind::Decimal, &text)),
        "-?[1-9]\\.[0-9]{1,20}e-?[1-9][0-9]?".prop_map(|text| answer(Kind::Scientific, &text)),
        "(Correct|Incorrect|Step [1-9]|Answerable|[A-E])".prop_map(|text| answer(Kind::Label, &text)),
        "\\[-?[0-9]{1,5}(, -?[0-9]{1,5}){0,10}\\]".prop_map(|text| answer(Kind::List, &text)),
        "-?[0-9]{1,9}|\\\\frac\\{[0-9]{1,5}\\}\\{[1-9][0-9]{0,4}\\}|[1-9]\\\\sqrt[2-9]|\\([0-9],[0-9]\\)"
            .prop_map(|text| answer(Kind::Latex, &text)),
        "-?[0-9]{1,9}(\\.[0-9]{1,4})?".prop_map(|text| answer(Kind::Number, &text)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_anything_panic(
        text in "(?s).{0,60}|([0-9.,eE^*/$\\-+ ]|\\\\(boxed|frac|sqrt|text|left|pi)|[{}()\\[\\]]|answer (is|:)|####|>|</?think>|\n|[−×😀]){0,40}",
        gold in "(?s).{0,20}",
        cut in any::<bool>(),
    ) {
        for style in &Style::ALL {
            for kind in &Kind::ALL {
                let scores = score(&answer(*kind, &gold), *style, &text, cut);
                let back = score(&answer(*kind, &text), *style, &gold, cut);
                // What strict finds, flexible finds too.
                for Scores { strict, flexible } in [scores, back] {
                    if strict.rule.is_some() {
                        prop_assert_eq!(strict, flexible);
                    }
                }
                extract(&text, *style, Filter::Flexible, *kind);
                kind.admits(&text);
            }
        }
    }

    #[test]
    fn a_right_answer_in_the_form_asked_for_is_correct(gold in gold(), cut in any::<bool>()) {
        let text = &gold.text;
        let wrapped = [
            (Compact, format!("1:2,3;4>{text}\n")),
            (Completion, format!(" {text}\n")),
            (Chat, format!("First 2, then 3.\n\nAnswer: {text}\n")),
            (Chat, format!("**Answer: {text}**\n")),
            (Chat, format!("<think>Answer: 1</think>So the answer is: {text}.\n")),
            (Chat, format!("So it is $\\boxed{{{text}}}$ in all")),
        ];
        for (style, output) in wrapped {
            let Scores { strict, flexible } = score(&gold, style, &output, cut);
            prop_assert_eq!(strict.outcome, Outcome::Correct, "{} {:?}", style, output);
            prop_assert_eq!(flexible, strict);
        }
        prop_assert!(gold.kind.admits(text));
    }

    #[test]
    fn another_number_is_wrong(gold in -10_000..10_000_i32, given in -10_000..10_000_i32) {
        prop_assume!(gold != given);
        for kind in [Kind::Integer, Kind::Number, Kind::Latex, Kind::Fraction, Kind::Decimal] {
            let (strict, flexible) = outcomes(kind, &gold.to_string(), Chat, &format!("Answer: {given}"));
            prop_assert_eq!((strict, flexible), (Outcome::Wrong, Outcome::Wrong));
        }
    }
}
