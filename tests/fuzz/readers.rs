//! Everything that reads what somebody else wrote: a row each, which the suite walks over its corpus and the fuzzer beyond it.

use std::{collections::BTreeMap, fs, path::Path, str, sync::LazyLock};

use reprocheck::{
    attest::{
        self,
        envelope::Envelope,
        key::{PrivateKey, PublicKey},
    },
    cell::{Cell, calibration, map, program},
    digest::Digest,
    engine::{
        script::Script,
        server::dialect::{Ask, DIALECTS},
    },
    model::{
        Checkpoint, Config,
        chat::{ChatTemplate, Message},
        tokenizer::Tokenizer,
    },
    numerics::functions::{Called, Functions},
    plan::Plan,
    record::PROGRAM,
    store::{
        open::{OpenTrace, Shown},
        run::{RUN, Run, cell_of_file},
        trace::{Reader as Trace, TreeFile, lines},
    },
    suite::{
        Suite,
        answer::{Answer, Kind},
        extract::{Filter, extract},
        load::{self, Format},
        style::Style,
    },
    verdict::baseline::Baseline,
};
use serde_json::value::RawValue;

/// A reader of bytes that nobody vouches for.
pub(crate) struct Reader {
    /// Its name, and that of its folder of inputs.
    pub(crate) name: &'static str,
    /// Reads, and goes on with what was read as the program would. Its files may lie in the folder.
    pub(crate) read: fn(&[u8], &Path),
    /// How many bytes of memory it may take beside twice its input.
    pub(crate) beside: usize,
}

/// Takes no more than the buffers of files, what a library keeps of the text that it parses, and sentences.
const fn reader(name: &'static str, read: fn(&[u8], &Path)) -> Reader {
    Reader { name, read, beside: 1 << 20 }
}

impl Reader {
    const fn may_take(mut self, beside: usize) -> Reader {
        self.beside = beside;
        self
    }
}

/// All of them.
pub(crate) const READERS: &[Reader] = &[
    reader("matrix", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes) {
            let _ = Plan::read(Path::new("ci.toml"), text, None).map_err(said);
        }
    })
    // A few axes are up to 100,000 cells, and every gate knows its own.
    .may_take(256 << 20),
    reader("cell", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes)
            && let Ok(cell) = text.parse::<Cell>()
        {
            assert_eq!(cell.to_string().parse(), Ok(cell), "a cell is read by the name that it prints");
        }
    }),
    reader("map", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes)
            && let Ok(precision) = map::read("a.map", text).map_err(said)
        {
            let again = map::read("a.map", &map::written(precision)).map_err(said);
            assert_eq!(again, Ok(precision), "a map is read as it is written");
        }
    }),
    reader("calibration", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes)
            && let Ok(read) = calibration::read("a.jsonl", text).map_err(said)
        {
            assert_eq!(read.text(), Some(text), "it is known by what its file says");
        }
    }),
    reader("program", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes)
            && let Ok(read) = program::read("a.txt", text).map_err(said)
        {
            assert_eq!(read.text(), Some(text), "it is known by what its file says");
            let _ = Called::ALL.map(|called| Functions::Program(read).of(called, 1.0));
        }
    }),
    reader("script", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes) {
            let _ = Script::read("a.jsonl", text).map_err(said);
        }
    }),
    reader("suite", |bytes, folder| {
        let path = folder.join("suite.toml");
        write(&path, bytes);
        if let Ok(suite) = Suite::open(path.to_str().expect("a folder of ours")).map_err(said) {
            let items: Vec<_> = suite.items(1).take(3).collect();
            for item in items {
                for style in suite.styles() {
                    if let Some(asked) = suite.asked(&item, 1, style, 1) {
                        suite.score(&item, style, &asked.text(), false);
                    }
                }
            }
        }
    }),
    reader("items", |bytes, _| items(bytes, None)),
    reader("lm-eval", |bytes, _| items(bytes, Some(Format::LmEval))),
    reader("answer", |bytes, _| {
        if let [Ok(gold), Ok(given)] = parts(bytes).map(str::from_utf8) {
            for kind in Kind::ALL {
                let answer = Answer::new(kind, gold);
                answer.is(given);
                answer.closeness(given);
                for (style, filter) in [
                    (Style::Compact, Filter::Strict),
                    (Style::Chat, Filter::Strict),
                    (Style::Chat, Filter::Flexible),
                ] {
                    extract(given, style, filter, kind);
                }
            }
        }
    }),
    reader("config", |bytes, _| {
        if let Ok(mut config) = Config::read("config.json", bytes).map_err(said) {
            let _ = config.take_generation("generation_config.json", bytes).map_err(said);
            config.tensors().take(99).for_each(drop);
        }
    }),
    reader("tokenizer", |bytes, _| {
        if let Ok(tokenizer) = Tokenizer::read("tokenizer.json", bytes, 512).map_err(said) {
            for special in [false, true] {
                let tokens = tokenizer.encode("12+34= is <s> Übung\n", special).map_err(said);
                tokenizer.decode(&tokens.unwrap_or_default(), special);
            }
            tokenizer.decode(&[0, 1, 511, u32::MAX], false);
            tokenizer.ordinary();
        }
    }),
    reader("chat", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes) {
            let tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
            let messages = [Message::new("system", "Be brief."), Message::new("user", "12+34=")];
            let template = ChatTemplate::new("chat_template.jinja", text, tokens);
            let _ = template.render(&messages, true, &BTreeMap::new()).map_err(said);
        }
    }),
    reader("safetensors", |bytes, folder| {
        write(&folder.join("config.json"), SMALL.as_bytes());
        write(&folder.join("model.safetensors"), bytes);
        checkpoint(folder);
    }),
    reader("gguf", |bytes, folder| {
        let path = folder.join("model.gguf");
        write(&path, bytes);
        checkpoint(&path);
    }),
    reader("run", |bytes, folder| {
        seal(&folder.join(RUN), bytes);
        let _ = Run::open(folder).map_err(said);
    }),
    reader("record", |bytes, folder| {
        let path = folder.join("cell.json");
        seal(&path, bytes);
        let _ = cell_of_file(&path).map_err(said);
    }),
    reader("trace", |bytes, folder| {
        let name = Digest([0; 32]);
        let own = folder.join("traces").join(name.to_string());
        fs::create_dir_all(&own).expect("a folder of ours");
        let [samples, tokens] = parts(bytes);
        write(&own.join("samples.jsonl"), samples);
        write(&own.join("tokens.safetensors"), tokens);
        write(&own.join("tree.bin"), bytes);
        if let Ok(trace) = Trace::open(folder, name).map_err(said) {
            trace.take_while(|item| item.as_ref().map_err(said).is_ok()).for_each(drop);
        }
        if let Ok(mut lines) = lines(folder, name).map_err(said) {
            let last = lines.len();
            let _ = lines.get(last.saturating_sub(1)).map_err(said);
        }
        if let [Ok(mut one), Ok(mut other)] = [TreeFile::open(folder, name), TreeFile::open(folder, name)] {
            let _ = one.root().map_err(said);
            let _ = one.first_difference(&mut other).map_err(said);
        }
    }),
    reader("baseline", |bytes, _| {
        if let Ok(text) = str::from_utf8(bytes)
            && let Ok(baseline) = Baseline::read(text).map_err(said)
        {
            baseline.changes_from(&baseline);
        }
    }),
    reader("open-trace", |bytes, folder| {
        let path = folder.join("trace.jsonl");
        let [lines, numbers] = parts(bytes);
        write(&path, lines);
        write(&folder.join("trace.safetensors"), numbers);
        if let Ok(mut trace) = OpenTrace::open(&path).map_err(said) {
            let mut shown = Shown::default();
            let rows: Vec<u64> =
                trace.items.iter().flat_map(|item| item.rows.iter().flatten()).copied().collect();
            for row in rows {
                let _ = trace.read(row, &mut shown).map_err(said);
            }
        }
    }),
    reader("server", |bytes, _| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        let ask = Ask {
            model: "smol",
            tokens: &[1, 2, 3],
            text: "12+34=",
            new_tokens: 2,
            top: 2,
            must_show: true,
            cache: false,
            salt: "salt",
            vocabulary: 512,
        };
        for dialect in DIALECTS {
            let _ = (dialect.read)(text, &ask);
            let texts: Vec<_> = dialect.introductions.iter().map(|_| text.to_owned()).collect();
            let _ = (dialect.identity)(&texts, Some("smol"));
            (dialect.forgot)(text);
            if let Some((_, counts)) = dialect.counts {
                counts(text);
            }
        }
    }),
    reader("envelope", |bytes, _| {
        let _ = attest::open(bytes, &KEY.public()).map_err(said);
        let _ = PrivateKey::read(bytes).map_err(said);
        let _ = PublicKey::read(bytes).map_err(said);
    }),
    reader("statement", |bytes, _| {
        let signed = Envelope::signed(bytes, &KEY).json();
        if let Ok(statement) = attest::open(&signed, &KEY.public()).map_err(said) {
            statement.is_of(&statement).expect("it is itself");
        }
    }),
];

/// An error is a sentence, which somebody reads.
fn said(error: impl ToString) -> String {
    error.to_string()
}

/// Of a reader of two files: what stands before this line, and what stands behind it.
pub(crate) const BETWEEN: &[u8] = b"\n====\n";

fn parts(bytes: &[u8]) -> [&[u8]; 2] {
    match bytes.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        Some(at) => [&bytes[..at], &bytes[at + BETWEEN.len()..]],
        None => [bytes, &[]],
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a folder of ours");
}

/// As a run writes it: what is not sealed by its digest is not read any further.
fn seal(path: &Path, content: &[u8]) {
    let read =
        str::from_utf8(content).ok().and_then(|content| serde_json::from_str::<&RawValue>(content).ok());
    let sealed = read.map(|content| {
        let sha256 = Digest::of(content.get().as_bytes());
        format!(r#"{{"form":2,"program":"{PROGRAM}","sha256":"{sha256}","content":{content}}}"#)
    });
    write(path, sealed.as_ref().map_or(content, |sealed| sealed.as_bytes()));
}

fn items(bytes: &[u8], format: Option<Format>) {
    let first = bytes.split(|&byte| byte == b'\n').next().and_then(|line| str::from_utf8(line).ok());
    let seen = first.and_then(|line| Format::recognize(line).map_err(said).ok());
    let _ = load::load(format.or(seen).unwrap_or(Format::Jsonl), "items.jsonl", bytes).map_err(said);
}

/// Opens a model and reads all of its weights.
fn checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path).map_err(said) else { return };
    for (name, shape) in checkpoint.config.tensors() {
        let mut row = vec![0.0; shape.last().copied().unwrap_or_default()];
        if let Ok(mut tensor) = checkpoint.tensor(&name, &shape).map_err(said) {
            let _ = tensor.next_row(&mut row).map_err(said);
        }
    }
    checkpoint.parameters();
    checkpoint.digest().map_err(said).expect("its files are there");
    if let Some(tokenizer) = &checkpoint.tokenizer {
        let _ = tokenizer.encode("12+34=", true).map_err(said);
    }
}

/// Of a model whose weights fit in an input.
const SMALL: &str = r#"{
    "model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16, "tie_word_embeddings": true
}"#;

/// Of RFC 8410, section 10.3.
static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\n";
    PrivateKey::read(pem.as_bytes()).expect("it is one")
});
