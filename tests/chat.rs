//! Chat templates give the prompts that Hugging Face's transformers gives; `chat/make_expected.py` has asked it.

use std::{collections::BTreeMap, fs, path::Path};

use reprocheck::model::chat::{ChatError, ChatTemplate, Message};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    special_tokens: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    variables: BTreeMap<String, serde_json::Value>,
    messages: Vec<BTreeMap<String, String>>,
    add_generation_prompt: bool,
    prompt: Option<String>,
    refused: Option<String>,
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat").join(name)).unwrap()
}

fn render(template: &str, messages: &[Message]) -> Result<String, ChatError> {
    let special_tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    ChatTemplate::new("t.jinja", template, special_tokens).render(messages, true, &BTreeMap::new())
}

fn refused(template: &str) -> String {
    render(template, &[Message::new("user", "Hello.")]).unwrap_err().to_string()
}

#[test]
fn prompts_are_those_of_transformers() {
    let expected: Expected = serde_json::from_str(&read("expected.json")).unwrap();
    assert!(expected.cases.len() > 100);
    for case in expected.cases {
        let name = format!("{}.jinja", case.template);
        let template = ChatTemplate::new(&name, &read(&name), expected.special_tokens.clone());
        let messages: Vec<_> =
            case.messages.iter().map(|message| Message::new(&message["role"], &message["content"])).collect();
        let prompt = template.render(&messages, case.add_generation_prompt, &case.variables);
        match (prompt, case.prompt, case.refused) {
            (Ok(prompt), Some(expected), _) => assert_eq!(prompt, expected, "{name}: {messages:?}"),
            (Err(ChatError::Refused { message, .. }), _, Some(expected)) => {
                assert_eq!(message, expected.trim_end_matches('.'));
            }
            (prompt, expected, refused) => panic!("{name}: {prompt:?}, not {expected:?} {refused:?}"),
        }
    }
}

#[test]
fn what_a_template_raises_is_its_own_sentence() {
    assert_eq!(
        refused("{{ raise_exception('Only questions.') }}"),
        "the chat template of t.jinja refuses these messages: Only questions: \
         write others, or none of that role"
    );
    let inside = "{% macro check(text) %}{{ raise_exception('No.') }}{% endmacro %}{{ check('x') }}";
    assert!(
        refused(inside).starts_with("the chat template of t.jinja refuses these messages: No: "),
        "{}",
        refused(inside)
    );
}

#[test]
fn a_template_that_fails_is_named_with_its_line() {
    let begin = "the chat template of t.jinja fails (";
    let end = "): give the prompt as it is, without the template";
    for (template, what) in [
        (
            "\n{% for message in messages %}",
            "syntax error: unexpected end of input, expected end of block (in <string>:2)",
        ),
        (
            "{{ messages[0].content.sing() }}",
            "unknown method: string has no method named sing (in <string>:1)",
        ),
        ("{{ nothing.at_all }}", "undefined value (in <string>:1)"),
        ("{{ strftime_now('%U') }}", "invalid operation: strftime_now has no `%U` here (in <string>:1)"),
        ("{{ strftime_now('%') }}", "invalid operation: strftime_now has no `%` here (in <string>:1)"),
        ("{{ missing | tojson }}", "invalid operation: a value that is undefined as JSON (in <string>:1)"),
    ] {
        assert_eq!(refused(template), format!("{begin}{what}{end}"));
    }
}

#[test]
fn a_template_that_does_not_end_is_ended() {
    let count = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert!(refused(count).contains("ran out of fuel"), "{}", refused(count));
    let itself = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(refused(itself).contains("recursion"), "{}", refused(itself));
}

#[test]
fn today_is_always_the_same_day() {
    let template = "{{ strftime_now('%d %b %Y, %-m/%-d, %F') }}{{ bos_token }}";
    assert_eq!(render(template, &[]).unwrap(), "26 Jul 2024, 7/26, 2024-07-26<s>");
}

#[test]
fn a_template_indents_as_the_library_does_and_no_further_than_there_is_memory() {
    let render = |template: &str| {
        let template = ChatTemplate::new("t.jinja", template, BTreeMap::new());
        template.render(&[], true, &BTreeMap::new()).map_err(|error| error.to_string())
    };
    for (template, text) in [
        ("{{ 'a\nb\n\nc\n' | indent }}", "a\n    b\n\n    c"),
        ("{{ 'a\nb' | indent(2, true) }}", "  a\n  b"),
        ("{{ 'a\n\nb' | indent(width=1, blank=true) }}", "a\n \n b"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(text), "{template}");
    }
    for width in ["18446744073709551615", "184 * 46744073709551615", "1025"] {
        let error = render(&format!("{{{{ 'a\nb' | indent({width}) }}}}")).unwrap_err();
        assert!(error.contains("no text is indented by"), "{error}");
    }
}
