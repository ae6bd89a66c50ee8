//! One exchange with a server after the other, each bounded in time and in bytes; nothing is asked twice.

use std::{fmt, io::Read as _, time::Duration};

use serde_json::Value;

use super::dialect::clipped;
use crate::{
    engine::EngineError,
    http::{Client, Method, Request, StatusCode, Uri, header, said},
};

/// What a server asks for, and nobody else sees.
#[derive(Clone)]
pub(super) struct Key(pub(super) String);

/// Nothing of it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// A server's address, and how it is spoken to.
pub(super) struct Exchange {
    base: String,
    key: Option<Key>,
    client: Client,
}

/// Refuses what is no address of a server.
///
/// # Errors
///
/// What to write in its place.
pub fn check_address(url: &str) -> Result<(), String> {
    let uri = url.parse::<Uri>().ok();
    let is_right = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    });
    // What stands there may hold a password, and is not repeated.
    if is_right {
        Ok(())
    } else {
        Err("write an address such as http://127.0.0.1:8000, with no user and no query".to_owned())
    }
}

impl Exchange {
    /// With the server at this address, whose answers are whole within so long.
    pub(super) fn new(url: &str, key: Option<Key>, within: Duration) -> Result<Exchange, EngineError> {
        check_address(url).map_err(EngineError::Unsupported)?;
        let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        // No proxy leads to this machine.
        let is_here = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let client = Client::within(within, !is_here).map_err(EngineError::Environment)?;
        Ok(Exchange { base: url.trim_end_matches('/').to_owned(), key, client })
    }

    /// The body of what stands at a path, if it is not longer than that.
    pub(super) fn get(&self, path: &str, most: usize) -> Result<String, EngineError> {
        let (status, body) = self.send(Method::GET, path, None, most)?;
        self.good(path, status, body)
    }

    /// The body of the answer to a value.
    pub(super) fn post(&self, path: &str, value: &Value, most: usize) -> Result<String, EngineError> {
        let (status, body) = self.send(Method::POST, path, Some(value), most)?;
        self.good(path, status, body)
    }

    /// Does a path answer with 200?
    pub(super) fn is_ready(&self, path: &str) -> bool {
        const MOST: usize = 1 << 20;
        self.send(Method::GET, path, None, MOST).is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        value: Option<&Value>,
        most: usize,
    ) -> Result<(StatusCode, Vec<u8>), EngineError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(Key(key)) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let network = |problem: String| {
            EngineError::Environment(format!(
                "{path} of its server does not answer ({}): see that it runs",
                self.hide(&problem)
            ))
        };
        let wrong = || {
            EngineError::Unsupported(
                "its key has characters that no header may have: see what the variable holds".to_owned(),
            )
        };
        let response = match value {
            Some(value) => {
                let body = serde_json::to_vec(value).expect("a value is JSON");
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
                self.client.send(request.map_err(|_| wrong())?)
            }
            None => self.client.send(request.body(()).map_err(|_| wrong())?),
        };
        let response = response.map_err(network)?;
        let status = response.status();
        let mut body = Vec::new();
        let mut reader = response.into_body().into_reader().take(most as u64 + 1);
        reader.read_to_end(&mut body).map_err(|error| network(said(&error)))?;
        if body.len() > most {
            return Err(EngineError::Answer(format!(
                "{path} of its server answers with more than {most} bytes, where less would do: see who answers there"
            )));
        }
        Ok((status, body))
    }

    /// The body of a good answer.
    fn good(&self, path: &str, status: StatusCode, body: Vec<u8>) -> Result<String, EngineError> {
        let said = clipped(&self.hide(&String::from_utf8_lossy(&body)));
        let sentence =
            |way_out: &str| format!("{path} of its server answers with {status}, saying `{said}`: {way_out}");
        if status.is_success() {
            return String::from_utf8(body).map_err(|_| {
                EngineError::Answer(format!(
                    "{path} of its server answers with bytes that are not text: see who answers there"
                ))
            });
        }
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                EngineError::Answer(sentence("name the variable that holds its key with `key-env`"))
            }
            status if status.is_redirection() => {
                EngineError::Answer(sentence("no redirect is followed, so name the address that it leads to"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                EngineError::Environment(sentence("ask it again when it has time"))
            }
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => EngineError::Answer(sentence(
                "start it so that it takes what it is asked, or ask for less, and see that it speaks this dialect",
            )),
            status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                EngineError::Environment(sentence("see what it says where it runs"))
            }
            _ => EngineError::Answer(sentence("see that it speaks this dialect")),
        })
    }

    /// A text without the key, should somebody repeat it, as it is or as a text in JSON has it.
    pub(super) fn hide(&self, text: &str) -> String {
        let Some(Key(key)) = self.key.as_ref().filter(|Key(key)| !key.is_empty()) else {
            return text.to_owned();
        };
        let quoted = Value::from(key.as_str()).to_string();
        let escaped = quoted[1..quoted.len() - 1].to_owned();
        // Some write a slash with a backslash before it.
        let slashed = escaped.replace('/', "\\/");
        // The longest first: another one may be a part of it.
        [slashed, escaped, key.clone()].iter().fold(text.to_owned(), |text, key| text.replace(key, "…"))
    }
}
