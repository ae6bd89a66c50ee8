//! A model as it lies on disk: its shape, its tokenizer, and its weights, read where they are needed.
//!
//! A folder in the layout of Hugging Face holds
//!
//! | file | what is taken from it |
//! |---|---|
//! | `config.json` | the [`Config`] |
//! | `generation_config.json`, if there | the special tokens, before those of `config.json` |
//! | `tokenizer.json`, if there | the [`Tokenizer`] |
//! | `tokenizer_config.json`, if there | the names of the special tokens, and the chat template |
//! | `chat_template.jinja`, if there | the chat template, before that of `tokenizer_config.json` |
//! | `model.safetensors`, or `model.safetensors.index.json` and what it names | the weights |
//!
//! A file of GGUF holds all of this in one, see [`gguf`](super::gguf).
//!
//! Once a checkpoint is open, every tensor that its config asks for is known to be there, in its shape and in a type that
//! is read, and no layer holds another.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Map, Value};

use super::{
    chat::{ChatError, ChatTemplate},
    config::{self, Architecture, Config, ConfigError},
    embedded::{self, MODELS},
    file::{FileError, Folder, Source, Texts},
    gguf::{Gguf, GgufError, names::ROPE_FACTORS},
    hub::{self, HubError, HubSettings, RepoIdError, Snapshot, Step},
    tokenizer::{Tokenizer, TokenizerError},
    weights::{Weights, WeightsError},
};
use crate::{
    digest::Digest,
    name::{did_you_mean, nearest},
    numerics::{at::At, precision::Calibration},
    source::Blame,
};

pub use super::{file::FileDigest, weights::Tensor};

/// A config has a few kilobytes; a tokenizer's has grown to one megabyte.
const LARGEST_CONFIG: u64 = 8 << 20;
/// Three times the largest known.
const LARGEST_TOKENIZER: u64 = 100 << 20;

/// A model's files.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the user called it.
    pub name: String,
    /// Where its files are.
    pub origin: Origin,
    /// Its shape.
    pub config: Config,
    /// Its tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// How it wants conversations written, if it says so.
    pub chat: Option<ChatTemplate>,
    /// Where the folder or the file lies, unless it is in the binary.
    path: Option<PathBuf>,
    weights: Weights,
    /// Of those files that were read as a whole.
    texts: Vec<FileDigest>,
    /// What somebody else has found out about the weights' files.
    known: Vec<FileDigest>,
    files: OnceLock<Vec<FileDigest>>,
}

/// Where a model's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In this binary.
    Embedded,
    /// In a folder.
    Folder(PathBuf),
    /// In a file of GGUF.
    File(PathBuf),
    /// From the Hugging Face Hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// What was asked for.
        revision: String,
        /// What that stood for.
        commit: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Embedded => write!(f, "inside this binary"),
            Origin::Folder(path) | Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Hub { repo, revision, commit } => write!(f, "{repo}@{revision}, commit {commit}"),
        }
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A name that stands for nothing.
    #[error(
        "there is no model `{name}`: {suggestion}write {} for one in this binary, `./folder` or `./file.gguf` for files \
         here, or `owner/name` for the Hugging Face Hub",
        embedded::names()
    )]
    Unknown {
        /// What was written.
        name: String,
        /// What might have been meant.
        suggestion: String,
    },
    /// A folder that is not there.
    #[error("there is no folder {0}: name one that holds a model, or `owner/name` for the Hugging Face Hub")]
    NoFolder(String),
    /// A file in place of a folder.
    #[error(
        "{0} is not a folder: name the folder that holds the model's config.json, or a file that ends in .gguf"
    )]
    NotAFolder(String),
    /// A folder without a model.
    #[error("{0} holds no config.json: name a folder in the layout of Hugging Face")]
    NoConfig(String),
    /// A file that is not there.
    #[error("there is no file {0}: name one of GGUF, or `owner/name/file.gguf` for the Hugging Face Hub")]
    NoFile(String),
    /// A product of which nothing was measured, or something else.
    #[error(
        "calibration={calibration} {} {at}, which reads {depth} channels: name the file that `reprocheck calibrate` has written for \
         this model",
        match (.measured, .calibration.text()) {
            (Some(measured), _) => format!("has {measured} channels for"),
            (None, Some(_)) => "says nothing of".to_owned(),
            (None, None) => "was not read here, so nothing is known of".to_owned(),
        }
    )]
    Calibration {
        /// What was measured.
        calibration: Calibration,
        /// Where.
        at: At,
        /// How many channels it has there.
        measured: Option<usize>,
        /// How many the model has.
        depth: usize,
    },
    /// Ranks that cannot share the model alike.
    #[error(
        "{ranks} ranks cannot share the {what} of {model} alike: set tp to {}, or leave such cells out",
        match .fits.as_slice() {
            [alone] => alone.clone(),
            [others @ .., last] => format!("{} or {last}", others.join(", ")),
            [] => "1".to_owned(),
        }
    )]
    Ranks {
        /// Which model.
        model: String,
        /// What of it.
        what: String,
        /// How many ranks.
        ranks: NonZeroUsize,
        /// How many could.
        fits: Vec<String>,
    },
    /// A tensor of a layer that the model does not have.
    #[error(
        "the tensor `{tensor}` has no place in the {architecture} of {layers} layers that the model's config describes: \
         see that both are of the same model"
    )]
    Unexpected {
        /// Which.
        tensor: String,
        /// The model's family.
        architecture: Architecture,
        /// How many layers it has.
        layers: usize,
    },
    /// A head of its own, where the embedding should be the head.
    #[error(
        "`tie_word_embeddings` is true, but `lm_head.weight` is not `model.embed_tokens.weight`: set it to false \
         to use both, or remove the tensor"
    )]
    TwoHeads,
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A config that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A chat template that cannot be found out.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file of GGUF that cannot be used.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// No name of a repository.
    #[error(transparent)]
    RepoId(#[from] RepoIdError),
    /// Nothing from the Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl Blame for CheckpointError {
    fn is_environment(&self) -> bool {
        let file = match self {
            CheckpointError::Hub(error) => return error.is_environment(),
            CheckpointError::File(error)
            | CheckpointError::Weights(WeightsError::File(error))
            | CheckpointError::Gguf(GgufError::File(error) | GgufError::Weights(WeightsError::File(error))) => {
                error
            }
            _ => return false,
        };
        matches!(file, FileError::System { .. } | FileError::Shrunk { .. })
    }
}

impl Checkpoint {
    /// Opens the model that a text stands for: the name of one in the binary; a folder or a file of GGUF, if it begins
    /// like a path or there is one; `owner/name[@revision]` on the Hub, or one file of GGUF in it,
    /// `owner/name[@revision]/file.gguf`, which are then fetched as far as they are not here.
    ///
    /// # Errors
    ///
    /// What is wrong with the name, the network, or the model.
    pub fn resolve(
        model: &str,
        settings: &HubSettings,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<Checkpoint, CheckpointError> {
        let path = Path::new(model);
        let mut checkpoint = if let Some(entry) = MODELS.iter().find(|entry| entry.name == model) {
            Checkpoint::embedded(entry)?
        } else if path.is_absolute() || model.starts_with('.') || path.exists() {
            Checkpoint::open(path)?
        } else if model.contains('/') {
            Checkpoint::from_snapshot(hub::snapshot(&model.parse()?, settings, progress)?)?
        } else {
            let suggestion = did_you_mean(nearest(model, MODELS.iter().map(|entry| entry.name)));
            return Err(CheckpointError::Unknown { name: model.to_owned(), suggestion });
        };
        checkpoint.name = model.to_owned();
        Ok(checkpoint)
    }

    /// Opens a folder in the Hugging Face layout, or a file of GGUF.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        let name = folder.display().to_string();
        if is_gguf(folder) && !folder.is_dir() {
            return Checkpoint::read_file(folder, name, Origin::File(folder.to_owned()));
        }
        match folder.metadata() {
            Ok(about) if about.is_dir() => {}
            Ok(_) => return Err(CheckpointError::NotAFolder(name)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CheckpointError::NoFolder(name));
            }
            Err(source) => return Err(FileError::System { file: name, source }.into()),
        }
        Checkpoint::read(Folder::Disk(folder.to_owned()), name, Origin::Folder(folder.to_owned()))
    }

    /// Opens a model of this binary.
    ///
    /// # Errors
    ///
    /// None, if the binary is as it was built.
    pub fn embedded(entry: &embedded::ModelEntry) -> Result<Checkpoint, CheckpointError> {
        let folder = Folder::Embedded { model: entry.name, files: entry.files };
        Checkpoint::read(folder, entry.name.to_owned(), Origin::Embedded)
    }

    /// Opens what the Hub has given, whose digests it has checked already.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_snapshot(snapshot: Snapshot) -> Result<Checkpoint, CheckpointError> {
        let Snapshot { folder, repo, revision, commit, files } = snapshot;
        let name = format!("{repo}@{revision}");
        let origin = Origin::Hub { repo, revision, commit };
        let mut checkpoint = match files.as_slice() {
            [file] if is_gguf(Path::new(&file.name)) => {
                Checkpoint::read_file(&folder.join(&file.name), format!("{name}/{}", file.name), origin)?
            }
            _ => Checkpoint::read(Folder::Disk(folder), name, origin)?,
        };
        let known = files.into_iter().filter_map(|file| {
            let sha256 = file.sha256.parse().ok()?;
            Some(FileDigest { name: file.name, size: file.size, sha256 })
        });
        checkpoint.known = known.collect();
        Ok(checkpoint)
    }

    fn read(folder: Folder, name: String, origin: Origin) -> Result<Checkpoint, CheckpointError> {
        let mut texts = Texts { folder: &folder, read: Vec::new() };
        let Some(json) = texts.read("config.json", LARGEST_CONFIG)? else {
            return Err(CheckpointError::NoConfig(name));
        };
        let mut config = Config::read(&folder.label("config.json"), &json)?;
        if let Some(json) = texts.read("generation_config.json", LARGEST_CONFIG)? {
            config.take_generation(&folder.label("generation_config.json"), &json)?;
        }

        let weights = Weights::open(&mut texts)?;
        // Old conversions of Llama store these angles, which follow from the config.
        let is_layer =
            |tensor: &str| tensor.starts_with("model.layers.") && !tensor.ends_with(".rotary_emb.inv_freq");
        check(&config, &weights, is_layer)?;
        let head = "lm_head.weight";
        if config.tied && weights.has(head) && !weights.are_equal(head, "model.embed_tokens.weight")? {
            return Err(CheckpointError::TwoHeads);
        }

        let tokenizer = texts.read("tokenizer.json", LARGEST_TOKENIZER)?;
        let tokenizer = tokenizer
            .map(|json| Tokenizer::read(&folder.label("tokenizer.json"), &json, config.vocabulary))
            .transpose()?;
        let chat = chat_template(&mut texts)?;
        let texts = texts.read;
        let path = match folder {
            Folder::Disk(folder) => Some(folder),
            Folder::Embedded { .. } => None,
        };
        let (known, files) = (Vec::new(), OnceLock::new());
        Ok(Checkpoint { name, origin, config, tokenizer, chat, path, weights, texts, known, files })
    }

    fn read_file(path: &Path, name: String, origin: Origin) -> Result<Checkpoint, CheckpointError> {
        let Some(source) = Source::open(path, name.clone())? else {
            return Err(CheckpointError::NoFile(name));
        };
        let file = path.file_name().map_or_else(|| name.clone(), |file| file.to_string_lossy().into_owned());
        let Gguf { config, tokenizer, chat, weights } = Gguf::read(&file, source)?;
        check(&config, &weights, |tensor| tensor != ROPE_FACTORS)?;
        let (path, known) = (Some(path.to_owned()), Vec::new());
        let (texts, files) = (Vec::new(), OnceLock::new());
        Ok(Checkpoint { name, origin, config, tokenizer, chat, path, weights, texts, known, files })
    }

    /// What to ask [`resolve`](Self::resolve) for in another process, to open the same files.
    pub fn reopen(&self) -> String {
        match &self.path {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
            None => self.name.clone(),
        }
    }

    /// Do its files lie on this disk?
    pub fn is_on_disk(&self) -> bool {
        self.path.is_some()
    }

    /// A tensor of exactly this shape: rows of `shape[1]` values, or one row of `shape[0]`.
    ///
    /// # Errors
    ///
    /// When it is missing or of another shape or type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, CheckpointError> {
        Ok(self.weights.tensor(name, shape)?)
    }

    /// The names of all tensors in the files, in alphabetic order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.weights.names()
    }

    /// Is there a tensor of that name?
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// How many weights the model has. What its config does not ask for is not counted.
    pub fn parameters(&self) -> u64 {
        self.config
            .tensors()
            .map(|(_, shape)| shape.iter().map(|&length| length as u64).product::<u64>())
            .sum()
    }

    /// The types in which its tensors are stored, that of most bytes first.
    pub fn stored(&self) -> Vec<String> {
        self.weights.stored().iter().map(ToString::to_string).collect()
    }

    /// Is it one file of GGUF?
    pub fn is_gguf(&self) -> bool {
        self.gguf().is_some()
    }

    /// The file of GGUF that it is, if it is one.
    pub fn gguf(&self) -> Option<&Path> {
        self.path.as_deref().filter(|path| is_gguf(path) && self.texts.is_empty())
    }

    /// Every file that the model was read from, in the order of their names, with its digest.
    ///
    /// The weights' files are read from end to end the first time, at the speed of SHA-256 and two files at a time,
    /// unless the Hub's client has just done that: call this once per run, not for a look.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn files(&self) -> Result<&[FileDigest], CheckpointError> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let mut files = self.texts.clone();
        files.extend(self.weight_files()?);
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(self.files.get_or_init(|| files))
    }

    /// One digest for the whole model: of the lines that `sha256sum` prints for its files, in the order of their names.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn digest(&self) -> Result<Digest, CheckpointError> {
        let lines: String =
            self.files()?.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
        Ok(Digest::of(lines.as_bytes()))
    }

    fn weight_files(&self) -> Result<Vec<FileDigest>, CheckpointError> {
        let shards = self.weights.shards();
        let next = AtomicUsize::new(0);
        let digest = || {
            let mut files = Vec::new();
            while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                let size = shard.source.size;
                let known = self.known.iter().find(|file| file.name == shard.name && file.size == size);
                let sha256 = match known {
                    Some(file) => file.sha256,
                    None => shard.source.digest()?,
                };
                files.push(FileDigest { name: shard.name.clone(), size, sha256 });
            }
            Ok::<_, FileError>(files)
        };
        let mut files = Vec::new();
        thread::scope(|scope| {
            let other = (shards.len() > 1).then(|| scope.spawn(digest));
            files.extend(digest()?);
            if let Some(other) = other {
                files.extend(other.join().expect("reading and hashing do not panic")?);
            }
            Ok::<_, FileError>(())
        })?;
        Ok(files)
    }
}

/// Is every tensor there that the config asks for, and none else of those for which it must have a place?
fn check(
    config: &Config,
    weights: &Weights,
    must_be_known: impl Fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    let mut expected = HashSet::new();
    for (tensor, shape) in config.tensors() {
        weights.check(&tensor, &shape)?;
        expected.insert(tensor);
    }
    match weights.names().find(|tensor| must_be_known(tensor) && !expected.contains(*tensor)) {
        None => Ok(()),
        Some(tensor) => Err(CheckpointError::Unexpected {
            tensor: weights.name_in_file(tensor),
            architecture: config.architecture,
            layers: config.layers,
        }),
    }
}

/// Does the name say that it is a file of GGUF?
fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The chat template, from either of the places where it may stand.
fn chat_template(texts: &mut Texts<'_>) -> Result<Option<ChatTemplate>, CheckpointError> {
    const CONFIG: &str = "tokenizer_config.json";
    const TEMPLATE: &str = "chat_template.jinja";
    let folder = texts.folder;
    let label = folder.label(CONFIG);
    let settings = match texts.read(CONFIG, LARGEST_CONFIG)? {
        Some(json) => config::object(&label, &json)?,
        None => Map::new(),
    };
    let special_tokens = special_tokens(&settings);
    if let Some(template) = texts.read(TEMPLATE, LARGEST_CONFIG)? {
        let file = folder.label(TEMPLATE);
        let template = String::from_utf8(template)
            .map_err(|_| ChatError::File { file: file.clone(), wrong: "it is not UTF-8".to_owned() })?;
        return Ok(Some(ChatTemplate::new(&file, &template, special_tokens)));
    }
    let wrong = |wrong: &str| ChatError::File { file: label.clone(), wrong: wrong.to_owned() };
    let template = match settings.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(template)) => template,
        // Several, each with its name.
        Some(Value::Array(templates)) => {
            let default = templates.iter().find(|one| one.get("name") == Some(&Value::from("default")));
            let template = default.and_then(|one| one.get("template")?.as_str());
            match (template, templates.is_empty()) {
                (Some(template), _) => template,
                (None, true) => return Ok(None),
                (None, false) => {
                    return Err(wrong("no `chat_template` in its list is the default one").into());
                }
            }
        }
        Some(_) => return Err(wrong("`chat_template` is neither a text nor a list").into()),
    };
    Ok(Some(ChatTemplate::new(&label, template, special_tokens)))
}

/// `bos_token` and its like: a text, or an object with the text in it.
fn special_tokens(settings: &Map<String, Value>) -> BTreeMap<String, String> {
    let tokens = settings.iter().filter(|(name, _)| name.ends_with("_token"));
    let tokens = tokens.filter_map(|(name, token)| {
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some((name.clone(), text.to_owned()))
    });
    tokens.collect()
}
