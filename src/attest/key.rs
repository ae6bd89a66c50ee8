//! Keys of Ed25519 in PEM, as `openssl` writes them: PKCS#8 to sign with, SubjectPublicKeyInfo to check with (RFC 8410).

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use crate::digest::Digest;

/// What stands before the 32 bytes of a public key. There is one encoding of all before them: the algorithm has no parameters.
const BEFORE_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Whoever has it can sign.
pub struct PrivateKey(Ed25519KeyPair);

/// With it a signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey([u8; 32]);

/// Why a file holds no key that can be used: what follows its name.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is something else.
    #[error(
        "has no key in PEM ({0}): name the file that `openssl genpkey -algorithm ed25519` or `openssl pkey -pubout` wrote"
    )]
    NoKey(String),
    /// It can be read with a passphrase alone.
    #[error(
        "has a key under a passphrase, and none is asked for here: take it off with `openssl pkey -in FILE -out PLAIN`"
    )]
    Encrypted,
    /// It is the other half.
    #[error("has a public key, and a signature takes the private one: name the file of that")]
    Public,
    /// It is the other half.
    #[error(
        "has a private key, and a check takes the public one, which alone is for others: write it with `openssl pkey -in \
         FILE -pubout -out PUBLIC`"
    )]
    Private,
    /// It is of another algorithm.
    #[error(
        "has a key that is not one of Ed25519: make one with `openssl genpkey -algorithm ed25519 -out FILE`"
    )]
    Other,
}

/// The first key of a file, and which kind its heading says that it is.
fn section(pem: &[u8]) -> Result<(SectionKind, Vec<u8>), KeyError> {
    match <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next() {
        Some(Ok(section)) => Ok(section),
        Some(Err(error)) => Err(KeyError::NoKey(error.to_string())),
        // No library of this program reads what is encrypted, or says that it is.
        None if String::from_utf8_lossy(pem).contains("-----BEGIN ENCRYPTED ") => Err(KeyError::Encrypted),
        None => Err(KeyError::NoKey("it has no section of a known kind".to_owned())),
    }
}

/// What is neither half of a key in the one form that both have here.
fn other(kind: SectionKind) -> KeyError {
    match kind {
        SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => KeyError::Other,
        kind => KeyError::NoKey(format!("its first section is {kind:?}")),
    }
}

impl PrivateKey {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When that is not a private key of Ed25519.
    pub fn read(pem: &[u8]) -> Result<PrivateKey, KeyError> {
        match section(pem)? {
            // What `openssl` writes lacks the public half, so nothing is there to check it by.
            (SectionKind::PrivateKey, der) => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(PrivateKey).map_err(|_| KeyError::Other)
            }
            (SectionKind::PublicKey, _) => Err(KeyError::Public),
            (kind, _) => Err(other(kind)),
        }
    }

    /// Its other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("a public key has 32 bytes"))
    }

    /// The signature under a message: 64 bytes, the same each time.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl PublicKey {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When that is not a public key of Ed25519.
    pub fn read(pem: &[u8]) -> Result<PublicKey, KeyError> {
        match section(pem)? {
            (SectionKind::PublicKey, der) => der
                .strip_prefix(&BEFORE_PUBLIC)
                .and_then(|key| key.try_into().ok())
                .map(PublicKey)
                .ok_or(KeyError::Other),
            (SectionKind::PrivateKey, _) => Err(KeyError::Private),
            (kind, _) => Err(other(kind)),
        }
    }

    /// What envelopes call it, as in-toto and securesystemslib do: the SHA-256 of the key in canonical JSON.
    pub fn id(&self) -> Digest {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{hex}"}},"scheme":"ed25519"}}"#);
        Digest::of(key.as_bytes())
    }

    /// Is this the signature of whoever has its other half under this message?
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}
