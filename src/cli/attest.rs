//! `reprocheck attest`: what a run came to, signed, and whether such an attestation holds.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, approve::read_baseline, progress::Waiting};
use crate::{
    attest::{
        self, Refused,
        key::{KeyError, PrivateKey, PublicKey},
        statement::{Resource, Statement, Verdict},
    },
    digest::Digest,
    report::escape::visible,
    store::{self, run::RunError},
};

/// Attest what a run came to, signed, for others to check; or check an attestation
///
/// What is written is a statement of in-toto (test-result v0.1) in an envelope of DSSE, signed with a key of Ed25519 that
/// `openssl genpkey -algorithm ed25519` has made. A gate that cannot be told is among those that failed.
#[derive(Args, Debug)]
pub(super) struct Attest {
    /// The folder that `reprocheck run` wrote; with --verify, the run that the attestation must be of
    #[arg(required_unless_present = "verify")]
    folder: Option<PathBuf>,
    /// The key in PEM: the private one to sign with, the public one to check with
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write the attestation to this file, and not to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    out: Option<PathBuf>,
    /// Check this attestation: that the key has signed it, that it is of the run, and that it says PASSED or WARNED
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// The digests that gates against the baseline were held to, as `reprocheck approve` wrote them
    #[arg(long, value_name = "FILE", requires = "folder")]
    baseline: Option<PathBuf>,
}

fn read(path: &Path, way_out: &str) -> Result<Vec<u8>, Ended> {
    fs::read(path)
        .map_err(|error| Ended::usage(anyhow!("cannot read {}: {error}; {way_out}", path.display())))
}

/// What can be attested of a run.
fn of_run(folder: &Path, baseline: Option<&Path>) -> Result<Result<Statement, RunError>, Ended> {
    let approved = baseline.map(|path| {
        let baseline = read_baseline(path)?;
        let file = read(path, "name the file that `reprocheck approve` wrote")?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok::<_, Ended>((baseline, Resource::file(&name, Digest::of(&file))))
    });
    let approved = approved.transpose()?;
    let _waiting = Waiting::until("still reading the traces again, from which all that is attested follows");
    Ok(attest::of_run(folder, approved.as_ref().map(|(baseline, file)| (baseline, file.clone()))))
}

impl Attest {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        match (&self.verify, &self.folder) {
            (Some(envelope), folder) => self.verify(envelope, folder.as_deref(), out),
            (None, Some(folder)) => self.sign(folder, out),
            (None, None) => unreachable!("one of them is asked for"),
        }
    }

    /// The key, before what takes longer.
    fn key<K>(&self, read_key: impl Fn(&[u8]) -> Result<K, KeyError>) -> Result<K, Ended> {
        let pem = read(&self.key, "make a key with `openssl genpkey -algorithm ed25519 -out FILE`")?;
        read_key(&pem).map_err(|error| Ended::usage(anyhow!("{} {error}", self.key.display())))
    }

    fn sign(&self, folder: &Path, out: &mut impl Write) -> Result<Exit, Ended> {
        let key = self.key(PrivateKey::read)?;
        let statement = of_run(folder, self.baseline.as_deref())??;
        let envelope = attest::sign(&statement, &key);
        let Some(path) = &self.out else {
            out.write_all(&envelope)?;
            return Ok(Exit::Held);
        };
        store::write(path, &envelope).map_err(Ended::environment)?;
        let result = statement.predicate.result.name();
        writeln!(out, "wrote {}: {result}, signed by the key {}", path.display(), key.public().id())?;
        Ok(Exit::Held)
    }

    fn verify(&self, envelope: &Path, run: Option<&Path>, out: &mut impl Write) -> Result<Exit, Ended> {
        let key = self.key(PublicKey::read)?;
        let refused = |refused: Refused| {
            Ended::failed(anyhow!("{}: {}", envelope.display(), visible(&refused.to_string())))
        };
        let bytes = read(envelope, "name the file that `reprocheck attest` wrote")?;
        let statement = attest::open(&bytes, &key).map_err(refused)?;
        if let Some(folder) = run {
            match of_run(folder, self.baseline.as_deref())? {
                Ok(own) => statement.is_of(&own).map_err(refused)?,
                // What has been changed is not what was attested.
                Err(error @ (RunError::Damaged { .. } | RunError::Trace(_))) => {
                    return Err(Ended::failed(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        show(&statement, &key, run, out)?;
        Ok(match statement.predicate.result {
            Verdict::Passed | Verdict::Warned => Exit::Held,
            Verdict::Failed => Exit::Failed,
        })
    }
}

/// What an attestation says that holds.
fn show(
    statement: &Statement,
    key: &PublicKey,
    run: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), Ended> {
    let result = &statement.predicate;
    writeln!(out, "{}: signed by the key {}", result.result.name(), key.id())?;
    for (became, gates) in
        [("passed", &result.passed_tests), ("warned", &result.warned_tests), ("failed", &result.failed_tests)]
    {
        for gate in gates {
            writeln!(out, "{became}  {}", visible(gate))?;
        }
    }
    match run {
        Some(folder) => writeln!(out, "\nIt is of {}:", folder.display())?,
        None => writeln!(out, "\nIt is of what has these digests; no run was held against it:")?,
    }
    for subject in &statement.subject {
        for (algorithm, digest) in &subject.digest {
            writeln!(out, "{:<7}  {}  {}", visible(algorithm), visible(digest), visible(&subject.name))?;
        }
    }
    Ok(())
}
