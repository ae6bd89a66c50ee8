//! HTTP over blocking sockets, one exchange at a time: no redirect is followed, and every status is an answer.

use std::{
    env, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ureq::{
    Agent, AsSendBody, Proxy,
    config::{Config, ConfigBuilder},
    tls::{RootCerts, TlsConfig},
    typestate::AgentScope,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

#[cfg(feature = "hub")]
pub(crate) use ureq::http::{HeaderMap, HeaderValue};
pub(crate) use ureq::http::{Method, Request, Response, StatusCode, Uri, header};

/// What every server sees of us, and all of it.
const AGENT: &str = concat!("reprocheck/", env!("CARGO_PKG_VERSION"));

/// Certificates are those that the system trusts.
pub(crate) struct Client {
    agent: Agent,
    proxies: Proxies,
}

impl Client {
    /// Waits so long for a connection, and so long for the next byte.
    ///
    /// # Errors
    ///
    /// The variable of the environment that should name a proxy and does not.
    #[cfg(feature = "hub")]
    pub(crate) fn new(connect: Duration, silence: Duration) -> Result<Client, String> {
        let config = Client::config()
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(silence));
        Ok(Client { agent: config.build().into(), proxies: Proxies::from_environment()? })
    }

    /// Waits so long for a whole answer, from a new connection on. `proxied` says whether the environment's proxies lead there.
    ///
    /// # Errors
    ///
    /// The variable of the environment that should name a proxy and does not.
    pub(crate) fn within(whole: Duration, proxied: bool) -> Result<Client, String> {
        /// Each connection has two of that size, which are written over before the first byte is sent.
        const BUFFER: usize = 1 << 14;
        // One that was left open may be closed while a request is on its way, and nobody could tell whether it was read.
        let config = Client::config()
            .timeout_global(Some(whole))
            .max_idle_connections(0)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER);
        let proxies = if proxied { Proxies::from_environment()? } else { Proxies::default() };
        let agent = Agent::with_parts(config.build(), DefaultConnector::default(), Addresses::default());
        Ok(Client { agent, proxies })
    }

    fn config() -> ConfigBuilder<AgentScope> {
        Agent::config_builder()
            .user_agent(AGENT)
            .accept_encoding("identity")
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
    }

    /// Sends a request; the body of the answer is read as it comes.
    ///
    /// # Errors
    ///
    /// What the network said.
    pub(crate) fn send(&self, request: Request<impl AsSendBody>) -> Result<Response<ureq::Body>, String> {
        let request = match self.proxies.of(request.uri()).cloned() {
            Some(proxy) => self.agent.configure_request(request).proxy(Some(proxy)).build(),
            None => request,
        };
        self.agent.run(request).map_err(|error| said(&error.into_io()))
    }
}

/// Where hosts are. One that is named by its number needs nobody to look it up, and no thread that waits for an end of that.
#[derive(Default, Debug)]
struct Addresses(DefaultResolver);

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let number = uri.host().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let (Some(number), Some(port)) = (number, uri.port_u16()) else {
            return self.0.resolve(uri, config, timeout);
        };
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(number, port));
        Ok(addresses)
    }
}

/// What the network said, while a request was sent or a body read.
pub(crate) fn said(error: &io::Error) -> String {
    let is_timeout = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(ureq::Error::Timeout(_)) => true,
        _ => error.kind() == io::ErrorKind::TimedOut,
    };
    if is_timeout { "timed out".to_owned() } else { error.to_string() }
}

/// Who is meant by an address: scheme, host and port.
#[cfg(feature = "hub")]
pub(crate) fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    });
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), port)
}

/// The address that is meant by a reference in an answer from another.
#[cfg(feature = "hub")]
pub(crate) fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_absolute = reference.split(['/', '?', '#']).next().is_some_and(|head| head.contains(':'));
    let text = match reference {
        _ if is_absolute => reference.to_owned(),
        _ if reference.starts_with("//") => format!("{scheme}:{reference}"),
        _ if reference.starts_with('/') => format!("{scheme}://{authority}{reference}"),
        _ if reference.starts_with('?') => format!("{scheme}://{authority}{}{reference}", base.path()),
        _ => format!("{scheme}://{authority}{folder}/{reference}"),
    };
    text.parse()
        .ok()
        .filter(|uri: &Uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()))
}

/// An address without what only a server should read.
#[cfg(feature = "hub")]
pub(crate) fn bare(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", uri.path())
}

/// The proxies that the environment names.
#[derive(Default)]
struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Hosts that are reached without one.
    direct: Vec<String>,
}

impl Proxies {
    #[expect(
        clippy::disallowed_methods,
        reason = "the way that bytes take moves no bit of what is computed from them"
    )]
    fn from_environment() -> Result<Proxies, String> {
        Proxies::from_variables(|name| env::var(name).ok())
    }

    /// `http_proxy`, `https_proxy`, for either `all_proxy`, against them `no_proxy`, or the same in capitals. An empty
    /// one counts as none.
    fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Proxies, String> {
        let read = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_uppercase()];
            names.into_iter().find_map(|name| Some((read(&name).filter(|value| !value.is_empty())?, name)))
        };
        let proxy = |name| match read(name).or_else(|| read("all_proxy")) {
            None => Ok(None),
            // The address may hold a password, and is not repeated.
            Some((url, name)) => Proxy::new(&url)
                .map(Some)
                .map_err(|error| format!("the value of {name} is not a proxy: {error}")),
        };
        let (direct, _) = read("no_proxy").unwrap_or_default();
        let direct = direct.split(',').map(|host| host.trim().to_ascii_lowercase());
        Ok(Proxies {
            http: proxy("http_proxy")?,
            https: proxy("https_proxy")?,
            direct: direct.filter(|host| !host.is_empty()).collect(),
        })
    }

    fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let host = uri.host()?.to_ascii_lowercase();
        // `example.com`, `.example.com` and `*.example.com` cover it and what is below it.
        let covers = |entry: &String| {
            let entry = entry.trim_start_matches('*').trim_start_matches('.');
            entry.is_empty()
                || host.strip_suffix(entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.direct.iter().any(covers) {
            return None;
        }
        if uri.scheme_str() == Some("https") { self.https.as_ref() } else { self.http.as_ref() }
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect(text)
    }

    #[test]
    fn a_redirect_leads_where_a_browser_would_go() {
        let base = uri("https://hub:8/a/b/file?x=1");
        for (reference, meant) in [
            ("https://else.where/c?y", Some("https://else.where/c?y")),
            ("//else.where/c", Some("https://else.where/c")),
            ("/c", Some("https://hub:8/c")),
            ("c", Some("https://hub:8/a/b/c")),
            ("?y=2:3", Some("https://hub:8/a/b/file?y=2:3")),
            ("c/d:e", Some("https://hub:8/a/b/c/d:e")),
            ("ftp://else.where/c", Some("ftp://else.where/c")),
            ("mailto:someone", None),
            ("https://", None),
            ("/a b", None),
        ] {
            assert_eq!(join(&base, reference), meant.map(uri), "{reference}");
        }
    }

    #[test]
    fn a_port_and_a_scheme_are_part_of_who_is_meant_and_the_case_of_a_host_is_not() {
        let same = |a, b| origin(&uri(a)) == origin(&uri(b));
        assert!(same("https://hub/a", "https://HUB:443/b?c"));
        assert!(same("http://hub", "http://user:secret@hub:80"));
        for other in ["https://hub:444", "http://hub:443", "https://hub.else", "https://else"] {
            assert!(!same("https://hub", other), "{other}");
        }
    }

    #[test]
    fn secrets_of_an_address_are_not_printed() {
        assert_eq!(bare(&uri("https://me:secret@hub:8/a/b?Signature=secret")), "https://hub:8/a/b");
        assert_eq!(bare(&uri("http://hub")), "http://hub/");
    }

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let proxies = |variables: &[(&str, &str)]| {
            Proxies::from_variables(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let of = |variables: &[_], address: &str| {
            let proxies = proxies(variables).expect("proxies");
            proxies.of(&uri(address)).map(|proxy| proxy.host().to_owned())
        };
        let (here, there) = (Some("here".to_owned()), Some("there".to_owned()));
        let both = [("http_proxy", "http://here:1"), ("HTTPS_PROXY", "there:2")];
        assert_eq!(of(&both, "http://hub"), here);
        assert_eq!(of(&both, "https://hub"), there);
        assert_eq!(of(&both[..1], "https://hub"), None);
        let all =
            [("ALL_PROXY", "http://here"), ("https_proxy", "http://there"), ("HTTPS_PROXY", "http://x")];
        assert_eq!(of(&all, "http://hub"), here);
        assert_eq!(of(&all, "https://hub"), there);
        assert_eq!(of(&[("ALL_PROXY", "http://here"), ("all_proxy", "")], "https://hub"), here);
        for (direct, hosts) in [
            ("Example.com, 127.0.0.1", &["example.com", "EXAMPLE.com", "a.example.com", "127.0.0.1"][..]),
            (".example.com,", &["example.com", "a.b.example.com"]),
            ("*.example.com", &["example.com", "a.example.com"]),
            ("*", &["example.com", "anything"]),
        ] {
            let variables = [("ALL_PROXY", "http://here"), ("NO_PROXY", direct)];
            for host in hosts {
                assert_eq!(of(&variables, &format!("https://{host}:8/")), None, "{direct}: {host}");
            }
            if direct != "*" {
                assert_eq!(of(&variables, "https://anexample.com"), here, "{direct}");
            }
        }
        let error = proxies(&[("https_proxy", "magic://me:secret@here")]).err().expect("no such proxy");
        assert!(
            error.starts_with("the value of https_proxy is not a proxy") && !error.contains("secret"),
            "{error}"
        );
    }
}
