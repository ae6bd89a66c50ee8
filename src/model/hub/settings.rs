//! Where the Hub is, where its files are kept, and who asks: what the `HF_*` variables say, as one value.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything that decides how the Hub is asked. None of it moves a bit of what is computed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubSettings {
    /// The address of the Hub or of a mirror, without a slash at its end.
    pub endpoint: String,
    /// The folder in which repositories are kept, in the layout that all Hugging Face libraries share.
    pub cache: PathBuf,
    /// Who asks, if anybody in particular.
    pub token: Option<Token>,
    /// Is the network out of bounds?
    pub offline: bool,
    /// How long to wait and how often to try again.
    pub patience: Patience,
}

/// How long to wait and how often to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte.
    pub silence: Duration,
    /// Attempts after the first.
    pub retries: usize,
    /// The pause before the first of them, which then doubles.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            retries: 4,
            pause: Duration::from_millis(500),
        }
    }
}

/// A secret, and where it was found. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// A token, with the words that say where it comes from.
    #[must_use]
    pub fn new(secret: &str, origin: &str) -> Token {
        Token { secret: secret.trim().to_owned(), origin: origin.to_owned() }
    }

    /// Where it was found.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    #[cfg(feature = "hub")]
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl HubSettings {
    /// What the environment asks for.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "where files come from moves no bit: each is checked by its digest"
    )]
    pub fn from_environment() -> HubSettings {
        HubSettings::from_variables(|name| env::var_os(name), env::home_dir())
    }

    /// The same, over any variables: `HF_ENDPOINT`; `HF_HUB_CACHE`, then `HF_HOME`, then `XDG_CACHE_HOME`; `HF_TOKEN`,
    /// then the file at `HF_TOKEN_PATH`, then `token` in `HF_HOME`, and `HF_HUB_DISABLE_IMPLICIT_TOKEN` against all
    /// three; `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`. An empty one counts as none.
    pub fn from_variables(read: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> HubSettings {
        let read = |name| read(name).filter(|value| !value.is_empty());
        let text = |name| read(name).and_then(|value| value.into_string().ok());
        let path = |name| read(name).map(PathBuf::from);
        let is_set = |name| {
            let yes = ["1", "on", "yes", "true"];
            text(name).is_some_and(|value| yes.iter().any(|yes| value.eq_ignore_ascii_case(yes)))
        };
        let hugging_face = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
            caches.unwrap_or_else(env::temp_dir).join("huggingface")
        });
        let token = || {
            let given = text("HF_TOKEN").map(|secret| Token::new(&secret, "HF_TOKEN"));
            given
                .or_else(|| path("HF_TOKEN_PATH").and_then(|path| token_file(&path)))
                .or_else(|| token_file(&hugging_face.join("token")))
                .filter(|token| !token.secret.is_empty())
        };
        HubSettings {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token() },
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hugging_face.join("hub")),
            patience: Patience::default(),
        }
    }
}

fn token_file(path: &Path) -> Option<Token> {
    let secret = fs::read_to_string(path).ok()?;
    Some(Token::new(&secret, &path.display().to_string())).filter(|token| !token.secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubSettings::from_variables(read, Some(PathBuf::from("/home/me")))
    }

    #[test]
    fn the_cache_is_where_every_other_library_looks() {
        let cache = |variables: &[_]| settings(variables).cache;
        assert_eq!(cache(&[]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]), Path::new("/h/hub"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), Path::new("/c"));
        assert_eq!(cache(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/h")]), Path::new("/h/hub"));
    }

    #[test]
    fn yes_has_many_spellings_and_no_is_not_one_of_them() {
        for yes in ["1", "true", "TRUE", "Yes", "on"] {
            assert!(settings(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
            let token = settings(&[("HF_TOKEN", "hf_x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", yes)]).token;
            assert_eq!(token, None);
        }
        for no in ["", "0", "false", "no"] {
            assert!(!settings(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
        }
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
    }

    #[test]
    fn a_token_is_found_where_it_was_left_and_never_printed() {
        let folder = env::temp_dir().join(format!("reprocheck-token-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        fs::write(folder.join("token"), "hf_in_file\n").expect("a temporary file");
        let home = folder.to_str().expect("a temporary folder with an ordinary name");
        let token = |variables: &[_]| settings(variables).token;
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", " hf_given ")]),
            Some(Token::new("hf_given", "HF_TOKEN"))
        );
        let found = token(&[("HF_HOME", home)]).expect("the token in the file");
        assert_eq!(found.secret, "hf_in_file");
        assert!(!format!("{found:?}").contains("hf_in_file"));
        let path = format!("{home}/token");
        assert_eq!(token(&[("HF_HOME", "/nowhere"), ("HF_TOKEN_PATH", &path)]), Some(found));
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        fs::remove_dir_all(folder).expect("the folder made above");
    }

    #[test]
    fn a_mirror_loses_the_slash_at_its_end() {
        assert_eq!(
            settings(&[("HF_ENDPOINT", "https://mirror.example/hub/")]).endpoint,
            "https://mirror.example/hub"
        );
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
    }
}
