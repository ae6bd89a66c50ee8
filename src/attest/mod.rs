//! What a run came to, signed, so that someone else can check it: an in-toto statement in an envelope of DSSE.
//!
//! A signature vouches for all that a run says, so a run is reviewed, from its traces on, before anything is signed, and again
//! before an attestation is said to be of it.

pub mod envelope;
pub mod key;
pub mod statement;

use std::{fs, io, path::Path};

use self::{
    envelope::Envelope,
    key::{PrivateKey, PublicKey},
    statement::{Resource, Statement},
};
use crate::{
    digest::Digest,
    report::FORMATS,
    run::review::{self, Reviewed},
    store::run::{self, RunError},
    verdict::baseline::Baseline,
};

/// What does not hold of an attestation.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The envelope.
    #[error("the envelope does not read ({0}): take the file as it was written")]
    Envelope(String),
    /// What it says that its payload is.
    #[error("the payload type is {found:?}, not {:?}: it attests something else", envelope::PAYLOAD_TYPE)]
    PayloadType {
        /// What it says.
        found: String,
    },
    /// The signature.
    #[error("the signature does not hold: {0}")]
    Signature(String),
    /// What is signed.
    #[error("the statement {0}: it is signed, and is not what `reprocheck attest` writes")]
    Statement(String),
    /// It is of another run.
    #[error("{0}: name the run that it is of, with the --baseline that the run was attested with, if any")]
    Run(String),
}

/// What gates were held to, if to something that was approved, and its file.
pub type Approved<'a> = Option<(&'a Baseline, Resource)>;

/// What can be attested of a run, which is whole: a damaged cell would be missing in its report, and nothing is signed for it.
///
/// # Errors
///
/// When any of its files is not what was written, or its report not what follows from them.
pub fn of_run(folder: &Path, approved: Approved) -> Result<Statement, RunError> {
    let (baseline, approved) = approved.unzip();
    let reviewed = review::review(folder, baseline)?;
    let missing: Vec<_> = reviewed.report.missing.iter().map(|missing| missing.cell).collect();
    for (_, record) in reviewed.run.records(&missing) {
        record?;
    }
    let Reviewed { run, traces, report, .. } = reviewed;
    let json = report.json();
    let format = FORMATS.iter().find(|format| format.name == "json").expect("JSON is a format");
    let path = folder.join(format.file);
    let problem = match fs::read(&path) {
        Ok(bytes) if bytes == json.as_bytes() => None,
        Ok(_) => Some("it is not the report that follows from the traces"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("it is not there"),
        Err(error) => return Err(RunError::Read { path, error }),
    };
    if let Some(problem) = problem {
        let way_out = "write it with `reprocheck report RUN --format json --out RUN`, and where gates are held to a baseline \
                       name it with --baseline, here as well";
        return Err(RunError::Damaged { path, problem: problem.to_owned(), way_out });
    }
    let files = [
        Resource::file(format.file, Digest::of(json.as_bytes())),
        Resource::file(run::RUN, run.digest()?),
        Resource::file(run::ITEMS, run.about.items),
    ];
    Ok(Statement::of(&report, &traces, files, approved))
}

/// Signs a statement. The same statement and key give the same bytes.
pub fn sign(statement: &Statement, key: &PrivateKey) -> Vec<u8> {
    Envelope::signed(&statement.json(), key).json()
}

/// The statement in an envelope that somebody with this key has signed.
///
/// # Errors
///
/// What does not hold.
pub fn open(envelope: &[u8], key: &PublicKey) -> Result<Statement, Refused> {
    Statement::read(&Envelope::read(envelope)?.open(key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of RFC 8410, section 10.3.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                           -----END PRIVATE KEY-----\n";

    #[test]
    fn no_byte_of_an_attestation_can_be_another_one() {
        let key = PrivateKey::read(PRIVATE.as_bytes()).unwrap();
        let payload = br#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"c","digest":{"sha256":"00"}}],"predicateType":"https://in-toto.io/attestation/test-result/v0.1","predicate":{"result":"PASSED","configuration":[]}}"#;
        let statement = Statement::read(payload).unwrap();
        let whole = sign(&statement, &key);
        assert_eq!(open(&whole, &key.public()).unwrap(), statement);
        let mut same = Vec::new();
        let mut refused = [0; 3];
        for (at, was) in whole.iter().enumerate() {
            for byte in (0..=u8::MAX).filter(|byte| byte != was) {
                let mut other = whole.clone();
                other[at] = byte;
                match open(&other, &key.public()) {
                    Ok(opened) => {
                        assert_eq!(opened, statement);
                        same.push([*was, byte].map(char::from));
                    }
                    Err(Refused::Envelope(_)) => refused[0] += 1,
                    Err(Refused::PayloadType { .. }) => refused[1] += 1,
                    Err(Refused::Signature(_)) => refused[2] += 1,
                    Err(error) => panic!("{at}, {byte}: {error}"),
                }
            }
        }
        // The standard has readers take either alphabet of base64. This signature has one letter that is not in both, so that
        // with the other's in its place it is the same signature in the other alphabet.
        assert_eq!(same, [['+', '-']], "{}", String::from_utf8(whole).unwrap());
        assert!(refused.iter().all(|count| *count > 2000), "{refused:?}");
    }
}
