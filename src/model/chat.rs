//! The chat template of a checkpoint: messages in, the text of a prompt out, as Hugging Face's transformers writes it.
//!
//! Templates are Jinja. They see what transformers gives them: `messages`, `add_generation_prompt`, the special tokens by
//! their names (`bos_token` and so on), `tools` and `documents` as none, `raise_exception`, a `tojson` that escapes
//! nothing, the methods of Python's strings, lists and dictionaries, and any variable of their own that a caller sets.
//! One thing differs, because a prompt must be the same tomorrow: `strftime_now` tells one pinned day, [`TODAY`].

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};

/// The day that templates take for today: the one that Llama 3's own falls back to.
pub const TODAY: &str = "2024-07-26";

/// More steps than a template for a long conversation takes, and few enough to end.
const MOST_STEPS: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// How a model wants a conversation written.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatTemplate {
    file: String,
    template: String,
    special_tokens: BTreeMap<String, String>,
}

/// Why a conversation cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The file that holds the template, or names it.
    #[error("{file}: {wrong}: fetch it again")]
    File {
        /// Which file.
        file: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// A template that does not end well.
    #[error("the chat template of {file} fails ({message}): give the prompt as it is, without the template")]
    Template {
        /// Which file it stands in.
        file: String,
        /// Why, and where.
        message: String,
    },
    /// A conversation that the template refuses.
    #[error(
        "the chat template of {file} refuses these messages: {message}: write others, or none of that role"
    )]
    Refused {
        /// Which file it stands in.
        file: String,
        /// What the template says.
        message: String,
    },
}

impl ChatTemplate {
    /// A template in Jinja; `file` is what errors call the place where it stands.
    pub fn new(file: &str, template: &str, special_tokens: BTreeMap<String, String>) -> ChatTemplate {
        ChatTemplate { file: file.to_owned(), template: template.to_owned(), special_tokens }
    }

    /// The template itself.
    pub fn text(&self) -> &str {
        &self.template
    }

    /// The prompt for these messages, ready for an answer if `add_generation_prompt`.
    ///
    /// `variables` are the template's own, such as `enable_thinking`; they come before the special tokens, and their
    /// objects have their keys in alphabetic order. The special tokens are written out in the prompt, so it is encoded
    /// without adding any.
    ///
    /// # Errors
    ///
    /// When the template does not read, fails, or refuses the messages.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &BTreeMap<String, serde_json::Value>,
    ) -> Result<String, ChatError> {
        let none = Value::from(());
        let messages = messages.iter().map(|message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        });
        let mut context = BTreeMap::from([
            ("messages".to_owned(), messages.collect()),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
            ("tools".to_owned(), none.clone()),
            ("documents".to_owned(), none),
        ]);
        let special_tokens = self.special_tokens.iter();
        context.extend(special_tokens.map(|(name, token)| (name.clone(), Value::from(token))));
        context.extend(variables.iter().map(|(name, value)| (name.clone(), value_of(value))));

        let environment = environment();
        // A part of the library may panic where a template asks for more than there can be.
        let rendered = panic::catch_unwind(AssertUnwindSafe(|| {
            environment.template_from_str(&self.template)?.render(Value::from_pairs(context))
        }));
        let gave_up = |_| {
            Err(Error::new(
                ErrorKind::InvalidOperation,
                "the library that renders it gave up on one of its parts",
            ))
        };
        rendered.unwrap_or_else(gave_up).map_err(|error| {
            let file = self.file.clone();
            match refusal(&error) {
                Some(message) => ChatError::Refused { file, message },
                None => ChatError::Template { file, message: error.to_string() },
            }
        })
    }
}

/// As transformers sets up Jinja.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the ordinary ones"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.add_filter("tojson", to_json);
    environment.add_filter("indent", indent);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// Prints what Python would: `True`, `False` and `None` have capitals there.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    Ok(out.write_str(text)?)
}

/// As the library's own, which sets aside as much memory as the width says.
fn indent(
    text: String,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    /// No prompt is indented as far.
    const WIDEST: usize = 1024;
    let width = width.map_or_else(|| kwargs.get("width"), |width| Ok(Some(width)))?.unwrap_or(4);
    let first = first.map_or_else(|| kwargs.get("first"), |first| Ok(Some(first)))?.unwrap_or(false);
    let blank = blank.map_or_else(|| kwargs.get("blank"), |blank| Ok(Some(blank)))?.unwrap_or(false);
    kwargs.assert_all_used()?;
    if width > WIDEST {
        let sentence = format!("no text is indented by {width}, and {WIDEST} is the most");
        return Err(Error::new(ErrorKind::InvalidOperation, sentence));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let lines = text.split('\n').enumerate().map(|(number, line)| {
        let is_blank = line.is_empty() || line == "\r";
        let is_in = (number > 0 || first) && (blank || !is_blank);
        if is_in { " ".repeat(width) + line } else { line.to_owned() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Marks an error as one that the template raised itself.
const RAISED: &str = "\u{1}";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

/// What the template said itself, if it did; a macro wraps it in errors of its own.
fn refusal(error: &Error) -> Option<String> {
    let mut error: &dyn std::error::Error = error;
    loop {
        let raised = error.downcast_ref::<Error>().and_then(|error| error.detail()?.strip_prefix(RAISED));
        if let Some(message) = raised {
            return Some(message.trim_end_matches('.').to_owned());
        }
        error = error.source()?;
    }
}

/// The pinned day, at midnight, in a form of Python's `strftime`.
fn strftime_now(form: &str) -> Result<String, Error> {
    let mut date = String::new();
    let mut rest = form;
    while let Some((before, after)) = rest.split_once('%') {
        date.push_str(before);
        // A minus leaves out a leading zero.
        let length = if after.starts_with('-') { 2 } else { 1 };
        let directive = after.get(..length).unwrap_or(after);
        date.push_str(match directive {
            "Y" => "2024",
            "y" => "24",
            "m" => "07",
            "-m" => "7",
            "B" => "July",
            "b" | "h" => "Jul",
            "d" | "-d" | "e" => "26",
            "j" | "-j" => "208",
            "A" => "Friday",
            "a" => "Fri",
            "F" => TODAY,
            "H" | "M" | "S" => "00",
            "-H" | "-M" | "-S" => "0",
            "I" | "-I" => "12",
            "p" => "AM",
            "%" => "%",
            _ => {
                let message = format!("strftime_now has no `%{directive}` here");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        });
        rest = &after[directive.len()..];
    }
    Ok(date + rest)
}

fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64()),
        },
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(list) => list.iter().map(value_of).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, value)| (key.clone(), value_of(value))))
        }
    }
}

/// JSON as Python's `json.dumps` writes it, `ensure_ascii` off.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(MOST_DEPTH)),
        }),
    };
    let separators = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            let [item, key] = &pair[..] else {
                return Err(Error::new(ErrorKind::InvalidOperation, "separators are two"));
            };
            (item.to_string(), key.to_string())
        }
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut json = Json {
        text: String::new(),
        indent,
        separators,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json.write(value, 0)?;
    Ok(json.text)
}

/// Deeper than any message, and far from the end of the stack.
const MOST_DEPTH: usize = 100;

struct Json {
    text: String,
    indent: Option<String>,
    separators: (String, String),
    ascii: bool,
    sorted: bool,
}

impl Json {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let refused = |what: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("{what} as JSON")));
        if depth > MOST_DEPTH {
            return refused("a value this deep");
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.text.push_str(&value.to_string()),
            ValueKind::Number => self.text.push_str(&python_float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                let mut any = false;
                for item in value.try_iter()? {
                    self.item(&mut any, depth);
                    self.write(&item, depth + 1)?;
                }
                self.end(any, depth, ']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.text.push('{');
                let mut any = false;
                for key in keys {
                    self.item(&mut any, depth);
                    match key.kind() {
                        ValueKind::None => self.string("null"),
                        ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                        _ => self.string(&key.to_string()),
                    }
                    self.text.push_str(&self.separators.1);
                    self.write(&value.get_item(&key)?, depth + 1)?;
                }
                self.end(any, depth, '}');
            }
            kind => return refused(&format!("a value that is {kind}")),
        }
        Ok(())
    }

    fn item(&mut self, any: &mut bool, depth: usize) {
        if std::mem::replace(any, true) {
            self.text.push_str(&self.separators.0);
        }
        self.line(depth + 1);
    }

    fn end(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.line(depth);
        }
        self.text.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// A float as Python's `repr` writes it: an exponent has a sign and two digits.
fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}
