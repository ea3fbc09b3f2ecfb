//! Decides how records are framed in files, so that what was torn or damaged is told from what is whole.
//!
//! A frame is its length, a checksum and its payload. The checksum also covers the checksum of the frame
//! before, and the first one's that of the file's header: a frame left over from the file's earlier life, or
//! from a write that was cut off, never passes for the next one.

use crate::error::Error;
use std::path::Path;

/// Bytes of a frame before its payload.
pub(crate) const OVERHEAD: usize = 8;
/// Bytes of a file's header.
pub(crate) const HEADER: usize = 32;
/// The format that this version writes.
const VERSION: u32 = 1;
/// The length that stands for "nothing follows in this file".
const END: u32 = u32::MAX;

/// The header of a file: what it is (`magic`), the version of its format, its number. Answers the start of
/// the chain of checksums too.
pub(crate) fn header(magic: [u8; 8], number: u64) -> ([u8; HEADER], u32) {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    (header, crc)
}

/// The start of the chain if `bytes` begin with the header of that file; `None` if they do not.
///
/// # Errors
/// `Version` if the header is whole but of a newer version.
pub(crate) fn read_header(
    path: &Path,
    bytes: &[u8],
    magic: [u8; 8],
    number: u64,
) -> Result<Option<u32>, Error> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let crc = u32_at(header, 28);
    if header[..8] != magic || crc != crc32fast::hash(&header[..28]) || header[16..24] != number.to_le_bytes()
    {
        return Ok(None);
    }
    match u32_at(header, 8) {
        VERSION => Ok(Some(crc)),
        found => Err(Error::Version { path: path.to_owned(), found, known: VERSION }),
    }
}

/// Whether `bytes` begin as a file does that has not been written to since it was made ready for this number:
/// with zeros, or with the header of its earlier life. A header is written whole or not at all, being smaller
/// than a sector, so anything else is damage.
pub(crate) fn is_untouched(bytes: &[u8], magic: [u8; 8]) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return true };
    let other = header[..8] == magic && u32_at(header, 28) == crc32fast::hash(&header[..28]);
    other || header.iter().all(|byte| *byte == 0)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn checksum(before: u32, length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Starts a frame at the end of `out`: the payload is to be appended, then [`finish`] called.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; OVERHEAD]);
    start
}

/// Fills in length and checksum of the frame begun at `start`; `chain` moves on.
pub(crate) fn finish(out: &mut [u8], start: usize, chain: &mut u32) {
    let length = (out.len() - start - OVERHEAD) as u32;
    *chain = checksum(*chain, length, &out[start + OVERHEAD..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&chain.to_le_bytes());
}

/// The frame that ends a file.
pub(crate) fn end(chain: u32) -> [u8; OVERHEAD] {
    let mut frame = [0; OVERHEAD];
    frame[..4].copy_from_slice(&END.to_le_bytes());
    frame[4..].copy_from_slice(&checksum(chain, END, &[]).to_le_bytes());
    frame
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A whole frame with this payload.
    Frame(&'a [u8]),
    /// The mark that nothing follows.
    End,
    /// Nothing that was finished.
    Nothing,
}

/// Reads the frame at the start of `bytes`; `chain` moves on if there is one.
pub(crate) fn next<'a>(bytes: &'a [u8], chain: &mut u32) -> Next<'a> {
    if bytes.len() < OVERHEAD {
        return Next::Nothing;
    }
    let (length, crc) = (u32_at(bytes, 0), u32_at(bytes, 4));
    if length == END {
        return if crc == checksum(*chain, END, &[]) { Next::End } else { Next::Nothing };
    }
    match bytes.get(OVERHEAD..OVERHEAD + length as usize) {
        Some(payload) if length > 0 && crc == checksum(*chain, length, payload) => {
            *chain = crc;
            Next::Frame(payload)
        }
        _ => Next::Nothing,
    }
}

/// Whether a frame follows the damaged one at the start of `bytes`. It was written after the damaged one had
/// been whole on the disk, so that one was not torn while it was written: it has been lost since.
pub(crate) fn is_followed(bytes: &[u8]) -> bool {
    if bytes.len() < OVERHEAD || u32_at(bytes, 0) == END {
        return false;
    }
    let (length, mut chain) = (u32_at(bytes, 0) as usize, u32_at(bytes, 4));
    let rest = bytes.get(OVERHEAD + length..).unwrap_or_default();
    length > 0 && next(rest, &mut chain) != Next::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, u32) {
        let (header, start) = header(*b"TESTTEST", 3);
        let mut bytes = header.to_vec();
        let mut chain = start;
        for payload in [b"first".as_slice(), b"second"] {
            let at = begin(&mut bytes);
            bytes.extend_from_slice(payload);
            finish(&mut bytes, at, &mut chain);
        }
        bytes.extend_from_slice(&end(chain));
        (bytes, start)
    }

    fn read(bytes: &[u8], mut chain: u32) -> (Vec<Vec<u8>>, bool) {
        let mut at = HEADER;
        let mut payloads = Vec::new();
        loop {
            match next(&bytes[at..], &mut chain) {
                Next::Frame(payload) => {
                    payloads.push(payload.to_vec());
                    at += OVERHEAD + payload.len();
                }
                Next::End => return (payloads, true),
                Next::Nothing => return (payloads, false),
            }
        }
    }

    #[test]
    fn frames_come_back_and_damage_shows() {
        let (bytes, start) = file();
        assert_eq!(read_header(Path::new("f"), &bytes, *b"TESTTEST", 3), Ok(Some(start)));
        assert_eq!(read_header(Path::new("f"), &bytes, *b"TESTTEST", 4), Ok(None));
        assert_eq!(read(&bytes, start), (vec![b"first".to_vec(), b"second".to_vec()], true));
        for at in HEADER..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_ne!(read(&damaged, start), read(&bytes, start), "byte {at}");
            assert!(!read(&bytes[..at], start).1, "cut at {at}");
        }
    }

    #[test]
    fn a_frame_of_another_life_does_not_follow() {
        let (bytes, start) = file();
        // The second frame alone, where the first should be: its checksum follows another one.
        let second = [&bytes[..HEADER], &bytes[HEADER + OVERHEAD + 5..]].concat();
        assert_eq!(read(&second, start), (vec![], false));
    }

    #[test]
    fn a_newer_version_is_named() {
        let (mut header, _) = header(*b"TESTTEST", 3);
        header[8] = 9;
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        let refused = read_header(Path::new("f"), &header, *b"TESTTEST", 3);
        assert!(matches!(refused, Err(Error::Version { found: 9, known: 1, .. })));
    }
}
