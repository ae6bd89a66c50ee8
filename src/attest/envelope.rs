//! The envelope: bytes, what they are, and signatures over both, as DSSE 1.0 has it.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde::{Deserialize, Serialize};

use super::{
    Refused,
    key::{PrivateKey, PublicKey},
};

/// Of every statement of in-toto.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// As JSON. The standard lets readers overlook other fields; no signature covers those, and so none is let in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// In base64.
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// Whose it is, to look for the key by. It is signed by nobody.
    #[serde(default)]
    keyid: String,
    /// In base64.
    sig: String,
}

/// What is signed: the type and the payload, each behind its length, so that no two of them are one text.
fn message(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Either alphabet will do, and no mixture of them; there is one text for the same bytes in each.
fn decoded(what: &str, text: &str) -> Result<Vec<u8>, Refused> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .map_err(|error| Refused::Envelope(format!("its {what} is not base64: {error}")))
}

impl Envelope {
    /// Around a payload, with one signature.
    pub fn signed(payload: &[u8], key: &PrivateKey) -> Envelope {
        let signature = Signature {
            keyid: key.public().id().to_string(),
            sig: STANDARD.encode(key.sign(&message(PAYLOAD_TYPE, payload))),
        };
        Envelope {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![signature],
        }
    }

    /// As a file: without a line's end, which could be another blank and say the same.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts have a form in JSON")
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it is not an envelope.
    pub fn read(json: &[u8]) -> Result<Envelope, Refused> {
        serde_json::from_slice(json).map_err(|error| Refused::Envelope(error.to_string()))
    }

    /// The payload, if somebody with this key has signed it.
    ///
    /// # Errors
    ///
    /// When it is of another type, or no signature of this key over it holds.
    pub fn open(&self, key: &PublicKey) -> Result<Vec<u8>, Refused> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(Refused::PayloadType { found: self.payload_type.clone() });
        }
        let payload = decoded("payload", &self.payload)?;
        let message = message(&self.payload_type, &payload);
        let id = key.id().to_string();
        let mut named = Vec::new();
        for Signature { keyid, sig } in &self.signatures {
            let sig = decoded("signature", sig)?;
            if !keyid.is_empty() && *keyid != id {
                named.push(format!("{keyid:?}"));
            } else if key.has_signed(&message, &sig) {
                return Ok(payload);
            }
        }
        Err(Refused::Signature(if self.signatures.is_empty() {
            "there is none; take the file as it was signed".to_owned()
        } else if named.len() == self.signatures.len() {
            format!(
                "it is that of the key {}, and this key is {id}; name the public half of that key",
                named.join(", ")
            )
        } else {
            "it is not that of this key under this payload; take the file as it was signed, or name the public half of the \
             key that signed it"
                .to_owned()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of RFC 8410, section 10.3.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                           -----END PRIVATE KEY-----\n";

    fn key() -> PrivateKey {
        PrivateKey::read(PRIVATE.as_bytes()).unwrap()
    }

    fn opened(envelope: &serde_json::Value) -> Result<Vec<u8>, String> {
        let envelope = Envelope::read(envelope.to_string().as_bytes());
        envelope.and_then(|envelope| envelope.open(&key().public())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_signed_is_what_the_standard_shows() {
        assert_eq!(
            message("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        // A length counts bytes.
        assert_eq!(message("é", "ü\n".as_bytes()), "DSSEv1 2 é 3 ü\n".as_bytes());
    }

    #[test]
    fn a_key_has_the_name_that_securesystemslib_gives_it() {
        let id = "946bbfb4fd58b1aeac3ddb00f68fd8c8dea7e9a84e6c149b1c10b36b707c38fd";
        assert_eq!(key().public().id().to_string(), id);
    }

    #[test]
    fn an_envelope_opens_in_either_alphabet_with_its_signature_among_others_and_without_a_name() {
        let payload = "{\"ü\": \"???>>>\"}".as_bytes();
        let mut envelope = serde_json::to_value(Envelope::signed(payload, &key())).unwrap();
        assert_eq!(opened(&envelope).unwrap(), payload);
        let signature = envelope["signatures"][0].clone();
        let other = serde_json::json!({ "keyid": "another", "sig": "AAAA" });
        envelope["signatures"] = serde_json::json!([other, signature]);
        assert_eq!(opened(&envelope).unwrap(), payload);
        let nameless = serde_json::json!({ "sig": signature["sig"] });
        envelope["signatures"] = serde_json::json!([{ "sig": "" }, nameless]);
        assert_eq!(opened(&envelope).unwrap(), payload);
        let text = envelope["payload"].as_str().unwrap().to_owned();
        assert!(text.contains('/') && text.contains('+'), "{text}");
        envelope["payload"] = text.replace('/', "_").replace('+', "-").into();
        assert_eq!(opened(&envelope).unwrap(), payload);
        // A mixture is neither.
        envelope["payload"] = text.replace('/', "_").into();
        assert!(opened(&envelope).unwrap_err().contains("its payload is not base64"));
    }

    #[test]
    fn what_does_not_hold_of_an_envelope_is_said() {
        let envelope = serde_json::to_value(Envelope::signed(b"{}", &key())).unwrap();
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut envelope = envelope.clone();
            change(&mut envelope);
            opened(&envelope).unwrap_err()
        };
        for (said, expected) in [
            (changed(&|all| all["x"] = 1.into()), "the envelope does not read (unknown field `x`"),
            (
                changed(&|all| all["signatures"][0]["x"] = 1.into()),
                "the envelope does not read (unknown field `x`",
            ),
            (changed(&|all| all["payload"] = "e30".into()), "its payload is not base64: "),
            (
                changed(&|all| all["signatures"] = serde_json::json!([])),
                "the signature does not hold: there is none",
            ),
            (
                changed(&|all| all["payloadType"] = "application/json".into()),
                "the payload type is \"application/json\", not \"application/vnd.in-toto+json\"",
            ),
            (changed(&|all| all["payload"] = "e31=".into()), "not base64"),
            (changed(&|all| all["payload"] = "e30K".into()), "it is not that of this key under this payload"),
            (
                changed(&|all| all["signatures"][0]["keyid"] = "b".into()),
                "it is that of the key \"b\", and this key is 9",
            ),
            (changed(&|all| all["signatures"][0]["sig"] = "AAAA".into()), "it is not that of this key"),
        ] {
            assert!(said.contains(expected), "{said}");
        }
        // A signature under a payload of another type is none under this one.
        let sig = STANDARD.encode(key().sign(&message("application/vnd.in-toto.provenance+json", b"{}")));
        assert!(
            changed(&|all| all["signatures"][0]["sig"] = sig.clone().into()).contains("not that of this key")
        );
    }
}
