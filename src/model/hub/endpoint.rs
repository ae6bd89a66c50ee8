//! The Hub as somebody who is asked: its address, the token that it alone sees, and whether it is there.

use std::{collections::HashMap, io::Read, time::Duration};

use serde::de::{DeserializeOwned, IgnoredAny};

use super::{HubError, HubSettings, Patience, Ping};
use crate::http::{
    Client, HeaderValue, Method, Request, StatusCode, Uri, bare,
    header::{AUTHORIZATION, RANGE},
    origin, said,
};

pub(super) type Response = crate::http::Response<ureq::Body>;

/// The largest answer known has a tenth of this.
const JSON_BYTES: u64 = 64 << 20;

/// The Hub, and who asks it.
pub(super) struct Endpoint<'a> {
    pub(super) settings: &'a HubSettings,
    address: Uri,
    http: Client,
    authorization: Option<HeaderValue>,
}

impl<'a> Endpoint<'a> {
    pub(super) fn new(settings: &'a HubSettings) -> Result<Endpoint<'a>, HubError> {
        let address = settings.endpoint.parse().ok().filter(|uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && !settings.endpoint.contains(['?', '#'])
        });
        let address = address.ok_or_else(|| {
            let endpoint = &settings.endpoint;
            HubError::Settings(format!(
                "{endpoint:?} is not the address of a Hub: set HF_ENDPOINT to one that begins with https://, or unset it"
            ))
        })?;
        let bearer = |secret: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {secret}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let authorization = match &settings.token {
            None => None,
            Some(token) => Some(bearer(token.secret()).ok_or_else(|| {
                HubError::Settings(format!(
                    "{} does not hold a token: a token is one word of letters and digits; set HF_TOKEN to it",
                    token.origin()
                ))
            })?),
        };
        let http = Client::new(settings.patience.connect, settings.patience.silence).map_err(|why| {
            HubError::Settings(format!("{why}; set it to an address such as http://proxy:3128, or unset it"))
        })?;
        Ok(Endpoint { settings, address, http, authorization })
    }

    /// An address at the Hub. The path holds nothing that would have to be escaped.
    pub(super) fn at(&self, path: &str) -> Uri {
        let address = self.address.to_string();
        let address = format!("{}/{path}", address.trim_end_matches('/'));
        address.parse().expect("an address, and a path of letters and digits")
    }

    pub(super) fn is_elsewhere(&self, url: &Uri) -> bool {
        origin(url) != origin(&self.address)
    }

    /// One request. The token goes to the endpoint and to nobody else.
    pub(super) fn send(&self, method: Method, url: &Uri, from: u64) -> Result<Response, HubError> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(authorization) = &self.authorization
            && !self.is_elsewhere(url)
        {
            request = request.header(AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).expect("an address and headers that were parsed before");
        self.http.send(request).map_err(|why| unreachable(url, why))
    }
}

/// The whole of a small answer as JSON, or what it lacks then.
pub(super) fn json<T: DeserializeOwned>(url: &Uri, response: Response, lacks: &str) -> Result<T, HubError> {
    let mut text = Vec::new();
    let read = response.into_body().into_reader().take(JSON_BYTES).read_to_end(&mut text);
    read.map_err(|error| unreachable(url, said(&error)))?;
    serde_json::from_slice(&text)
        .map_err(|error| HubError::NotAHub { url: bare(url), what: format!("{lacks}: {error}") })
}

fn unreachable(url: &Uri, why: String) -> HubError {
    HubError::Unreachable { url: bare(url), why }
}

/// Asks who we are, which is the smallest question that it has an answer for.
pub(super) fn ping(settings: &HubSettings, patience: Duration) -> Result<Ping, HubError> {
    let patience = Patience { connect: patience, silence: patience, ..settings.patience };
    let settings = HubSettings { patience, ..settings.clone() };
    let hub = Endpoint::new(&settings)?;
    let url = hub.at("api/whoami-v2");
    let response = hub.send(Method::GET, &url, 0)?;
    match response.status() {
        StatusCode::UNAUTHORIZED => Ok(Ping::Stranger),
        status if status.is_success() => {
            json::<HashMap<String, IgnoredAny>>(&url, response, "it names no account").map(|_| Ping::Known)
        }
        status => Ok(Ping::Answers(status.to_string())),
    }
}
