//! What every server understands that speaks as OpenAI's does: a text, and the text that follows.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Ask, Dialect, Identity, Usage};
use crate::trace::Sight;

pub(super) const DIALECT: Dialect = Dialect {
    name: "openai",
    sight: Sight::Text,
    ready: "/health",
    introductions: &[],
    identity: |_, model| match model {
        Some(model) => Ok(Identity { model: model.to_owned(), ..Identity::default() }),
        None => Err("it is asked for a model by its name, and none was given: write `model`".to_owned()),
    },
    greets: true,
    counts: None,
    forget: |_| Vec::new(),
    forgot: |_| true,
    forgets: "leave such cells out",
    ask,
    read,
};

fn ask(ask: &Ask<'_>) -> (&'static str, Value) {
    let request = json!({
        "model": ask.model,
        "prompt": ask.text,
        "max_tokens": ask.new_tokens,
        "temperature": 0,
        "seed": 0,
        "stream": false,
    });
    ("/v1/completions", request)
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    system_fingerprint: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
}

fn read(text: &str, ask: &Ask<'_>) -> Result<Answer, String> {
    let Completion { choices, system_fingerprint, usage } = serde_json::from_str(text)
        .map_err(|error| format!("it does not answer as OpenAI's servers do ({error})"))?;
    let [Choice { text, finish_reason }] = <[_; 1]>::try_from(choices)
        .map_err(|choices| format!("it gives {} answers in place of one", choices.len()))?;
    if let Some(usage) = usage.as_ref().filter(|usage| usage.completion_tokens > ask.new_tokens) {
        let chosen = usage.completion_tokens;
        return Err(format!("it answers with {chosen} tokens, and was asked for {} at most", ask.new_tokens));
    }
    let is_cut = match (finish_reason, &usage) {
        (Some(reason), _) => Some(reason == "length"),
        (None, Some(usage)) => Some(usage.completion_tokens == ask.new_tokens),
        (None, None) => None,
    };
    let (read, cached) = usage.map(|usage| usage.of_prompt(ask)).transpose()?.unwrap_or_default();
    Ok(Answer {
        text: Some(text),
        is_cut,
        read,
        cached,
        fingerprint: system_fingerprint,
        ..Answer::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Ask<'_> =
        Ask { tokens: &[504, 3575, 282, 4649, 314], new_tokens: 6, ..super::super::tests::ASK };

    /// Of `transformers serve` 5.19 that was driven.
    const ANSWER: &str = r#"{"id":"x","choices":[{"finish_reason":"length","index":0,"text":" Paris.\n\nThe answer"}],
        "object":"text_completion","usage":{"completion_tokens":6,"prompt_tokens":5,"total_tokens":11}}"#;

    #[test]
    fn a_text_that_was_recorded_is_read_and_nothing_else_is_known() {
        let answer = read(ANSWER, &ASK).unwrap();
        assert_eq!(answer.text.as_deref(), Some(" Paris.\n\nThe answer"));
        assert_eq!((answer.tokens.len(), answer.read, answer.cached), (0, None, None));
        for (from, to, is_cut) in [
            ("\"length\"", "\"length\"", Some(true)),
            ("\"length\"", "\"stop\"", Some(false)),
            ("\"length\"", "null", Some(true)),
            ("\"finish_reason\":\"length\",", "", Some(true)),
        ] {
            assert!(ANSWER.contains(from), "{from}");
            assert_eq!(read(&ANSWER.replace(from, to), &ASK).unwrap().is_cut, is_cut, "{to}");
        }
        let few = ANSWER
            .replace("\"length\"", "null")
            .replace("\"completion_tokens\":6", "\"completion_tokens\":5");
        assert_eq!(read(&few, &ASK).unwrap().is_cut, Some(false));
        for (from, to, said) in [
            ("\"prompt_tokens\":5", "\"prompt_tokens\":6", "read 6 tokens of a prompt that has 5"),
            ("\"completion_tokens\":6", "\"completion_tokens\":7", "asked for 6 at most"),
            ("\"text\":", "\"words\":", "does not answer as OpenAI"),
            (
                "[{\"finish_reason\":\"length\",\"index\":0,\"text\":\" Paris.\\n\\nThe answer\"}]",
                "[]",
                "0 answers",
            ),
        ] {
            assert!(ANSWER.contains(from), "{from}");
            let error = read(&ANSWER.replace(from, to), &ASK).unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }
}
