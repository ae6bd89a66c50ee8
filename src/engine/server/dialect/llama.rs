//! The dialect of llama.cpp's `llama-server`, over its own `/completion`.

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Answer, Ask, Counts, Dialect, Identity, Listed, check, clipped, counted, file_name, shown, word,
};
use crate::trace::Sight;

pub(super) const DIALECT: Dialect = Dialect {
    name: "llama.cpp",
    sight: Sight::Top,
    ready: "/health",
    introductions: &["/props", "/v1/models"],
    identity,
    greets: false,
    counts: Some(("/metrics", counts)),
    forget: |identity| (0..identity.slots).map(|slot| format!("/slots/{slot}?action=erase")).collect(),
    forgot: |_| true,
    forgets: "start it with --slot-save-path and a folder, and with --cache-ram 0",
    ask,
    read,
};

fn ask(ask: &Ask<'_>) -> (&'static str, Value) {
    let mut request = sampling(ask);
    request["prompt"] = json!(ask.tokens);
    request["return_tokens"] = json!(true);
    request["cache_prompt"] = json!(ask.cache);
    ("/completion", request)
}

/// How tokens are to be chosen, and what is to be shown of them, whatever the server was started with. It says in its answer
/// how it did.
fn sampling(ask: &Ask<'_>) -> Value {
    json!({
        "n_predict": ask.new_tokens,
        "temperature": 0,
        "seed": 0,
        "repeat_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "dry_multiplier": 0,
        "xtc_probability": 0,
        "mirostat": 0,
        "ignore_eos": false,
        "n_probs": ask.top,
        "post_sampling_probs": false,
        "stream": false,
    })
}

/// Refuses another way than the one that was asked for, as far as it says how it did.
fn check_sampling(Listed(settings): &Listed<'_>, ask: &Ask<'_>) -> Result<(), String> {
    let all = sampling(ask);
    for (name, said) in settings {
        let Some(asked) = all.get(name) else { continue };
        let value: Value = serde_json::from_str(said.get()).unwrap_or_default();
        // It writes 0 as 0.0.
        let is_same = value == *asked || value.is_number() && value.as_f64() == asked.as_f64();
        if !is_same {
            let said = clipped(said.get());
            return Err(format!("it was asked for {name} {asked}, and says that it took {said}"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Completion<'a> {
    tokens: Vec<u32>,
    content: Option<String>,
    #[serde(borrow, default)]
    completion_probabilities: Vec<Row<'a>>,
    tokens_predicted: usize,
    #[serde(default)]
    truncated: bool,
    timings: Option<Timings>,
    #[serde(borrow)]
    generation_settings: Option<Listed<'a>>,
}

#[derive(Deserialize)]
struct Row<'a> {
    id: u32,
    #[serde(borrow)]
    top_logprobs: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: u32,
    #[serde(borrow)]
    logprob: &'a RawValue,
}

#[derive(Deserialize)]
struct Timings {
    cache_n: usize,
    prompt_n: usize,
}

fn read(text: &str, ask: &Ask<'_>) -> Result<Answer, String> {
    let Completion {
        tokens,
        content,
        completion_probabilities: rows,
        tokens_predicted,
        truncated,
        timings,
        generation_settings,
    } = serde_json::from_str(text)
        .map_err(|error| format!("it does not answer as llama-server does ({error})"))?;
    if let Some(settings) = generation_settings {
        check_sampling(&settings, ask)?;
    }
    if truncated {
        return Err("it has cut the prompt: give it a larger context".to_owned());
    }
    check(&tokens, tokens_predicted, ask)?;
    // It leaves out the rows of tokens that are no whole character, so the rows are those of some tokens, in their order.
    let mut rows = rows.into_iter().peekable();
    let of_token = |token: &u32| match rows.next_if(|row| row.id == *token) {
        Some(row) => {
            let listed: Vec<_> =
                row.top_logprobs.iter().map(|entry| (entry.id, entry.logprob.get())).collect();
            shown(*token, &listed, ask)
        }
        None => Ok(None),
    };
    let shown = tokens.iter().map(of_token).collect::<Result<Vec<_>, _>>()?;
    if let Some(row) = rows.next() {
        return Err(format!("it shows log-probabilities of token {}, and did not choose that there", row.id));
    }
    if ask.must_show && !tokens.is_empty() && shown.iter().all(Option::is_none) {
        return Err(
            "it shows no log-probabilities, or rounded ones alone: let it answer `n_probs`".to_owned()
        );
    }
    if let Some(Timings { cache_n, prompt_n }) = timings
        && cache_n.checked_add(prompt_n) != Some(ask.tokens.len())
    {
        return Err(format!(
            "it has read {prompt_n} tokens of the prompt and had {cache_n}, which are not the {} that it was given",
            ask.tokens.len()
        ));
    }
    let timings = timings.as_ref();
    Ok(Answer {
        tokens,
        shown,
        text: content,
        read: timings.map(|timings| timings.prompt_n),
        cached: timings.map(|timings| timings.cache_n),
        ..Answer::default()
    })
}

#[derive(Deserialize)]
struct Props {
    build_info: String,
    model_path: String,
    #[serde(default)]
    model_ftype: Option<String>,
    total_slots: usize,
    default_generation_settings: Option<Defaults>,
}

#[derive(Deserialize)]
struct Defaults {
    n_ctx: Option<u64>,
    #[serde(default)]
    params: Value,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_vocab: u64,
    n_params: u64,
}

fn identity(texts: &[String], _: Option<&str>) -> Result<Identity, String> {
    /// What may move a choice and no request sets, as far as there is any.
    const SET: [&str; 3] = ["lora", "samplers", "speculative.types"];
    let [props, models] = texts else { unreachable!("one for each path") };
    let strange = |error| format!("it does not say who it is as llama-server does ({error})");
    let props: Props = serde_json::from_str(props).map_err(strange)?;
    let models: Models = serde_json::from_str(models).map_err(strange)?;
    let meta = models.data.into_iter().next().and_then(|model| model.meta);
    let defaults = props.default_generation_settings;
    let context = defaults.as_ref().and_then(|defaults| defaults.n_ctx);
    let is_set = |value: &&Value| **value != json!([]) && **value != "none";
    let set = |name: &'static str| {
        let value = defaults.as_ref()?.params.get(name).filter(is_set)?;
        Some((name, Some(word(value))))
    };
    let facts = [
        ("file", Some(file_name(&props.model_path))),
        ("weights", props.model_ftype),
        ("context", context.map(|length| length.to_string())),
        ("slots", Some(props.total_slots.to_string())),
    ];
    let facts = facts.into_iter().chain(SET.into_iter().filter_map(set));
    let facts = facts.filter_map(|(name, fact)| Some((name.to_owned(), fact?)));
    Ok(Identity {
        version: props.build_info,
        model: String::new(),
        facts: facts.collect(),
        vocabulary: meta.as_ref().map(|meta| meta.n_vocab),
        parameters: meta.as_ref().map(|meta| meta.n_params),
        slots: props.total_slots,
    })
}

fn counts(text: &str) -> Option<Counts> {
    Some(Counts {
        calls: counted(text, "llamacpp:n_decode_total", |_| true)?,
        chosen: counted(text, "llamacpp:tokens_predicted_total", |_| true)?,
        read: Some(counted(text, "llamacpp:prompt_tokens_total", |_| true)?),
    })
}

#[cfg(test)]
mod tests {
    use crate::numerics::choice::Candidate;

    use super::*;

    const ASK: Ask<'_> = Ask { tokens: &[504, 3575, 282], new_tokens: 3, ..super::super::tests::ASK };

    /// Of a server that was driven, with its numbers.
    const ANSWER: &str = r#"{"index":0,"content":" Paris.\n","tokens":[7042,30,198],"id_slot":3,"stop":true,"tokens_predicted":3,
        "tokens_evaluated":3,"truncated":false,"stop_type":"limit","tokens_cached":5,
        "generation_settings":{"seed":0,"temperature":0.0,"top_k":40,"repeat_penalty":1.0,"stop":[],"n_predict":3,"stream":false,
        "n_probs":2,"samplers":["penalties","temperature"],"post_sampling_probs":false},
        "timings":{"cache_n":1,"prompt_n":2,"prompt_ms":129.78,"predicted_n":3},"completion_probabilities":[
        {"id":7042,"token":" Paris","logprob":-0.25889989733695984,"top_logprobs":[
            {"id":7042,"token":" Paris","logprob":-0.25889989733695984},{"id":260,"token":" the","logprob":-2.764557123184204}]},
        {"id":198,"token":"\n","logprob":-0.5,"top_logprobs":[
            {"id":198,"token":"\n","logprob":-0.5},{"id":378,"token":" ","logprob":-3.4028234663852886e+38}]}]}"#;

    #[test]
    fn rows_go_to_their_tokens_and_what_has_none_is_not_shown() {
        let best = |candidates: [(u32, f32); 2]| {
            Some(candidates.map(|(token, logit)| Candidate { token, logit }).to_vec())
        };
        let answer = read(ANSWER, &ASK).unwrap();
        assert_eq!(answer.tokens, [7042, 30, 198]);
        let shown = [
            best([(7042, -0.258_899_9), (260, -2.764_557_1)]),
            None,
            best([(198, -0.5), (378, f32::NEG_INFINITY)]),
        ];
        assert_eq!(answer.shown, shown);
        assert_eq!((answer.read, answer.cached), (Some(2), Some(1)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (from, to, said) in [
            ("[7042,30,198]", "[7042,30,49152]", "names token 49152"),
            ("[7042,30,198]", "[7042,30]", "says that they are 3"),
            ("[7042,30,198]", "[7042,30,-1]", "does not answer"),
            ("[7042,30,198]", "[198,30,7042]", "did not choose that there"),
            ("\"logprob\":-2.764557123184204", "\"logprob\":2.5", "`2.5` is not a log-probability"),
            ("\"logprob\":-2.764557123184204", "\"logprob\":NaN", "does not answer"),
            ("\"logprob\":-2.764557123184204", "\"logprob\":-0.125", "is not the best"),
            ("{\"id\":260", "{\"id\":7042", "one token twice"),
            ("{\"id\":260", "{\"id\":90000", "names token 90000"),
            ("\"truncated\":false", "\"truncated\":true", "larger context"),
            ("\"prompt_n\":2", "\"prompt_n\":3", "which are not the 3"),
            ("\"prompt_n\":2", "\"prompt_n\":18446744073709551615", "which are not the 3"),
            ("\"tokens_predicted\":3", "\"predicted\":3", "does not answer"),
            ("completion_probabilities", "probabilities", "no log-probabilities"),
            (
                "\"temperature\":0.0",
                "\"temperature\":0.8",
                "asked for temperature 0, and says that it took 0.8",
            ),
            ("\"n_probs\":2", "\"n_probs\":0", "asked for n_probs 2, and says that it took 0"),
            ("\"repeat_penalty\":1.0", "\"repeat_penalty\":1.1", "asked for repeat_penalty 1"),
            (
                "\"post_sampling_probs\":false",
                "\"post_sampling_probs\":true",
                "asked for post_sampling_probs false",
            ),
        ] {
            assert!(ANSWER.contains(from), "{from}");
            let error = read(&ANSWER.replace(from, to), &ASK).unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
        // Nobody looks at what noise shows.
        let hidden = ANSWER.replace("completion_probabilities", "probabilities");
        assert_eq!(read(&hidden, &Ask { must_show: false, ..ASK }).unwrap().shown, [None, None, None]);
        let silent = ANSWER.replace("generation_settings", "settings");
        let error = read(&silent, &Ask { top: 5, ..ASK }).unwrap_err();
        assert!(error.contains("was asked for 5"), "{error}");
        let rounded = ANSWER.replace("-2.764557123184204", "-2.7646");
        assert_eq!(read(&rounded, &ASK).unwrap().shown[0], None);
    }

    #[test]
    fn who_it_is_holds_what_no_request_sets() {
        let props = r#"{"build_info":"b1","model_path":"/m/x.gguf","model_ftype":"Q4_1","total_slots":4,"default_generation_settings":{
            "n_ctx":4096,"params":{"temperature":0.8,"samplers":["top_k","temperature"],"speculative.types":"none","lora":[]}}}"#;
        let models = r#"{"data":[{"meta":{"n_vocab":7,"n_params":9}}]}"#;
        let said = |props: &str| {
            let identity = identity(&[props.to_owned(), models.to_owned()], None).unwrap();
            let facts = identity.facts.iter().map(|(name, fact)| format!("{name}={fact}"));
            facts.collect::<Vec<_>>().join(" ")
        };
        let usual = r#"context=4096 file=x.gguf samplers=["top_k","temperature"] slots=4 weights=Q4_1"#;
        assert_eq!(said(props), usual);
        let drafts = props.replace("\"none\"", "\"draft\"");
        assert!(said(&drafts).contains("speculative.types=draft"), "{}", said(&drafts));
        assert_eq!(
            said(&props.replace("default_generation_settings", "others")),
            "file=x.gguf slots=4 weights=Q4_1"
        );
    }

    #[test]
    fn counts_are_read_whatever_stands_around_them() {
        let text = "# HELP llamacpp:n_decode_total x\nllamacpp:prompt_tokens_total 14\nllamacpp:prompt_tokens_cached_total 22\n\
                    llamacpp:tokens_predicted_total 1.5e+06\nllamacpp:n_decode_total 42\n";
        assert_eq!(counts(text), Some(Counts { calls: 42, chosen: 1_500_000, read: Some(14) }));
        for wrong in ["", "llamacpp:n_decode_total x", "<html>", "llamacpp:n_decode_total -1"] {
            assert_eq!(counts(wrong), None);
        }
    }
}
