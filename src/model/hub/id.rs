//! The name of a repository on the Hub, with the revision that is meant.

use std::{fmt, str::FromStr};

/// The branch that is meant when none is named.
const DEFAULT_REVISION: &str = "main";

/// `owner/name` or `owner/name@revision`, and `/file.gguf` behind either for that one file.
///
/// All become parts of paths and addresses, so nothing else than the Hub's own characters gets in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RepoId {
    repo: String,
    revision: String,
    file: Option<String>,
}

/// Why a text names no repository.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RepoIdError {
    /// There is not exactly one slash.
    #[error(
        "{0:?} is not a repository: write owner/name, such as Qwen/Qwen3-0.6B, with @revision behind it if need be; \
         a folder begins with ./ or /"
    )]
    Shape(String),
    /// The owner or the name is not one that the Hub gives.
    #[error(
        "{0:?} is not an owner or a name on the Hub: write at most 96 letters, digits, `-`, `_` and `.`, not beginning or \
         ending with `-` or `.`, without `--` and `..`, and not ending in `.git`"
    )]
    Part(String),
    /// The revision is no branch, tag or commit.
    #[error(
        "{0:?} is not a revision: write a branch, a tag or a commit in letters, digits, `-`, `_`, `.`, `+` and `/`; a \
         commit of 40 hex digits names any other"
    )]
    Revision(String),
    /// The file is none that the Hub could hold beside the others.
    #[error(
        "{0:?} is not a file of GGUF: write its name in letters, digits, `-`, `_`, `.` and `+`, at most 200 of them"
    )]
    File(String),
}

impl RepoId {
    /// `owner/name`.
    #[must_use]
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The one file that is meant, if it is no folder of Hugging Face's layout.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

impl FromStr for RepoId {
    type Err = RepoIdError;

    fn from_str(text: &str) -> Result<RepoId, RepoIdError> {
        // Nothing else of a repository's name ends like that.
        let file = text.rsplit_once('/').filter(|(_, file)| is_gguf(file));
        let (whole, file) = file.map_or((text, None), |(whole, file)| (whole, Some(file)));
        let (repo, revision) = whole.split_once('@').unwrap_or((whole, DEFAULT_REVISION));
        let parts: Vec<_> = repo.split('/').collect();
        if parts.len() != 2 {
            return Err(RepoIdError::Shape(text.to_owned()));
        }
        if let Some(part) = parts.into_iter().find(|part| !is_part(part)) {
            return Err(RepoIdError::Part(part.to_owned()));
        }
        if !is_revision(revision) {
            return Err(RepoIdError::Revision(revision.to_owned()));
        }
        if let Some(file) = file.filter(|file| !is_file(file)) {
            return Err(RepoIdError::File(file.to_owned()));
        }
        Ok(RepoId { repo: repo.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        self.file.iter().try_for_each(|file| write!(f, "/{file}"))
    }
}

/// Two dashes in a row would also make two repositories share one folder of the cache.
fn is_part(part: &str) -> bool {
    let edge = ['-', '.'];
    (1..=96).contains(&part.len())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !part.contains("--")
        && !part.contains("..")
        && !part.ends_with(".git")
}

fn is_gguf(name: &str) -> bool {
    name.len() > ".gguf".len() && name.to_ascii_lowercase().ends_with(".gguf")
}

fn is_file(name: &str) -> bool {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    is_plain && !name.starts_with('.') && name.len() <= 200
}

fn is_revision(revision: &str) -> bool {
    revision.len() <= 200
        && revision.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+/".contains(c))
        && revision.split('/').all(|segment| !segment.is_empty() && !segment.starts_with(['.', '-']))
        && !revision.contains("..")
}

/// Is this a commit, written out?
#[cfg(feature = "hub")]
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_parses_and_prints_back() {
        for text in [
            "Qwen/Qwen3-0.6B",
            "a/b",
            "meta-llama/Llama-3.2-1B@refs/pr/7",
            "o_w/n.a@v1.0+x",
            "a/b/c-Q4_K_M.gguf",
            "a/b@refs/pr/7/c.GGUF",
        ] {
            let id: RepoId = text.parse().expect(text);
            assert_eq!(id.to_string(), text);
        }
        let id: RepoId = "Qwen/Qwen3-0.6B@main".parse().expect("main may be written out");
        assert_eq!((id.repo(), id.revision()), ("Qwen/Qwen3-0.6B", "main"));
        assert_eq!(id.to_string(), "Qwen/Qwen3-0.6B");
        let id: RepoId = "a/b@refs/pr/7/c.gguf".parse().expect("the file is what follows the last slash");
        assert_eq!((id.revision(), id.file()), ("refs/pr/7", Some("c.gguf")));
    }

    #[test]
    fn what_names_no_repository_is_refused() {
        for text in ["", "gpt2", "a/b/c", "http://huggingface.co/a/b"] {
            assert_eq!(text.parse::<RepoId>(), Err(RepoIdError::Shape(text.to_owned())));
        }
        for (text, part) in [
            ("/b", ""),
            ("a/", ""),
            ("a/..", ".."),
            ("./b", "."),
            ("a/b--c", "b--c"),
            ("a/b c", "b c"),
            ("a/b%2f", "b%2f"),
            ("a/b.git", "b.git"),
            ("a/ü", "ü"),
        ] {
            assert_eq!(text.parse::<RepoId>(), Err(RepoIdError::Part(part.to_owned())), "{text}");
        }
        for file in ["..gguf", "c d.gguf", "%2f.gguf"] {
            assert_eq!(format!("a/b/{file}").parse::<RepoId>(), Err(RepoIdError::File(file.to_owned())));
        }
        for revision in
            ["", "/x", "x/", "a//b", "../x", "a..b", ".x", "a/.b", "a b", "a\\b", "a:b", "a@b", "-x"]
        {
            let error = Err(RepoIdError::Revision(revision.to_owned()));
            assert_eq!(format!("a/b@{revision}").parse::<RepoId>(), error);
        }
    }
}
