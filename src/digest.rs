//! SHA-256: of bytes, of logits, of a file; and the Merkle tree that makes one value of many.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::numerics::canonical;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes as they are.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Of logits: f32, little endian, every NaN the one there is, minus zero as it is.
    pub fn of_logits(logits: &[f32]) -> Digest {
        let [digest] = Digest::of_rows([logits]);
        digest
    }

    /// The same of several rows, block by block in turn. Within a row each block waits for the one before; a processor that
    /// has another row's to work on meanwhile takes an eighth less time for two.
    pub fn of_rows<const N: usize>(rows: [&[f32]; N]) -> [Digest; N] {
        const PIECE: usize = 1024;
        // A block has 64 bytes; alone a row goes faster by many of them.
        let at_once = if N == 1 { size_of::<[f32; PIECE]>() } else { 64 };
        let mut hashers = [(); N].map(|()| Sha256::new());
        let mut canonicals = [[0.0; PIECE]; N];
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or_default();
        for start in (0..longest).step_by(PIECE) {
            let mut pieces = [&[][..]; N];
            for ((piece, row), canonical) in pieces.iter_mut().zip(rows).zip(&mut canonicals) {
                let row = &row[start.min(row.len())..];
                *piece = bytes_of(&row[..row.len().min(PIECE)], canonical);
            }
            for start in (0..size_of::<[f32; PIECE]>()).step_by(at_once) {
                for (hasher, piece) in hashers.iter_mut().zip(pieces) {
                    hasher.update(&piece[start.min(piece.len())..(start + at_once).min(piece.len())]);
                }
            }
        }
        hashers.map(|hasher| Digest(hasher.finalize().into()))
    }
}

/// Logits as bytes, by way of `room` where they are not what they should look like in memory.
fn bytes_of<'a>(logits: &'a [f32], room: &'a mut [f32]) -> &'a [u8] {
    // A count, not `any`, which stops early and so keeps the compiler from vectors.
    let nans = logits.iter().map(|logit| u32::from(logit.is_nan())).sum::<u32>();
    if cfg!(target_endian = "little") && nans == 0 {
        return bytemuck::cast_slice(logits);
    }
    let room = &mut room[..logits.len()];
    for (word, logit) in room.iter_mut().zip(logits) {
        *word = f32::from_bits(canonical(*logit).to_bits().to_le());
    }
    bytemuck::cast_slice(room)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the machinery of formats, which takes half a microsecond: every token's line holds one.
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        f.write_str(std::str::from_utf8(&digits).expect("digits are text"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256: write its 64 hexadecimal digits")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let error = || DigestError(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..][..2], 16).map_err(|_| error())?;
        }
        Ok(Digest(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A SHA-256 as hexadecimal digits.",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The Merkle tree that RFC 9162 defines, over SHA-256, with digests as its leaves: its root is one value for many, and
/// two machines that hold such trees find the first leaf in which they differ by comparing a few nodes.
pub struct MerkleTree {
    /// The leaves, hashed, then level by level up to the root. The last node of a level with an odd number of them rises
    /// as it is.
    levels: Vec<Vec<Digest>>,
}

impl MerkleTree {
    /// Over these leaves.
    pub fn over(leaves: Vec<Digest>) -> MerkleTree {
        let hashed = |leaf: &Digest| Digest::of(&[&[0][..], &leaf.0].concat());
        let mut levels = vec![leaves.iter().map(hashed).collect::<Vec<_>>()];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let node = |pair: &[Digest]| match pair {
                [left, right] => Digest::of(&[&[1][..], &left.0, &right.0].concat()),
                alone => alone[0],
            };
            levels.push(level.chunks(2).map(node).collect());
        }
        MerkleTree { levels }
    }

    /// The one value for all.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| Digest::of(b""))
    }

    /// Every node: the leaves, then level by level up to the root.
    pub fn nodes(&self) -> impl Iterator<Item = &Digest> {
        self.levels.iter().flatten()
    }

    /// How many nodes each level has in a tree over so many leaves.
    pub fn levels_over(leaves: u64) -> Vec<u64> {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| **level > 1) {
            levels.push(level.div_ceil(2));
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The digests below were computed by Python's hashlib and struct.

    #[test]
    fn the_digest_of_logits_is_that_of_their_bytes() {
        let logits = [0.0, -0.0, 1.5, f32::NEG_INFINITY, 1e-45];
        assert_eq!(
            Digest::of_logits(&logits).to_string(),
            "f58e398aa8b72e42e2ef56083a17c94fc6cab03e419741957d87782943e67302"
        );
        assert_eq!(Digest::of_logits(&[]), Digest::of(b""));
        let many: Vec<_> = (0..3000_u16).map(f32::from).collect();
        assert_eq!(
            Digest::of_logits(&many).to_string(),
            "79f08fbaf2064bbef9c63477bc07d002d0ed3ce58a91bc01b6d972f1c4e394b7"
        );
    }

    #[test]
    fn rows_in_turn_have_the_digests_that_each_has_alone() {
        let row =
            |length: u16, first: f32| -> Vec<f32> { (0..length).map(|at| first + f32::from(at)).collect() };
        let mut rows = [row(3000, 0.0), row(3000, 0.5), row(17, -1.0), row(0, 0.0), row(1024, f32::NAN)];
        rows[1][2050] = f32::from_bits(0xFFFF_FFFF);
        let alone = rows.each_ref().map(|row| Digest::of_logits(row));
        assert_eq!(Digest::of_rows(rows.each_ref().map(Vec::as_slice)), alone);
        assert_eq!(Digest::of_rows([&rows[1], &rows[0]]), [alone[1], alone[0]]);
        assert_eq!(Digest::of_rows([]), []);
    }

    #[test]
    fn every_nan_is_the_one_there_is() {
        for nan in [0x7FC0_0000, 0xFFC0_0000, 0x7F80_0001, 0xFFFF_FFFF] {
            let nan = f32::from_bits(nan);
            assert_eq!(
                Digest::of_logits(&[0.0, -0.0, 1.5, f32::NEG_INFINITY, 1e-45, nan]).to_string(),
                "e1c503ee367bfe8fea73bf72713e441c84689190b26ce30c947181a788083734"
            );
            // In the middle of three blocks.
            let mut many: Vec<_> = (0..3000_u16).map(f32::from).collect();
            many[1500] = nan;
            assert_eq!(
                Digest::of_logits(&many).to_string(),
                "8dd28532ee5162a5c152e100151bff1068e4eb886f7fe567556f5e8f0b2eab77"
            );
        }
    }

    #[test]
    fn every_bit_of_a_logit_counts() {
        let digest = Digest::of_logits(&[1.0; 2100]);
        for at in [0, 1023, 1024, 2099] {
            let mut logits = [1.0; 2100];
            logits[at] = 1.0_f32.next_up();
            assert_ne!(Digest::of_logits(&logits), digest, "{at}");
        }
        assert_ne!(Digest::of_logits(&[0.0]), Digest::of_logits(&[-0.0]));
        assert_ne!(Digest::of_logits(&[1.0; 2099]), digest);
    }

    #[test]
    fn a_digest_is_written_as_hexadecimal_and_read_back() {
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{text}\"")).unwrap(), digest);
        for text in
            ["", &text[1..], &format!("{text}0"), &text.replace('f', "g"), &text.replacen("ba", "é", 1)]
        {
            assert_eq!(
                text.parse::<Digest>().unwrap_err().to_string(),
                format!("`{text}` is not a SHA-256: write its 64 hexadecimal digits")
            );
        }
    }

    #[test]
    fn a_merkle_root_is_that_of_the_standard() {
        let root = |leaves: u8| {
            MerkleTree::over((0..leaves).map(|leaf| Digest::of(&[leaf])).collect()).root().to_string()
        };
        for (leaves, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "d9de27625445003d8a9739a851e3ff8d41c0683630b4d63a88327a6aaa37c409"),
            (2, "604d540f09268b91672ab011394d5266ccd7d4484d0d109411a55848126a1b2c"),
            (3, "d1f13800048f5909d4043fc0c152f6643280cba608b672715e56ce159a20629f"),
            (5, "6b313b611b40676b9e1dfd70c4503f2379f88f0f1c2740fb7e1cacc32c113465"),
            (7, "bee2275db16667589a4515f63e0d053a2fa602c1d9f9703e98920a5bdad59baf"),
        ] {
            assert_eq!(root(leaves), expected, "{leaves}");
        }
    }
}
