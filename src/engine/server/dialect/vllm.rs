//! The dialect of vLLM's server, over its `/v1/completions`, which takes tokens and gives tokens.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, Ask, Counts, Dialect, Identity, Listed, Usage, check, clipped, counted, file_name, shown,
};
use crate::trace::Sight;

pub(super) const DIALECT: Dialect = Dialect {
    name: "vllm",
    sight: Sight::Top,
    ready: "/health",
    introductions: &["/version", "/v1/models"],
    identity,
    greets: true,
    counts: Some(("/metrics", counts)),
    forget: |_| vec!["/reset_prefix_cache".to_owned()],
    // It does not forget while it works.
    forgot: |text| !text.contains("false"),
    forgets: "start it with VLLM_SERVER_DEV_MODE=1 in its environment",
    ask,
    read,
};

fn ask(ask: &Ask<'_>) -> (&'static str, Value) {
    let mut request = json!({
        "model": ask.model,
        "prompt": ask.tokens,
        "max_tokens": ask.new_tokens,
        "temperature": 0,
        "seed": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "logprobs": ask.top,
        "return_token_ids": true,
        // Two tokens may have one text, and then one of them has no number.
        "return_tokens_as_token_ids": true,
        "stream": false,
    });
    if !ask.cache {
        // What was read under another salt is not found.
        request["cache_salt"] = json!(ask.salt);
    }
    ("/v1/completions", request)
}

#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    system_fingerprint: Option<String>,
    usage: Usage,
}

#[derive(Deserialize)]
struct Choice<'a> {
    text: String,
    token_ids: Option<Vec<u32>>,
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(borrow)]
    logprobs: Option<Logprobs<'a>>,
}

#[derive(Deserialize)]
struct Logprobs<'a> {
    #[serde(borrow)]
    top_logprobs: Vec<Listed<'a>>,
}

fn read(text: &str, ask: &Ask<'_>) -> Result<Answer, String> {
    let Completion { choices, system_fingerprint, usage } =
        serde_json::from_str(text).map_err(|error| format!("it does not answer as vLLM does ({error})"))?;
    let [Choice { text, token_ids: Some(tokens), prompt_token_ids, logprobs }] = <[_; 1]>::try_from(choices)
        .map_err(|choices| format!("it gives {} answers in place of one", choices.len()))?
    else {
        return Err(
            "it gives a text and no tokens: take a version of it that knows `return_token_ids`".to_owned()
        );
    };
    if prompt_token_ids.is_some_and(|read| read != ask.tokens) {
        return Err("it has read another prompt than the one that it was given".to_owned());
    }
    check(&tokens, usage.completion_tokens, ask)?;
    let rows = logprobs.map(|logprobs| logprobs.top_logprobs).unwrap_or_default();
    if rows.len() != tokens.len() {
        return Err(format!("it shows log-probabilities of {} of {} tokens", rows.len(), tokens.len()));
    }
    let of_token = |(token, Listed(row)): (&u32, Listed<'_>)| {
        let mut listed = Vec::with_capacity(row.len());
        for (key, number) in row {
            let id = key.strip_prefix("token_id:").and_then(|id| id.parse().ok());
            let id = id
                .ok_or_else(|| format!("it calls a token `{}`, and should give its number", clipped(&key)))?;
            listed.push((id, number.get()));
        }
        // It comes first, and is one too many where others are as good and stand before it.
        if listed.len() == ask.top + 1 && listed[0].0 == *token {
            listed.pop();
        }
        shown(*token, &listed, ask)
    };
    let shown = tokens.iter().zip(rows).map(of_token).collect::<Result<_, _>>()?;
    let (read, cached) = usage.of_prompt(ask)?;
    Ok(Answer {
        tokens,
        shown,
        text: Some(text),
        read,
        cached,
        fingerprint: system_fingerprint,
        ..Answer::default()
    })
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    root: Option<String>,
    max_model_len: Option<u64>,
}

fn identity(texts: &[String], model: Option<&str>) -> Result<Identity, String> {
    let [version, models] = texts else { unreachable!("one for each path") };
    let strange = |error| format!("it does not say who it is as vLLM does ({error})");
    let Version { version } = serde_json::from_str(version).map_err(strange)?;
    let Models { data } = serde_json::from_str(models).map_err(strange)?;
    let names: Vec<_> = data.iter().map(|model| model.id.clone()).collect();
    let served = data.into_iter().find(|served| model.is_none_or(|model| model == served.id));
    let Some(Model { id, root, max_model_len }) = served else {
        return Err(format!("it serves {}, and not {}", names.join(", "), model.unwrap_or("any model")));
    };
    let root = root.map(|root| ("file", file_name(&root)));
    let context = max_model_len.map(|length| ("context", length.to_string()));
    let facts = root.into_iter().chain(context).map(|(name, fact)| (name.to_owned(), fact)).collect();
    Ok(Identity { version, model: id, facts, ..Identity::default() })
}

fn counts(text: &str) -> Option<Counts> {
    Some(Counts {
        calls: counted(text, "vllm:iteration_tokens_total_count", |_| true)?,
        chosen: counted(text, "vllm:generation_tokens_total", |_| true)?,
        // What came out of its cache counts as prompt, and was not read.
        read: counted(text, "vllm:prompt_tokens_by_source_total", |labels| {
            labels.contains("source=\"local_compute\"")
        }),
    })
}

#[cfg(test)]
mod tests {
    use crate::numerics::choice::Candidate;

    use super::*;

    const ASK: Ask<'_> =
        Ask { tokens: &[504, 3575, 282, 4649, 314], new_tokens: 3, ..super::super::tests::ASK };

    /// Of a server of version 0.32.0 that was driven, without what nobody reads here.
    const ANSWER: &str = r#"{"id":"cmpl-8be48803f9736991","object":"text_completion","model":"smol","choices":[{"index":0,
        "text":" Paris.\n","logprobs":{"text_offset":[0,13,24],"token_logprobs":[-0.25807321071624756,-0.3801261782646179,
        -1.0093424320220947],"tokens":["token_id:7042","token_id:30","token_id:198"],"top_logprobs":[
        {"token_id:7042":-0.25807321071624756,"token_id:260":-2.7407374382019043},
        {"token_id:30":-0.3801261782646179,"token_id:28":-1.6584904193878174},
        {"token_id:198":-1.0093424320220947,"token_id:378":-9999.0}]},"finish_reason":"length","token_ids":[7042,30,198],
        "prompt_logprobs":null,"prompt_token_ids":[504,3575,282,4649,314]}],"system_fingerprint":"vllm-0.32.0-980f7338",
        "usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}"#;

    fn best<const N: usize>(candidates: [(u32, f32); N]) -> Option<Vec<Candidate>> {
        Some(candidates.map(|(token, logit)| Candidate { token, logit }).to_vec())
    }

    #[test]
    fn an_answer_that_was_recorded_is_read() {
        let answer = read(ANSWER, &ASK).unwrap();
        assert_eq!(answer.tokens, [7042, 30, 198]);
        let shown = [
            best([(7042, -0.258_073_2), (260, -2.740_737_4)]),
            best([(30, -0.380_126_18), (28, -1.658_490_4)]),
            best([(198, -1.009_342_4), (378, f32::NEG_INFINITY)]),
        ];
        assert_eq!(answer.shown, shown);
        assert_eq!((answer.read, answer.cached), (Some(5), Some(0)));
        assert_eq!(answer.text.as_deref(), Some(" Paris.\n"));
        assert_eq!(answer.fingerprint.as_deref(), Some("vllm-0.32.0-980f7338"));
    }

    #[test]
    fn a_chosen_token_that_is_one_too_many_counts_among_the_best() {
        let more = ANSWER.replace(
            "{\"token_id:30\":-0.3801261782646179,",
            "{\"token_id:30\":-0.3801261782646179,\"token_id:29\":-0.3801261782646179,",
        );
        assert_eq!(read(&more, &ASK).unwrap().shown[1], best([(29, -0.380_126_18), (30, -0.380_126_18)]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (from, to, said) in [
            ("[7042,30,198]", "[7042,30]", "says that they are 3"),
            ("[7042,30,198]", "[7042,30,49152]", "names token 49152"),
            ("\"token_ids\":[7042,30,198]", "\"token_ids\":null", "a text and no tokens"),
            ("[504,3575,282,4649,314]", "[504,3575,282,4649]", "another prompt"),
            ("\"prompt_tokens\":5", "\"prompt_tokens\":4", "read 4 tokens of a prompt that has 5"),
            ("\"cached_tokens\":0", "\"cached_tokens\":6", "than there is"),
            (
                "{\"token_id:198\":-1.0093424320220947,\"token_id:378\":-9999.0}",
                "{}",
                "shows 0 log-probabilities",
            ),
            (
                ",\n        {\"token_id:198\":-1.0093424320220947,\"token_id:378\":-9999.0}",
                "",
                "of 2 of 3 tokens",
            ),
            ("token_id:260", "the", "calls a token `the`"),
            ("token_id:260", "token_id:7042", "one token twice"),
            ("-1.6584904193878174", "NaN", "does not answer as vLLM does"),
            ("-1.6584904193878174", "0.25", "not a log-probability"),
            ("top_logprobs", "others", "does not answer as vLLM does"),
        ] {
            assert!(ANSWER.contains(from), "{from}");
            let error = read(&ANSWER.replace(from, to), &ASK).unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }

    #[test]
    fn a_prompt_that_may_not_come_from_the_cache_has_a_salt_of_its_own() {
        let (path, request) = ask(&ASK);
        assert_eq!((path, &request["cache_salt"]), ("/v1/completions", &json!("salt")));
        assert_eq!(ask(&Ask { cache: true, ..ASK }).1.get("cache_salt"), None);
    }

    #[test]
    fn who_it_is_and_what_it_has_done_is_read_from_what_it_says() {
        let models = r#"{"object":"list","data":[{"id":"smol","root":"/models/smol-135m","max_model_len":1024},{"id":"lora"}]}"#;
        let texts = [r#"{"version":"0.32.0"}"#.to_owned(), models.to_owned()];
        let who = identity(&texts, None).unwrap();
        assert_eq!((who.version.as_str(), who.model.as_str()), ("0.32.0", "smol"));
        assert_eq!(who.facts["file"], "smol-135m");
        assert_eq!(identity(&texts, Some("lora")).unwrap().model, "lora");
        assert_eq!(identity(&texts, Some("big")), Err("it serves smol, lora, and not big".to_owned()));
        let text = "# HELP vllm:generation_tokens_total x\n\
                    vllm:generation_tokens_total{engine=\"0\",model_name=\"smol\"} 3.0\n\
                    vllm:generation_tokens_total{engine=\"1\",model_name=\"smol\"} 2.0\n\
                    vllm:generation_tokens_created{engine=\"0\",model_name=\"smol\"} 1.79e+09\n\
                    vllm:iteration_tokens_total_count{engine=\"0\",model_name=\"smol\"} 1.5e+06\n\
                    vllm:prompt_tokens_by_source_total{engine=\"0\",source=\"local_compute\"} 5.0\n\
                    vllm:prompt_tokens_by_source_total{engine=\"0\",source=\"local_cache_hit\"} 7.0\n";
        assert_eq!(counts(text), Some(Counts { calls: 1_500_000, chosen: 5, read: Some(5) }));
        for wrong in ["", "vllm:generation_tokens_total x", "<html>"] {
            assert_eq!(counts(wrong), None);
        }
    }
}
