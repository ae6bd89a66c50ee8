//! A server in each dialect, by a stub over loopback: the same model behind all of them shows what its dialect can show.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use reprocheck::{
    model::{Checkpoint, Subject, hub::HubSettings},
    numerics::apart::Row,
    store::open::{OpenTrace, Shown, Shows},
};
use serde_json::{Value, json};

use crate::serving::{Gathering, files, gathered};

const KEY: &str = "sk-a/key-that-nobody-may-see";

/// What a stub does that an honest server does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Honest,
    /// Company moves its numbers, or its text where it shows nothing else.
    Moved,
    /// Its text is not that of its tokens.
    OtherText,
    /// It has another fingerprint after its first answers.
    Reloaded,
    /// It never forgets.
    Remembers,
    /// It takes a prompt from its cache that it should not find there.
    IgnoresSalt,
    /// It calls itself by the key that it was told.
    SaysKey,
    /// Two of its tokens make one letter.
    Joins,
}

#[derive(Default)]
struct State {
    calls: u64,
    chosen: u64,
    read: u64,
    answers: u64,
    /// Prompts that were read, each with its salt.
    seen: Vec<(Vec<u64>, Value)>,
    gathering: Gathering,
    forgotten: usize,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A server of the model in the binary, for as long as the test runs: its port.
fn serve(mood: Mood) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared: Shared = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            // Whoever asks may have gone.
            thread::spawn(move || drop(answer(stream, mood, &shared)));
        }
    });
    port
}

/// The tokens that follow a prompt, by its sum: those that are a sign each.
fn continued(prompt: &[u64], new: u64) -> Vec<u64> {
    let mut sum = prompt.iter().sum::<u64>();
    let next = |_| {
        let token = sum % 90;
        sum += token + 1;
        token
    };
    (0..new).map(next).collect()
}

fn answer(mut stream: TcpStream, mood: Mood, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let key = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap_or_default();
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap();
    let (state, _) = &**shared;
    let mut state = state.lock().unwrap();
    let text = match path {
        "/version" => json!({ "version": "0.1" }).to_string(),
        "/v1/models" => json!({ "data": [{ "id": "tiny", "root": "/m/tiny" }] }).to_string(),
        "/server_info" => json!({ "version": "0.2", "dtype": "float32" }).to_string(),
        "/model_info" => json!({ "model_path": "/m/tiny" }).to_string(),
        "/metrics" => {
            let State { calls, chosen, read, .. } = *state;
            format!(
                "vllm:iteration_tokens_total_count{{engine=\"0\"}} {calls}.0\nvllm:generation_tokens_total{{engine=\"0\"}} {chosen}.0\n\
                 vllm:prompt_tokens_by_source_total{{source=\"local_compute\"}} {read}.0\n\
                 sglang:cuda_graph_passes_total{{mode=\"decode_none\"}} {calls}.0\nsglang:generation_tokens_total{{x=\"y\"}} {chosen}.0\n"
            )
        }
        "/reset_prefix_cache" => {
            state.forgotten += 1;
            // It is busy at first.
            let is_done = mood != Mood::Remembers && state.forgotten.is_multiple_of(2);
            if is_done {
                state.seen.clear();
            }
            json!({ "success": is_done }).to_string()
        }
        "/flush_cache?timeout=10" => {
            state.seen.clear();
            "Cache flushed.".to_owned()
        }
        "/v1/completions" | "/generate" => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            drop(state);
            if request.get("logprob_start_len").is_some() {
                scored(&request)
            } else {
                completion(&request, path == "/generate", mood, shared, key)
            }
        }
        _ => "{}".to_owned(),
    };
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

fn completion(request: &Value, is_sglang: bool, mood: Mood, shared: &Shared, key: &str) -> String {
    let numbers =
        |value: &Value| value.as_array().map(|all| all.iter().map(|token| token.as_u64().unwrap()).collect());
    let prompt: Option<Vec<u64>> =
        numbers(if is_sglang { &request["input_ids"] } else { &request["prompt"] });
    let new = if is_sglang { &request["sampling_params"]["max_new_tokens"] } else { &request["max_tokens"] };
    let new = new.as_u64().unwrap();
    let checkpoint = Checkpoint::resolve("qwen", &HubSettings::from_environment(), &mut |_| {}).unwrap();
    let subject = Subject::of(&checkpoint).unwrap();
    let tokenizer = subject.tokenizer.unwrap();
    let takes_text = prompt.is_none();
    let prompt = prompt.unwrap_or_else(|| {
        let text = request["prompt"].as_str().unwrap();
        tokenizer.encode(text, true).unwrap().into_iter().map(u64::from).collect()
    });
    let (mut state, is_first) = gathered(shared, |state| &mut state.gathering);
    if is_first {
        state.calls += new;
    }
    let salt = if is_sglang { &request["extra_key"] } else { &request["cache_salt"] };
    let salt = if mood == Mood::IgnoresSalt { Value::Null } else { salt.clone() };
    let asked = (prompt.clone(), salt);
    let cached = if !takes_text && state.seen.contains(&asked) { prompt.len() as u64 - 1 } else { 0 };
    state.seen.push(asked);
    state.chosen += new;
    state.read += prompt.len() as u64 - cached;
    state.answers += 1;
    let is_moved = mood == Mood::Moved && state.gathering.together > 1;
    let fingerprint = match mood {
        Mood::Reloaded if state.answers > 3 => "two",
        Mood::SaysKey => key,
        _ => "one",
    };
    drop(state);
    let tokens = continued(&prompt, new);
    let ids: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
    let mut text = tokenizer.decode(&ids, true);
    if takes_text {
        // Letters alone: some tokens have no text of their own.
        let letters = if mood == Mood::Joins { &tokens[1..] } else { &tokens[..] };
        text = letters.iter().map(|token| char::from(b'a' + (token % 26) as u8)).collect();
        if is_moved {
            text.push('!');
        }
    }
    if mood == Mood::OtherText {
        text.push('?');
    }
    let best = |token: u64| [(token, if is_moved { -0.5 } else { -0.25 }), (token + 1, -1.5)];
    if is_sglang {
        let rows: Vec<_> = tokens
            .iter()
            .map(|token| best(*token).map(|(token, number)| json!([number, token, null])))
            .collect();
        let meta = json!({
            "prompt_tokens": prompt.len(), "completion_tokens": new, "cached_tokens": cached, "weight_version": fingerprint,
            "output_top_logprobs": rows,
        });
        return json!({ "text": text, "output_ids": tokens, "prompt_token_ids": prompt, "meta_info": meta })
            .to_string();
    }
    let usage = json!({
        "prompt_tokens": prompt.len(), "completion_tokens": new, "prompt_tokens_details": { "cached_tokens": cached },
    });
    if takes_text {
        return json!({ "choices": [{ "text": text }], "system_fingerprint": fingerprint, "usage": usage })
            .to_string();
    }
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| best(*token).map(|(token, number)| format!("\"token_id:{token}\":{number}")).join(","))
        .map(|row| format!("{{{row}}}"))
        .collect();
    format!(
        "{{\"choices\":[{{\"text\":{},\"token_ids\":{tokens:?},\"prompt_token_ids\":{prompt:?},\"logprobs\":{{\"top_logprobs\":[{}]}}}}],\
         \"system_fingerprint\":\"{fingerprint}\",\"usage\":{usage}}}",
        json!(text),
        rows.join(",")
    )
}

/// What SGLang 0.5.23 said of a text, without what nobody reads here, and in the same form what it said of tokens of its own, with
/// one number that is too small for any.
const SCORED: [(&[u64], &str); 2] = [
    (
        &[504, 3575],
        r#"{"text":"","output_ids":[282],"meta_info":{"input_token_logprobs":[[null,504,null],[-11.539298057556152,3575,null]],
        "input_top_logprobs":[null,[[-0.8654816150665283,29,null],[-2.6532528400421143,28,null]]]}}"#,
    ),
    (
        &[504, 3575, 282, 4649, 314, 7042, 30],
        r#"{"text":"","output_ids":[198],"meta_info":{"input_token_logprobs":[[null,314,null],[-0.2580731213092804,7042,null],
        [-0.3801266551017761,30,null]],"input_top_logprobs":[null,[[-0.2580731213092804,7042,null],[-2.740739107131958,260,null]],
        [[-0.3801266551017761,30,null],[null,28,null]]]}}"#,
    ),
];

/// The answer to a request that asks what it makes of a text.
fn scored(request: &Value) -> String {
    assert_eq!((&request["return_logprob"], &request["top_logprobs_num"]), (&json!(true), &json!(2)));
    let (text, answer) = SCORED.iter().find(|(text, _)| request["input_ids"] == json!(text)).unwrap();
    // The rows that were recorded begin there.
    let from = request["logprob_start_len"].as_u64().unwrap() as usize;
    assert!(answer.contains(&format!("[null,{},null]", text[from])), "{request}");
    (*answer).to_owned()
}

#[test]
#[ignore = "needs Python 3: `.ci/run` asks for it"]
fn a_trace_of_sglang_is_written_from_what_it_says_of_given_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        json!({ "open-trace": 1, "shows": "top", "environment": { "engine": "none", "facts": {} } }),
        json!({ "item": "a", "prompt": [504], "tokens": [3575] }),
        json!({ "item": "b", "prompt": [504, 3575, 282, 4649, 314], "tokens": [7042, 30] }),
    ];
    fs::write(folder.path().join("tokens.jsonl"), lines.map(|line| line.to_string()).join("\n")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/traces/sglang_trace.py");
    let url = format!("http://127.0.0.1:{}", serve(Mood::Honest));
    let python = Command::new("python3")
        .args([script, &url, "tokens.jsonl", "out.jsonl", "2"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let mut trace = OpenTrace::open(&folder.path().join("out.jsonl")).unwrap();
    assert_eq!(trace.head.environment.to_string(), "sglang 0.2 (dtype: float32)");
    let read: Vec<_> = trace.items.iter().map(|item| (item.tokens.clone(), item.rows.clone())).collect();
    assert_eq!(read, [(vec![3575], vec![Some(0)]), (vec![7042, 30], vec![Some(1), Some(2)])]);
    let mut shown = Shown::default();
    let best = [
        [(29, -0.865_481_6), (28, -2.653_252_8)],
        [(7042, -0.258_073_12), (260, -2.740_739)],
        [(30, -0.380_126_66), (28, f32::NEG_INFINITY)],
    ];
    for (row, best) in (0..).zip(best) {
        trace.read(row, &mut shown).unwrap();
        let Row::Top(found) = shown.row(Shows::Top) else { panic!("{row}") };
        let found: Vec<_> = found.iter().map(|candidate| (candidate.token, candidate.logit)).collect();
        assert_eq!(found, best, "{row}");
    }
}

/// Runs a matrix against a stub: the exit code, and all that was said on one line.
fn run(dialect: &str, mood: Mood, more: &str, matrix: &str, gate: &str) -> (i32, String) {
    run_in(tempfile::tempdir().unwrap().path(), dialect, mood, more, matrix, gate)
}

/// The same in a folder that stays.
fn run_in(folder: &Path, dialect: &str, mood: Mood, more: &str, matrix: &str, gate: &str) -> (i32, String) {
    let port = serve(mood);
    let text = format!(
        "model = \"qwen\"\nsuites = [\"carry_chain\"]\nitems = 4\n\n[generate]\nmax-new-tokens = 3\ncandidates = 2\n\n[engine.stub]\n\
         dialect = \"{dialect}\"\nurl = \"http://127.0.0.1:{port}\"\ntimeout = 5\n{more}\n\n[matrix]\nengine = \"server:stub\"\n{matrix}\n\n\
         [[gate]]\nname = \"tried\"\n{gate}\n"
    );
    fs::write(folder.join("ci.toml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
        .args(["run", "--matrix", "ci.toml", "--out", "out"])
        .current_dir(folder)
        .env("STUB_KEY", KEY)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let all = text(output.stdout) + &text(output.stderr);
    let mut written = files(folder).into_iter().map(|path| fs::read(path).unwrap());
    let key = KEY.as_bytes();
    let says_key = |bytes: &[u8]| bytes.windows(key.len()).any(|window| window == key);
    assert!(!says_key(all.as_bytes()) && !written.any(|bytes| says_key(&bytes)), "{all}");
    (output.status.code().unwrap(), all.split_whitespace().collect::<Vec<_>>().join(" "))
}

const TOKENS: [&str; 2] = ["vllm", "sglang"];
const COMPANY: &str = "concurrency = [1, 4]";
const CACHES: &str = "cache = [\"off\", \"cold\", \"warm\"]";

#[test]
fn every_matrix_of_servers_that_is_shipped_is_a_plan() {
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    for name in ["llama", "vllm", "sglang", "transformers"] {
        let path = suites.join(format!("serve-{name}.toml"));
        let output = Command::new(env!("CARGO_BIN_EXE_reprocheck"))
            .args(["plan", "--matrix"])
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("server:{name}/")));
    }
}

#[test]
fn company_passes_and_fails_in_every_dialect_that_gives_tokens_and_counts() {
    for dialect in TOKENS {
        let gate = "vary = \"concurrency\"\nrequire = \"top\"";
        let (code, out) = run(dialect, Mood::Honest, "", COMPANY, gate);
        assert_eq!(code, 0, "{dialect}: {out}");
        let (code, out) = run(dialect, Mood::Moved, "", COMPANY, gate);
        assert_eq!(code, 1, "{dialect}: {out}");
        assert!(out.contains("on 4 of 4 items"), "{dialect}: {out}");
    }
}

#[test]
fn a_cache_is_off_by_a_salt_cold_by_a_flush_and_warm_by_a_first_request() {
    for dialect in TOKENS {
        let gate = "vary = \"cache\"\nrequire = \"top\"";
        let (code, out) = run(dialect, Mood::Honest, "", CACHES, gate);
        assert_eq!(code, 0, "{dialect}: {out}");
        let (code, out) =
            run(dialect, Mood::IgnoresSalt, "", COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
        assert_eq!(code, 3, "{dialect}: {out}");
        assert!(out.contains("were in a cache that should be off"), "{dialect}: {out}");
    }
    let (code, out) = run("vllm", Mood::Remembers, "", CACHES, "vary = \"cache\"\nrequire = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("its server does not forget, and says `"), "{out}");
}

#[test]
fn a_text_that_is_not_that_of_the_tokens_and_a_server_with_other_settings_are_not_believed() {
    let gate = "vary = \"concurrency\"\nrequire = \"top\"";
    for dialect in TOKENS {
        let (code, out) = run(dialect, Mood::OtherText, "", COMPANY, gate);
        assert_eq!(code, 3, "{dialect}: {out}");
        assert!(out.contains("and that of its tokens"), "{dialect}: {out}");
        let (code, out) = run(dialect, Mood::Reloaded, "", COMPANY, gate);
        assert_eq!(code, 3, "{dialect}: {out}");
        assert!(out.contains("its fingerprint has changed"), "{dialect}: {out}");
    }
}

#[test]
fn a_key_that_a_server_calls_itself_by_is_written_nowhere() {
    for dialect in ["vllm", "sglang", "openai"] {
        let more = "key-env = \"STUB_KEY\"\nmodel = \"tiny\"";
        let (code, out) =
            run(dialect, Mood::SaysKey, more, "repeat = 2", "vary = \"repeat\"\nrequire = \"text\"");
        assert_eq!(code, 0, "{dialect}: {out}");
    }
}

#[test]
fn a_text_that_was_cut_at_its_limit_is_recorded_so_however_few_tokens_it_makes() {
    let folder = tempfile::tempdir().unwrap();
    let gate = "vary = \"repeat\"\nrequire = \"text\"";
    let (code, out) = run_in(folder.path(), "openai", Mood::Joins, "model = \"tiny\"", "repeat = 2", gate);
    assert_eq!(code, 0, "{out}");
    let traces = files(&folder.path().join("out/traces"));
    let samples = traces.iter().find(|path| path.ends_with("samples.jsonl")).unwrap();
    let text = fs::read_to_string(samples).unwrap();
    assert_eq!(text.lines().count(), 4);
    for line in text.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (sample["tokens"].as_array().unwrap().len(), &sample["finish"]),
            (2, &json!("length")),
            "{line}"
        );
    }
}

#[test]
fn a_server_of_texts_is_compared_by_its_texts_and_by_nothing_else() {
    let model = "model = \"tiny\"";
    let repeat = |mood: Mood, require: &str| {
        run("openai", mood, model, "repeat = 2", &format!("vary = \"repeat\"\nrequire = \"{require}\""))
    };
    let (code, out) = repeat(Mood::Honest, "text");
    assert_eq!(code, 0, "{out}");
    let (code, out) = repeat(Mood::Honest, "tokens");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("shows text alone, which other tokens may make too: require text"), "{out}");
    let company =
        |mood: Mood| run("openai", mood, model, COMPANY, "vary = \"concurrency\"\nrequire = \"text\"");
    let (code, out) = company(Mood::Honest);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("whether `concurrency` made a difference cannot be told"), "{out}");
    let (code, out) = company(Mood::Moved);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("has another text than server:stub/n1 on 4 of 4 items"), "{out}");
    let (code, out) = run("openai", Mood::Honest, "", COMPANY, "vary = \"concurrency\"\nrequire = \"text\"");
    assert!(code == 2 && out.contains("is asked for its model by name: write `model`"), "{out}");
    let (code, out) = run(
        "openai",
        Mood::Honest,
        model,
        "cache = [\"off\", \"cold\"]",
        "vary = \"cache\"\nrequire = \"text\"",
    );
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("its server cannot be asked to forget"), "{out}");
    let (code, out) =
        run("vllm", Mood::Honest, "model = \"big\"", COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("it serves tiny, and not big"), "{out}");
}
