//! Why a repository cannot be had, in sentences that end with the way out.

use std::{io, path::PathBuf, time::Duration};

use crate::source::Blame;

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The feature was left out.
    #[error("this build has no Hub: build with the feature `hub`, or download the folder and pass ./folder")]
    NotBuilt,
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// There is no such repository, or none that may be seen.
    #[error(
        "{endpoint} has no repository {repo} that it would show: check the spelling; a private one needs HF_TOKEN set \
         to a token that may read it"
    )]
    NoRepository {
        /// `owner/name`.
        repo: String,
        /// Who was asked.
        endpoint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error(
        "{repo} has no revision {revision}: look at its branches, tags and commits at {endpoint}/{repo}/commits"
    )]
    NoRevision {
        /// `owner/name`.
        repo: String,
        /// What was asked for.
        revision: String,
        /// Who was asked.
        endpoint: String,
    },
    /// The repository lacks what a checkpoint needs.
    #[error(
        "{repo} at {commit} has no {file}: choose a repository with weights in safetensors and a tokenizer.json, or \
         convert a local copy and pass ./folder"
    )]
    NoFile {
        /// `owner/name`.
        repo: String,
        /// Where it was looked for.
        commit: String,
        /// What is missing.
        file: String,
    },
    /// The Hub knows, and will not tell.
    #[error("{}", refusal(repo, endpoint, *gated, token.as_deref()))]
    Refused {
        /// `owner/name`.
        repo: String,
        /// Who was asked.
        endpoint: String,
        /// Must its owner grant access first?
        gated: bool,
        /// Where the token was found, if there was one.
        token: Option<String>,
    },
    /// Nobody answers.
    #[error(
        "{url} cannot be reached ({why}): check the network and HF_ENDPOINT and try again; with HF_HUB_OFFLINE=1 what \
         is in the cache is used"
    )]
    Unreachable {
        /// Without what follows a question mark, which may be a signature.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The server answers that it cannot.
    #[error("{url} answers {status}: the server has a problem, so try again in a while")]
    Server {
        /// Without what follows a question mark.
        url: String,
        /// Its status, as a number.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is not one that a Hub gives.
    #[error(
        "{url} does not answer as a Hub does ({what}): check HF_ENDPOINT, and whether a proxy is in between"
    )]
    NotAHub {
        /// Without what follows a question mark.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// The connection broke off in the middle of a file, again and again.
    #[error(
        "{file} broke off after {received} of {size} bytes ({why}): try again, it continues where it stopped"
    )]
    BrokeOff {
        /// The file.
        file: String,
        /// What has come and is kept.
        received: u64,
        /// What should have come.
        size: u64,
        /// What the network said.
        why: String,
    },
    /// What came is not what the Hub says it should be.
    #[error(
        "{file} of {repo} is not what the Hub says it is: expected {expected}, got {found}; it was removed, so try \
         again, and if it comes back distrust the way here (HF_ENDPOINT, proxies, the disk)"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// `owner/name`.
        repo: String,
        /// The digest or size that was promised.
        expected: String,
        /// The one that came.
        found: String,
    },
    /// A file in the cache is damaged, and there is no network to get it again.
    #[error(
        "{} is damaged: expected {expected}, got {found}; unset HF_HUB_OFFLINE and run again to get it \
         anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The digest that it should have.
        expected: String,
        /// The one that it has.
        found: String,
    },
    /// Offline, and not there.
    #[error(
        "offline, and {what} of {repo} is not in {}: unset HF_HUB_OFFLINE to download it, or set HF_HUB_CACHE to the \
         folder that has it",
        cache.display()
    )]
    NotCached {
        /// `owner/name`.
        repo: String,
        /// What is missing.
        what: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The index of the weights is no index.
    #[error("{}: {what}: use another revision, or repair a local copy and pass ./folder", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The cache's own folder fails.
    #[error("{} cannot be {doing} ({source}): make room and allow it, or set HF_HUB_CACHE to another folder", path.display())]
    Cache {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Blame for HubError {
    fn is_environment(&self) -> bool {
        use HubError as E;
        match self {
            E::NotBuilt
            | E::Settings(_)
            | E::NoRepository { .. }
            | E::NoRevision { .. }
            | E::NoFile { .. } => false,
            E::Index { .. } => false,
            E::Refused { .. } | E::Unreachable { .. } | E::Server { .. } | E::NotAHub { .. } => true,
            E::BrokeOff { .. } | E::Mismatch { .. } | E::Damaged { .. } => true,
            E::NotCached { .. } | E::Cache { .. } => true,
        }
    }
}

impl HubError {
    /// Is it worth trying again at once?
    #[cfg(feature = "hub")]
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, HubError::Unreachable { .. } | HubError::Server { .. } | HubError::BrokeOff { .. })
    }

    /// For [`Result::map_err`] around the cache's files.
    #[cfg(feature = "hub")]
    pub(super) fn cache(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> HubError {
        move |source| HubError::Cache { doing, path: path.to_owned(), source }
    }
}

fn refusal(repo: &str, endpoint: &str, gated: bool, token: Option<&str>) -> String {
    match (gated, token) {
        (true, None) => format!(
            "{repo} is gated: ask for access at {endpoint}/{repo}, then set HF_TOKEN to a token of that account"
        ),
        (true, Some(token)) => format!(
            "{repo} is gated and the token in {token} may not read it: ask for access at {endpoint}/{repo} with the \
             account of that token"
        ),
        (false, None) => format!(
            "{endpoint} shows no {repo} without a token, so it is private or does not exist: check the spelling, or \
             set HF_TOKEN to a token that may read it (and leave HF_HUB_DISABLE_IMPLICIT_TOKEN unset)"
        ),
        (false, Some(token)) => format!(
            "{endpoint} does not show {repo} to the token in {token}: check the spelling, and set HF_TOKEN to a token \
             that is valid and may read it"
        ),
    }
}
