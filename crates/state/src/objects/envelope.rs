//! The line in front of every object: `millstream 1 <writer> <checksum>`, both 32 hexadecimal digits. It is text so that
//! `tail -n +2` of a manifest is plain JSON.
use std::fmt;

use bytes::Bytes;
use millstream_plan::DigestBuilder;

const MAGIC: &[u8] = b"millstream 1 ";
const HEX: usize = 32;
const HEADER: usize = MAGIC.len() + HEX + 1 + HEX + 1;

/// One opening of a location by one process. Two writers never share an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterId(pub u128);

impl WriterId {
    /// A fresh id from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The object to store at `path`.
pub fn seal(path: &str, writer: WriterId, payload: &[u8]) -> Bytes {
    let mut object = Vec::with_capacity(HEADER + payload.len());
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(format!("{writer} {:032x}\n", checksum(path, writer, payload)).as_bytes());
    object.extend_from_slice(payload);
    object.into()
}

/// Writer and payload of the object found at `path`, or why it is not one.
pub fn unseal(path: &str, object: &Bytes) -> Result<(WriterId, Bytes), String> {
    let header = object.get(..HEADER).ok_or_else(|| format!("{} bytes are too few", object.len()))?;
    let fields = header.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix(b"\n"));
    let (writer, sum) = fields
        .and_then(|fields| std::str::from_utf8(fields).ok())
        .and_then(|fields| fields.split_once(' '))
        .and_then(|(writer, sum)| Some((hex(writer)?, hex(sum)?)))
        .ok_or("it does not begin with the line that every object of a checkpoint location has")?;
    let payload = object.slice(HEADER..);
    if checksum(path, WriterId(writer), &payload) != sum {
        return Err("its checksum does not match".to_owned());
    }
    Ok((WriterId(writer), payload))
}

fn hex(digits: &str) -> Option<u128> {
    // from_str_radix alone would take a sign.
    let canonical = digits.len() == HEX && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u128::from_str_radix(digits, 16).ok())?
}

fn checksum(path: &str, writer: WriterId, payload: &[u8]) -> u128 {
    let mut digest = DigestBuilder::default();
    digest.add(path.as_bytes());
    digest.add(&writer.0.to_be_bytes());
    digest.add(payload);
    digest.finish().0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_truncation_and_misplacement_is_found() {
        let object = seal("log/1", WriterId(7), b"payload");
        assert_eq!(unseal("log/1", &object).unwrap(), (WriterId(7), Bytes::from_static(b"payload")));
        assert!(unseal("log/2", &object).is_err());
        for length in 0..object.len() {
            assert!(unseal("log/1", &object.slice(..length)).is_err(), "cut to {length}");
        }
        for bit in 0..object.len() * 8 {
            let mut damaged = object.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal("log/1", &damaged.into()).is_err(), "bit {bit}");
        }
    }
}
