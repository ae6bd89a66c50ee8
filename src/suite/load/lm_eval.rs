//! The samples of lm-evaluation-harness: a line for every filter of every document.

use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use super::{Fields, Filtered, Finished, Line, Loaded, gsm8k, scalar};
use crate::suite::answer::Kind;

/// Where a document may have its question.
const QUESTIONS: &[&str] = &["question", "problem", "Problem", "query", "input", "prompt"];

pub(super) fn item(line: &mut Line<'_, '_>) -> Option<Loaded> {
    let doc: Option<Fields> = line.get("doc").and_then(|doc| serde_json::from_str(doc.get()).ok());
    let field = |name: &str| {
        let value = doc.as_ref()?.0.iter().find(|(field, _)| field == name)?.1;
        scalar(value)
    };
    // An item that went through the harness comes back with all that it took along.
    let kind = field("target_type").and_then(|kind| kind.parse::<Kind>().ok());
    let id = line.value("doc_id").map(|id| field("id").filter(|_| kind.is_some()).unwrap_or(id));
    let target = line.value("target").and_then(|target| match kind {
        Some(kind) => line.answer("target", kind, &target),
        None => {
            let gold = gsm8k::gold(&target);
            line.answer("target", Kind::guess(gold), gold)
        }
    });
    let prompt = prompt(line);
    let question =
        QUESTIONS.iter().find_map(|name| field(name)).or_else(|| prompt.clone()).unwrap_or_default();
    let output = match line.get("resps") {
        Some(resps) => Some(only_text(resps).unwrap_or_else(|| resps.get().to_owned())),
        None => line.missing("resps"),
    };
    let filtered = Filtered {
        filter: line.string("filter"),
        extracted: line.get("filtered_resps").and_then(only_text),
        correct: correct(line),
    };
    let (id, answer, output) = (id?, target?, output?);
    let finished = Some(Finished { output, filters: vec![filtered] });
    let (stratum, cluster) = (field("stratum"), field("cluster"));
    Some(Loaded { id, stratum, cluster, question, prompt, answer, finished })
}

/// Adds what another line says of the same document: another filter of the same output.
pub(super) fn join(item: &mut Loaded, other: Loaded, first: usize, line: &mut Line<'_, '_>) {
    let (Some(finished), Some(more)) = (&mut item.finished, other.finished) else { return };
    let id = &item.id;
    if finished.output != more.output || item.prompt != other.prompt || item.answer != other.answer {
        let what = format!("{id} has another prompt, target or output in line {first}: give one file a run");
        return line.wrong("doc_id", what);
    }
    for filtered in more.filters {
        if finished.filters.iter().any(|known| known.filter == filtered.filter) {
            let filter =
                filtered.filter.as_deref().map_or("no filter".to_owned(), |name| format!("filter `{name}`"));
            let what =
                format!("{id} has {filter} twice, first in line {first} or later: give one file a run");
            return line.wrong("doc_id", what);
        }
        finished.filters.push(filtered);
    }
}

/// What the model was given: a string, or a chat as JSON.
fn prompt(line: &mut Line<'_, '_>) -> Option<String> {
    let arguments = line.get("arguments")?;
    let value: Value = serde_json::from_str(arguments.get()).unwrap_or_default();
    // Newer logs have `{"gen_args_0": {"arg_0": …}}`, older ones `[[…]]`.
    let given = value.pointer("/gen_args_0/arg_0").or_else(|| value.pointer("/0/0"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match given {
        Some(Value::Array(one)) if one.len() == 1 && one[0].is_string() => text(&one[0]),
        Some(Value::String(text)) => Some(text.clone()),
        Some(chat) => Some(chat.to_string()),
        None => {
            line.wrong(
                "arguments",
                "holds no prompt: log the samples again with lm-eval 0.4 or later".to_owned(),
            );
            None
        }
    }
}

/// The text in a list of one, or in a list of one in a list of one.
fn only_text(value: &RawValue) -> Option<String> {
    let mut value: Value = serde_json::from_str(value.get()).ok()?;
    for _ in 0..2 {
        value = match value {
            Value::Array(mut one) if one.len() == 1 => one.remove(0),
            other => other,
        };
    }
    value.as_str().map(str::to_owned)
}

/// Yes or no of the first metric that says so.
fn correct(line: &mut Line<'_, '_>) -> Option<bool> {
    let metrics =
        line.get("metrics").and_then(|metrics| serde_json::from_str::<Vec<String>>(metrics.get()).ok());
    let usual = || ["exact_match", "acc", "math_verify"].map(str::to_owned).to_vec();
    let yes_or_no = |metric: &String| match serde_json::from_str(line.get(metric)?.get()).ok()? {
        Value::Bool(correct) => Some(correct),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        _ => None,
    };
    metrics.unwrap_or_else(usual).iter().find_map(yes_or_no)
}

/// The `doc_hash` that lm-evaluation-harness gives a document: the SHA-256 of what Python's
/// `json.dumps(doc, indent=2, ensure_ascii=False)` writes. Nothing where a string is no Unicode, or where the
/// document nests deeper than 900 levels: Python can write neither.
pub fn lm_eval_hash(doc: &RawValue) -> Option<String> {
    let digest = Sha256::digest(python_json(doc.get())?);
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes JSON again as Python does.
fn python_json(json: &str) -> Option<String> {
    let mut out = String::new();
    let mut depth = 0;
    let mut rest = json.trim_start();
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '{' | '[' => {
                out.push(c);
                let inner = rest[1..].trim_start();
                if inner.starts_with(['}', ']']) {
                    out.push_str(&inner[..1]);
                    rest = inner[1..].trim_start();
                    continue;
                }
                depth += 1;
                // Python stops near 1000, and so much indentation would be a square of the depth.
                if depth > 900 {
                    return None;
                }
                indent(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                indent(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                indent(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                length = string_length(rest);
                let text: String = serde_json::from_str(&rest[..length]).ok()?;
                // Both escape the same characters in the same way.
                out.push_str(&serde_json::to_string(&text).ok()?);
            }
            _ => {
                length = rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
                out.push_str(&python_scalar(&rest[..length])?);
            }
        }
        rest = rest[length..].trim_start();
    }
    Some(out)
}

fn indent(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// How long the string literal is at the beginning of a text.
fn string_length(text: &str) -> usize {
    let mut escaped = true;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 1)
}

/// A number, `true`, `false` or `null` as Python writes it.
fn python_scalar(text: &str) -> Option<String> {
    if !text.contains(['.', 'e', 'E']) || text.starts_with(['t', 'f', 'n']) {
        return Some(if text == "-0" { "0".to_owned() } else { text.to_owned() });
    }
    let value: f64 = text.parse().ok()?;
    if value.is_infinite() {
        return Some(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned());
    }
    // Both write the shortest digits that read back as the same number, but not in the same form.
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if (-4..16).contains(&exponent) {
        return Some(format!("{value:?}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{mantissa}e{sign}{:02}", exponent.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Python 3.11: `json.dumps(json.loads(doc), indent=2, ensure_ascii=False)` and hashlib.
    #[test]
    fn a_document_has_the_hash_that_python_gives_it() {
        for (doc, hash) in [
            (r#"{}"#, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            (r#"[]"#, "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
            (
                r#"{"question":"What is 2+2?","answer":"4"}"#,
                "fe12a981e0d877d447c010ae76b28e06483f29ebbbbfb643cd1edbabff04a974",
            ),
            (
                r#"{"b": [1, -2, {"c": []}, {}], "a": {"x": null, "y": [true, false]}, "z": [[]]}"#,
                "666ddd588196ee45991c9d33be4bbe6f714a6d7aaecb7d53e1ff2131881ea582",
            ),
            (
                r#"{"q": "é\u00e9\u4e2d \ud83d\ude00 \u007f \" \\ \/ \b\f\n\r\t \u0001\u001f \u2028"}"#,
                "6759d62a287ee0db42c22ab5f4e69747e4744c4a108ce62cafc15dd2fba25089",
            ),
            (
                r#"[0.1, 1.0, 1e5, 1E-5, 0.0001, 1e16, 1e15, 123456789012345680.0, -0.0, -0, 1.5e300, 5e-324, 12345678901234567890123, 1e22, 9007199254740993.0]"#,
                "1fc8aab19e3c0abe073b346a282d6c7ecfbe1d3e50d61327b64b9bd853683e10",
            ),
            (
                r#"  { "a" : 1 , "b":  [ ] ,"c" :{ } }  "#,
                "382b2290e1b0bf7c607a99272558543a9dcf6f524644ab715f82ba14411f4499",
            ),
        ] {
            let raw = RawValue::from_string(doc.to_owned()).unwrap();
            assert_eq!(lm_eval_hash(&raw).as_deref(), Some(hash), "{doc} {:?}", python_json(doc));
        }
    }

    #[test]
    fn a_document_that_python_cannot_write_has_no_hash() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for doc in [r#"{"a": "\ud800"}"#.to_owned(), deep] {
            let raw = RawValue::from_string(doc).unwrap();
            assert_eq!(lm_eval_hash(&raw), None);
        }
    }
}
