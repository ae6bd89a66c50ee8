//! The dialect of SGLang's server, over its own `/generate`.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use super::{Answer, Ask, Counts, Dialect, Identity, check, counted, file_name, of_prompt, shown, word};
use crate::trace::Sight;

pub(super) const DIALECT: Dialect = Dialect {
    name: "sglang",
    sight: Sight::Top,
    ready: "/health",
    introductions: &["/server_info", "/model_info"],
    identity,
    greets: true,
    counts: Some(("/metrics", counts)),
    // It waits so many seconds until it has nothing else to do.
    forget: |_| vec!["/flush_cache?timeout=10".to_owned()],
    forgot: |_| true,
    forgets: "see that nothing else uses it meanwhile",
    ask,
    read,
};

fn ask(ask: &Ask<'_>) -> (&'static str, Value) {
    let mut request = json!({
        "input_ids": ask.tokens,
        "sampling_params": {
            "max_new_tokens": ask.new_tokens,
            "temperature": 0,
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
        },
        // Of what follows alone: a prompt whose own numbers are asked for is never taken from the cache.
        "return_logprob": true,
        "top_logprobs_num": ask.top,
        "return_prompt_token_ids": true,
        "stream": false,
    });
    if !ask.cache {
        // What was read under another key is not found.
        request["extra_key"] = json!(ask.salt);
    }
    ("/generate", request)
}

#[derive(Deserialize)]
struct Generated<'a> {
    text: String,
    output_ids: Vec<u32>,
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(borrow)]
    meta_info: Meta<'a>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: Option<usize>,
    weight_version: Option<Value>,
    #[serde(borrow, default)]
    output_top_logprobs: Vec<Vec<Entry<'a>>>,
}

/// A log-probability, its token, and the token's text.
type Entry<'a> = (&'a RawValue, u32, IgnoredAny);

fn read(text: &str, ask: &Ask<'_>) -> Result<Answer, String> {
    let Generated { text, output_ids: tokens, prompt_token_ids, meta_info: meta } =
        serde_json::from_str(text).map_err(|error| format!("it does not answer as SGLang does ({error})"))?;
    if prompt_token_ids.is_some_and(|read| read != ask.tokens) {
        return Err("it has read another prompt than the one that it was given".to_owned());
    }
    check(&tokens, meta.completion_tokens, ask)?;
    let rows = meta.output_top_logprobs;
    if rows.len() != tokens.len() {
        return Err(format!("it shows log-probabilities of {} of {} tokens", rows.len(), tokens.len()));
    }
    let of_token = |(token, row): (&u32, &Vec<Entry<'_>>)| {
        let listed: Vec<_> = row.iter().map(|(number, token, _)| (*token, number.get())).collect();
        shown(*token, &listed, ask)
    };
    let shown = tokens.iter().zip(&rows).map(of_token).collect::<Result<_, _>>()?;
    let (read, cached) = of_prompt(meta.prompt_tokens, meta.cached_tokens, ask)?;
    Ok(Answer {
        tokens,
        shown,
        text: Some(text),
        read,
        cached,
        // Weights may be put in its place while it runs.
        fingerprint: meta.weight_version.as_ref().map(word),
        ..Answer::default()
    })
}

fn identity(texts: &[String], _: Option<&str>) -> Result<Identity, String> {
    /// What may move a bit, as far as it is set.
    const FACTS: [&str; 9] = [
        "attention_backend",
        "chunked_prefill_size",
        "context_length",
        "dtype",
        "enable_deterministic_inference",
        "kv_cache_dtype",
        "page_size",
        "quantization",
        "random_seed",
    ];
    let [server, model] = texts else { unreachable!("one for each path") };
    let strange = |error| format!("it does not say who it is as SGLang does ({error})");
    let server: Value = serde_json::from_str(server).map_err(strange)?;
    let model: Value = serde_json::from_str(model).map_err(strange)?;
    let (Some(version), Some(path)) = (server["version"].as_str(), model["model_path"].as_str()) else {
        return Err("it does not say which version it is, and of which model".to_owned());
    };
    let set = |name: &str| Some((name.to_owned(), word(server.get(name).filter(|value| !value.is_null())?)));
    let mut facts: BTreeMap<_, _> = FACTS.into_iter().filter_map(set).collect();
    facts.insert("file".to_owned(), file_name(path));
    Ok(Identity { version: version.to_owned(), facts, ..Identity::default() })
}

fn counts(text: &str) -> Option<Counts> {
    Some(Counts {
        // Those that read prompts give a token, too.
        calls: counted(text, "sglang:cuda_graph_passes_total", |_| true)?,
        chosen: counted(text, "sglang:generation_tokens_total", |_| true)?,
        read: None,
    })
}

#[cfg(test)]
mod tests {
    use crate::numerics::choice::Candidate;

    use super::*;

    const ASK: Ask<'_> =
        Ask { tokens: &[504, 3575, 282, 4649, 314], new_tokens: 3, ..super::super::tests::ASK };

    /// Of a server of version 0.5.23 that was driven, without what nobody reads here.
    const ANSWER: &str = r#"{"text":" Paris.\n","output_ids":[7042,30,198],"meta_info":{"id":"cfcf9ce6",
        "finish_reason":{"type":"length","length":3},"prompt_tokens":5,"weight_version":"default","num_retractions":0,
        "output_token_logprobs":[[-0.2580731213092804,7042,null],[-0.3801266551017761,30,null],[-1.009347677230835,198,null]],
        "output_top_logprobs":[[[-0.2580731213092804,7042,null],[-2.740739107131958,260,null]],
            [[-0.3801266551017761,30,null],[-1.6584904193878174,28,null]],[[-1.009347677230835,198,null],[null,378,null]]],
        "reasoning_tokens":0,"completion_tokens":3,"cached_tokens":4,"e2e_latency":0.41},"prompt_token_ids":[504,3575,282,4649,314]}"#;

    #[test]
    fn an_answer_that_was_recorded_is_read() {
        let answer = read(ANSWER, &ASK).unwrap();
        assert_eq!(answer.tokens, [7042, 30, 198]);
        let best = |candidates: [(u32, f32); 2]| {
            Some(candidates.map(|(token, logit)| Candidate { token, logit }).to_vec())
        };
        assert_eq!(answer.shown[0], best([(7042, -0.258_073_12), (260, -2.740_739)]));
        assert_eq!(answer.shown[2], best([(198, -1.009_347_7), (378, f32::NEG_INFINITY)]));
        assert_eq!((answer.read, answer.cached), (Some(1), Some(4)));
        assert_eq!(answer.text.as_deref(), Some(" Paris.\n"));
        assert_eq!(answer.fingerprint.as_deref(), Some("default"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (from, to, said) in [
            ("[7042,30,198],\"meta", "[7042,30],\"meta", "says that they are 3"),
            ("[504,3575,282,4649,314]", "[504,3575,282,4649,315]", "another prompt"),
            ("\"prompt_tokens\":5", "\"prompt_tokens\":6", "read 6 tokens of a prompt that has 5"),
            ("\"cached_tokens\":4", "\"cached_tokens\":6", "than there is"),
            ("output_top_logprobs", "top_logprobs", "of 0 of 3 tokens"),
            ("28,null]]", "28,null],[-2.0,29,null]]", "shows 3 log-probabilities"),
            ("-1.6584904193878174,28", "0.5,28", "not a log-probability"),
            ("output_ids", "ids", "does not answer as SGLang does"),
        ] {
            assert!(ANSWER.contains(from), "{from}");
            let error = read(&ANSWER.replace(from, to), &ASK).unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }

    #[test]
    fn a_prompt_that_may_not_come_from_the_cache_has_a_key_of_its_own() {
        let (path, request) = ask(&ASK);
        assert_eq!((path, &request["extra_key"]), ("/generate", &json!("salt")));
        assert_eq!(ask(&Ask { cache: true, ..ASK }).1.get("extra_key"), None);
    }

    #[test]
    fn who_it_is_and_what_it_has_done_is_read_from_what_it_says() {
        let server = r#"{"version":"0.5.23","dtype":"float32","page_size":1,"quantization":null,"attention_backend":"torch_native"}"#;
        let texts = [server.to_owned(), r#"{"model_path":"/models/smol"}"#.to_owned()];
        let identity = identity(&texts, None).unwrap();
        assert_eq!(identity.version, "0.5.23");
        let facts: Vec<_> = identity.facts.iter().map(|(name, fact)| format!("{name}={fact}")).collect();
        assert_eq!(facts, ["attention_backend=torch_native", "dtype=float32", "file=smol", "page_size=1"]);
        let text = "# TYPE x counter\nsglang:cuda_graph_passes_total{mode=\"decode_none\",rank=\"0\"} 42.0\n\
                    sglang:cuda_graph_passes_total{mode=\"prefill_none\",rank=\"0\"} 6.0\n\
                    sglang:generation_tokens_total{is_streaming=\"False\"} 48.0\n";
        assert_eq!(counts(text), Some(Counts { calls: 48, chosen: 48, read: None }));
        assert_eq!(counts("sglang:generation_tokens_total 48.0\n"), None);
    }
}
