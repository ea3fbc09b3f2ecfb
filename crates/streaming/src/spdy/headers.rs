//! Decides how header blocks are packed: pairs of length-prefixed text, through one zlib stream per direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;
use super::frame::Malformed;

/// The most bytes that one header block may unpack to, and the most headers in it.
const MAX_BLOCK: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// The headers of a stream: names in lower case, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value under a name, whatever its case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(pairs: [(&str, &str); N]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect())
    }
}

/// Packs the header blocks of one direction; each one depends on those before.
#[derive(Debug)]
pub(crate) struct Packer(Compress);

impl Packer {
    pub(crate) fn new() -> Packer {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).expect("a fresh stream takes a dictionary");
        Packer(compress)
    }

    pub(crate) fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, Malformed> {
        let mut block = (headers.0.len() as u32).to_be_bytes().to_vec();
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            packed.reserve(256);
            let read = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&block[read..], &mut packed, FlushCompress::Sync)
                .map_err(|_| Malformed("a header block cannot be packed"))?;
            // Room that is left over means that everything has been flushed.
            if packed.len() < packed.capacity() && self.0.total_in() - start == block.len() as u64 {
                return Ok(packed);
            }
        }
    }
}

/// Unpacks the header blocks of one direction.
#[derive(Debug)]
pub(crate) struct Unpacker(Decompress);

impl Unpacker {
    pub(crate) fn new() -> Unpacker {
        Unpacker(Decompress::new(true))
    }

    pub(crate) fn unpack(&mut self, packed: &[u8]) -> Result<Headers, Malformed> {
        let mut block = Vec::new();
        let start = self.0.total_in();
        loop {
            if block.len() > MAX_BLOCK {
                return Err(Malformed("a header block is too large"));
            }
            block.reserve(4096);
            let before = (self.0.total_in(), self.0.total_out());
            let read = (before.0 - start) as usize;
            match self.0.decompress_vec(&packed[read..], &mut block, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| Malformed("a header block needs an unknown dictionary"))?;
                    continue;
                }
                Err(_) => return Err(Malformed("a header block cannot be unpacked")),
            }
            let done = self.0.total_in() - start == packed.len() as u64 && block.len() < block.capacity();
            let stuck = (self.0.total_in(), self.0.total_out()) == before;
            if done || stuck {
                return parse(&block);
            }
        }
    }
}

fn parse(block: &[u8]) -> Result<Headers, Malformed> {
    let mut rest = block;
    let count = number(&mut rest)?;
    if count > MAX_HEADERS {
        return Err(Malformed("a header block holds too many headers"));
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push((text(&mut rest)?, text(&mut rest)?));
    }
    Ok(Headers(headers))
}

fn number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(Malformed("a header block is cut off"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(rest: &mut &[u8]) -> Result<String, Malformed> {
    let length = number(rest)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(Malformed("a header block is cut off"))?;
    *rest = tail;
    Ok(String::from_utf8_lossy(head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_one_after_the_other() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let long = "x".repeat(20_000);
        for headers in [
            Headers::from([("streamType", "error")]),
            Headers::from([("streamType", "stdin"), ("port", "80"), ("requestID", "0")]),
            Headers::default(),
            Headers::from([("long", long.as_str()), ("accept", "text/html")]),
            Headers::from([("streamType", "error")]),
        ] {
            let packed = packer.pack(&headers).unwrap();
            assert_eq!(unpacker.unpack(&packed), Ok(headers));
        }
    }

    #[test]
    fn a_block_made_by_another_implementation_is_read() {
        // Go's spdystream (zlib, best compression) packs `streamtype: error` into this, dictionary named.
        let packed = {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&dictionary()).unwrap();
            let mut out = Vec::with_capacity(256);
            let block = b"\0\0\0\x01\0\0\0\nstreamtype\0\0\0\x05error";
            compress.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
            out
        };
        assert_eq!(packed[2..6], 0xe3c6_a7c2_u32.to_be_bytes());
        let headers = Unpacker::new().unpack(&packed).unwrap();
        assert_eq!(headers.get("streamType"), Some("error"));
    }

    #[test]
    fn damaged_blocks_are_refused_and_never_panic() {
        let packed = Packer::new().pack(&Headers::from([("streamType", "error"), ("a", "b")])).unwrap();
        for at in 0..packed.len() {
            let _ = Unpacker::new().unpack(&packed[..at]);
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[at] ^= 1 << bit;
                let _ = Unpacker::new().unpack(&damaged);
            }
        }
        assert!(parse(&[0xff; 64]).is_err());
        assert!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn a_block_that_unpacks_to_too_much_is_refused() {
        let bomb = Headers(vec![("a".into(), "a".repeat(10 << 20))]);
        let packed = Packer::new().pack(&bomb).unwrap();
        assert!(packed.len() < 64 << 10);
        assert_eq!(Unpacker::new().unpack(&packed), Err(Malformed("a header block is too large")));
    }
}
